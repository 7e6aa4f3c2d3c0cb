//! How seeds talk to each other.
//!
//! Each seed dials every other one, so between two seeds there are two
//! connections, and a message travels on the one that its *receiver* opened:
//! a seed believes only what arrives over a connection that it opened itself
//! to an address of its own CONFIG. Whoever dials a seed and claims to be
//! another one is talked to and never believed, so without any key a stranger
//! still cannot cast a vote.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;

use super::judge::Waiter;
use super::keep::Pending;
use super::standing::MAX_FOUNDERS;
use super::{Line, SeedMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Breach, Council, Purpose, Role, Standing, Welcome};
use crate::proto::time::Time;
use crate::proto::turn::SeedTurn;

/// Seeds compare their registries this often; it is also their heartbeat.
const COMPARE_INTERVAL: Duration = Duration::from_secs(2);
/// A connection that brought nothing for so long is dialled anew: three comparisons.
const SILENCE: Duration = Duration::from_secs(6);
/// First and last pause before a seed that does not answer is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Connections that may claim to come from one seed: the real one, one that it has not noticed to
/// be gone, and some room. The newest gives way, so that an established one cannot be crowded out by
/// whoever claims its name.
const MAX_CALLS: usize = 8;

/// Another seed, as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Colleague {
    /// Our connection to it, while it is being opened.
    dialling: Option<Conn>,
    /// Our connection to it: what it says comes here.
    line: Option<Conn>,
    heard: Time,
    /// Connections opened by it, or by somebody who says so: what we say goes there.
    calls: BTreeSet<Conn>,
    failures: u32,
    /// The founding that its registry goes back to, as it last said.
    pub founders: Vec<u64>,
    /// What it last said of its standing, over the connection to it that is open.
    pub standing: Option<Standing>,
    /// When we last began to walk its hash tree, if that has not ended.
    pub walking: Option<Time>,
    /// How it stood when all that it held was taken in, in this life of ours.
    pub compared: Option<Standing>,
}

impl Colleague {
    /// How it stands, if it can be heard.
    pub fn told(&self) -> Option<Standing> {
        self.line.and(self.standing)
    }

    /// Whether each of the two hears the other.
    pub fn is_connected(&self) -> bool {
        self.line.is_some() && self.hears_us()
    }

    /// Whether what we say can reach it.
    pub fn hears_us(&self) -> bool {
        !self.calls.is_empty()
    }
}

impl SeedMachine {
    pub(super) fn call_colleagues(&mut self, turn: &mut SeedTurn<'_>) {
        let seeds: Vec<Addr> = self.colleagues.keys().copied().collect();
        for seed in seeds {
            self.dial(turn, seed);
        }
        self.timers.set(Timer::Compare, turn.now + COMPARE_INTERVAL);
    }

    pub(super) fn dial(&mut self, turn: &mut SeedTurn<'_>, seed: Addr) {
        let conn = self.next_conn();
        let hello = self.hello(Purpose::Council);
        let Some(colleague) = self.colleagues.get_mut(&seed) else { return };
        self.timers.cancel(&Timer::Redial(seed));
        if colleague.dialling.is_none() && colleague.line.is_none() {
            colleague.dialling = Some(conn);
            turn.open(conn, seed, hello, self.config.probe_timeout);
        }
    }

    /// A seed, or somebody who says so, has opened a connection to us.
    pub(super) fn colleague_calls(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, seed: Addr) {
        let Some(colleague) = self.colleagues.get_mut(&seed) else { return };
        if colleague.calls.len() >= MAX_CALLS
            && let Some(newest) = colleague.calls.pop_last()
        {
            self.lines.remove(&newest);
            turn.close(newest);
        }
        colleague.calls.insert(conn);
        self.lines.insert(conn, Line::FromSeed(seed));
        // It is up: no need to wait for the next attempt.
        self.dial(turn, seed);
        let compare = self.digest();
        turn.send(conn, compare);
        self.tell_links(turn, &seed);
        for (number, ballot) in &self.ballots {
            let change = ballot.change.clone();
            turn.send(conn, Council::Propose { ballot: *number, change });
        }
    }

    /// Our own attempt to reach a seed has ended.
    pub(super) fn colleague_answers(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        result: Result<Welcome, OpenError>,
    ) {
        let found = self.colleagues.iter_mut().find(|(_, c)| c.dialling == Some(conn));
        let Some((seed, colleague)) = found else {
            if result.is_ok() {
                turn.close(conn);
            }
            return;
        };
        let seed = *seed;
        colleague.dialling = None;
        match result {
            Ok(welcome) if welcome.role == Role::Seed && welcome.from == seed => {
                colleague.line = Some(conn);
                colleague.standing = None;
                colleague.walking = None;
                colleague.heard = turn.now;
                colleague.failures = 0;
                self.lines.insert(conn, Line::ToSeed(seed));
                self.clocks.met(turn, seed, welcome.clock);
                turn.note(Severity::Info, "seed connected", vec![("seed", seed.to_string())]);
            }
            Ok(welcome) => {
                turn.close(conn);
                let keys = vec![
                    ("from", seed.to_string()),
                    ("reason", format!("answered as {}", welcome.from)),
                ];
                turn.note(Severity::Warn, "link refused", keys);
                self.redial_later(turn, seed);
            }
            Err(error) => {
                if let OpenError::Refused(refusal) = error {
                    let (what, reason) = ("link refused", refusal.reason.words());
                    let keys = vec![("from", seed.to_string()), ("reason", reason.to_owned())];
                    let news = self.repeats.is_news(turn.now, what, seed, reason);
                    turn.note(if news { Severity::Warn } else { Severity::Debug }, what, keys);
                }
                self.redial_later(turn, seed);
            }
        }
    }

