//! What a peer of a network without seeds keeps beside the list of members: whom it was told of,
//! who has been gone for how long, and how far its replica has caught up.
//!
//! What must stay true: a replica has caught up only when it has all that one existing replica had,
//! or when it is the first of a network in which all are new; and a member that was dropped does
//! not come back because another peer still has its record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::proto::kv::clock::Clock;
use crate::proto::kv::store::Store;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::{RETENTION, Record, Registry, Status};
use crate::proto::repeats::Allowance;
use crate::proto::time::Time;

/// How often in a minute a neighbour is told all members. It asks with a few bytes and is told
/// thousands; a round of comparison asks once, and a new link twice.
const ANSWERS_A_MINUTE: u32 = 60;

/// How far the replica has caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Progress {
    /// It waits for what others have.
    Waits,
    /// It has no link and no writes; until this time another peer may still call that has some.
    LooksUntil(Time),
    /// It has all that an existing replica had, or is the first.
    CaughtUp,
}

/// What a peer without seeds keeps beside its list of members.
#[derive(Debug, Default)]
pub(in super::super) struct Openness {
    /// Peers that were named at the start, or let in by an operator here. Each is called as long as
    /// it is no member.
    contacts: BTreeSet<Addr>,
    /// Contacts that have not answered yet: they may have what this replica lacks.
    untried: BTreeSet<Addr>,
    /// By link: what a neighbour that has caught up had seen of the store when it said so.
    ahead: BTreeMap<Conn, Clock>,
    /// Whether this replica has had all that an existing one had, or is the first of a new network.
    caught_up: bool,
    /// Before this time a peer without links and writes does not take itself for the first of a new
    /// network: it may have lost its disk, and the others call whoever they have lost.
    look_until: Time,
    /// Whether an operator has removed this peer from the network.
    removed: bool,
    /// Peers that were named and have never been seen, and since when by this peer's own stopwatch:
    /// times in records come from the clocks of others.
    awaited: BTreeMap<Addr, Time>,
    /// Members that are gone, and since when this peer knows it.
    gone: BTreeMap<Addr, Time>,
    /// Gone members whose records were dropped, up to which incarnation, and when. Another peer
    /// that still has the record must not bring it back.
    dropped: BTreeMap<Addr, (Incarnation, Time)>,
    /// By link: how often a neighbour has been told all members of late.
    answered: BTreeMap<Conn, Allowance>,
}

impl Openness {
    /// The peer starts. It looks for others for `look_for`, and was named the `contacts`.
    pub fn begin(&mut self, now: Time, look_for: Duration, contacts: &[Addr]) {
        self.look_until = now + look_for;
        for peer in contacts {
            self.invite(*peer);
            self.await_word(now, *peer);
            self.untried.insert(*peer);
        }
    }

    /// From now on a peer is called as long as it is no member.
    pub fn invite(&mut self, peer: Addr) {
        self.contacts.insert(peer);
    }

    /// From now on a peer is no longer called.
    pub fn disinvite(&mut self, peer: &Addr) {
        self.contacts.remove(peer);
    }

    /// The peers that are called as long as they are no members.
    pub fn contacts(&self) -> impl Iterator<Item = &Addr> {
        self.contacts.iter()
    }

    /// A peer was named that has never been seen: the time that it has to start begins now.
    pub fn await_word(&mut self, now: Time, peer: Addr) {
        self.awaited.entry(peer).or_insert(now);
    }

    /// Until when a peer that was named and never seen may still start, and so must not be
    /// suspected; none if that time is over or does not apply.
    pub fn awaited_until(
        &self,
        now: Time,
        peer: &Addr,
        record: &Record,
        patience: Duration,
    ) -> Option<Time> {
        let since = self.awaited.get(peer).filter(|_| record.incarnation == 0)?;
        Some(*since + patience).filter(|until| now < *until)
    }

    /// Whether an operator has removed this peer.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Notes that an operator has removed this peer, or has let it in again.
    pub fn set_removed(&mut self, removed: bool) {
        self.removed = removed;
    }

    /// Whether this replica has had all that an existing one had, or is the first of a new network.
    pub fn has_caught_up(&self) -> bool {
        self.caught_up
    }

    /// A contact has told what it knows, or cannot be reached. Returns whether this replica waited
    /// for it.
    pub fn tried(&mut self, peer: &Addr) -> bool {
        self.untried.remove(peer)
    }

