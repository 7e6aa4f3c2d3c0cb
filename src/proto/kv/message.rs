//! What replicas of the store say to each other, and to whoever looks at one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::{Clock, Replica};
use super::store::{Version, Write};
use crate::proto::gossip::message::Runs;

/// Bytes of writes or versions in one frame, roughly: frames of others get their turn in between.
pub(super) const FRAME: usize = 256 << 10;

/// How replicas of the store keep each other up to date.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StoreSync {
    /// Peer to peer: a write to the store, pushed.
    Write(Arc<Write>),
    /// Peer to peer: what the sender has seen of the store.
    Context {
        /// Writes seen.
        context: Clock,
        /// The receiver is to tell its own, if the sender lacks nothing that it knows of.
        answer: bool,
    },
    /// Peer to peer: writes that the receiver lacks, in an order in which they can be applied.
    Writes(Vec<Arc<Write>>),
    /// Peer to peer: the receiver lacks more than there are single writes of; it may ask for all.
    SnapshotOffer,
    /// Peer to peer: send what a replica that has seen this lacks; or, with none, more of it.
    SnapshotAsk {
        /// The sender's number for this question, the same until it has all.
        round: u64,
        /// What the sender has seen.
        seen: Option<Clock>,
    },
    /// Peer to peer: a part of the store as it was at one moment.
    SnapshotPart {
        /// The question's number: what stands is told of what the receiver had seen when it asked.
        round: u64,
        /// Which part it is, from 0: none may be missing.
        part: u64,
        /// What the sender had seen at that moment.
        context: Clock,
        /// Its Lamport time.
        lamport: u64,
        /// Seals that the receiver has not seen, each after those that it rests on.
        seals: Vec<Arc<Write>>,
        /// Of the writes that the receiver has seen: those whose versions stand, by replica.
        standing: Vec<(Replica, Runs)>,
        /// Keys and their versions, beyond those.
        entries: Vec<(Arc<str>, Vec<Version>)>,
        /// More parts follow.
        more: bool,
    },
}

/// Somebody asks a peer what its replica of the store holds, and is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Inspection {
    /// What do you hold under this key, or which keys?
    Ask(Option<Arc<str>>),
    /// The versions of the key that was asked for, in frames.
    Versions {
        /// The one to show first, first.
        versions: Vec<Version>,
        /// More follow.
        more: bool,
    },
    /// The keys, in frames.
    Keys {
        /// In order.
        keys: Vec<Arc<str>>,
        /// More follow.
        more: bool,
    },
}
