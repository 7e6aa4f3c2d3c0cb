//! Whole networks in one thread, in simulated time, replayed from one number.
//!
//! `RUMORMILL_SIM_RUNS=10000 cargo test --test simulation chaos` is the deep run;
//! `RUMORMILL_SIM_SEED=N` replays one number and leaves its whole trace in a file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that stops has said why

mod sim;
