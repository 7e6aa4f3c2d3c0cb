//! Which writes of each replica still stand somewhere in the store. This tells whether a client
//! that has not seen a write could still be shown it; if not, it need not know of the write.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::{Dot, Replica};

/// The numbers of the writes that stand, by replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live(BTreeMap<Replica, BTreeSet<u64>>);

impl Live {
    /// A write stands now.
    pub fn add(&mut self, dot: &Dot) {
        match self.0.get_mut(&dot.replica) {
            Some(counts) => _ = counts.insert(dot.count),
            None => _ = self.0.insert(dot.replica.clone(), BTreeSet::from([dot.count])),
        }
    }

    /// A write was replaced or deleted.
    pub fn remove(&mut self, dot: &Dot) {
        if let Some(counts) = self.0.get_mut(&dot.replica) {
            counts.remove(&dot.count);
            if counts.is_empty() {
                self.0.remove(&dot.replica);
            }
        }
    }

    /// Whether a write stands.
    pub fn contains(&self, dot: &Dot) -> bool {
        self.0.get(&dot.replica).is_some_and(|counts| counts.contains(&dot.count))
    }

    /// Whether any write of the replica of `before` stands between number `after` and that one,
    /// both excluded.
    pub fn any_between(&self, after: u64, before: &Dot) -> bool {
        after + 1 < before.count
            && self
                .0
                .get(&before.replica)
                .is_some_and(|counts| counts.range(after + 1..before.count).next().is_some())
    }
}

impl<'a> FromIterator<&'a Dot> for Live {
    fn from_iter<I: IntoIterator<Item = &'a Dot>>(dots: I) -> Self {
        let mut live = Self::default();
        dots.into_iter().for_each(|dot| live.add(dot));
        live
    }
}
