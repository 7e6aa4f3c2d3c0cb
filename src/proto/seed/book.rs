//! The registry of a seed, with what is computed from it and kept: the hash tree by which seeds
//! compare, the digest by which peers ask for news, and the list as it was last sent.
//!
//! What must stay true: whatever is kept matches the registry as it is now. So every change of a
//! record after the start goes through `changed`, which drops what no longer holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ballot::Evidence;
use super::message::MEMBERS_A_FRAME;
use super::tree::{FAN, Tree};
use crate::proto::frames::{frames, with_more};
use crate::proto::limits::Limit;
use crate::proto::message::{Addr, Breach, Change, ChangeKind, Fingerprint, Incarnation, Records};
use crate::proto::planted::Flaw;
use crate::proto::registry::{MAX_AHEAD_MILLIS, Merge, Record, Registry, Status};
use crate::proto::time::{Time, offset_words};
use crate::proto::uncompared::Uncompared;

mod sources;

use self::sources::Sources;

/// Fingerprints, by the number of a leaf or branch.
pub(super) type Leaves = Vec<(u16, Vec<Fingerprint>)>;

/// The registry, and what is computed from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Book {
    registry: Registry,
    sources: Sources,
    tree: Tree,
    /// Digest over all statuses; none after a record has changed, until it is asked for.
    status_digest: Option<[u8; 32]>,
    /// The list as it was last sent; none after a record has changed. Peers that register at the
    /// same time get the same list, so it need not be made for each. A list of several frames is
    /// not kept, as that would be a second registry in memory. It says nothing that the registry
    /// does not say, so comparing two books skips it.
    sent_list: Uncompared<Option<Records>>,
}

/// Result of taking in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub merge: Merge,
    /// The record had been dropped as long gone, and another seed that still holds it has sent it
    /// again. That is no news and must not be logged as a transition.
    pub stale: bool,
}

impl Book {
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Lets a test write records without a vote.
    #[cfg(test)]
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Puts back the records that were on disk.
    pub fn recover(&mut self, records: impl IntoIterator<Item = (Addr, Record)>) {
        for (peer, record) in records {
            let before = self.registry.alive(&peer).is_some();
            self.registry.merge(peer, record);
            self.changed(&peer, before);
        }
    }

    /// The record of a peer has changed; `before` says whether it was a member.
    fn changed(&mut self, peer: &Addr, before: bool) {
        self.sources.changed(peer, before, self.registry.alive(peer).is_some());
        self.status_digest = None;
        *self.sent_list = None;
        if self.registry.get(peer).is_some() {
            self.tree.touch(peer);
        } else {
            self.tree.drop(peer);
        }
    }

    /// Takes in a record that is durable.
    pub fn take_in(&mut self, now: Time, peer: Addr, record: Record, flaw: Flaw) -> Taken {
        let before = self.registry.alive(&peer).is_some();
        let stale = record.is_expired(now) && self.registry.get(&peer).is_none();
        let merge = if flaw == Flaw::UnversionedRegistry {
            let known = self.registry.get(&peer);
            let same = known.is_some_and(|known| known.same_transition(&record));
            self.registry.replace(peer, record);
            if same { Merge::Detail } else { Merge::Transition }
        } else {
            self.registry.merge(peer, record)
        };
        if merge != Merge::Nothing {
            self.changed(&peer, before);
        }
        Taken { merge, stale }
    }

    /// Drops the record of a life that is over; returns whether that record was there.
    pub fn forget(&mut self, peer: Addr, incarnation: Incarnation) -> bool {
        let gone = self.registry.get(&peer).is_some_and(|record| {
            record.incarnation == incarnation && record.status != Status::Alive
        });
        if gone {
            self.registry.remove(&peer);
            self.changed(&peer, false);
        }
        gone
    }

    /// The record that a change would make, if it is committed already.
    pub fn committed(&self, change: &Change) -> Option<&Record> {
        self.registry.get(&change.peer).filter(|record| {
            record.incarnation == change.incarnation
                && record.status == change.kind.status()
                && record.identity == change.identity
        })
    }

