//! What is asked of a replica, what it answers, keeps and counts.

use std::sync::Arc;

use super::clock::{Clock, Replica, Seen};
use super::store::{Version, Write};
use super::value::Value;

/// What a client wants of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Write a value.
    Put(Arc<str>, Value),
    /// Read a key.
    Get(Arc<str>),
    /// Delete a key.
    Delete(Arc<str>),
    /// A write or delete that a replica of another make relays, with its own clock.
    Relayed(Arc<str>, Option<Value>, Clock),
}

/// What a client is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Written.
    Put {
        /// There was no such key before.
        created: bool,
        /// What the client has seen now.
        seen: Seen,
    },
    /// The versions of the key, the one to show first.
    Got {
        /// At least one.
        versions: Vec<Version>,
        /// What the client has seen now.
        seen: Seen,
    },
    /// Deleted, with what the client has seen now.
    Deleted(Seen),
    /// The relayed write is applied, or was before.
    Relayed,
    /// There is no such key, with what the client has seen now: that it is gone.
    NotFound(Seen),
    /// Of what the client had seen there is nothing to delete, and these it has not seen.
    Unseen {
        /// At least one.
        versions: Vec<Version>,
        /// What the client has seen now.
        seen: Seen,
    },
    /// Too many versions stand beside what the client would write.
    TooManySiblings,
    /// It would be of one replica more than can be kept count of: nobody else would take it.
    TooManyReplicas,
    /// Writes that the client has seen have not come here in time.
    Behind,
}

impl Reply {
    /// What the client has seen now, if it was shown or did anything.
    pub fn seen(&self) -> Option<&Seen> {
        match self {
            Reply::Put { seen, .. }
            | Reply::Got { seen, .. }
            | Reply::Deleted(seen)
            | Reply::NotFound(seen)
            | Reply::Unseen { seen, .. } => Some(seen),
            Reply::Relayed | Reply::TooManySiblings | Reply::TooManyReplicas | Reply::Behind => {
                None
            }
        }
    }
}

/// One change of a replica's durable state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreChange {
    /// This replica's name, for all writes from now on.
    Named(Replica),
    /// A write was applied; the versions of its key come with it.
    Write(Arc<Write>),
    /// These are the versions of a key.
    Versions(Arc<str>, Vec<Version>),
    /// All of this was seen, at that Lamport time.
    Seen(Clock, u64),
}

/// What happened, counted since the start of this life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Writes of clients of this replica.
    pub written: u64,
    /// Writes taken from others.
    pub received: u64,
    /// Writes that came again.
    pub duplicates: u64,
    /// Writes sent because contexts differed.
    pub repaired: u64,
    /// Seals made here, which end lives of replicas.
    pub seals: u64,
    /// Snapshots taken over.
    pub snapshots: u64,
    /// Requests that were answered with [`Reply::Behind`].
    pub behind: u64,
    /// Writes refused because they made no sense or their value did not match its `cid`.
    pub refused: u64,
}
