//! A seed's own judgement of a proposed change (DESIGN.md, section 3).
//!
//! What must stay true: a yes rests on a probe that this seed has made itself, so forged reports of
//! however many liars remove nobody who answers. For a join the peer must answer at the address and
//! in the incarnation that it claims. For a death there must be reporters, or a seed's own finding,
//! *and* this seed's probe must fail. For a leave the peer itself must say that it is leaving. A no
//! needs no probe if the registry speaks against the change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::ballot::{ChangeKey, Waiter, key};
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Change, ChangeKind, Incarnation, Role, Welcome};
use crate::proto::registry::Registry;
use crate::proto::time::Time;
use crate::proto::timers::Timers;

mod places;

use self::places::{Places, Turn};

/// Deaths that may wait for a probe at the same time; further ones get a no at once. They have
/// places of their own: only members report deaths, but anybody may ask to be registered.
const MAX_DEATHS: usize = 4_096;
/// Members accused within one suspect timeout are a wave if they are at least this many and more
/// than a third of all. Two crashes in a small network are just two crashes.
const WAVE: usize = 3;
/// Those accused too long ago are forgotten so often within a suspect timeout.
const ACCUSED_STEPS: u32 = 32;
/// Pause between the two probes of a voter in a wave, if the first got no answer at all: long
/// enough for a fault of the voter's own network to pass, or to be seen. A refused connection is an
/// answer, and shows that the voter's network works: then the second probe follows at once.
pub(super) const WAVE_PAUSE: Duration = Duration::from_secs(1);
/// How long a yes is given again without another probe or line in the log. Seeds that propose the
/// same change at the same time both ask for it.
const VERDICT_LASTS: Duration = Duration::from_secs(1);

/// Why a seed votes no when too many wait for a probe.
pub(super) const TOO_MANY_OPEN: &str = "too many open proposals";

/// A judgement that waits for its probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Judgement {
    pub change: Change,
    pub waiters: BTreeSet<Waiter>,
    /// Whether this is a wave and the first probe has failed, so that the next one decides.
    unanswered: bool,
}

/// A vote: yes or no, the reason, and the greatest incarnation of the peer that the voter knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Verdict {
    pub accept: bool,
    pub reason: String,
    pub known: Incarnation,
}

/// What has to be done about a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Give this verdict again, which is a moment old.
    Again(Verdict),
    /// Vote so: no probe is needed.
    Decided(Result<String, String>),
    /// Vote no: too many wait for a probe.
    Full,
    /// Probe the member.
    Probe,
}

/// What has to be done about somebody who waits to join or to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Probe it now.
    Probe(ChangeKey),
    /// Vote so, and close this probe if there is one.
    Decided(Judgement, &'static str, Option<Conn>),
}

/// What has to be done about a probe that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// Vote so.
    Decided(Judgement, Result<String, String>),
    /// Probe a second time at once, since one failed probe is not enough in a wave.
    Again(ChangeKey),
    /// Wait for the timer of the second probe.
    Later,
}

/// The judgements of a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Judge {
    judgements: BTreeMap<ChangeKey, Judgement>,
    probes: BTreeMap<Conn, ChangeKey>,
    /// The probes of those who want to join or leave.
    places: Places,
    /// Changes that this seed has just accepted, and when.
    verdicts: BTreeMap<ChangeKey, (Time, Verdict)>,
    verdicts_by_age: VecDeque<(Time, ChangeKey)>,
    /// Members accused of late, and when they last were.
    accused: BTreeMap<Addr, Time>,
    /// When those accused too long ago were last forgotten.
    forgiven: Time,
    /// When to probe a member that was accused in a wave for the second time.
    timers: Timers<ChangeKey>,
}

impl Judge {
    /// When the next second probe is due, or the next turn of who waits.
    pub fn wake_at(&self) -> Option<Time> {
        [self.timers.next(), self.places.wake_at()].into_iter().flatten().min()
    }

