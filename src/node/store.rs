//! The handle on the key-value store, as one peer's replica has it. It passes requests to the
//! peer's machine, which answers them; nothing is kept here.

use std::sync::Arc;

use super::asks::PeerAsk;
use super::handle::{Handle, Stopped};
use crate::proto::kv::clock::{Clock, Seen};
use crate::proto::kv::replica::{Done, Request, StoreError};
use crate::proto::kv::store::Version;
use crate::proto::kv::value::Value;
use crate::proto::peer::PeerMachine;

/// The store at one peer; cheap to clone.
///
/// Each operation takes what the client has seen so far, and returns what it has seen now. The
/// client hands that on with its next operation, at whatever peer, and so never reads less than it
/// has seen (causal consistency). `None` stands for whatever that peer has. A write is on disk at
/// that peer before it is answered, if the peer keeps a disk.
///
/// If the client has seen something that has not reached the peer, the operation waits for that, at
/// most for [`PeerConfig::causal_wait`](crate::proto::config::PeerConfig::causal_wait), and then
/// fails with [`StoreError::Behind`].
#[derive(Clone, Debug)]
pub struct Store(Handle<PeerMachine>);

/// The result of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Whether the key did not exist before.
    pub created: bool,
    /// What the client has seen now.
    pub seen: Seen,
}

/// The values of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// At least one version. There are several if clients wrote them that did not know of each
    /// other's writes. The first is the one to show.
    pub versions: Vec<Version>,
    /// What the client has seen now.
    pub seen: Seen,
}

impl Store {
    pub(super) fn new(peer: Handle<PeerMachine>) -> Self {
        Self(peer)
    }

    async fn ask(&self, request: Request, seen: Option<Seen>) -> Result<Done, StoreError> {
        let ask = |answer| PeerAsk::Store { request, seen, answer };
        self.0.ask(ask).await.map_err(|Stopped| StoreError::Stopped)?
    }

    /// Writes a value, which takes the place of all that the client has seen of the key.
    ///
    /// # Errors
    ///
    /// If the key cannot be used, the store is full, there are too many values or replicas, the
    /// client has seen more than the peer, or the peer has stopped.
    pub async fn put(
        &self,
        key: impl Into<Arc<str>>,
        value: Value,
        seen: Option<Seen>,
    ) -> Result<Written, StoreError> {
        let Done { created, seen, .. } = self.ask(Request::Put(key.into(), value), seen).await?;
        Ok(Written { created, seen })
    }

    /// Reads a key.
    ///
    /// # Errors
    ///
    /// If there is no such key, the client has seen more than the peer, or the peer has stopped.
    pub async fn get(
        &self,
        key: impl Into<Arc<str>>,
        seen: Option<Seen>,
    ) -> Result<Found, StoreError> {
        let Done { versions, seen, .. } = self.ask(Request::Get(key.into()), seen).await?;
        Ok(Found { versions, seen })
    }

    /// Deletes all that the client has seen of a key. Returns what the client has seen now.
    ///
    /// # Errors
    ///
    /// If there is no such key, there are only values that the client has not seen, there are too
    /// many replicas, the client has seen more than the peer, or the peer has stopped.
    pub async fn delete(
        &self,
        key: impl Into<Arc<str>>,
        seen: Option<Seen>,
    ) -> Result<Seen, StoreError> {
        Ok(self.ask(Request::Delete(key.into()), seen).await?.seen)
    }

    /// Takes in a write or a delete that a replica of another make relays, with the clock that the
    /// write has there.
    ///
    /// # Errors
    ///
    /// If the key cannot be used, there are too many replicas, a write that this one rests on is
    /// not here, or the peer has stopped.
    pub async fn relay(
        &self,
        key: impl Into<Arc<str>>,
        value: Option<Value>,
        clock: Clock,
    ) -> Result<(), StoreError> {
        self.ask(Request::Relayed(key.into(), value, clock), None).await.map(|_| ())
    }

    /// All keys, sorted.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn keys(&self) -> Result<Vec<Arc<str>>, Stopped> {
        self.0.look(|machine| machine.replica().store().keys().cloned().collect()).await
    }
}
