//! `peer --maelstrom`: sample exchanges, whole networks of the same node in simulated time, and of
//! real processes under a driver that plays Maelstrom's network.
//!
//! The real Maelstrom needs a JVM and a download, and so is no part of the test suite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that stops has said why

mod counters;
mod exchanges;
mod healing;
mod network;
mod processes;
mod workloads;