    /// Takes a second probe that is due, if its judgement is still open.
    pub fn due(&mut self, now: Time) -> Option<ChangeKey> {
        let (_, key) = self.timers.due(now)?;
        self.judgements.contains_key(&key).then_some(key)
    }

    /// Whether a judgement of that change waits for its probe.
    pub fn is_judging(&self, key: &ChangeKey) -> bool {
        self.judgements.contains_key(key)
    }

    /// Whether a connection is a probe.
    pub fn is_probe(&self, conn: Conn) -> bool {
        self.probes.contains_key(&conn)
    }

    /// Adds a waiter and its reporters to an open judgement of the same change. Returns false if
    /// none is open.
    pub fn join(&mut self, change: &Change, waiter: Waiter) -> bool {
        let Some(judgement) = self.judgements.get_mut(&key(change)) else { return false };
        for reporter in &change.reporters {
            if !judgement.change.reporters.contains(reporter) {
                judgement.change.reporters.push(*reporter);
            }
        }
        judgement.waiters.insert(waiter);
        true
    }

    /// Begins a judgement, given what the registry has against the change. `rubber_stamp` is a
    /// defect that tests plant.
    pub fn begin(
        &mut self,
        now: Time,
        change: &Change,
        objection: Option<String>,
        rubber_stamp: bool,
    ) -> Begun {
        if let Some((at, verdict)) = self.verdicts.get(&key(change))
            && now.since(*at) < VERDICT_LASTS
            && objection.is_none()
        {
            return Begun::Again(verdict.clone());
        }
        if rubber_stamp {
            return Begun::Decided(Ok("planted flaw".to_owned()));
        }
        if !self.has_room(change.kind) {
            return Begun::Full;
        }
        if let Some(objection) = objection {
            return Begun::Decided(Err(objection));
        }
        if change.kind == ChangeKind::Dead {
            self.accused.insert(change.peer, now);
        }
        Begun::Probe
    }

    fn has_room(&self, kind: ChangeKind) -> bool {
        if kind == ChangeKind::Dead { self.deaths() < MAX_DEATHS } else { self.places.has_room() }
    }

    /// Whether there is room to judge deaths that seeds find themselves. These leave half of the places
    /// to those that members report, and wait until there is room.
    pub fn has_room_for_own(&self) -> bool {
        self.deaths() < MAX_DEATHS / 2
    }

    fn deaths(&self) -> usize {
        let deaths = self.judgements.keys().filter(|key| key.0 == ChangeKind::Dead);
        deaths.take(MAX_DEATHS).count()
    }

    /// Notes that a probe goes out over that connection.
    pub fn probe(&mut self, now: Time, conn: Conn, key: ChangeKey) {
        self.probes.insert(conn, key);
        if key.0 != ChangeKind::Dead {
            self.places.hold(now, conn);
        }
    }

    /// Keeps a judgement until its probe ends. Returns whether to begin that probe now; if not, its
    /// turn comes later.
    pub fn wait(&mut self, now: Time, change: Change, waiter: Waiter) -> bool {
        let (key, waiters) = (key(&change), BTreeSet::from([waiter]));
        self.judgements.insert(key, Judgement { change, waiters, unanswered: false });
        if key.0 == ChangeKind::Dead || self.places.is_free() {
            return true;
        }
        self.places.wait(now, key);
        false
    }

    /// Takes out whose turn it is of those who wait to join or to leave.
    pub fn next(&mut self, now: Time) -> Option<Next> {
        loop {
            let (key, reason, conn) = match self.places.next(now)? {
                Turn::Probe(key) => return Some(Next::Probe(key)),
                Turn::TooLate(key) => (Some(key), TOO_MANY_OPEN, None),
                Turn::GivesWay(conn) => {
                    let reason = "no answer at that address while others waited";
                    (self.probes.remove(&conn), reason, Some(conn))
                }
            };
            if let Some(judgement) = key.and_then(|key| self.judgements.remove(&key)) {
                return Some(Next::Decided(judgement, reason, conn));
            }
        }
    }

