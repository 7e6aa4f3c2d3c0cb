//! A seed's own judgement of a proposed change.
//!
//! A vote is never a rubber stamp (DESIGN.md, section 3): a join wants the
//! peer to answer at the address that it claims, in the incarnation that it
//! claims; a death wants reporters *and* this seed's own failed probe; a leave
//! wants the peer itself to say that it is leaving. So each judgement ends in
//! a probe made by this seed, and a forged report of whatever number of liars
//! removes nobody who answers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ballot::{ChangeKey, key};
use super::{SeedMachine, Timer};
use crate::proto::event::Event;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Change, ChangeKind, Incarnation, Purpose, Role, Welcome};
use crate::proto::planted::Flaw;
use crate::proto::registry::{MAX_AHEAD_MILLIS, Record, Status};
use crate::proto::time::Time;
use crate::proto::time::offset_words;
use crate::proto::turn::SeedTurn;

/// Who wants to hear a judgement: this seed's own ballot, or another seed's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Waiter {
    pub proposer: Addr,
    pub ballot: u64,
}

/// A judgement that waits for its probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Judgement {
    change: Change,
    waiters: BTreeSet<Waiter>,
    /// Its member did not answer the first probe, in a wave.
    unanswered: bool,
}

/// A vote: yes or no, why, and the greatest incarnation known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Verdict {
    pub accept: bool,
    pub reason: String,
    pub known: Incarnation,
}

/// Judgements that may wait for a probe at the same time; more are refused at once.
const MAX_JUDGEMENTS: usize = 1_024;
/// Members accused within one suspect timeout make a wave if they are so many, and more than a third
/// of all: two crashes in a small network are two crashes.
const WAVE: usize = 3;
/// Between the two probes that a voter makes in a wave, if the first got no answer at all: long
/// enough for what is wrong with the voter itself to pass, or to be seen. A refused connection is an
/// answer, which says that the voter's network works: then the second probe follows at once.
pub(super) const WAVE_PAUSE: Duration = Duration::from_secs(1);
/// A yes is given again for this long, without a line and a probe more: seeds that propose the same
/// change at the same time ask twice.
const VERDICT_LASTS: Duration = Duration::from_secs(1);

impl SeedMachine {
    /// Judges a change for `waiter`: at once where the registry alone says no, else by a probe.
    /// Proposals of the same change share one probe.
    pub(super) fn judge(&mut self, turn: &mut SeedTurn<'_>, change: Change, waiter: Waiter) {
        let key = key(&change);
        if let Some(judgement) = self.judgements.get_mut(&key) {
            for reporter in change.reporters {
                if !judgement.change.reporters.contains(&reporter) {
                    judgement.change.reporters.push(reporter);
                }
            }
            judgement.waiters.insert(waiter);
            return;
        }
        if let Some(record) = self.committed(&change)
            && waiter.proposer != self.config.me
        {
            // Another proposer was faster: nothing to vote on, only to pass on.
            let record = record.clone();
            self.pass_on(turn, &waiter.proposer, change.peer, record);
            return;
        }
        if !self.votes {
            self.hold(turn, change, waiter);
            return;
        }
        if let Some((at, verdict)) = self.verdicts.get(&key)
            && turn.now.since(*at) < VERDICT_LASTS
            && self.registry_objects(turn.now, &change).is_none()
        {
            let verdict = verdict.clone();
            self.cast(turn, waiter, &verdict);
            return;
        }
        let waiters = BTreeSet::from([waiter]);
        let early = if self.config.flaw() == Flaw::AlwaysYes {
            Some(Ok("planted flaw".to_owned()))
        } else if self.judgements.len() >= MAX_JUDGEMENTS {
            Some(Err("too many open proposals".to_owned()))
        } else {
            self.registry_objects(turn.now, &change).map(Err)
        };
        if let Some(outcome) = early {
            self.conclude(turn, &change, waiters, outcome);
            return;
        }
        if change.kind == ChangeKind::Dead {
            self.accused.insert(change.peer, turn.now);
        }
        self.probe_for(turn, key);
        self.judgements.insert(key, Judgement { change, waiters, unanswered: false });
    }

    fn probe_for(&mut self, turn: &mut SeedTurn<'_>, key: ChangeKey) {
        let conn = self.next_conn();
        let hello = self.hello(Purpose::Probe);
        turn.open(conn, key.1, hello, self.config.probe_timeout);
        self.probes.insert(conn, key);
    }

