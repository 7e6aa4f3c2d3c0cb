//! The seed: keeps the registry, judges proposed changes, and agrees on them
//! with the other seeds by a leaderless majority (DESIGN.md, section 3).
//!
//! What must stay true: no record changes without accepts from a quorum of the
//! configured seeds, each given by that seed's own judgement; nothing is
//! answered before it is durable; every committed transition is logged once.
//!
//! `ballot` counts votes, `judge` gives this seed's own, `council` talks to the
//! other seeds, `desk` to the peers; this file holds them together.

mod ballot;
mod council;
mod desk;
mod judge;
mod recovery;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::ballot::{Asker, Ballot, ChangeKey, Count, SeedNumber, Stage, key};
use self::council::Colleague;
use self::judge::{Judgement, Verdict, Waiter};
use self::recovery::Look;
use super::config::{Flaw, SeedConfig};
use super::event::{Event, Severity};
use super::machine::{Command, Conn, Effect, Input, Machine, OpenError};
use super::message::{
    Addr, Change, ChangeKind, Hello, Incarnation, Message, Purpose, Refused, Role, Welcome,
};
use super::registry::{Merge, Record, Registry, Status};
use super::time::Time;
use super::timers::Timers;
use super::turn::Turn;

/// How long a ballot waits beyond the probe that each voter may need. Shorter than what a peer
/// waits for its seed, so that the peer hears a reason and not silence.
const VOTE_MARGIN: Duration = Duration::from_millis(400);
/// How long a ballot waits when a quorum of the seeds is not even connected: long enough for seeds
/// that start together, short enough to be told within a second.
const NO_QUORUM_PATIENCE: Duration = Duration::from_millis(600);
/// How long a dead-node case stays open without becoming a commit.
const CASE_LIFETIME: Duration = Duration::from_secs(60);
/// Open dead-node cases; reports beyond are dropped and come again.
const MAX_CASES: usize = 8_192;
/// Ballots that may be open at the same time; requests beyond are denied.
const MAX_BALLOTS: usize = 8_192;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Dial another seed again.
    Redial(Addr),
    /// Compare registries with the other seeds.
    Compare,
    /// Tell connected peers of changed records.
    Push,
    /// A ballot's deadline.
    Ballot(u64),
    /// A dead-node case runs out.
    Case(Addr, Incarnation),
    /// Look again at recovered members that did not answer.
    Look,
}

/// What an open connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// This seed dialled another: what comes over it is that seed's word, because this seed chose
    /// the address.
    ToSeed(Addr),
    /// Another seed, or somebody who says so, dialled this one: things may be said to it, and
    /// nothing that comes from it is believed.
    FromSeed(Addr),
    /// A peer.
    FromPeer { peer: Addr, heard: Time },
}

/// Reports on one incarnation of one peer.
#[derive(Clone, Debug, Default)]
struct Case {
    reporters: BTreeSet<Addr>,
}

/// What is done once a record is durable.
#[derive(Clone, Debug)]
struct Pending {
    peer: Addr,
    record: Record,
    /// Another seed's ballot that waits for the word.
    tell: Option<Waiter>,
}

/// A seed.
#[derive(Clone, Debug)]
pub struct SeedMachine {
    config: SeedConfig,
    me: SeedNumber,
    rng: SmallRng,
    registry: Registry,
    /// Digest over all statuses, until a record changes.
    status_digest: Option<[u8; 32]>,
    lines: BTreeMap<Conn, Line>,
    conns_used: Conn,
    colleagues: BTreeMap<Addr, Colleague>,
    ballots: BTreeMap<u64, Ballot>,
    ballot_of: BTreeMap<ChangeKey, u64>,
    ballots_used: u64,
    judgements: BTreeMap<ChangeKey, Judgement>,
    probes: BTreeMap<Conn, ChangeKey>,
    /// Changes that this seed has just accepted.
    verdicts: BTreeMap<ChangeKey, (Time, Verdict)>,
    cases: BTreeMap<(Addr, Incarnation), Case>,
    pending: BTreeMap<u64, Vec<Pending>>,
    batches_used: u64,
    changed: BTreeSet<Addr>,
    /// Recovered members: still to be looked at, being looked at, and those that did not answer.
    to_look: Vec<Look>,
    looks: BTreeMap<Conn, Look>,
    unanswered: Vec<Look>,
    timers: Timers<Timer>,
}

