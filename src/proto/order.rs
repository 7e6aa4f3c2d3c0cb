//! What an operator can order a peer to do, beside gossip and the store, and what came of the
//! order.

use std::sync::Arc;

use super::kv::store::Version;
use super::message::Addr;

/// The orders of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Ask another peer what its replica holds: the versions of a key, or the keys.
    Ask {
        /// The peer to ask.
        peer: Addr,
        /// The key; none asks for the keys.
        key: Option<Arc<str>>,
    },
    /// Begin a round of anti-entropy now.
    Sync,
    /// Without seeds: let this peer into the network, whether or not it runs yet.
    Admit(Addr),
    /// Without seeds: remove this peer from the network.
    Remove(Addr),
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// What the other peer answered, or why it did not.
    Asked(Result<Holding, String>),
    /// This many peers are being compared with.
    Synced(usize),
    /// The peer has been let in.
    Admitted,
    /// The peer to be let in belonged to the network already.
    AlreadyMember,
    /// The peer has been removed.
    Removed,
    /// The peer to be removed did not belong to the network.
    NoMember,
    /// The order is not for this peer to carry out: the seeds decide who belongs, or nobody does.
    NotOurs,
}

/// What a replica holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holding {
    /// The versions of a key, the one to show first in front; empty if there is no such key.
    Versions(Vec<Version>),
    /// Its keys, in order.
    Keys(Vec<Arc<str>>),
}