    /// Whether so many members were accused within one suspect timeout that it may be this seed, or
    /// its network, that is ill: then one failed probe is not enough.
    fn is_wave(&mut self, now: Time) -> bool {
        let window = self.config.suspect_timeout;
        self.accused.retain(|_, at| now.since(*at) < window);
        let gone = self.accused.keys().filter(|peer| self.registry.alive(peer).is_none()).count();
        self.accused.len() >= WAVE && self.accused.len() * 3 > self.registry.size() + gone
    }

    /// The second probe of a member accused in a wave is due.
    pub(super) fn probe_again(&mut self, turn: &mut SeedTurn<'_>, key: ChangeKey) {
        if self.judgements.contains_key(&key) {
            self.probe_for(turn, key);
        }
    }

    /// The record of a change, if it is committed already.
    fn committed(&self, change: &Change) -> Option<&Record> {
        self.registry.get(&change.peer).filter(|record| {
            record.incarnation == change.incarnation && record.status == change.kind.status()
        })
    }

    /// What the registry has against a change, before and after the probe.
    fn registry_objects(&self, now: Time, change: &Change) -> Option<String> {
        if self.config.network.seeds().contains(&change.peer) {
            return Some("that address is a seed's".to_owned());
        }
        let record = self.registry.get(&change.peer);
        if let Some(record) = record
            && record.incarnation > change.incarnation
        {
            return Some(format!("known in the later incarnation {}", record.incarnation));
        }
        if change.incarnation > now.millis().saturating_add(MAX_AHEAD_MILLIS) {
            let ahead = change.incarnation.saturating_sub(now.millis());
            let words = offset_words(i64::try_from(ahead).unwrap_or(i64::MAX));
            return Some(format!(
                "that incarnation lies {words} of the clock of seed {}: look at that clock and at \
                 that of {}",
                self.config.me, change.peer
            ));
        }
        let same = record.filter(|record| record.incarnation == change.incarnation);
        match change.kind {
            ChangeKind::Join => match same.map(|record| record.status) {
                Some(Status::Dead) => Some("that incarnation is dead".to_owned()),
                Some(Status::Left) => Some("that incarnation has left".to_owned()),
                Some(Status::Alive) | None => None,
            },
            ChangeKind::Leave => match same.map(|record| record.status) {
                Some(Status::Dead) => Some("that incarnation is dead".to_owned()),
                _ => None,
            },
            ChangeKind::Dead => {
                if same.map(|record| record.status) != Some(Status::Alive) {
                    return Some("not a member in that incarnation".to_owned());
                }
                let reporters = self.registered_reporters(change);
                let needed = self.reporters_needed(&change.peer);
                (reporters < needed && !self.is_own_evidence(change))
                    .then(|| format!("{reporters} registered reporters, {needed} needed"))
            }
        }
    }

    /// Distinct reporters of a proposal that are members, those that reported here included.
    fn registered_reporters(&self, change: &Change) -> usize {
        let mut reporters: BTreeSet<Addr> = change.reporters.iter().copied().collect();
        if let Some(case) = self.cases.get(&(change.peer, change.incarnation)) {
            reporters.extend(case.reporters.iter());
        }
        reporters
            .iter()
            .filter(|reporter| **reporter != change.peer && self.registry.alive(reporter).is_some())
            .count()
    }

    /// Two, or as many as can exist: a member that is itself accused and not heard is not one that
    /// could report.
    pub(super) fn reporters_needed(&self, peer: &Addr) -> usize {
        let accused = |member: &Addr, incarnation| self.cases.contains_key(&(*member, incarnation));
        self.registry
            .members()
            .filter(|(member, record)| *member != peer && !accused(member, record.incarnation))
            .take(2)
            .count()
            .max(1)
    }

