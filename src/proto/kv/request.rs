//! What is asked of a replica, what it answers, keeps and counts.

use std::sync::Arc;

use super::clock::{Clock, Replica, Seen};
use super::store::{MAX_KEY, RESERVED_KEY, Version, Write};
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
pub type Reply = Result<Done, StoreError>;

/// What has been done for a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Done {
    /// A write made a key that was not there before.
    pub created: bool,
    /// Of a key that was read: its versions, the one to show first.
    pub versions: Vec<Version>,
    /// What the client has seen now; nothing of a relayed write, which has no client here.
    pub seen: Seen,
}

/// Why nothing was done for a client. The words are those that HTTP and the console show.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such key; with what the client has seen now: that it is gone.
    #[error("Key does not exist")]
    NotFound(Seen),
    /// Of what the client had seen there is nothing to delete, and these it has not seen.
    #[error("Key has values that this client has not seen")]
    Unseen {
        /// At least one.
        versions: Vec<Version>,
        /// What the client has seen now.
        seen: Seen,
    },
    /// Too many versions stand beside what the client would write.
    #[error(
        "too many values stand beside each other; read the key, and write with what that gives you"
    )]
    TooManySiblings,
    /// It would be of one replica more than can be kept count of: nobody else would take it.
    #[error(
        "as many replicas have written as can be kept count of, and this one is none of them; ask one that has"
    )]
    TooManyReplicas,
    /// Writes that the client has seen have not come here in time.
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
    /// Longer than [`MAX_KEY`] characters.
    #[error("Key is too long")]
    TooLong,
    /// HTTP serves something else under that name.
    #[error("Key is reserved")]
    Reserved,
}

/// Whether something can be written under a key.
///
/// # Errors
///
/// Why it cannot.
pub fn check_key(key: &str) -> Result<(), KeyError> {
    if key == RESERVED_KEY {
        Err(KeyError::Reserved)
    } else if key.chars().count() > MAX_KEY {
        Err(KeyError::TooLong)
    } else {
        Ok(())
    }
}

/// What a client has seen now, if it was shown or did anything.
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
    /// Requests that were answered with [`StoreError::Behind`].
    pub behind: u64,
    /// Writes refused because they made no sense or their value did not match its `cid`.
    pub refused: u64,
}
