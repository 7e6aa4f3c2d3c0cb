//! Counts the connections from each address, so that no address can take more than its share.
//!
//! What must stay true: a connection counts for exactly as long as its place is held.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place in a crowd, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    ip: IpAddr,
}

impl Crowd {
    fn count(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place to one more connection from that address; none if `most` are taken already.
    pub fn enter(&self, ip: IpAddr, most: usize) -> Option<Place> {
        let mut count = self.count();
        let entry = count.entry(ip).or_default();
        if *entry >= most {
            return None;
        }
        *entry += 1;
        Some(Place { crowd: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.crowd.count();
        if let Some(entry) = count.get_mut(&self.ip) {
            *entry -= 1;
            if *entry == 0 {
                count.remove(&self.ip);
            }
        }
    }
}
