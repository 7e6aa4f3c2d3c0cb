//! Disks: what was synced stays, what was not may or may not, and all of it can be lost.

use std::collections::VecDeque;

use rand::RngExt;
use rand::rngs::SmallRng;
use rumormill::proto::message::{Addr, Standing};
use rumormill::proto::registry::{Record, Registry, Status};
use rumormill::proto::roles::Keep;
use rumormill::proto::time::Time;

/// What a disk holds, and what a change of it is.
pub trait Content: Default {
    type Change;
    fn keep(&mut self, change: Self::Change);
}

/// A disk of one process.
#[derive(Clone, Debug)]
pub struct Disk<C: Content> {
    /// What a process that starts now would read.
    pub kept: C,
    unsynced: VecDeque<(u64, Vec<C::Change>)>,
    /// When the last write is done: they are done in order.
    pub busy_until: Time,
}

impl<C: Content> Default for Disk<C> {
    fn default() -> Self {
        Self { kept: C::default(), unsynced: VecDeque::new(), busy_until: Time::default() }
    }
}

impl<C: Content> Disk<C> {
    /// Something is to be written; it is not safe yet.
    pub fn write(&mut self, batch: u64, changes: Vec<C::Change>) {
        self.unsynced.push_back((batch, changes));
    }

    /// All writes up to that one are safe.
    pub fn sync(&mut self, batch: u64) {
        while let Some((number, _)) = self.unsynced.front()
            && *number <= batch
            && let Some((_, changes)) = self.unsynced.pop_front()
        {
            changes.into_iter().for_each(|change| self.kept.keep(change));
        }
    }

    /// The process is gone: of what was not safe some first part is there, the rest is not.
    pub fn crash(&mut self, rng: &mut SmallRng) {
        let survive = rng.random_range(0..=self.unsynced.len());
        for (_, changes) in std::mem::take(&mut self.unsynced).into_iter().take(survive) {
            changes.into_iter().for_each(|change| self.kept.keep(change));
        }
        self.busy_until = Time::default();
    }

    /// A new disk.
    pub fn lose(&mut self) {
        *self = Self::default();
    }
}

/// What a seed keeps.
#[derive(Clone, Debug, Default)]
pub struct SeedState {
    pub standing: Standing,
    pub founders: Vec<u64>,
    pub registry: Registry,
}

impl Content for SeedState {
    type Change = Keep;

    fn keep(&mut self, change: Keep) {
        match change {
            Keep::Standing(standing) => self.standing = standing,
            Keep::Founders(marks) => self.founders.extend(marks),
            Keep::SetAside(_) => {}
            Keep::Record(peer, record) => {
                self.registry.merge(peer, record);
            }
            Keep::Forget(peer, incarnation) => {
                let records: Vec<(Addr, Record)> =
                    self.registry.iter().map(|(p, r)| (*p, r.clone())).collect();
                self.registry = Registry::new();
                for (other, record) in records {
                    let gone = record.incarnation == incarnation
                        && record.status != Status::Alive
                        && other == peer;
                    if !gone {
                        self.registry.merge(other, record);
                    }
                }
            }
        }
    }
}

impl SeedState {
    /// Whether it tells of that life of a peer, or of what came after.
    pub fn knows(&self, peer: &Addr, incarnation: u64) -> bool {
        self.registry.get(peer).is_some_and(|record| record.incarnation >= incarnation)
    }
}
