//! Whom a peer suspects, who else has found the same, and who is leaving and so must not be
//! suspected.
//!
//! The part only keeps this; `liveness` and `notices` decide what follows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::Registry;
use crate::proto::time::{Time, backoff};

/// Suspicions held at once. A peer could not look after more suspects than this anyway.
const MAX_SUSPICIONS: usize = 4_096;
/// A member that said that it leaves is not suspected for this long. If its leave was not committed
/// by then, it may be suspected like any other member.
const DEPARTURE: Duration = Duration::from_secs(5);
/// A member that said that it leaves is asked for nothing for this long. A leave is committed
/// within seconds where a quorum of seeds is up.
const FAREWELL_KEPT: Duration = Duration::from_secs(60);
/// Farewells remembered at once, but for those of members: whoever opens links in invented names
/// may say any number of them.
const MAX_DEPARTING: usize = 4_096;
/// Witnesses of one suspicion that are no members. A neighbour may be a member of whose
/// registration the news is still on its way, but whoever has many such names has invented them.
const MAX_STRANGE_WITNESSES: usize = 64;
/// An unsettled suspicion is pressed again after the first pause, which doubles up to the second.
pub(super) const PRESS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// This peer's own finding that a member does not answer.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    pub incarnation: Incarnation,
    /// Whether the member's process is known to be unreachable, and not merely silent.
    pub hard: bool,
    /// Whether this peer looked only because another peer asked it to.
    pub asked: bool,
    pub witnesses: BTreeSet<Addr>,
    /// The Dead Node message that this peer has logged and reported, if it has.
    pub reported: Option<String>,
    pub presses: u32,
    /// When somebody said that there is a later life, which this peer has taken up since.
    pub renewed: Option<Time>,
}

impl Suspicion {
    /// A new finding, which nobody else has witnessed yet.
    pub fn new(incarnation: Incarnation, hard: bool, asked: bool) -> Self {
        let witnesses = BTreeSet::new();
        Self { incarnation, hard, asked, witnesses, reported: None, presses: 0, renewed: None }
    }

    /// Another peer has found the same.
    pub fn witnessed(&mut self, by: Addr, members: &Registry) {
        let is_member = |peer: &Addr| members.alive(peer).is_some();
        let strange = || self.witnesses.iter().filter(|peer| !is_member(peer)).count();
        if is_member(&by) || strange() < MAX_STRANGE_WITNESSES {
            self.witnesses.insert(by);
        }
    }

    /// Counts one more press. Returns the pause until the next one.
    pub fn press(&mut self) -> Duration {
        self.presses += 1;
        backoff(PRESS, self.presses)
    }
}

/// A death that peers have decided: whose, in which life, and how many others had found the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub peer: Addr,
    pub incarnation: Incarnation,
    pub witnesses: usize,
}

/// The suspicions of a peer.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    of: BTreeMap<Addr, Suspicion>,
    /// Members that said that they leave: in which incarnation they said it, and when.
    departing: BTreeMap<Addr, (Incarnation, Time)>,
    /// Peers that were found dead before this peer knew them as members.
    ghosts: BTreeSet<Addr>,
    last_refutation: Option<Time>,
    /// Deaths that this peer and its witnesses have decided, and that are still to be acted on.
    decided: VecDeque<Decided>,
}

impl Suspicions {
    pub fn contains(&self, peer: &Addr) -> bool {
        self.of.contains_key(peer)
    }

    pub fn get(&self, peer: &Addr) -> Option<&Suspicion> {
        self.of.get(peer)
    }

    pub fn get_mut(&mut self, peer: &Addr) -> Option<&mut Suspicion> {
        self.of.get_mut(peer)
    }

    /// Somebody says that a suspect is there in a later life. The suspicion is of that life now,
    /// and what others found of the earlier one counts no more.
    pub fn renew(&mut self, now: Time, peer: &Addr, incarnation: Incarnation) {
        if let Some(suspicion) = self.of.get_mut(peer) {
            let Suspicion { hard, asked, .. } = *suspicion;
            *suspicion = Suspicion::new(incarnation, hard, asked);
            suspicion.renewed = Some(now);
        }
    }

