//! The state machines: everything that decides, without sockets, files, clocks, threads or global
//! randomness (DESIGN.md, section 2).
//!
//! What must stay true: `proto` imports nothing of the rest of the crate.

pub mod address;
pub mod change;
pub mod clocks;
pub mod config;
pub mod event;
mod frames;
pub mod gossip;
pub mod hex;
pub mod identity;
pub mod kv;
pub mod limits;
pub mod machine;
pub mod message;
pub mod order;
pub mod peer;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
pub mod registry;
mod repeats;
pub mod roles;
pub mod seed;
pub mod signature;
pub mod time;
pub mod timers;
pub mod topology;
mod turn;
mod uncompared;