    /// Says why the registry speaks against a change. `evidence` is the number of reporters of a
    /// death, or none if a seed found the death itself.
    pub fn objection(
        &self,
        now: Time,
        me: Addr,
        change: &Change,
        evidence: Option<Evidence>,
    ) -> Option<String> {
        let record = self.registry.get(&change.peer);
        if let Some(record) = record
            && record.incarnation > change.incarnation
        {
            return Some(format!("known in the later incarnation {}", record.incarnation));
        }
        if change.incarnation > now.millis().saturating_add(MAX_AHEAD_MILLIS) {
            let ahead = change.incarnation.saturating_sub(now.millis());
            let words = offset_words(i64::try_from(ahead).unwrap_or(i64::MAX));
            let peer = change.peer;
            return Some(format!(
                "that incarnation lies {words} of the clock of seed {me}: look at that clock and at \
                 that of {peer}"
            ));
        }
        let same = record.filter(|record| record.incarnation == change.incarnation);
        let status = same.map(|record| record.status);
        // A peer may have registered over a plain link and ask over an encrypted one.
        let is_another = match change.kind {
            ChangeKind::Join => same.is_some_and(|record| !record.can_be(change.identity)),
            ChangeKind::Leave | ChangeKind::Dead => {
                same.is_some_and(|record| record.identity != change.identity)
            }
        };
        match (change.kind, status) {
            (ChangeKind::Join | ChangeKind::Leave, Some(Status::Dead)) => {
                Some("that incarnation is dead".to_owned())
            }
            (ChangeKind::Join, Some(Status::Left)) => Some("that incarnation has left".to_owned()),
            (_, Some(Status::Alive)) if is_another => {
                Some("that incarnation is another process".to_owned())
            }
            (ChangeKind::Join | ChangeKind::Leave, _) => None,
            (ChangeKind::Dead, Some(Status::Alive)) => {
                let Evidence { reporters, needed } = evidence?;
                (reporters < needed)
                    .then(|| format!("{reporters} registered reporters, {needed} needed"))
            }
            (ChangeKind::Dead, _) => Some("not a member in that incarnation".to_owned()),
        }
    }

    /// Why there is no room for one who joins; none if there is, or if it is a member already.
    pub fn crowding(
        &self,
        peer: &Addr,
        (in_all, of_source): (usize, usize),
    ) -> Option<(Limit, String)> {
        if self.registry.alive(peer).is_some() {
            None
        } else if self.registry.size() >= in_all {
            let why = format!("the registry is full: {in_all} members (--max-members)");
            Some((Limit::Members, why))
        } else if self.sources.members(peer) >= of_source {
            let ip = peer.ip();
            let why = format!(
                "{ip} has {of_source} members already, which is all that one source may have \
                 (--max-members-per-source)"
            );
            Some((Limit::MembersOfSource, why))
        } else {
            None
        }
    }

    /// Digest over all statuses, computed only after a change.
    pub fn status_digest(&mut self) -> [u8; 32] {
        *self.status_digest.get_or_insert_with(|| self.registry.status_digest())
    }

    /// All records as peers are told them.
    pub fn for_peers(&self) -> impl Iterator<Item = (Addr, Record)> {
        self.registry.iter().map(|(peer, record)| (*peer, record.unsigned()))
    }

    /// The list of all records in frames, each with whether more follow.
    pub fn list(&mut self) -> Vec<(Records, bool)> {
        if let Some(records) = &*self.sent_list {
            return vec![(Arc::clone(records), false)];
        }
        let list = frames(self.for_peers(), MEMBERS_A_FRAME, |_| 1);
        let list: Vec<(Records, bool)> = with_more(list).collect();
        if let [(whole, false)] = list.as_slice() {
            *self.sent_list = Some(Arc::clone(whole));
        }
        list
    }

    /// Number of records, and root of their hash tree.
    pub fn root(&mut self) -> (u64, [u8; 32]) {
        let root = self.tree.root(&self.registry);
        (self.registry.len() as u64, root)
    }

    /// Fingerprints of all branches, with which a walk begins.
    pub fn branches(&mut self) -> Vec<Fingerprint> {
        self.tree.branches(&self.registry)
    }

    /// For each of our branches that differs from the other seed's, the fingerprints of its leaves.
    ///
    /// # Errors
    ///
    /// If `theirs` cannot be the branches of a tree.
    pub fn leaves_below(&mut self, theirs: &[Fingerprint]) -> Result<Leaves, Breach> {
        if theirs.len() != usize::from(FAN) {
            return Err(Breach);
        }
        let ours = self.branches();
        let differing = (0..FAN).zip(ours.iter().zip(theirs)).filter(|(_, (a, b))| a != b);
        let differing: Vec<u16> = differing.map(|(branch, _)| branch).collect();
        let leaves = |branch| (branch, self.tree.leaves_of(&self.registry, branch));
        Ok(differing.into_iter().map(leaves).collect())
    }

    /// Fingerprints of our records in the leaves that differ from the other seed's, in frames of
    /// about `a_frame` fingerprints, each with whether more follow.
    ///
    /// # Errors
    ///
    /// If `theirs` cannot be leaves of a tree.
    pub fn held_below(
        &mut self,
        theirs: &Leaves,
        a_frame: usize,
    ) -> Result<Vec<(Leaves, bool)>, Breach> {
        let sane = |(branch, leaves): &(u16, Vec<Fingerprint>)| {
            *branch < FAN && leaves.len() == usize::from(FAN)
        };
        if theirs.len() > usize::from(FAN) || !theirs.iter().all(sane) {
            return Err(Breach);
        }
        let mut held: Leaves = Vec::new();
        for (branch, theirs) in theirs {
            for place in self.tree.differing(&self.registry, *branch, theirs) {
                let records = self.tree.records(&self.registry, place);
                held.push((place, records.map(|(print, ..)| print).collect()));
            }
        }
        Ok(with_more(frames(held, a_frame, |(_, prints)| 1 + prints.len())).collect())
    }

