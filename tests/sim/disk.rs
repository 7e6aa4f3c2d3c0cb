//! A seed's disk: what was synced stays, what was not may or may not, and all of it can be lost.

use std::collections::VecDeque;

use rand::RngExt;
use rand::rngs::SmallRng;
use rumormill::proto::machine::Keep;
use rumormill::proto::message::{Addr, Standing};
use rumormill::proto::registry::{Record, Registry, Status};
use rumormill::proto::time::Time;

/// The disk of one seed.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// What a process that starts now would read.
    pub standing: Standing,
    pub registry: Registry,
    unsynced: VecDeque<(u64, Vec<Keep>)>,
    /// When the last write is done: they are done in order.
    pub busy_until: Time,
}

impl Disk {
    /// Something is to be written; it is not safe yet.
    pub fn write(&mut self, batch: u64, changes: Vec<Keep>) {
        self.unsynced.push_back((batch, changes));
    }

    /// All writes up to that one are safe.
    pub fn sync(&mut self, batch: u64) {
        while let Some((number, _)) = self.unsynced.front()
            && *number <= batch
            && let Some((_, changes)) = self.unsynced.pop_front()
        {
            self.keep(changes);
        }
    }

    fn keep(&mut self, changes: Vec<Keep>) {
        for change in changes {
            match change {
                Keep::Standing(standing) => self.standing = standing,
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

    /// The process is gone: of what was not safe some first part is there, the rest is not.
    pub fn crash(&mut self, rng: &mut SmallRng) {
        let survive = rng.random_range(0..=self.unsynced.len());
        for (_, changes) in std::mem::take(&mut self.unsynced).into_iter().take(survive) {
            self.keep(changes);
        }
        self.busy_until = Time::default();
    }

    /// A new disk.
    pub fn lose(&mut self) {
        *self = Self::default();
    }

    /// Whether it tells of that life of a peer, or of what came after.
    pub fn knows(&self, peer: &Addr, incarnation: u64) -> bool {
        self.registry.get(peer).is_some_and(|record| record.incarnation >= incarnation)
    }
}
