//! The simulator: it owns time and the network, and runs the real machines (DESIGN.md, section 2).
//!
//! What must stay true: everything that happens follows from one number. So no
//! clock is read, nothing iterates over a hash map, and all chance comes from
//! generators seeded with that number.
//!
//! - [`world`] holds time, the nodes and the queue of what happens next; [`wire`] is its network.
//! - [`check`] watches every step, and [`settle`] looks at a network that had time to heal: the
//!   invariants of DESIGN.md, section 7.
//! - [`watch`] remembers what a spectator wants to know; `examples/simulate.rs` is one. [`large`] is a network that grows.
//! - [`keys`] gives every process an identity, in half of the worlds with seeds.
//! - [`stores`] knows what each replica of the store must show.
//! - [`chaos`] makes trouble and lets it heal, [`open`] in networks without seeds; [`planted`] shows
//!   that the checkers see planted bugs; [`heal`] cuts a network in two for a minute, or loses a fifth of what is sent;
//!   [`forged`] lies to good machines; [`truth`] has seeds that forget and seeds that lie; [`clocks`] has clocks that disagree, [`leaving`] peers that leave as soon as they come, [`lives`] replicas that live once each; [`degree`] looks at the shape of large overlays, [`crowds`] at what a crowd does that comes and goes.

#[cfg(test)]
mod chaos;
mod check;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod crowds;
#[cfg(test)]
mod degree;
mod disk;
pub mod fit;
#[cfg(test)]
mod forged;
#[cfg(test)]
mod heal;
mod keys;
pub mod large;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod lives;
pub mod node;
#[cfg(test)]
mod open;
pub mod overlay;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod settle;
mod stores;
mod tally;
mod trace;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod truth;
pub mod watch;
pub mod wire;
pub mod world;