impl SeedMachine {
    /// A seed with an empty registry. `rng_seed` decides everything that is left to chance.
    pub fn new(config: SeedConfig, rng_seed: u64) -> Self {
        let seeds = config.network.seeds();
        let place = seeds.iter().position(|seed| *seed == config.me);
        let colleagues = seeds
            .iter()
            .filter(|seed| **seed != config.me)
            .map(|seed| (*seed, Colleague::default()))
            .collect();
        Self {
            me: place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX),
            rng: SmallRng::seed_from_u64(rng_seed),
            registry: Registry::new(),
            status_digest: None,
            lines: BTreeMap::new(),
            conns_used: 0,
            colleagues,
            ballots: BTreeMap::new(),
            ballot_of: BTreeMap::new(),
            ballots_used: 0,
            judgements: BTreeMap::new(),
            probes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            cases: BTreeMap::new(),
            pending: BTreeMap::new(),
            batches_used: 0,
            changed: BTreeSet::new(),
            to_look: Vec::new(),
            looks: BTreeMap::new(),
            unanswered: Vec::new(),
            timers: Timers::default(),
            config,
        }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn next_conn(&mut self) -> Conn {
        self.conns_used += 2;
        self.conns_used
    }

    fn hello(&self, purpose: Purpose) -> Hello {
        self.config.network.hello(Role::Seed, self.config.me, 0, purpose)
    }

    fn seeds(&self) -> usize {
        self.config.network.seeds().len()
    }

    /// The quorum: of all configured seeds, reachable or not.
    fn quorum(&self) -> usize {
        match self.config.flaw {
            Flaw::ReachableQuorum => self.reachable() / 2 + 1,
            _ => self.config.network.quorum(),
        }
    }

    /// This seed and those that are connected to it.
    fn reachable(&self) -> usize {
        1 + self.colleagues.values().filter(|colleague| colleague.hears_us()).count()
    }

    fn number_of(&self, seed: &Addr) -> Option<SeedNumber> {
        let place = self.config.network.seeds().binary_search(seed).ok()?;
        u16::try_from(place).ok()
    }

    /// Proposes a change, or joins the ballot on it that is open.
    fn propose(&mut self, turn: &mut Turn<'_>, change: Change, asker: Option<Asker>) {
        let key = key(&change);
        if let Some(ballot) =
            self.ballot_of.get(&key).and_then(|number| self.ballots.get_mut(number))
        {
            ballot.askers.extend(asker);
            return;
        }
        if self.ballots.len() >= MAX_BALLOTS {
            if let Some(Asker { conn, request }) = asker {
                let reason = "too many open proposals; try again".to_owned();
                turn.send(conn, Message::Denied { request, votes: 0, reason, known: 0 });
            }
            return;
        }
        match change.kind {
            ChangeKind::Join => turn.log(Event::RegistrationProposed {
                peer: change.peer,
                incarnation: change.incarnation,
            }),
            ChangeKind::Dead => turn.log(Event::DeadNodeProposed {
                peer: change.peer,
                reporters: change.reporters.clone(),
                incarnation: change.incarnation,
            }),
            ChangeKind::Leave => {}
        }
        self.ballots_used += 1;
        let number = self.ballots_used;
        let mut ballot = Ballot::new(change.clone());
        ballot.askers.extend(asker);
        let patience = if self.reachable() < self.quorum() {
            NO_QUORUM_PATIENCE
        } else {
            self.config.probe_timeout + VOTE_MARGIN
        };
        self.timers.set(Timer::Ballot(number), turn.now + patience);
        self.ballots.insert(number, ballot);
        self.ballot_of.insert(key, number);
        // To all at once: asked one after another, a single dead seed uses up the asker's patience.
        let proposal = Message::Propose { ballot: number, change: change.clone() };
        self.tell_all(turn, proposal);
        self.judge(turn, change, Waiter { proposer: self.config.me, ballot: number });
    }