    /// Whether a suspicion has taken up a later life within the window before now. Another one is
    /// then not heard of: whoever names one life after the other would keep the suspect a member
    /// for ever.
    pub fn was_renewed(&self, now: Time, peer: &Addr, window: Duration) -> bool {
        let renewed = self.of.get(peer).and_then(|suspicion| suspicion.renewed);
        renewed.is_some_and(|at| now.since(at) < window)
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_full(&self) -> bool {
        self.of.len() >= MAX_SUSPICIONS
    }

    /// The suspects by address, each with the incarnation that is suspected.
    pub fn lives(&self) -> Vec<(Addr, Incarnation)> {
        self.of.iter().map(|(peer, suspicion)| (*peer, suspicion.incarnation)).collect()
    }

    /// The suspects, by address.
    pub fn suspects(&self) -> Vec<Addr> {
        self.of.keys().copied().collect()
    }

    pub fn insert(&mut self, peer: Addr, suspicion: Suspicion) {
        self.of.insert(peer, suspicion);
    }

    /// Forgets a suspicion. Returns whether there was one.
    pub fn remove(&mut self, peer: &Addr) -> bool {
        self.of.remove(peer).is_some()
    }

    /// This peer and its witnesses say that a suspect is dead. The death waits here until somebody
    /// takes it and changes the list of members.
    pub fn decide(&mut self, decided: Decided) {
        self.decided.push_back(decided);
    }

    /// Whether the death of `peer` was decided and still waits to be acted on.
    pub fn is_decided(&self, peer: &Addr) -> bool {
        self.decided.iter().any(|decided| decided.peer == *peer)
    }

    /// Takes the next death to act on. A death is skipped if its suspicion was dropped meanwhile.
    pub fn take_decided(&mut self) -> Option<Decided> {
        loop {
            let decided = self.decided.pop_front()?;
            let is_suspected = |suspicion: &Suspicion| suspicion.incarnation == decided.incarnation;
            if self.of.get(&decided.peer).is_some_and(is_suspected) {
                return Some(decided);
            }
        }
    }

    /// A peer was found dead before this peer knew it as a member.
    pub fn add_ghost(&mut self, peer: Addr) {
        if self.ghosts.len() < MAX_SUSPICIONS {
            self.ghosts.insert(peer);
        }
    }

    /// A peer is known now, as a member or as gone. Returns whether it had been found dead before.
    pub fn take_ghost(&mut self, peer: &Addr) -> bool {
        self.ghosts.remove(peer)
    }

    /// A member says that it leaves.
    pub fn departs(&mut self, now: Time, members: &Registry, peer: Addr, incarnation: Incarnation) {
        if self.departing.len() >= MAX_DEPARTING {
            self.departing.retain(|_, (_, since)| now.since(*since) < FAREWELL_KEPT);
        }
        let is_member = members.alive(&peer).is_some();
        if is_member || self.departing.len() < MAX_DEPARTING {
            self.departing.insert(peer, (incarnation, now));
        }
    }

    /// Whether a member has said in its present life, and lately, that it leaves.
    pub fn is_departing(&self, now: Time, members: &Registry, peer: &Addr) -> bool {
        let known = members.get(peer).map_or(0, |record| record.incarnation);
        self.departing.get(peer).is_some_and(|(incarnation, since)| {
            *incarnation >= known && now.since(*since) < DEPARTURE
        })
    }

    /// Whether a member has said within the last minute that it leaves.
    pub fn has_said_farewell(&self, now: Time, peer: &Addr) -> bool {
        self.departing.get(peer).is_some_and(|(_, since)| now.since(*since) < FAREWELL_KEPT)
    }

    /// Farewells remembered, those included that are over.
    pub fn farewells(&self) -> usize {
        self.departing.len()
    }

    /// A peer is gone, or is there again: whether it said that it leaves no longer matters.
    pub fn forget_departure(&mut self, peer: &Addr) {
        self.departing.remove(peer);
    }

    /// A member is there in this incarnation: forgets that it said in an earlier one that it
    /// leaves.
    pub fn is_back(&mut self, peer: &Addr, incarnation: Incarnation) {
        if self.departing.get(peer).is_some_and(|(departed, _)| *departed < incarnation) {
            self.departing.remove(peer);
        }
    }

    /// Whether this peer refuted a suspicion of itself within the window before now. If it did not,
    /// and `may` refute now, then the refutation that follows is counted.
    pub fn refuted_lately(&mut self, now: Time, window: Duration, may: bool) -> bool {
        let lately = self.last_refutation.is_some_and(|at| now.since(at) < window);
        if !lately && may {
            self.last_refutation = Some(now);
        }
        lately
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::{Record, Status};

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn farewells_in_invented_names_are_bounded_and_pass() {
        let (now, later) = (Time::from_millis(1), Time::from_millis(1) + FAREWELL_KEPT);
        let mut suspicions = Suspicions::default();
        for port in 0..=u16::MAX {
            suspicions.departs(now, &Registry::new(), addr(port), Incarnation::MAX);
        }
        assert_eq!(suspicions.departing.len(), MAX_DEPARTING);
        let mut members = Registry::new();
        let record = Record::plain(1, Status::Alive, 1, vec![0]);
        members.merge(addr(60_000), record);
        suspicions.departs(now, &members, addr(60_000), 1);
        assert!(suspicions.is_departing(now, &members, &addr(60_000)), "a member is heard");
        assert!(suspicions.has_said_farewell(now, &addr(1)));
        assert!(!suspicions.has_said_farewell(later, &addr(1)));
        suspicions.departs(later, &members, addr(u16::MAX), 7);
        assert_eq!(suspicions.departing.len(), 1, "those that are over make room");
    }

    #[test]
    fn invented_witnesses_are_few_and_keep_no_member_out() {
        let mut members = Registry::new();
        let record = Record::plain(1, Status::Alive, 1, vec![0]);
        members.merge(addr(1), record);
        let mut suspicion = Suspicion::new(7, true, false);
        for port in 2..=1_000 {
            suspicion.witnessed(addr(port), &members);
        }
        assert_eq!(suspicion.witnesses.len(), MAX_STRANGE_WITNESSES);
        suspicion.witnessed(addr(1), &members);
        assert!(suspicion.witnesses.contains(&addr(1)));
    }

    #[test]
    fn whoever_says_farewell_is_departing_for_a_while_and_not_in_a_later_life() {
        let (peer, now) = (addr(1), Time::from_millis(1));
        let (mut suspicions, mut members) = (Suspicions::default(), Registry::new());
        suspicions.departs(now, &members, peer, 7);
        assert!(suspicions.is_departing(now, &members, &peer));
        assert!(!suspicions.is_departing(now + DEPARTURE, &members, &peer));
        let record = Record::plain(8, Status::Alive, 1, vec![0]);
        members.merge(peer, record);
        assert!(!suspicions.is_departing(now, &members, &peer));
        suspicions.is_back(&peer, 7);
        assert!(suspicions.has_said_farewell(now, &peer));
        suspicions.is_back(&peer, 8);
        assert!(!suspicions.has_said_farewell(now, &peer));
    }

    #[test]
    fn a_death_that_was_decided_is_taken_once_unless_its_suspicion_was_refuted_meanwhile() {
        let mut suspicions = Suspicions::default();
        let decided = |port| Decided { peer: addr(port), incarnation: 7, witnesses: 1 };
        for port in [1, 2, 3] {
            suspicions.insert(addr(port), Suspicion::new(7, true, false));
            suspicions.decide(decided(port));
        }
        suspicions.remove(&addr(1));
        suspicions.insert(addr(2), Suspicion::new(8, true, false));
        assert!(suspicions.is_decided(&addr(3)));
        assert_eq!(suspicions.take_decided(), Some(decided(3)));
        assert_eq!((suspicions.take_decided(), suspicions.is_decided(&addr(3))), (None, false));
    }

    #[test]
    fn a_suspicion_is_pressed_ever_more_rarely() {
        let mut suspicion = Suspicion::new(1, true, false);
        let pauses: Vec<u64> = (0..6).map(|_| suspicion.press().as_secs()).collect();
        assert_eq!(pauses, [4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn one_refutation_in_a_while_is_enough_and_one_that_may_not_be_is_none() {
        let (mut suspicions, window) = (Suspicions::default(), Duration::from_secs(1));
        let now = Time::from_millis(1);
        assert!(!suspicions.refuted_lately(now, window, false));
        assert!(!suspicions.refuted_lately(now, window, true));
        assert!(suspicions.refuted_lately(now, window, true));
        assert!(!suspicions.refuted_lately(now + window, window, true));
    }
}
