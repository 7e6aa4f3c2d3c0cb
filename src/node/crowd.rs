//! Counts the connections from each address, and of each identity, so that none can take more than
//! its share.
//!
//! What must stay true: a connection counts for exactly as long as its places are held.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proto::message::Identity;

/// Counts connections by whose they are.
#[derive(Debug)]
pub(super) struct Crowd<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Clone for Crowd<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Crowd<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A place in a crowd, given back when dropped.
#[derive(Debug)]
pub(super) struct Place<K: Eq + Hash> {
    crowd: Crowd<K>,
    of: K,
}

/// The places that a connection holds: among those of its address, and among those of its identity,
/// if it has proven one.
#[derive(Debug, Default)]
pub(super) struct Places {
    _address: Option<Place<IpAddr>>,
    _identity: Option<Place<Identity>>,
}

impl Places {
    pub fn new(address: Place<IpAddr>, identity: Option<Place<Identity>>) -> Self {
        Self { _address: Some(address), _identity: identity }
    }
}

impl<K: Copy + Eq + Hash> Crowd<K> {
    /// Gives a place to one more connection; none if `most` are taken already.
    pub fn enter(&self, of: K, most: usize) -> Option<Place<K>> {
        let mut count = self.count();
        let entry = count.entry(of).or_default();
        if *entry >= most {
            return None;
        }
        *entry += 1;
        Some(Place { crowd: self.clone(), of })
    }
}

impl<K> Crowd<K> {
    fn count(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut count = self.crowd.count();
        if let Some(entry) = count.get_mut(&self.of) {
            *entry -= 1;
            if *entry == 0 {
                count.remove(&self.of);
            }
        }
    }
}
