//! The other seeds: how to reach them, and what they said of themselves.
//!
//! Each seed dials every other one, so two seeds have two connections between them, and a message
//! travels on the connection that its *receiver* opened. What must stay true: a seed believes only
//! what arrives over a connection that it opened itself to an address in its own CONFIG. If
//! somebody dials a seed and claims to be another one, the seed talks to it and never believes it.
//! So a stranger cannot cast a vote, although seeds have no keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::ballot::Other;
use crate::proto::event::Severity;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Council, Hello, Identity, Role, Standing, Welcome};
use crate::proto::repeats::Repeats;
use crate::proto::time::{Time, backoff};
use crate::proto::timers::Timers;
use crate::proto::turn::SeedTurn;
use crate::proto::uncompared::Uncompared;

/// Pause between two comparisons of the registries. They also serve as the seeds' heartbeat.
const COMPARE_INTERVAL: Duration = Duration::from_secs(2);
/// A connection that has brought nothing for this long, three comparisons, is dialled anew.
const SILENCE: Duration = Duration::from_secs(6);
/// First and longest pause before a seed that does not answer is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Connections that may claim to come from one seed: the real one, an old one whose end we have not
/// noticed yet, and some room. One more replaces the newest, so that impostors cannot crowd out an
/// established connection.
const MAX_CALLS: usize = 8;
/// A walk over another seed's hash tree may be begun anew if it has not ended after this long.
const WALK_PATIENCE: Duration = Duration::from_secs(2);

/// Tasks that this part has at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    /// Dial another seed again.
    Redial(Addr),
    /// Compare registries with the other seeds.
    Compare,
}

/// Another seed, as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Colleague {
    /// Our connection to it, while it is being opened.
    dialling: Option<Conn>,
    /// Our connection to it, once open; we believe what comes over this one.
    conn: Option<Conn>,
    heard: Time,
    /// Connections opened by it, or by somebody who claims to be it; what we say goes there.
    calls: BTreeSet<Conn>,
    failures: u32,
    /// Marks of the founding that its registry goes back to, as it last said.
    founders: Vec<u64>,
    /// Standing that it last told us over the present connection to it.
    standing: Option<Standing>,
    /// When we last began to walk its hash tree, if that walk has not ended.
    walking: Option<Time>,
    /// Best standing that it had when we had taken in all that it held, in this life of ours.
    compared: Option<Standing>,
}

impl Colleague {
    /// Its standing, if it can be heard.
    fn told(&self) -> Option<Standing> {
        self.conn.and(self.standing)
    }

    /// Whether what we say can reach it.
    fn hears_us(&self) -> bool {
        !self.calls.is_empty()
    }
}

/// The other seeds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Colleagues {
    of: BTreeMap<Addr, Colleague>,
    /// Random numbers that spread the pauses before a seed is dialled again.
    chance: Uncompared<SmallRng>,
    timers: Timers<Timer>,
}

/// Result of an attempt to reach another seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The seed answered; `clock` is its clock, Unix milliseconds, or 0 if it does not say;
    /// `identity` is who it has proven to be, if links are encrypted.
    Connected { seed: Addr, clock: u64, identity: Option<Identity> },
    /// Nobody answered, or something that is not that seed.
    Nobody,
}