    fn redial_later(&mut self, turn: &mut SeedTurn<'_>, seed: Addr) {
        let jitter = self.rng.0.random_range(0.5..1.0);
        let Some(colleague) = self.colleagues.get_mut(&seed) else { return };
        let pause = REDIAL.0.saturating_mul(1 << colleague.failures.min(8)).min(REDIAL.1);
        colleague.failures += 1;
        self.timers.set(Timer::Redial(seed), turn.now + pause.mul_f64(jitter));
    }

    pub(super) fn colleague_lost(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, seed: Addr) {
        let Some(colleague) = self.colleagues.get_mut(&seed) else { return };
        colleague.calls.remove(&conn);
        if colleague.line == Some(conn) {
            colleague.line = None;
            turn.note(Severity::Warn, "seed lost", vec![("seed", seed.to_string())]);
            self.redial_later(turn, seed);
        }
    }

    /// Says something to one seed.
    pub(super) fn tell(&self, turn: &mut SeedTurn<'_>, seed: &Addr, message: Council) {
        if let Some(colleague) = self.colleagues.get(seed) {
            turn.send_many(colleague.calls.iter().copied().collect(), message);
        }
    }

    /// Says something to all other seeds.
    pub(super) fn tell_all(&self, turn: &mut SeedTurn<'_>, message: Council) {
        let calls = self.colleagues.values().flat_map(|colleague| colleague.calls.iter().copied());
        turn.send_many(calls.collect(), message);
    }

    /// Sends our digest around, and dials anew whoever has gone quiet.
    pub(super) fn compare(&mut self, turn: &mut SeedTurn<'_>) {
        self.timers.set(Timer::Compare, turn.now + COMPARE_INTERVAL);
        let compare = self.short_digest();
        self.tell_all(turn, compare);
        self.pass_on_links(turn);
        self.hang_up(turn);
        let quiet: Vec<(Addr, Conn)> = self
            .colleagues
            .iter()
            .filter(|(_, colleague)| turn.now.since(colleague.heard) > SILENCE)
            .filter_map(|(seed, colleague)| colleague.line.map(|line| (*seed, line)))
            .collect();
        for (seed, line) in quiet {
            turn.close(line);
            self.lines.remove(&line);
            self.colleague_lost(turn, line, seed);
        }
    }

    /// A seed is alive: it has said something.
    pub(super) fn heard_from(&mut self, turn: &SeedTurn<'_>, seed: &Addr) {
        if let Some(colleague) = self.colleagues.get_mut(seed) {
            colleague.heard = turn.now;
        }
    }

    /// Something came over a connection that we opened to a seed. A breach if it makes no sense.
    pub(super) fn hear_seed(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        message: Council,
    ) -> Result<(), Breach> {
        let Some(number) = self.number_of(&seed) else { return Err(Breach) };
        match message {
            Council::Propose { ballot, change } => {
                self.judge(turn, change, Waiter { proposer: seed, ballot });
            }
            Council::Vote { ballot, accept, reason, known } => {
                self.count_vote(turn, ballot, number, accept, reason, known);
            }
            Council::Commit { ballot, peer, record, decision } => {
                let tell = Some(Waiter { proposer: seed, ballot });
                let decision = (decision.change.peer == peer && decision.proposer == seed)
                    .then(|| Box::new(decision));
                let waiter = Waiter { proposer: seed, ballot };
                if self.is_authorised(&record) && self.hear_old_commit(turn, waiter, peer, &record)
                {
                    return Ok(());
                }
                let records = self.authorised(turn, seed, vec![(peer, record)]);
                let pending: Vec<Pending> = records
                    .into_iter()
                    .map(|(peer, record)| Pending::Record {
                        peer,
                        record,
                        tell,
                        decision: decision.clone(),
                    })
                    .collect();
                if !pending.is_empty() {
                    self.persist(turn, pending);
                }
            }
            Council::Committed { ballot } => self.count_durable(turn, ballot, number),
            Council::Compare { count, digest, standing, founders } => {
                if founders.len() > MAX_FOUNDERS {
                    return Err(Breach);
                }
                self.hear_founders(turn, seed, standing, count, &founders);
                self.hear_digest(turn, seed, (count, digest), standing);
            }
            Council::Branches(branches) => return self.hear_branches(turn, &seed, &branches),
            Council::Leaves(leaves) => return self.hear_leaves(turn, &seed, &leaves),
            Council::Holdings { leaves, more } => self.hear_holdings(turn, &seed, leaves, more),
            Council::Records { records, wanted, done } => {
                self.hear_records(turn, seed, records, &wanted, done);
            }
            Council::Expire { round, records } => self.hear_expire(turn, seed, round, records),
            Council::Expired { round } => self.hear_expired(turn, &seed, round),
            Council::Forget(gone) => self.hear_forget(turn, gone),
            Council::LinkReports(reports) => self.hear_reports(reports),
        }
        Ok(())
    }
}
