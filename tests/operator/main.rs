//! What an operator meets when something goes wrong, with real processes: signals, full disks,
//! damaged files, crowds, strangers at a port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that stops has said why

mod console;
mod crowds;
mod disks;
mod follow;
mod programs;
#[path = "../network/reserved.rs"]
mod reserved;
mod signals;
mod words;
