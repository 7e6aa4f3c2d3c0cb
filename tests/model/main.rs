//! The real seed machine in a model checker (DESIGN.md, sections 2 and 7): three seeds, two peers,
//! and every order of what may happen, within a bound on faults.
//!
//! `cargo test --test model -- --nocapture` prints what was looked at; `RUMORMILL_MODEL_DEPTH=2`
//! allows one fault more of each kind in each model that has faults, and so on: from there on it takes long.
//!
//! Nothing of the seeds' rules is written down here. [`world`] hands inputs to the machines and
//! carries out their effects, [`council`] says what may happen next, [`checks`] and [`history`]
//! judge, with what [`ledger`] remembers of who saw what. What makes the states few enough:
//!
//! - Each seed's clock stands still, until a timer is let fire; one that does nothing is passed over.
//! - A connection between seeds is made in one step and keeps its order; overtaking, duplicates and
//!   losses are faults. What a peer says or hears takes no time: its script may come late instead.
//! - Where a scenario does not say that they are slow, disks and probes are done at once, and a
//!   list is asked for from two seeds at the same moment. A write of nothing takes no time.
//! - The generator that sets pauses before redials is no part of a state, and a seat is compared by
//!   a fingerprint of 64 bits. No symmetry is used: seeds differ by who walks in a comparison.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that stops has said why

mod calm;
mod checks;
mod council;
mod crashing;
mod disk;
mod dying;
mod gossip;
mod history;
mod joining;
mod ledger;
mod peers;
mod planted;
mod scenario;
mod seat;
mod verdict;
mod world;