    /// A neighbour that has caught up says what it has seen of the store. Returns whether this
    /// replica still has to fetch that.
    pub fn follow(&mut self, conn: Conn, seen: Clock) -> bool {
        if !self.caught_up {
            self.ahead.insert(conn, seen);
        }
        !self.caught_up
    }

    /// Whether a neighbour may be told all members now; if so, counts that it is.
    pub fn answers(&mut self, now: Time, conn: Conn) -> bool {
        self.answered.entry(conn).or_default().allows(now, ANSWERS_A_MINUTE)
    }

    /// A link is gone. Returns whether this replica was to fetch something over it.
    pub fn lost(&mut self, conn: Conn) -> bool {
        self.answered.remove(&conn);
        self.ahead.remove(&conn).is_some()
    }

    /// The contacts that run and have not said yet what they know, if this is the peer that all
    /// others wait for. It has to call them, because they would not call by themselves.
    pub fn whom_to_call(&mut self, me: Addr, members: &Registry) -> Vec<Addr> {
        // Nobody waits for a contact that is no longer a member.
        self.untried.retain(|peer| members.alive(peer).is_some());
        if !self.waits_for_none(me, members) {
            return Vec::new();
        }
        let runs = |peer: &&Addr| members.alive(peer).is_some_and(|r| r.incarnation > 0);
        self.untried.iter().filter(runs).copied().collect()
    }

    /// Looks how far this replica has caught up, and notes once it has. `alone` if the peer has no
    /// link.
    pub fn progress(
        &mut self,
        now: Time,
        me: Addr,
        members: &Registry,
        store: &Store,
        alone: bool,
    ) -> Progress {
        let is_first = self.waits_for_none(me, members) && self.untried.is_empty();
        if is_first && store.context().is_empty() && alone && now < self.look_until {
            return Progress::LooksUntil(self.look_until);
        }
        if !is_first && !self.ahead.values().any(|theirs| store.covers(theirs)) {
            return Progress::Waits;
        }
        self.caught_up = true;
        self.ahead.clear();
        self.untried.clear();
        Progress::CaughtUp
    }

    /// Whether no neighbour has anything to be fetched, and this peer is the oldest of those that
    /// are known to run. Where all are new, the others wait for the oldest one, so that they do not
    /// all wait for each other.
    fn waits_for_none(&self, me: Addr, members: &Registry) -> bool {
        let running = members.members().filter(|(_, record)| record.incarnation > 0);
        let oldest = running.map(|(peer, record)| (record.at, *peer)).min();
        self.ahead.is_empty() && oldest.is_none_or(|(_, peer)| peer == me)
    }

    /// Whether a record is of a life whose record was dropped, or of an earlier one.
    pub fn was_dropped(&self, peer: &Addr, incarnation: Incarnation) -> bool {
        self.dropped.get(peer).is_some_and(|(last, _)| *last >= incarnation)
    }

