//! The polls: this seed's open ballots, one for each change that it has proposed, with the peers
//! that wait for the outcome.
//!
//! What must stay true: a record names a quorum of distinct configured seeds that accepted it, and
//! this seed has at most one open ballot on a change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ballot::{Accept, Asker, Ballot, ChangeKey, Count, SeedNumber, Stage, key};
use crate::proto::machine::Conn;
use crate::proto::message::{Change, ChangeKind, Incarnation};
use crate::proto::time::Time;
use crate::proto::timers::Timers;

/// Most ballots open at the same time; further requests are denied. Deaths find as much room again:
/// whoever asks to be registered must not keep members from being judged.
const MAX_BALLOTS: usize = 8_192;
/// Requests of one connection that may wait for ballots. A peer registers, perhaps once more in a
/// later life, and leaves.
const MAX_OF_ONE: usize = 4;

/// The open ballots, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Polls {
    ballots: BTreeMap<u64, Ballot>,
    by_change: BTreeMap<ChangeKey, u64>,
    used: u64,
    /// Number of requests that wait, by connection.
    asking: BTreeMap<Conn, usize>,
    /// Deadline of each ballot.
    timers: Timers<u64>,
}

impl Polls {
    /// Begins a life. Numbers start at the time, so that a late vote on a ballot of an earlier life
    /// does not count for a ballot of this one.
    pub fn begin(&mut self, now: Time) {
        self.used = now.micros();
    }

    /// When the next ballot's deadline is due.
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Takes the number of a ballot whose deadline is over.
    pub fn due(&mut self, now: Time) -> Option<u64> {
        self.timers.due(now).map(|(_, number)| number)
    }

    /// Whether there is no room for a ballot on one more change of that kind.
    pub fn is_full(&self, kind: ChangeKind) -> bool {
        let room = if kind == ChangeKind::Dead { 2 * MAX_BALLOTS } else { MAX_BALLOTS };
        self.ballots.len() >= room
    }

    /// Whether so many requests of one connection wait that it gets no further one.
    pub fn is_crowded_by(&self, conn: Conn) -> bool {
        self.asking.get(&conn).is_some_and(|requests| *requests >= MAX_OF_ONE)
    }

    /// Whether there is an open ballot on a change.
    pub fn is_open(&self, key: &ChangeKey) -> bool {
        self.by_change.contains_key(key)
    }

    /// Lets `asker` wait for the ballot on a change. Returns false if there is none.
    pub fn join(&mut self, key: &ChangeKey, asker: Option<Asker>) -> bool {
        let number = self.by_change.get(key);
        let Some(ballot) = number.and_then(|number| self.ballots.get_mut(number)) else {
            return false;
        };
        if let Some(asker) = asker
            && ballot.askers.insert(asker)
        {
            *self.asking.entry(asker.conn).or_default() += 1;
        }
        true
    }

    /// Opens a ballot that ends after `patience`; returns its number.
    pub fn open(&mut self, now: Time, ballot: Ballot, patience: Duration) -> u64 {
        self.used += 1;
        self.timers.set(self.used, now + patience);
        self.by_change.insert(key(&ballot.change), self.used);
        for asker in &ballot.askers {
            *self.asking.entry(asker.conn).or_default() += 1;
        }
        self.ballots.insert(self.used, ballot);
        self.used
    }

    /// Sets a new deadline for a ballot.
    pub fn extend(&mut self, number: u64, deadline: Time) {
        self.timers.set(number, deadline);
    }

    pub fn get(&self, number: u64) -> Option<&Ballot> {
        self.ballots.get(&number)
    }

    /// The changes of all open ballots, by the ballot's number.
    pub fn proposals(&self) -> impl Iterator<Item = (u64, &Change)> {
        self.ballots.iter().map(|(number, ballot)| (*number, &ballot.change))
    }

    /// Counts the vote of one of `seeds` seeds. A vote on a closed ballot counts for nothing.
    pub fn count(
        &mut self,
        number: u64,
        voter: SeedNumber,
        vote: Result<Accept, String>,
        known: Incarnation,
        (seeds, quorum): (usize, usize),
    ) -> Count {
        self.ballots
            .get_mut(&number)
            .map_or(Count::Nothing, |ballot| ballot.count(voter, vote, known, seeds, quorum))
    }