    /// Whether so many members were accused within one suspect timeout that this seed or its own
    /// network may be at fault. Then one failed probe is not enough.
    fn is_wave(&mut self, now: Time, window: Duration, registry: &Registry) -> bool {
        // In a wave of thousands, to go through all of them for each would be most of the work.
        if now.since(self.forgiven) >= window / ACCUSED_STEPS {
            self.forgiven = now;
            self.accused.retain(|_, at| now.since(*at) < window);
        }
        // All of them may be gone by now.
        if self.accused.len() >= WAVE && self.accused.len() * 2 > registry.size() {
            return true;
        }
        let gone = self.accused.keys().filter(|peer| registry.alive(peer).is_none()).count();
        self.accused.len() >= WAVE && self.accused.len() * 3 > registry.size() + gone
    }

    /// Takes the judgement to which a probe belongs.
    pub fn take(&mut self, conn: Conn) -> Option<Judgement> {
        self.places.free(conn);
        let key = self.probes.remove(&conn)?;
        self.judgements.remove(&key)
    }

    /// Decides by a probe that has ended. `objection` is what the registry has against the change
    /// now, as it may have changed since the probe began.
    pub fn probed(
        &mut self,
        now: Time,
        judgement: Judgement,
        result: &Result<Welcome, OpenError>,
        objection: Option<String>,
        (window, registry): (Duration, &Registry),
    ) -> Probed {
        let change = &judgement.change;
        let answered = result.as_ref().ok().filter(|welcome| {
            // If something else listens at that address now, the peer itself did not answer.
            let owner = registry.alive(&change.peer).filter(|_| change.kind != ChangeKind::Join);
            welcome.is_of(Role::Peer, change.peer)
                && owner.is_none_or(|record| record.can_be(welcome.identity))
        });
        let outcome = match objection {
            Some(objection) => Err(objection),
            None if *result == Err(OpenError::Local) => {
                Err("this seed is out of descriptors or memory and could not look".to_owned())
            }
            None => match change.kind {
                ChangeKind::Join => judge_join(change, answered),
                ChangeKind::Leave => judge_leave(change, answered),
                ChangeKind::Dead => judge_dead(answered, result),
            },
        };
        let kind = change.kind;
        if kind != ChangeKind::Dead
            || outcome.is_err()
            || judgement.unanswered
            || !self.is_wave(now, window, registry)
        {
            return Probed::Decided(judgement, outcome);
        }
        let key = key(change);
        self.judgements.insert(key, Judgement { unanswered: true, ..judgement });
        if *result == Err(OpenError::Unreachable) {
            return Probed::Again(key);
        }
        self.timers.set(key, now + WAVE_PAUSE);
        Probed::Later
    }

    /// Remembers a verdict if it is a yes, and drops those that no longer last.
    pub fn remember(&mut self, now: Time, change: &Change, verdict: &Verdict) {
        while let Some((at, key)) = self.verdicts_by_age.front().copied()
            && now.since(at) >= VERDICT_LASTS
        {
            self.verdicts_by_age.pop_front();
            // The same yes may have been given again since, and then lasts longer.
            if self.verdicts.get(&key).is_some_and(|(newest, _)| *newest == at) {
                self.verdicts.remove(&key);
            }
        }
        if verdict.accept {
            let key = key(change);
            self.verdicts.insert(key, (now, verdict.clone()));
            self.verdicts_by_age.push_back((now, key));
        }
    }
}