    /// Compares our records with the fingerprints that another seed holds in some leaves. Returns
    /// the records that it lacks, and the fingerprints of the records that we lack.
    pub fn difference(&self, leaves: Leaves) -> (Vec<(Addr, Record)>, Leaves) {
        let mut lacking = Vec::new();
        let mut wanted: Leaves = Vec::new();
        for (place, theirs) in leaves {
            let mut theirs: BTreeSet<Fingerprint> = theirs.into_iter().collect();
            for (print, peer, record) in self.tree.records(&self.registry, place) {
                if !theirs.remove(&print) {
                    lacking.push((peer, record.clone()));
                }
            }
            if !theirs.is_empty() {
                wanted.push((place, theirs.into_iter().collect()));
            }
        }
        (lacking, wanted)
    }

    /// Our records that have these fingerprints.
    pub fn by_fingerprint(&self, wanted: &Leaves) -> Vec<(Addr, Record)> {
        let mut found = Vec::new();
        for (place, prints) in wanted {
            let prints: BTreeSet<&Fingerprint> = prints.iter().collect();
            let records = self.tree.records(&self.registry, *place);
            found.extend(
                records
                    .filter(|(print, ..)| prints.contains(print))
                    .map(|(_, peer, record)| (peer, record.clone())),
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    fn record(incarnation: u64, status: Status) -> Record {
        Record::plain(incarnation, status, 1, vec![0])
    }

    #[test]
    fn what_the_registry_has_against_a_change() {
        use ChangeKind::{Dead, Join, Leave};
        use Status::{Alive, Left};
        let enough = Some(Evidence { reporters: 2, needed: 2 });
        let few = Some(Evidence { reporters: 1, needed: 2 });
        // Each row: the record known, the kind of change (of incarnation 5), the evidence, and
        // whether the registry lets the change pass.
        let table: Vec<(Option<Record>, ChangeKind, Option<Evidence>, bool)> = vec![
            (None, Join, None, true),
            (Some(record(4, Status::Dead)), Join, None, true),
            (Some(record(5, Alive)), Join, None, true),
            (Some(record(5, Status::Dead)), Join, None, false),
            (Some(record(5, Left)), Join, None, false),
            (Some(record(6, Alive)), Join, None, false),
            (Some(record(5, Alive)), Leave, None, true),
            (Some(record(5, Left)), Leave, None, true),
            (Some(record(5, Status::Dead)), Leave, None, false),
            (Some(record(5, Alive)), Dead, enough, true),
            (Some(record(5, Alive)), Dead, None, true),
            (Some(record(5, Alive)), Dead, few, false),
            (Some(record(4, Alive)), Dead, enough, false),
            (None, Dead, enough, false),
        ];
        for (known, kind, evidence, passes) in table {
            let mut book = Book::default();
            book.recover(known.clone().map(|record| (addr(1), record)));
            let change = Change {
                kind,
                peer: addr(1),
                incarnation: 5,
                at: 1,
                reporters: Vec::new(),
                identity: None,
            };
            let objection = book.objection(Time::from_millis(9), addr(2), &change, evidence);
            assert_eq!(objection.is_none(), passes, "{known:?}, {kind:?}: {objection:?}");
        }
    }

    #[test]
    fn two_books_find_what_differs_in_either() {
        let (mut one, mut other) = (Book::default(), Book::default());
        for port in 0..500 {
            if port != 7 {
                one.recover([(addr(port), record(1, Status::Alive))]);
            }
            if port != 8 {
                other.recover([(addr(port), record(1, Status::Alive))]);
            }
        }
        assert_ne!(one.root(), other.root());
        let leaves = other.leaves_below(&one.branches()).unwrap();
        let mut frames = one.held_below(&leaves, 1_000).unwrap();
        let (held, more) = frames.pop().unwrap();
        assert!(!more);
        let (lacking, wanted) = other.difference(held);
        assert_eq!(lacking, [(addr(7), record(1, Status::Alive))]);
        assert_eq!(one.by_fingerprint(&wanted), [(addr(8), record(1, Status::Alive))]);
        assert!(other.leaves_below(&[]).is_err());
        assert!(one.held_below(&vec![(FAN, Vec::new())], 1_000).is_err());
    }

    #[test]
    fn the_list_is_that_of_the_registry_as_it_is() {
        let mut book = Book::default();
        assert_eq!(book.list().len(), 1, "an empty list is one empty frame");
        let (now, joined) = (Time::from_millis(9), record(1, Status::Alive));
        book.take_in(now, addr(1), joined.clone(), Flaw::None);
        assert_eq!(&*book.list()[0].0, [(addr(1), joined)]);
        let digest = book.status_digest();
        book.take_in(now, addr(1), record(1, Status::Dead), Flaw::None);
        assert_ne!(book.status_digest(), digest);
        assert!(book.forget(addr(1), 1) && !book.forget(addr(1), 1));
        assert!(book.list()[0].0.is_empty());
    }
}