    /// The answer to a probe has come, or will not.
    pub(super) fn probed(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        result: Result<Welcome, OpenError>,
    ) {
        let Some(key) = self.probes.remove(&conn) else { return };
        let Some(Judgement { change, waiters, unanswered }) = self.judgements.remove(&key) else {
            return;
        };
        if let Some(record) = self.committed(&change).cloned() {
            // Another proposer was faster while the probe was under way.
            for Waiter { proposer, .. } in waiters {
                self.pass_on(turn, &proposer, change.peer, record.clone());
            }
            return;
        }
        if let Ok(welcome) = &result {
            self.clocks.met(turn, change.peer, welcome.clock);
        }
        let answered = result.as_ref().ok().filter(|welcome| {
            // Whatever else listens there now, it is not the peer.
            welcome.role == Role::Peer && welcome.from == change.peer
        });
        // The registry may have changed while the probe was under way.
        let outcome = match self.registry_objects(turn.now, &change) {
            Some(objection) => Err(objection),
            None if result == Err(OpenError::Local) => {
                Err("this seed is out of descriptors or memory and could not look".to_owned())
            }
            None => match change.kind {
                ChangeKind::Join => judge_join(&change, answered),
                ChangeKind::Leave => judge_leave(&change, answered),
                ChangeKind::Dead => judge_dead(answered, &result),
            },
        };
        if change.kind == ChangeKind::Dead
            && outcome.is_ok()
            && !unanswered
            && self.is_wave(turn.now)
        {
            self.judgements.insert(key, Judgement { change, waiters, unanswered: true });
            if result == Err(OpenError::Unreachable) {
                self.probe_for(turn, key);
            } else {
                self.timers.set(Timer::SecondProbe(key), turn.now + WAVE_PAUSE);
            }
            return;
        }
        self.conclude(turn, &change, waiters, outcome);
    }

    fn conclude(
        &mut self,
        turn: &mut SeedTurn<'_>,
        change: &Change,
        waiters: BTreeSet<Waiter>,
        outcome: Result<String, String>,
    ) {
        let known = self.registry.get(&change.peer).map_or(0, |record| record.incarnation);
        let accept = outcome.is_ok();
        let reason = outcome.unwrap_or_else(|reason| reason);
        let (on, peer, incarnation) = (change.kind, change.peer, change.incarnation);
        let words = format!("{incarnation} {accept} {reason}");
        let news = self.repeats.is_news(turn.now, on.words(), peer, &words);
        let reason_told = reason.clone();
        let vote = Event::Vote { on, peer, accept, reason: reason_told, incarnation };
        turn.log(vote.told_if(news));
        let verdict = Verdict { accept, reason, known };
        while let Some((at, key)) = self.verdicts_by_age.front().copied()
            && turn.now.since(at) >= VERDICT_LASTS
        {
            self.verdicts_by_age.pop_front();
            // It may have been given anew since.
            if self.verdicts.get(&key).is_some_and(|(newest, _)| *newest == at) {
                self.verdicts.remove(&key);
            }
        }
        if accept {
            let key = key(change);
            self.verdicts.insert(key, (turn.now, verdict.clone()));
            self.verdicts_by_age.push_back((turn.now, key));
        }
        for waiter in waiters {
            self.cast(turn, waiter, &verdict);
        }
    }

    /// Whether a judgement on that change is under way here.
    pub(super) fn is_judging(&self, key: &ChangeKey) -> bool {
        self.judgements.contains_key(key)
    }
}

fn judge_join(change: &Change, answered: Option<&Welcome>) -> Result<String, String> {
    match answered {
        None => Err("no answer at that address".to_owned()),
        Some(welcome) if welcome.leaving => Err("it is leaving".to_owned()),
        Some(welcome) if welcome.incarnation != change.incarnation => {
            Err(format!("answered in incarnation {}", welcome.incarnation))
        }
        Some(_) => Ok("answered the dial-back".to_owned()),
    }
}

fn judge_leave(change: &Change, answered: Option<&Welcome>) -> Result<String, String> {
    match answered {
        None => Err("no answer at that address".to_owned()),
        Some(welcome) if welcome.incarnation != change.incarnation => {
            Err(format!("answered in incarnation {}", welcome.incarnation))
        }
        Some(welcome) if !welcome.leaving => Err("it says that it is not leaving".to_owned()),
        Some(_) => Ok("it says so itself".to_owned()),
    }
}

fn judge_dead(
    answered: Option<&Welcome>,
    result: &Result<Welcome, OpenError>,
) -> Result<String, String> {
    if answered.is_some() {
        return Err("answered the probe".to_owned());
    }
    Ok(match result {
        Err(OpenError::Unreachable) => "probe: connection refused",
        Err(OpenError::TimedOut) => "probe: no answer in time",
        Ok(_) | Err(OpenError::Refused(_) | OpenError::Garbage | OpenError::Local) => {
            "probe: something else listens there"
        }
    }
    .to_owned())
}