fn judge_join(change: &Change, answered: Option<&Welcome>) -> Result<String, String> {
    match answered {
        None => Err("no answer at that address".to_owned()),
        Some(welcome) if welcome.leaving => Err("it is leaving".to_owned()),
        Some(welcome) if welcome.incarnation != change.incarnation => {
            Err(format!("answered in incarnation {}", welcome.incarnation))
        }
        Some(welcome) if welcome.identity != change.identity => {
            Err("another process answered there".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);

    fn change(kind: ChangeKind) -> Change {
        let peer = ([127, 0, 0, 1], 6000).into();
        Change { kind, peer, incarnation: 7, at: 1, reporters: Vec::new(), identity: None }
    }

    fn answer(role: Role, incarnation: Incarnation, leaving: bool) -> Result<Welcome, OpenError> {
        let from = ([127, 0, 0, 1], 6000).into();
        Ok(Welcome { role, from, incarnation, leaving, clock: 0, identity: None })
    }

    #[test]
    fn what_a_probe_says_of_each_kind_of_change() {
        use ChangeKind::{Dead, Join, Leave};
        let table = [
            (Join, answer(Role::Peer, 7, false), true),
            (Join, answer(Role::Peer, 8, false), false),
            (Join, answer(Role::Peer, 7, true), false),
            (Join, answer(Role::Seed, 7, false), false),
            (Join, Err(OpenError::TimedOut), false),
            (Leave, answer(Role::Peer, 7, true), true),
            (Leave, answer(Role::Peer, 7, false), false),
            (Leave, answer(Role::Peer, 8, true), false),
            (Leave, Err(OpenError::Unreachable), false),
            (Dead, Err(OpenError::Unreachable), true),
            (Dead, Err(OpenError::TimedOut), true),
            (Dead, answer(Role::Seed, 7, false), true),
            (Dead, answer(Role::Peer, 8, false), false),
            (Dead, Err(OpenError::Local), false),
        ];
        for (kind, result, accepts) in table {
            let (mut judge, change) = (Judge::default(), change(kind));
            judge.wait(NOW, change.clone(), Waiter { proposer: change.peer, ballot: 1 });
            judge.probe(NOW, 2, key(&change));
            let judgement = judge.take(2).unwrap();
            let context = (Duration::from_secs(1), &Registry::new());
            match judge.probed(NOW, judgement, &result, None, context) {
                Probed::Decided(_, outcome) => {
                    assert_eq!(outcome.is_ok(), accepts, "{kind:?}, {result:?}: {outcome:?}");
                }
                other => panic!("{kind:?}, {result:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_yes_is_given_again_for_a_moment_unless_the_registry_objects() {
        let (mut judge, change) = (Judge::default(), change(ChangeKind::Join));
        let verdict = Verdict { accept: true, reason: "yes".to_owned(), known: 0 };
        judge.remember(NOW, &change, &verdict);
        assert_eq!(judge.begin(NOW, &change, None, false), Begun::Again(verdict));
        let objection = Some("known in a later life".to_owned());
        assert!(matches!(judge.begin(NOW, &change, objection, false), Begun::Decided(Err(_))));
        assert_eq!(judge.begin(NOW + VERDICT_LASTS, &change, None, false), Begun::Probe);
    }

    #[test]
    fn in_a_wave_one_failed_probe_is_not_enough() {
        let mut judge = Judge::default();
        let mut probe = |port: u16, result: Result<Welcome, OpenError>| {
            let mut change = change(ChangeKind::Dead);
            change.peer = ([127, 0, 0, 1], port).into();
            assert_eq!(judge.begin(NOW, &change, None, false), Begun::Probe);
            judge.wait(NOW, change.clone(), Waiter { proposer: change.peer, ballot: 1 });
            judge.probe(NOW, u64::from(port), key(&change));
            let judgement = judge.take(u64::from(port)).unwrap();
            let context = (Duration::from_secs(1), &Registry::new());
            judge.probed(NOW, judgement, &result, None, context)
        };
        for port in 1..3 {
            assert!(matches!(probe(port, Err(OpenError::TimedOut)), Probed::Decided(_, Ok(_))));
        }
        assert_eq!(probe(3, Err(OpenError::TimedOut)), Probed::Later);
        assert!(matches!(probe(4, Err(OpenError::Unreachable)), Probed::Again(_)));
    }
}
