//! A seed's disk: what was synced stays, what was not may be there or not, and all of it can go.
//!
//! Writes are done in the order in which they were asked for, so that what a
//! crash leaves of them is always a first part.

use std::collections::VecDeque;

use rumormill::proto::message::{Addr, Standing};
use rumormill::proto::registry::{Record, Registry, Status};
use rumormill::proto::roles::Keep;

/// The disk of one seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// What a process that starts now would read.
    pub standing: Standing,
    pub founders: Vec<u64>,
    pub registry: Registry,
    /// What was asked for and is not said to be safe, by batch.
    pub unsynced: VecDeque<(u64, Vec<Keep>)>,
}

impl Disk {
    /// The first write that waits is safe; returns its number, and what it was.
    pub fn sync(&mut self) -> Option<(u64, Vec<Keep>)> {
        let (batch, changes) = self.unsynced.pop_front()?;
        changes.iter().for_each(|change| self.keep(change));
        Some((batch, changes))
    }

    fn keep(&mut self, change: &Keep) {
        match change {
            Keep::Standing(standing) => self.standing = *standing,
            Keep::Founders(marks) => self.founders.extend(marks),
            Keep::SetAside(_) => {}
            Keep::Record(peer, record) => {
                self.registry.merge(*peer, record.clone());
            }
            Keep::Forget(peer, incarnation) => {
                let gone = |(other, record): &(&Addr, &Record)| {
                    *other == peer
                        && record.incarnation == *incarnation
                        && record.status != Status::Alive
                };
                let mut left = Registry::new();
                for (other, record) in self.registry.iter().filter(|entry| !gone(entry)) {
                    left.merge(*other, record.clone());
                }
                self.registry = left;
            }
        }
    }

    /// The process is gone, and of what was not safe the first `survive` writes are there.
    pub fn crash(&mut self, survive: usize) {
        for (_, changes) in std::mem::take(&mut self.unsynced).into_iter().take(survive) {
            changes.iter().for_each(|change| self.keep(change));
        }
    }

    /// The records on it.
    pub fn records(&self) -> Vec<(Addr, Record)> {
        self.registry.iter().map(|(peer, record)| (*peer, record.clone())).collect()
    }
}