    /// Gives a verdict to whoever waits for it.
    fn cast(&mut self, turn: &mut Turn<'_>, waiter: Waiter, verdict: &Verdict) {
        let Verdict { accept, reason, known } = verdict.clone();
        if waiter.proposer == self.config.me {
            self.count_vote(turn, waiter.ballot, self.me, accept, reason, known);
        } else {
            let vote = Message::Vote { ballot: waiter.ballot, accept, reason, known };
            self.tell(turn, &waiter.proposer, vote);
        }
    }

    fn count_vote(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        voter: SeedNumber,
        accept: bool,
        reason: String,
        known: Incarnation,
    ) {
        let (seeds, quorum) = (self.seeds(), self.quorum());
        let Some(ballot) = self.ballots.get_mut(&number) else { return };
        let vote = if accept { Ok(()) } else { Err(reason) };
        match ballot.count(voter, vote, known, seeds, quorum) {
            Count::Open => {}
            Count::Lost => self.reject(turn, number),
            Count::Accepted(record) => {
                let peer = ballot.change.peer;
                let deadline = turn.now + self.config.probe_timeout + VOTE_MARGIN;
                self.timers.set(Timer::Ballot(number), deadline);
                let tell = Some(Waiter { proposer: self.config.me, ballot: number });
                self.persist(turn, vec![Pending { peer, record, tell }]);
            }
        }
    }

    /// Ends a ballot without a commit, and tells those who asked for it.
    fn reject(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(ballot) = self.close_ballot(number) else { return };
        let (peer, votes, of) = (ballot.change.peer, ballot.accepts.len(), self.seeds());
        let reason = match ballot.stage {
            Stage::Voting => ballot.reason(self.config.network.seeds(), self.quorum()),
            Stage::Committing { durable, .. } => {
                format!("accepted, but only {} of {of} seeds have it on disk", durable.len())
            }
        };
        let event = |reason| match ballot.change.kind {
            ChangeKind::Join => Event::RegistrationRejected { peer, votes, of, reason },
            ChangeKind::Leave => Event::LeaveRejected { peer, votes, of, reason },
            ChangeKind::Dead => Event::DeadNodeRejected { peer, votes, of, reason },
        };
        turn.log(event(reason.clone()));
        if ballot.change.kind == ChangeKind::Dead {
            // Only fresh reports open the case again.
            self.close_case(peer, ballot.change.incarnation);
        }
        for Asker { conn, request } in ballot.askers {
            let votes = u32::try_from(votes).unwrap_or(u32::MAX);
            let known = ballot.known;
            turn.send(conn, Message::Denied { request, votes, reason: reason.clone(), known });
        }
    }

    fn close_ballot(&mut self, number: u64) -> Option<Ballot> {
        let ballot = self.ballots.remove(&number)?;
        self.ballot_of.remove(&key(&ballot.change));
        self.timers.cancel(&Timer::Ballot(number));
        Some(ballot)
    }

    fn close_case(&mut self, peer: Addr, incarnation: Incarnation) {
        self.cases.remove(&(peer, incarnation));
        self.timers.cancel(&Timer::Case(peer, incarnation));
    }

    /// Asks the host to make records durable; what follows from them waits until it has.
    fn persist(&mut self, turn: &mut Turn<'_>, pending: Vec<Pending>) {
        self.batches_used += 1;
        let batch = self.batches_used;
        let records = pending.iter().map(|p| (p.peer, p.record.clone())).collect();
        self.pending.insert(batch, pending);
        turn.effects.push(Effect::Persist { batch, records });
    }

    fn persisted(&mut self, turn: &mut Turn<'_>, batch: u64) {
        for Pending { peer, record, tell } in self.pending.remove(&batch).unwrap_or_default() {
            self.take_in(turn, peer, record.clone());
            match tell {
                Some(Waiter { proposer, ballot }) if proposer == self.config.me => {
                    // Only now: nothing is committed to others before it is durable here.
                    self.tell_all(turn, Message::Commit { ballot, peer, record });
                    self.count_durable(turn, ballot, self.me);
                }
                Some(Waiter { proposer, ballot }) => {
                    self.tell(turn, &proposer, Message::Committed { ballot });
                }
                None => {}
            }
        }
    }

