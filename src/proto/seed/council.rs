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
use super::{Line, Pending, SeedMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Message, Purpose, Role, Welcome};
use crate::proto::registry::Record;
use crate::proto::time::Time;
use crate::proto::turn::Turn;

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
/// Records in one frame.
const RECORDS_A_FRAME: usize = 4_096;

/// Another seed, as seen from here.
#[derive(Clone, Debug, Default)]
pub(super) struct Colleague {
    /// Our connection to it, while it is being opened.
    dialling: Option<Conn>,
    /// Our connection to it: what it says comes here.
    line: Option<Conn>,
    heard: Time,
    /// Connections opened by it, or by somebody who says so: what we say goes there.
    calls: BTreeSet<Conn>,
    failures: u32,
}

impl Colleague {
    /// Whether what we say can reach it.
    pub fn hears_us(&self) -> bool {
        !self.calls.is_empty()
    }
}

impl SeedMachine {
    pub(super) fn call_colleagues(&mut self, turn: &mut Turn<'_>) {
        let seeds: Vec<Addr> = self.colleagues.keys().copied().collect();
        for seed in seeds {
            self.dial(turn, seed);
        }
        self.timers.set(Timer::Compare, turn.now + COMPARE_INTERVAL);
    }

    pub(super) fn dial(&mut self, turn: &mut Turn<'_>, seed: Addr) {
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
    pub(super) fn colleague_calls(&mut self, turn: &mut Turn<'_>, conn: Conn, seed: Addr) {
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
        let digest = self.registry.digest();
        turn.send(conn, Message::Compare { count: self.registry.len() as u64, digest });
        for (number, ballot) in &self.ballots {
            let change = ballot.change.clone();
            turn.send(conn, Message::Propose { ballot: *number, change });
        }
    }

    /// Our own attempt to reach a seed has ended.
    pub(super) fn colleague_answers(
        &mut self,
        turn: &mut Turn<'_>,
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
                colleague.heard = turn.now;
                colleague.failures = 0;
                self.lines.insert(conn, Line::ToSeed(seed));
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
                    let keys = vec![
                        ("from", seed.to_string()),
                        ("reason", refusal.reason.words().to_owned()),
                    ];
                    turn.note(Severity::Warn, "link refused", keys);
                }
                self.redial_later(turn, seed);
            }
        }
    }

    fn redial_later(&mut self, turn: &mut Turn<'_>, seed: Addr) {
        let jitter = self.rng.random_range(0.5..1.0);
        let Some(colleague) = self.colleagues.get_mut(&seed) else { return };
        let pause = REDIAL.0.saturating_mul(1 << colleague.failures.min(8)).min(REDIAL.1);
        colleague.failures += 1;
        self.timers.set(Timer::Redial(seed), turn.now + pause.mul_f64(jitter));
    }

    pub(super) fn colleague_lost(&mut self, turn: &mut Turn<'_>, conn: Conn, seed: Addr) {
        let Some(colleague) = self.colleagues.get_mut(&seed) else { return };
        colleague.calls.remove(&conn);
        if colleague.line == Some(conn) {
            colleague.line = None;
            turn.note(Severity::Warn, "seed lost", vec![("seed", seed.to_string())]);
            self.redial_later(turn, seed);
        }
    }

    /// Says something to one seed.
    pub(super) fn tell(&mut self, turn: &mut Turn<'_>, seed: &Addr, message: Message) {
        if let Some(colleague) = self.colleagues.get(seed) {
            turn.send_many(colleague.calls.iter().copied().collect(), message);
        }
    }

    /// Says something to all other seeds.
    pub(super) fn tell_all(&mut self, turn: &mut Turn<'_>, message: Message) {
        let calls = self.colleagues.values().flat_map(|colleague| colleague.calls.iter().copied());
        turn.send_many(calls.collect(), message);
    }

    /// Sends our digest around, and dials anew whoever has gone quiet.
    pub(super) fn compare(&mut self, turn: &mut Turn<'_>) {
        self.timers.set(Timer::Compare, turn.now + COMPARE_INTERVAL);
        let digest = self.registry.digest();
        self.tell_all(turn, Message::Compare { count: self.registry.len() as u64, digest });
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

    /// Something came over a connection that we opened to a seed. False if it is nothing that a
    /// seed may say.
    pub(super) fn hear_seed(&mut self, turn: &mut Turn<'_>, seed: Addr, message: Message) -> bool {
        let Some(number) = self.number_of(&seed) else { return false };
        if let Some(colleague) = self.colleagues.get_mut(&seed) {
            colleague.heard = turn.now;
        }
        match message {
            Message::Propose { ballot, change } => {
                self.judge(turn, change, Waiter { proposer: seed, ballot });
            }
            Message::Vote { ballot, accept, reason, known } => {
                self.count_vote(turn, ballot, number, accept, reason, known);
            }
            Message::Commit { ballot, peer, record } => {
                let tell = Some(Waiter { proposer: seed, ballot });
                self.hear_commits(turn, seed, vec![(peer, record)], tell);
            }
            Message::Committed { ballot } => self.count_durable(turn, ballot, number),
            Message::Compare { count, digest } => {
                let mine = (self.registry.len() as u64, self.registry.digest());
                // One of the two sends first; both would send all of it twice. The other one tells
                // its digest at once instead of at the next round.
                let differs = mine != (count, digest);
                if differs && self.config.me < seed {
                    self.send_records(turn, &seed, true);
                } else if differs {
                    self.tell(turn, &seed, Message::Compare { count: mine.0, digest: mine.1 });
                }
            }
            Message::Records { records, more, answer } => {
                self.hear_commits(turn, seed, records, None);
                if answer && !more {
                    self.send_records(turn, &seed, false);
                }
            }
            Message::Pong(_) => {}
            _ => return false,
        }
        true
    }

    /// Takes in records that another seed says are committed, once they are durable.
    fn hear_commits(
        &mut self,
        turn: &mut Turn<'_>,
        seed: Addr,
        records: Vec<(Addr, Record)>,
        tell: Option<Waiter>,
    ) {
        let mut pending = Vec::new();
        for (peer, record) in records {
            if self.is_authorised(&record) {
                pending.push(Pending { peer, record, tell });
            } else {
                let keys = vec![
                    ("from", seed.to_string()),
                    ("peer", peer.to_string()),
                    ("reason", "it does not name a quorum of distinct seeds".to_owned()),
                ];
                turn.note(Severity::Warn, "commit refused", keys);
            }
        }
        // What is known already needs no disk; but the proposer still waits for our word.
        if tell.is_none() {
            pending.retain(|p| self.registry.get(&p.peer) != Some(&p.record));
        }
        if !pending.is_empty() {
            self.persist(turn, pending);
        }
    }

    fn send_records(&mut self, turn: &mut Turn<'_>, seed: &Addr, answer: bool) {
        let all: Vec<(Addr, Record)> =
            self.registry.iter().map(|(addr, record)| (*addr, record.clone())).collect();
        for (records, more) in super::desk::frames(all, RECORDS_A_FRAME) {
            self.tell(turn, seed, Message::Records { records, more, answer });
        }
    }
}