    /// Drops the records of members that have been gone for so long that nobody needs them. The
    /// time counts from when this peer first saw them gone, because the time in a record is by
    /// somebody else's clock.
    pub fn drop_long_gone(&mut self, now: Time, members: &mut Registry) {
        let is_gone =
            |peer: &Addr| members.get(peer).is_some_and(|record| record.status != Status::Alive);
        self.gone.retain(|peer, _| is_gone(peer));
        self.dropped.retain(|_, (_, at)| now.since(*at) < RETENTION);
        self.awaited.retain(|peer, _| members.alive(peer).is_some_and(|r| r.incarnation == 0));
        for (peer, _) in members.iter().filter(|(peer, _)| is_gone(peer)) {
            self.gone.entry(*peer).or_insert(now);
        }
        let over = |(_, since): &(&Addr, &Time)| now.since(**since) > RETENTION;
        let over: Vec<Addr> = self.gone.iter().filter(over).map(|(peer, _)| *peer).collect();
        for peer in over {
            self.gone.remove(&peer);
            if let Some(record) = members.remove(&peer) {
                self.dropped.insert(peer, (record.incarnation, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);
    const LOOK: Duration = Duration::from_secs(2);

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    fn record(incarnation: Incarnation, status: Status, at: u64) -> Record {
        Record::plain(incarnation, status, at, Vec::new())
    }

    /// Members by number, incarnation and time of joining.
    fn members(of: &[(u16, Incarnation, u64)]) -> Registry {
        let mut members = Registry::new();
        for (number, incarnation, at) in of {
            members.merge(addr(*number), record(*incarnation, Status::Alive, *at));
        }
        members
    }

    #[test]
    fn the_first_of_a_new_network_has_caught_up_and_who_waits_for_another_has_not() {
        let me = addr(1);
        let store = Store::new("1".into());
        let far = Clock::from_iter([("2".into(), 7)]);
        // The other members by number, incarnation and time of joining; whether there is a link;
        // over which link a neighbour has said that it is ahead; the time since the start; how far
        // the replica then is.
        type Case<'a> = (&'a str, &'a [(u16, u64, u64)], bool, Option<Conn>, Duration, Progress);
        let table: &[Case<'_>] = &[
            (
                "alone, it looks around",
                &[],
                false,
                None,
                LOOK / 2,
                Progress::LooksUntil(NOW + LOOK),
            ),
            ("and is the first when nobody has called", &[], false, None, LOOK, Progress::CaughtUp),
            (
                "linked, it is the first if it is the oldest",
                &[(2, 9, 5)],
                true,
                None,
                LOOK / 2,
                Progress::CaughtUp,
            ),
            ("and waits if it is not", &[(2, 9, 0)], true, None, LOOK, Progress::Waits),
            ("for what another has", &[(2, 9, 5)], true, Some(2), LOOK, Progress::Waits),
        ];
        for (what, others, linked, ahead, after, expected) in table {
            let mut open = Openness::default();
            open.begin(NOW, LOOK, &[]);
            ahead.iter().for_each(|conn| assert!(open.follow(*conn, far.clone())));
            let mut all = members(others);
            all.merge(me, record(8, Status::Alive, 1));
            let progress = open.progress(NOW + *after, me, &all, &store, !linked);
            assert_eq!(progress, *expected, "{what}");
            assert_eq!(open.has_caught_up(), *expected == Progress::CaughtUp, "{what}");
        }
    }

    #[test]
    fn contacts_that_run_are_called_by_the_one_that_all_wait_for_and_those_that_do_not_are_awaited()
    {
        let (me, running, starting) = (addr(1), addr(2), addr(3));
        let mut open = Openness::default();
        open.begin(NOW, LOOK, &[running, starting]);
        let mut all = members(&[(1, 8, 1), (2, 9, 5), (3, 0, 0)]);
        assert_eq!(open.whom_to_call(me, &all), [running]);
        assert!(open.whom_to_call(running, &all).is_empty(), "it is not the oldest");
        let store = Store::new("1".into());
        assert_eq!(open.progress(NOW + LOOK, me, &all, &store, false), Progress::Waits);
        assert!(open.tried(&running) && !open.tried(&running));
        let until = |open: &Openness, now| {
            open.awaited_until(now, &starting, &record(0, Status::Alive, 0), LOOK)
        };
        assert_eq!(until(&open, NOW), Some(NOW + LOOK));
        assert_eq!(until(&open, NOW + LOOK), None);
        let runs = record(1, Status::Alive, 0);
        assert_eq!(open.awaited_until(NOW, &starting, &runs, LOOK), None, "one that runs");
        // All give the contact up, so this peer does not wait for it either.
        all.merge(starting, record(0, Status::Dead, 3));
        assert!(open.whom_to_call(me, &all).is_empty());
        assert_eq!(open.progress(NOW + LOOK, me, &all, &store, false), Progress::CaughtUp);
    }

    #[test]
    fn what_is_long_gone_is_dropped_and_does_not_come_back_in_that_life() {
        let mut open = Openness::default();
        let mut all = members(&[(1, 8, 1)]);
        all.merge(addr(2), record(5, Status::Dead, 0));
        open.drop_long_gone(NOW, &mut all);
        open.drop_long_gone(NOW + RETENTION, &mut all);
        assert!(all.get(&addr(2)).is_some() && !open.was_dropped(&addr(2), 5));
        let late = NOW + RETENTION + Duration::from_millis(1);
        open.drop_long_gone(late, &mut all);
        assert!(all.get(&addr(2)).is_none() && all.get(&addr(1)).is_some());
        assert!(open.was_dropped(&addr(2), 5) && !open.was_dropped(&addr(2), 6));
        open.drop_long_gone(late + RETENTION, &mut all);
        assert!(!open.was_dropped(&addr(2), 5), "nobody else has it by then either");
    }
}