impl Colleagues {
    /// Starts with these seeds, none of them connected. `rng_seed` fixes the pauses between dials.
    pub fn new(seeds: impl Iterator<Item = Addr>, rng_seed: u64) -> Self {
        Self {
            of: seeds.map(|seed| (seed, Colleague::default())).collect(),
            chance: Uncompared(SmallRng::seed_from_u64(rng_seed)),
            timers: Timers::default(),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = Addr> {
        self.of.keys().copied()
    }

    pub fn contains(&self, seed: &Addr) -> bool {
        self.of.contains_key(seed)
    }

    /// When the next timer goes off.
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Takes a timer that is due.
    pub fn due(&mut self, now: Time) -> Option<Timer> {
        self.timers.due(now).map(|(_, timer)| timer)
    }

    /// Sets the next comparison one interval away.
    pub fn compare_later(&mut self, now: Time) {
        self.timers.set(Timer::Compare, now + COMPARE_INTERVAL);
    }

    /// Number of seeds that can hear us, this one included.
    pub fn reachable(&self) -> usize {
        1 + self.of.values().filter(|colleague| colleague.hears_us()).count()
    }

    /// Number of seeds with which both sides hear each other, this one included.
    pub fn connected(&self) -> usize {
        1 + self.of.values().filter(|c| c.conn.is_some() && c.hears_us()).count()
    }

    /// What is known of the standing of each other seed.
    pub fn others(&self) -> Vec<Other> {
        let other = |colleague: &Colleague| Other {
            told: colleague.told(),
            compared: colleague.compared,
            founders: colleague.founders.clone(),
        };
        self.of.values().map(other).collect()
    }

    /// Whether all other seeds can be asked, and hold everything that was ever answered for.
    pub fn are_all_voting(&self) -> bool {
        self.of.values().all(|c| c.hears_us() && c.told() == Some(Standing::Voting))
    }

    /// Dials a seed under that connection number, unless we have or are opening a connection to it.
    pub fn dial(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        seed: Addr,
        hello: Hello,
        within: Duration,
    ) {
        let Some(colleague) = self.of.get_mut(&seed) else { return };
        self.timers.cancel(&Timer::Redial(seed));
        if colleague.dialling.is_none() && colleague.conn.is_none() {
            colleague.dialling = Some(conn);
            turn.open(conn, seed, hello, within);
        }
    }

    /// Adds a connection that a seed, or somebody who claims to be it, has opened to us. Returns
    /// the connection that was closed to make room.
    pub fn called(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, seed: Addr) -> Option<Conn> {
        let colleague = self.of.get_mut(&seed)?;
        let full = colleague.calls.len() >= MAX_CALLS;
        let newest = if full { colleague.calls.pop_last() } else { None };
        if let Some(newest) = newest {
            turn.close(newest);
        }
        colleague.calls.insert(conn);
        newest
    }

    /// Handles the result of our own attempt to reach a seed.
    pub fn answered(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        result: Result<Welcome, OpenError>,
        repeats: &mut Repeats,
    ) -> Answered {
        let found = self.of.iter_mut().find(|(_, c)| c.dialling == Some(conn));
        let Some((seed, colleague)) = found else {
            if result.is_ok() {
                turn.close(conn);
            }
            return Answered::Nobody;
        };
        let seed = *seed;
        colleague.dialling = None;
        match result {
            Ok(welcome) if welcome.is_of(Role::Seed, seed) => {
                colleague.conn = Some(conn);
                colleague.standing = None;
                colleague.walking = None;
                colleague.heard = turn.now;
                colleague.failures = 0;
                let (clock, identity) = (welcome.clock, welcome.identity);
                return Answered::Connected { seed, clock, identity };
            }
            Ok(welcome) => {
                turn.close(conn);
                let keys = vec![
                    ("from", seed.to_string()),
                    ("reason", format!("answered as {}", welcome.from)),
                ];
                turn.note(Severity::Warn, "link refused", keys);
            }
            Err(OpenError::Refused(refusal)) => {
                let (what, reason) = ("link refused", refusal.reason.words());
                let keys = vec![("from", seed.to_string()), ("reason", reason.to_owned())];
                let news = repeats.is_news(turn.now, what, seed, reason);
                turn.note(if news { Severity::Warn } else { Severity::Debug }, what, keys);
            }
            Err(_) => {}
        }
        self.redial_later(turn.now, seed);
        Answered::Nobody
    }

    fn redial_later(&mut self, now: Time, seed: Addr) {
        let jitter = self.chance.random_range(0.5..1.0);
        let Some(colleague) = self.of.get_mut(&seed) else { return };
        let pause = backoff(REDIAL, colleague.failures);
        colleague.failures += 1;
        self.timers.set(Timer::Redial(seed), now + pause.mul_f64(jitter));
    }

    /// Forgets a lost connection with a seed, and dials the seed again if the connection was ours.
    pub fn lost(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, seed: Addr) {
        let Some(colleague) = self.of.get_mut(&seed) else { return };
        colleague.calls.remove(&conn);
        if colleague.conn == Some(conn) {
            colleague.conn = None;
            turn.note(Severity::Warn, "seed lost", vec![("seed", seed.to_string())]);
            self.redial_later(turn.now, seed);
        }
    }

    /// Our connections to seeds that have said nothing for too long.
    pub fn quiet(&self, now: Time) -> Vec<(Addr, Conn)> {
        self.of
            .iter()
            .filter(|(_, colleague)| now.since(colleague.heard) > SILENCE)
            .filter_map(|(seed, colleague)| colleague.conn.map(|conn| (*seed, conn)))
            .collect()
    }

    /// Notes that a seed has just said something.
    pub fn heard(&mut self, now: Time, seed: &Addr) {
        if let Some(colleague) = self.of.get_mut(seed) {
            colleague.heard = now;
        }
    }

    /// Notes the founding that a seed's registry goes back to. An empty list tells nothing new.
    pub fn says_founders(&mut self, seed: &Addr, founders: &[u64]) {
        if let Some(colleague) = self.of.get_mut(seed)
            && !founders.is_empty()
        {
            colleague.founders = founders.to_vec();
        }
    }

    /// Notes the standing that a seed tells.
    pub fn says_standing(&mut self, seed: &Addr, standing: Standing) {
        if let Some(colleague) = self.of.get_mut(seed) {
            colleague.standing = Some(standing);
        }
    }

    /// Begins to walk the hash tree of a seed. Returns false if a walk is under way.
    pub fn begin_walk(&mut self, now: Time, seed: &Addr) -> bool {
        let Some(colleague) = self.of.get_mut(seed) else { return false };
        let begins = colleague.walking.is_none_or(|since| now.since(since) > WALK_PATIENCE);
        if begins {
            colleague.walking = Some(now);
        }
        begins
    }

    /// Notes that we have taken in all that a seed of that standing held.
    pub fn compared(&mut self, seed: &Addr, standing: Standing) {
        if let Some(colleague) = self.of.get_mut(seed) {
            colleague.compared = colleague.compared.max(Some(standing));
            colleague.walking = None;
        }
    }

    /// Says something to one seed.
    pub fn tell(&self, turn: &mut SeedTurn<'_>, seed: &Addr, message: Council) {
        if let Some(colleague) = self.of.get(seed) {
            turn.send_many(colleague.calls.iter().copied().collect(), message);
        }
    }

    /// Says something to all other seeds.
    pub fn tell_all(&self, turn: &mut SeedTurn<'_>, message: Council) {
        let calls = self.of.values().flat_map(|colleague| colleague.calls.iter().copied());
        turn.send_many(calls.collect(), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_claims_the_name_of_a_seed_cannot_crowd_out_the_one_that_was_first() {
        let seed = ([127, 0, 0, 1], 5001).into();
        let mut colleagues = Colleagues::new([seed].into_iter(), 1);
        let mut effects = Vec::new();
        let turn = &mut SeedTurn { now: Time::from_millis(1), effects: &mut effects };
        for call in 0..MAX_CALLS as u64 {
            assert_eq!(colleagues.called(turn, 1 + call * 2, seed), None);
        }
        assert_eq!(colleagues.called(turn, 101, seed), Some(MAX_CALLS as u64 * 2 - 1));
        assert_eq!(colleagues.called(turn, 103, seed), Some(101), "the newest gives way");
        assert!(colleagues.of.values().all(|colleague| colleague.calls.contains(&1)));
    }
}
