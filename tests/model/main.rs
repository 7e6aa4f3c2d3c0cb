#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that stops has said why

mod checks;
mod council;
mod crashing;
mod disk;
mod dying;
mod history;
mod joining;
mod leaving;
mod ledger;
mod planted;
mod scenario;
mod seat;
mod verdict;
mod world;