    /// A seed has a ballot's record on disk; with a quorum of those the askers are answered.
    fn count_durable(&mut self, turn: &mut Turn<'_>, number: u64, seed: SeedNumber) {
        let quorum = self.quorum();
        let Some(ballot) = self.ballots.get_mut(&number) else { return };
        let Stage::Committing { durable, .. } = &mut ballot.stage else { return };
        durable.insert(seed);
        if durable.len() < quorum {
            return;
        }
        let Some(ballot) = self.close_ballot(number) else { return };
        for Asker { conn, request } in &ballot.askers {
            self.grant(turn, *conn, *request, ballot.change.kind, ballot.accepts.len());
        }
    }

    /// Takes a durable record into the registry, and logs the transition that it is.
    fn take_in(&mut self, turn: &mut Turn<'_>, peer: Addr, record: Record) {
        let (votes, of) = (record.voters.len(), self.seeds());
        let (incarnation, status) = (record.incarnation, record.status);
        let merge = if self.config.flaw == Flaw::UnversionedRegistry {
            let known = self.registry.get(&peer);
            let same = known.is_some_and(|known| known.same_transition(&record));
            self.registry.replace(peer, record);
            if same { Merge::Detail } else { Merge::Transition }
        } else {
            self.registry.merge(peer, record)
        };
        if merge != Merge::Nothing {
            self.status_digest = None;
        }
        if merge != Merge::Transition {
            return;
        }
        turn.log(match status {
            Status::Alive => Event::RegistrationCommitted { peer, incarnation, votes, of },
            Status::Left => Event::LeaveCommitted { peer, votes, of, incarnation },
            Status::Dead => Event::DeadNodeCommitted { peer, votes, of, incarnation },
        });
        turn.log(Event::PeerList { size: self.registry.size() });
        let settled: Vec<_> = self
            .cases
            .range((peer, 0)..=(peer, incarnation))
            .map(|(case, _)| *case)
            .filter(|(_, accused)| *accused < incarnation || status != Status::Alive)
            .collect();
        for (peer, incarnation) in settled {
            self.close_case(peer, incarnation);
        }
        self.changed.insert(peer);
        if status == Status::Left {
            // Nobody is to look for it in vain.
            self.timers.set(Timer::Push, turn.now);
        } else {
            self.timers.set_if_unset(Timer::Push, turn.now + desk::PUSH_DELAY);
        }
        let kind = match status {
            Status::Alive => ChangeKind::Join,
            Status::Left => ChangeKind::Leave,
            Status::Dead => ChangeKind::Dead,
        };
        self.settle(turn, (kind, peer, incarnation), votes);
    }

    /// A change was committed: if there is a ballot on it here that is still voting, another
    /// proposer was faster, and those who wait for it have what they want.
    fn settle(&mut self, turn: &mut Turn<'_>, key: ChangeKey, votes: usize) {
        let Some(number) = self.ballot_of.get(&key).copied() else { return };
        if self.ballots.get(&number).is_none_or(|ballot| ballot.stage != Stage::Voting) {
            return;
        }
        let Some(ballot) = self.close_ballot(number) else { return };
        for Asker { conn, request } in ballot.askers {
            self.grant(turn, conn, request, key.0, votes);
        }
    }

    /// Whether a record names a quorum of distinct configured seeds.
    fn is_authorised(&self, record: &Record) -> bool {
        let ascending = record.voters.windows(2).all(|pair| pair[0] < pair[1]);
        let configured = record.voters.last().is_some_and(|last| usize::from(*last) < self.seeds());
        ascending && configured && record.voters.len() >= self.quorum()
    }

    fn incoming(&mut self, turn: &mut Turn<'_>, conn: Conn, hello: &Hello) {
        let refused = match (hello.purpose, hello.role) {
            _ if hello.from == self.config.me => Some(Refused::Myself),
            (Purpose::Probe, _) | (Purpose::Membership, Role::Peer) => None,
            (Purpose::Council, Role::Seed) if self.colleagues.contains_key(&hello.from) => None,
            _ => Some(Refused::WrongRole),
        };
        if let Some(reason) = refused {
            let keys =
                vec![("from", hello.from.to_string()), ("reason", reason.words().to_owned())];
            turn.note(Severity::Warn, "link refused", keys);
            turn.refuse(conn, reason, Vec::new());
            return;
        }
        let me = self.config.me;
        let welcome = Welcome { role: Role::Seed, from: me, incarnation: 0, leaving: false };
        turn.welcome(conn, welcome);
        match hello.purpose {
            Purpose::Membership => {
                let line = Line::FromPeer { peer: hello.from, heard: turn.now };
                self.lines.insert(conn, line);
            }
            Purpose::Council => self.colleague_calls(turn, conn, hello.from),
            _ => turn.close(conn),
        }
    }

