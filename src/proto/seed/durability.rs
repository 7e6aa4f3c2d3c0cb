//! What a seed has asked its disk to keep, and which records are known to be on the disks of a quorum.
//!
//! A seed may hold a record before that: it proposed it, or was among the first
//! to be told. What must stay true: nothing is answered for that a minority of
//! lost disks could undo, whoever is asked, and however often. So a record that
//! is not known to be settled is committed once more, and answered for when a
//! quorum has said that it is on disk.

use std::collections::{BTreeMap, BTreeSet};

use super::ballot::Waiter;
use crate::proto::message::{Addr, Decision, Incarnation, Standing};
use crate::proto::registry::Record;
use crate::proto::roles::Keep;
use crate::proto::turn::SeedTurn;

/// One change that waits for the disk, and what is done then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pending {
    /// A committed record; a ballot, here or at another seed, waits for the word.
    Record { peer: Addr, record: Record, tell: Option<Waiter>, decision: Option<Box<Decision>> },
    /// This seed's own standing.
    Standing(Standing),
    /// Marks of a founding.
    Founders(Vec<u64>),
    /// A copy of what is on disk.
    SetAside(u64),
    /// All that a seed of that standing held is here.
    Compared { seed: Addr, standing: Standing },
    /// The records that another seed asked about are here.
    Expired { seed: Addr, round: u64 },
    /// The member is not spoken of any more.
    Forget { peer: Addr, incarnation: Incarnation },
}

impl Pending {
    /// A record that nobody waits for.
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

/// How far the disks are, this seed's and the others'.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Durability {
    pending: BTreeMap<u64, Vec<Pending>>,
    batches_used: u64,
    /// Nothing is known of what was here when this life began.
    recovered: bool,
    /// These came since, and are not known to be on disk at a quorum.
    unsettled: BTreeSet<Addr>,
    /// Seeds whose registry was equal to this one since it last changed.
    agreed: BTreeSet<Addr>,
}

impl Durability {
    /// Something was on disk when this life began.
    pub fn recovers(&mut self, something: bool) {
        self.recovered = something;
    }

    /// Asks the host to make changes durable; what follows from them waits until it has.
    pub fn persist(&mut self, turn: &mut SeedTurn<'_>, pending: Vec<Pending>) {
        self.batches_used += 1;
        turn.persist(self.batches_used, pending.iter().filter_map(Pending::keep).collect());
        self.pending.insert(self.batches_used, pending);
    }

    /// A batch is on disk: what waited for that.
    pub fn persisted(&mut self, batch: u64) -> Vec<Pending> {
        self.pending.remove(&batch).unwrap_or_default()
    }

    /// Whether a record is known to be on disk at a quorum.
    pub fn is_settled(&self, peer: &Addr, quorum: usize) -> bool {
        quorum <= 1 || !self.recovered && !self.unsettled.contains(peer)
    }

    /// A record was taken in, and so many seeds are known to have it on disk, this one included.
    pub fn record_is_at(&mut self, peer: Addr, seeds: usize, quorum: usize) {
        self.agreed.clear();
        if seeds < quorum {
            self.unsettled.insert(peer);
        } else {
            self.unsettled.remove(&peer);
        }
    }

    /// A quorum has said that a record is on disk.
    pub fn settled(&mut self, peer: &Addr) {
        self.unsettled.remove(peer);
    }

    /// Another seed holds what this one holds.
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
