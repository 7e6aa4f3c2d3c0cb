//! What this seed has asked its disk to keep, and which records are known to be on the disks of a
//! quorum; those are settled.
//!
//! A seed may hold a record that is not settled, because it proposed the record or was among the
//! first to be told. What must stay true: a seed answers for nothing that the loss of a minority of
//! disks could undo, whoever asks and however often. So a record that is not known to be settled is
//! committed once more, and answered for when a quorum has said that it is on disk.

use std::collections::{BTreeMap, BTreeSet};

use super::ballot::Waiter;
use crate::proto::message::{Addr, Decision, Incarnation, Standing};
use crate::proto::registry::Record;
use crate::proto::roles::Keep;
use crate::proto::turn::SeedTurn;

/// A change that waits for the disk, with what the seed needs for the step that follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pending {
    /// A committed record. If `tell` is set, that ballot waits to hear that it is durable.
    Record { peer: Addr, record: Record, tell: Option<Waiter>, decision: Option<Box<Decision>> },
    /// This seed's own standing.
    Standing(Standing),
    /// Marks of the founding that the registry goes back to.
    Founders(Vec<u64>),
    /// A copy of what is on disk, kept under this number.
    SetAside(u64),
    /// All that a seed of that standing held is here once the batches before this are durable.
    Compared { seed: Addr, standing: Standing },
    /// The records of another seed's round are here once this batch is durable.
    Expired { seed: Addr, round: u64 },
    /// The record of a member long gone is to be dropped.
    Forget { peer: Addr, incarnation: Incarnation },
}

impl Pending {
    /// A record for which no ballot waits.
    pub fn record((peer, record): (Addr, Record)) -> Self {
        Pending::Record { peer, record, tell: None, decision: None }
    }

    fn keep(&self) -> Option<Keep> {
        match self {
            Pending::Record { peer, record, .. } => Some(Keep::Record(*peer, record.clone())),
            Pending::Standing(standing) => Some(Keep::Standing(*standing)),
            Pending::Founders(marks) => Some(Keep::Founders(marks.clone())),
            Pending::SetAside(number) => Some(Keep::SetAside(*number)),
            Pending::Forget { peer, incarnation } => Some(Keep::Forget(*peer, *incarnation)),
            Pending::Compared { .. } | Pending::Expired { .. } => None,
        }
    }
}

/// Batches that wait for this seed's disk, and what is known of the disks of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Durability {
    pending: BTreeMap<u64, Vec<Pending>>,
    batches_used: u64,
    /// Whether this life began with records on disk, of which nobody knows if a quorum has them.
    recovered: bool,
    /// Peers whose records came in this life and are not known to be on disk at a quorum.
    unsettled: BTreeSet<Addr>,
    /// Seeds whose registry was equal to ours at some time since ours last changed.
    agreed: BTreeSet<Addr>,
}

impl Durability {
    /// Notes whether records were on disk when this life began.
    pub fn recovers(&mut self, something: bool) {
        self.recovered = something;
    }

    /// Asks the host to make changes durable, and keeps them until it has.
    pub fn persist(&mut self, turn: &mut SeedTurn<'_>, pending: Vec<Pending>) {
        self.batches_used += 1;
        turn.persist(self.batches_used, pending.iter().filter_map(Pending::keep).collect());
        self.pending.insert(self.batches_used, pending);
    }

    /// Takes the changes that waited for this batch, which is on disk now.
    pub fn persisted(&mut self, batch: u64) -> Vec<Pending> {
        self.pending.remove(&batch).unwrap_or_default()
    }

    /// Whether a quorum is known to have the record of this peer on disk.
    pub fn is_settled(&self, peer: &Addr, quorum: usize) -> bool {
        quorum <= 1 || !self.recovered && !self.unsettled.contains(peer)
    }

    /// Notes that a record was taken in, which `seeds` seeds are known to have on disk, this one
    /// included.
    pub fn record_is_at(&mut self, peer: Addr, seeds: usize, quorum: usize) {
        self.agreed.clear();
        if seeds < quorum {
            self.unsettled.insert(peer);
        } else {
            self.unsettled.remove(&peer);
        }
    }

    /// Notes that a quorum has said that it has this record on disk.
    pub fn settled(&mut self, peer: &Addr) {
        self.unsettled.remove(peer);
    }

    /// Notes that another seed holds just what this one holds. With a quorum of such seeds, all is
    /// settled.
    pub fn agrees(&mut self, seed: Addr, quorum: usize) {
        self.agreed.insert(seed);
        if self.agreed.len() + 1 >= quorum {
            self.recovered = false;
            self.unsettled.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn a_record_is_settled_once_a_quorum_has_it_or_holds_all_the_same() {
        let mut durability = Durability::default();
        let peer = addr(6000);
        assert!(durability.is_settled(&peer, 2), "nobody has spoken of it");
        durability.record_is_at(peer, 1, 2);
        assert!(!durability.is_settled(&peer, 2));
        assert!(durability.is_settled(&peer, 1), "alone, this disk is the quorum");
        durability.record_is_at(peer, 2, 2);
        assert!(durability.is_settled(&peer, 2));

        durability.record_is_at(peer, 1, 3);
        durability.agrees(addr(5001), 3);
        assert!(!durability.is_settled(&peer, 3), "two of five");
        durability.record_is_at(addr(6001), 3, 3);
        durability.agrees(addr(5002), 3);
        assert!(!durability.is_settled(&peer, 3), "the first agreed on something else");
        durability.agrees(addr(5001), 3);
        assert!(durability.is_settled(&peer, 3));

        durability.recovers(true);
        assert!(!durability.is_settled(&addr(6002), 3), "what was on disk may be there alone");
    }
}
