//! The replicated store as its users meet it: replicas without seeds, over HTTP and at the console,
//! as real processes; CONTRACT.md, sections 1, 3 and 4.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod causal;
mod console;
mod history;
mod http1;
mod replicas;
#[path = "../network/reserved.rs"]
mod reserved;
#[allow(dead_code)] // the network's tests use the rest
#[path = "../network/spaces.rs"]
mod spaces;
mod terminal;
mod view;