    fn received(&mut self, turn: &mut Turn<'_>, conn: Conn, message: Message) {
        let Some(line) = self.lines.get(&conn).copied() else { return };
        if let Message::Ping(number) = message {
            turn.send(conn, Message::Pong(number));
            return;
        }
        let understood = match line {
            Line::ToSeed(seed) => self.hear_seed(turn, seed, message),
            Line::FromPeer { peer, .. } => {
                self.lines.insert(conn, Line::FromPeer { peer, heard: turn.now });
                self.hear_peer(turn, conn, peer, message)
            }
            Line::FromSeed(_) => false,
        };
        if !understood {
            let who = match line {
                Line::ToSeed(addr) | Line::FromSeed(addr) => addr,
                Line::FromPeer { peer, .. } => peer,
            };
            let keys = vec![
                ("from", who.to_string()),
                ("reason", "message not allowed on this link".to_owned()),
            ];
            turn.note(Severity::Warn, "link closed", keys);
            turn.close(conn);
            self.line_down(turn, conn);
        }
    }

    fn line_down(&mut self, turn: &mut Turn<'_>, conn: Conn) {
        match self.lines.remove(&conn) {
            Some(Line::ToSeed(seed) | Line::FromSeed(seed)) => {
                self.colleague_lost(turn, conn, seed);
            }
            Some(Line::FromPeer { .. }) | None => {}
        }
    }

    fn open_result(&mut self, turn: &mut Turn<'_>, conn: Conn, result: Result<Welcome, OpenError>) {
        if self.probes.contains_key(&conn) {
            if result.is_ok() {
                turn.close(conn);
            }
            self.probed(turn, conn, result);
        } else if self.looks.contains_key(&conn) {
            if result.is_ok() {
                turn.close(conn);
            }
            self.looked(turn, conn, result);
        } else {
            self.colleague_answers(turn, conn, result);
        }
    }

    fn fire(&mut self, turn: &mut Turn<'_>, timer: Timer) {
        match timer {
            Timer::Redial(seed) => self.dial(turn, seed),
            Timer::Compare => self.compare(turn),
            Timer::Push => self.push(turn),
            Timer::Look => self.look_again(turn),
            Timer::Ballot(number) => self.reject(turn, number),
            Timer::Case(peer, incarnation) => {
                self.cases.remove(&(peer, incarnation));
            }
        }
    }
}

impl Machine for SeedMachine {
    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        let turn = &mut Turn { now, effects };
        match input {
            Input::Start => {
                // A late vote on a ballot of a former life must not count for one of this life.
                self.ballots_used = now.micros();
                turn.log(Event::SeedListening { quorum: self.quorum(), of: self.seeds() });
                self.call_colleagues(turn);
                self.look_at_members(turn);
            }
            Input::Incoming { conn, hello } => self.incoming(turn, conn, &hello),
            Input::Opened { conn, welcome } => self.open_result(turn, conn, Ok(welcome)),
            Input::OpenFailed { conn, error } => self.open_result(turn, conn, Err(error)),
            Input::Received { conn, message } => self.received(turn, conn, message),
            Input::Closed { conn } => self.line_down(turn, conn),
            Input::Congested { .. } | Input::Relieved { .. } => {}
            Input::Tick => {}
            Input::Persisted { batch } => self.persisted(turn, batch),
            Input::Command(Command::Leave) => turn.effects.push(Effect::Stopped),
            Input::Command(Command::Publish { .. }) => {}
        }
        while let Some((_, timer)) = self.timers.due(now) {
            self.fire(turn, timer);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        self.timers.next()
    }
}

#[cfg(test)]
mod tests;
