//! rumormill
#![forbid(unsafe_code)]
pub mod cli;
pub mod config;
pub mod logging;
pub mod net;
pub mod node;
pub mod proto;
