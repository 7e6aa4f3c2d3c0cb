//! The network as a user meets it: real processes, real sockets, one log; CONTRACT.md, sections 1
//! and 2. What is rare, and what comes of lost and reordered messages, is the simulator's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod absent_seeds;
mod clocks;
mod crowd;
mod death;
mod durable;
mod flood;
mod harness;
#[allow(dead_code)] // the model checker uses the rest
#[path = "../model/history.rs"]
mod history;
mod hostile;
mod impostors;
mod joining;
mod keys;
mod leaving;
mod liars;
mod linear;
mod log;
mod registrations;
mod replay;
mod reserved;
mod rounds;
mod slow;
mod spaces;
mod strangers;
mod stub;
