//! What clients ask of a replica and are answered, and what a replica keeps on disk and counts.

use std::sync::Arc;

use super::clock::{Clock, Replica, Seen};
use super::store::{RESERVED_KEY, Version, Write};
use super::value::Value;

/// What a client asks of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Write a value.
    Put(Arc<str>, Value),
    /// Read a key.
    Get(Arc<str>),
    /// Delete a key.
    Delete(Arc<str>),
    /// A write or delete relayed by a replica of another make, with that replica's clock.
    Relayed(Arc<str>, Option<Value>, Clock),
}

/// What a client is answered.
pub type Reply = Result<Done, StoreError>;

/// What has been done for a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Done {
    /// Whether a write made a key that was not there before.
    pub created: bool,
    /// The versions of a key that was read; the one to show first comes first.
    pub versions: Vec<Version>,
    /// What the client has seen now; empty after a relayed write, which has no client here.
    pub seen: Seen,
}

/// Why nothing was done for a client. HTTP and the console show these words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such key. Carries what the client has seen now, including that the key is gone.
    #[error("Key does not exist")]
    NotFound(Seen),
    /// The key has versions, but none that the client has seen, so there is nothing to delete.
    #[error("Key has values that this client has not seen")]
    Unseen {
        /// These versions, at least one.
        versions: Vec<Version>,
        /// What the client has seen now.
        seen: Seen,
    },
    /// Too many versions stand beside what the client would write.
    #[error(
        "too many values stand beside each other; read the key, and write with what that gives you"
    )]
    TooManySiblings,
    /// There is no room to count one more replica: nobody else would take its write.
    #[error(
        "as many replicas have written as can be kept count of, and this one is none of them; ask one that has"
    )]
    TooManyReplicas,
    /// The write would take the store beyond what it may hold.
    #[error(
        "Store is full; delete keys or write shorter values, or start the peer with a greater --max-store-bytes"
    )]
    Full,
    /// Writes that the client has seen did not come here in time.
    #[error("Causal dependencies not satisfied; try again later")]
    Behind,
    /// Nothing can be written under such a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The peer has stopped.
    #[error("the peer has stopped")]
    Stopped,
}

/// Why nothing can be written under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyError {
    /// It has more characters than the peer is set to.
    #[error("Key is too long")]
    TooLong,
    /// HTTP serves something else under that name.
    #[error("Key is reserved")]
    Reserved,
}

/// Whether something can be written under a key, which may have so many characters.
///
/// # Errors
///
/// Why it cannot.
pub fn check_key(key: &str, most: usize) -> Result<(), KeyError> {
    if key == RESERVED_KEY {
        Err(KeyError::Reserved)
    } else if key.chars().count() > most {
        Err(KeyError::TooLong)
    } else {
        Ok(())
    }
}

/// What a client has seen now, if the reply says so.
pub fn seen_of(reply: &Reply) -> Option<&Seen> {
    match reply {
        Ok(Done { seen, .. })
        | Err(StoreError::NotFound(seen) | StoreError::Unseen { seen, .. }) => Some(seen),
        Err(_) => None,
    }
}

/// One change of a replica's durable state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreChange {
    /// This replica's name, for all writes from now on.
    Named(Replica),
    /// A write was applied; the versions of its key come as a change beside it.
    Write(Arc<Write>),
    /// A key has these versions now.
    Versions(Arc<str>, Vec<Version>),
    /// The replica has seen all of this clock, at this Lamport time.
    Seen(Clock, u64),
}

/// Counts of what happened, since the start of this life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Writes of clients of this replica.
    pub written: u64,
    /// Writes taken from others.
    pub received: u64,
    /// Writes received again.
    pub duplicates: u64,
    /// Writes sent because contexts differed.
    pub repaired: u64,
    /// Seals made here, which end lives of replicas.
    pub seals: u64,
    /// Snapshots taken over.
    pub snapshots: u64,
    /// Requests that were answered with [`StoreError::Behind`].
    pub behind: u64,
    /// Writes refused because they made no sense, their value did not match its `cid`, or there was
    /// no room for their replica.
    pub refused: u64,
}
