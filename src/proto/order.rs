//! What an operator orders a peer to do, beside gossip and the store, and what came of it.

use std::sync::Arc;

use super::kv::store::Version;
use super::message::Addr;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Ask another peer what its replica holds: under a key, or which keys.
    Ask {
        /// Whom.
        peer: Addr,
        /// Under which key; none asks for the keys.
        key: Option<Arc<str>>,
    },
    /// Begin a round of anti-entropy now.
    Sync,
    /// Without seeds: let that peer in, whether or not it runs yet.
    Admit(Addr),
    /// Without seeds: that peer belongs to the network no more.
    Remove(Addr),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// What the other peer answered, or why it did not.
    Asked(Result<Holding, String>),
    /// So many peers are being compared with.
    Synced(usize),
    /// The peer has been let in.
    Admitted,
    /// It belonged to the network already.
    AlreadyMember,
    /// The peer has been removed.
    Removed,
    /// It did not belong to the network.
    NoMember,
    /// Who belongs to this network is not this peer's to say.
    NotOurs,
}

/// What a replica holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holding {
    /// Of a key: its versions, the one to show first; empty if there is no such key.
    Versions(Vec<Version>),
    /// Its keys, in order.
    Keys(Vec<Arc<str>>),
}