    /// Notes that a seed has a ballot's record on disk. With a quorum of such seeds, closes the
    /// ballot and returns it.
    pub fn count_durable(
        &mut self,
        number: u64,
        seed: SeedNumber,
        quorum: usize,
    ) -> Option<Ballot> {
        let ballot = self.ballots.get_mut(&number)?;
        let Stage::Committing { durable, .. } = &mut ballot.stage else { return None };
        durable.insert(seed);
        if durable.len() < quorum { None } else { self.close(number) }
    }

    /// Closes a ballot and returns it.
    pub fn close(&mut self, number: u64) -> Option<Ballot> {
        let ballot = self.ballots.remove(&number)?;
        self.by_change.remove(&key(&ballot.change));
        self.timers.cancel(&number);
        for asker in &ballot.askers {
            if let Some(requests) = self.asking.get_mut(&asker.conn) {
                *requests = requests.saturating_sub(1);
                if *requests == 0 {
                    self.asking.remove(&asker.conn);
                }
            }
        }
        Some(ballot)
    }

    /// Closes the ballot on a change if seeds still vote on it.
    pub fn close_voting(&mut self, key: &ChangeKey) -> Option<Ballot> {
        let number = self.by_change.get(key).copied()?;
        let voting = self.ballots.get(&number)?.stage == Stage::Voting;
        if voting { self.close(number) } else { None }
    }

    /// Connections of peers that wait to be registered. With `news`, their ballots note that these
    /// peers were not told of a change.
    pub fn waiting_to_join(&mut self, news: bool) -> BTreeSet<Conn> {
        let mut waiting = BTreeSet::new();
        for ballot in self.ballots.values_mut().filter(|b| b.change.kind == ChangeKind::Join) {
            ballot.untold |= news;
            waiting.extend(ballot.askers.iter().map(|asker| asker.conn));
        }
        waiting
    }

    /// The number of the last ballot, and how many are open.
    #[cfg(test)]
    pub fn counts(&self) -> (u64, usize) {
        (self.used, self.ballots.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(port: u16) -> Ballot {
        let peer = ([127, 0, 0, 1], port).into();
        let kind = ChangeKind::Join;
        Ballot::new(Change {
            kind,
            peer,
            incarnation: 1,
            at: 0,
            reporters: Vec::new(),
            identity: None,
        })
    }

    fn yes() -> Result<Accept, String> {
        Ok(Accept { reason: "yes".to_owned(), signature: None })
    }

    #[test]
    fn a_vote_on_a_closed_ballot_counts_for_nothing() {
        let (start, patience) = (Time::from_millis(1), Duration::from_secs(1));
        let mut polls = Polls::default();
        polls.begin(start);
        let number = polls.open(start, ballot(1), patience);
        let mut vote = |voter| polls.count(number, voter, yes(), 0, (3, 2));
        assert_eq!(vote(0), Count::Nothing);
        assert!(matches!(vote(1), Count::Accepted(_)));
        assert!(polls.close(number).is_some());
        let late = polls.count(number, 2, yes(), 9, (3, 2));
        assert_eq!((late, polls.counts()), (Count::Nothing, (number, 0)));
    }

    #[test]
    fn a_ballot_is_found_until_it_is_closed_by_whatever_comes_first() {
        let (start, patience) = (Time::from_millis(1), Duration::from_secs(1));
        let mut polls = Polls::default();
        polls.begin(start);
        let numbers: Vec<u64> =
            (0..3).map(|port| polls.open(start, ballot(port), patience)).collect();
        assert_eq!(numbers, [1_001, 1_002, 1_003]);
        let asker = Asker { conn: 1, request: 2 };
        assert!(polls.join(&key(&ballot(0).change), Some(asker)));
        assert!(!polls.join(&key(&ballot(9).change), Some(asker)));
        assert_eq!(polls.waiting_to_join(true), BTreeSet::from([1]));

        assert!(polls.close_voting(&key(&ballot(0).change)).is_some_and(|ballot| ballot.untold));
        assert_eq!(polls.count(1_002, 0, yes(), 0, (3, 2)), Count::Nothing);
        assert!(matches!(polls.count(1_002, 1, yes(), 0, (3, 2)), Count::Accepted(_)));
        assert!(polls.close_voting(&key(&ballot(1).change)).is_none(), "it is being committed");
        assert!(polls.count_durable(1_002, 0, 2).is_none());
        assert!(polls.count_durable(1_002, 0, 2).is_none(), "a seed counts once");
        assert!(polls.count_durable(1_002, 2, 2).is_some());
        assert_eq!(polls.due(start + patience), Some(1_003));
        assert!(polls.close(1_003).is_some());
        assert_eq!((polls.counts().1, polls.wake_at()), (0, None));
    }
}
