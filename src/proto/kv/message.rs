//! What replicas of the store say to each other, and to somebody who inspects one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::{Clock, Replica};
use super::store::{Version, Write};
use crate::proto::gossip::message::Runs;

/// Bytes of writes or versions in one frame, roughly. It is far below the greatest frame, so that
/// frames of others get their turn in between.
pub(super) const FRAME: usize = 256 << 10;

/// What replicas of the store send each other to keep up to date.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StoreSync {
    /// Peer to peer: a write to the store, pushed.
    Write(Arc<Write>),
    /// Peer to peer: which writes of the store the sender has seen.
    Context {
        /// Writes seen.
        context: Clock,
        /// Whether a receiver that lacks some of this is to tell its own context even if it did so
        /// just now.
        answer: bool,
    },
    /// Peer to peer: writes that the receiver lacks, in an order in which they can be applied.
    Writes(Vec<Arc<Write>>),
    /// Peer to peer: the receiver lacks more than the sender keeps as single writes; it may ask for
    /// all.
    SnapshotOffer,
    /// Peer to peer: send what a replica that has seen `seen` lacks; without `seen`, the next part
    /// of it.
    SnapshotAsk {
        /// The sender's number for this question, the same until it has all parts.
        round: u64,
        /// What the sender has seen.
        seen: Option<Clock>,
    },
    /// Peer to peer: a part of the store as it was at one moment.
    SnapshotPart {
        /// Number of the question. `standing` refers to what the receiver had seen when it asked.
        round: u64,
        /// Number of this part, from 0: none may be missing.
        part: u64,
        /// What the sender had seen at that moment.
        context: Clock,
        /// The sender's Lamport time then.
        lamport: u64,
        /// Seals that the receiver has not seen, each after those that it rests on.
        seals: Vec<Arc<Write>>,
        /// Writes that the receiver has seen and whose versions stand, by replica.
        standing: Vec<(Replica, Runs)>,
        /// Keys and their versions that the receiver has not seen.
        entries: Vec<(Arc<str>, Vec<Version>)>,
        /// Whether more parts follow.
        more: bool,
    },
}

/// Questions about what a peer's replica of the store holds, and their answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Inspection {
    /// Which versions do you hold of this key or, without one, which keys?
    Ask(Option<Arc<str>>),
    /// The versions of the key that was asked for, in frames.
    Versions {
        /// The versions; the one to show first comes first.
        versions: Vec<Version>,
        /// Whether more follow.
        more: bool,
    },
    /// The keys, in frames.
    Keys {
        /// The keys, in order.
        keys: Vec<Arc<str>>,
        /// Whether more follow.
        more: bool,
    },
}
