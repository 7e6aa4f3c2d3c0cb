//! The seed: keeps the registry, judges proposed changes, and agrees on them
//! with the other seeds by a leaderless majority (DESIGN.md, section 3).
//!
//! What must stay true: no record changes without accepts from a quorum of the configured seeds,
//! each given by that seed's own judgement; nothing is answered before it is durable; every
//! committed transition is logged once.
//!
//! The machine is made of parts, none of which knows another. `roster` (with `proofs`) says who the
//! seeds are and what they have signed, `sessions` what each connection is for, `colleagues` how to reach the other seeds. `book` (with
//! `tree`) is the registry, and `durability` knows what is on disk. `polls` counts the votes of
//! each `ballot`, `judge` (with `places`) gives this seed's own vote, `cases` gathers reports of
//! deaths, `standing` says when this seed may vote. `recovery` probes members after a restart,
//! `attendance` says who was not heard of for long and is to be probed as well, `expiry` drops members long gone, `pushes` tells peers of changes; `links` and `history` keep
//! what operators ask for.
//!
//! Only the machine hands what one part says to the next. `voting` takes a change from the request
//! to the answer, `council` hears the other seeds, `desk` hears the peers, `disk` does what waited
//! for something to be durable; each of these calls only those named before it. This file takes in
//! connections and the time, and has recovered members probed.

mod attendance;
mod ballot;
mod book;
mod cases;
mod colleagues;
mod council;
mod desk;
mod disk;
mod durability;
mod expiry;
mod history;
mod judge;
mod links;
pub mod message;
mod polls;
mod proofs;
mod pushes;
mod recovery;
mod roster;
mod sessions;
mod standing;
mod tree;
mod voting;

use std::convert::Infallible;
use std::sync::Arc;

use self::attendance::Attendance;
use self::book::Book;
use self::cases::Cases;
use self::colleagues::Colleagues;
use self::durability::Durability;
use self::expiry::Expiry;
use self::history::History;
use self::judge::Judge;
use self::links::Links;
use self::polls::Polls;
use self::pushes::Pushes;
use self::recovery::Recovery;
use self::roster::Roster;
use self::sessions::{Caller, Session, Sessions};
use self::standing::Foothold;
use super::clocks::Clocks;
use super::config::SeedConfig;
use super::event::{Event, Severity};
use super::machine::{Conn, EffectOf, Input, Machine, OpenError};
use super::message::{
    Addr, Breach, Change, ChangeKind, Decision, Hello, Identity, Message, Purpose, Refused, Role,
    Standing, Welcome,
};
use super::planted::Flaw;
use super::registry::{Record, Registry};
use super::repeats::{Allowance, Repeats};
use super::roles::{Keep, SeedCommand};
use super::signature::{Signature, Signer};
use super::time::Time;
use super::topology::Topology;
use super::turn::SeedTurn;
use super::uncompared::Uncompared;

/// Care for members of whom no message comes: those recovered from disk, those that are silent, and
/// those long gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Upkeep {
    recovery: Recovery,
    attendance: Attendance,
    expiry: Expiry,
}

/// What a seed shows to operators and writes to its log. No decision depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Shown {
    history: History,
    links: Links,
    clocks: Uncompared<Clocks>,
    repeats: Uncompared<Repeats>,
    /// Lines about those that are no members.
    strangers: Uncompared<Allowance>,
}

/// A seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeedMachine {
    roster: Roster,
    sessions: Sessions,
    colleagues: Colleagues,
    book: Book,
    durability: Durability,
    polls: Polls,
    judge: Judge,
    cases: Cases,
    foothold: Foothold,
    pushes: Pushes,
    upkeep: Upkeep,
    shown: Shown,
}

/// The parts that have timers. Timers due at the same time go off in this order.
#[derive(Clone, Copy, Debug)]
enum Part {
    Colleagues,
    Pushes,
    Polls,
    Cases,
    Recovery,
    Foothold,
    Judge,
    Expiry,
}

impl SeedMachine {
    /// Makes a seed with an empty registry. `rng_seed` fixes every random choice.
    pub fn new(config: SeedConfig, rng_seed: u64) -> Self {
        let roster = Roster::new(config);
        let others = roster.seeds().iter().copied().filter(|seed| *seed != roster.me());
        Self {
            colleagues: Colleagues::new(others, rng_seed),
            sessions: Sessions::default(),
            book: Book::default(),
            durability: Durability::default(),
            polls: Polls::default(),
            judge: Judge::default(),
            cases: Cases::default(),
            foothold: Foothold::default(),
            pushes: Pushes::default(),
            upkeep: Upkeep::default(),
            shown: Shown::default(),
            roster,
        }
    }

    /// Gives the seed what it had on disk: its standing, the marks of its founding and its records.
    /// The records are not news, so the seed logs no transition for them.
    #[must_use]
    pub fn recovered(
        mut self,
        standing: Standing,
        founders: impl IntoIterator<Item = u64>,
        records: impl IntoIterator<Item = (Addr, Record)>,
    ) -> Self {
        self.book.recover(records);
        self.durability.recovers(!self.book.registry().is_empty());
        self.foothold.recover(standing, founders);
        self
    }

    /// Has the seed sign its votes, and believe others for theirs. `known` says who the other seeds
    /// are, as far as that is known before they are met.
    #[must_use]
    pub fn signing(
        mut self,
        signer: Arc<dyn Signer>,
        known: impl IntoIterator<Item = (Addr, Identity)>,
    ) -> Self {
        self.roster.sign_with(signer, known);
        self
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        self.book.registry()
    }

    /// Decisions about a member while this seed ran, oldest first.
    pub fn history(&self, peer: &Addr) -> impl Iterator<Item = &Decision> {
        self.shown.history.of(peer)
    }

    /// The seeds that accepted a record, each with its signature if the record is signed.
    pub fn votes_for(&self, record: &Record) -> Vec<(Addr, Option<Signature>)> {
        let seeds = self.roster.seeds();
        let vote = |(place, voter): (usize, &u16)| {
            Some((*seeds.get(usize::from(*voter))?, record.signatures.get(place).copied()))
        };
        record.voters.iter().enumerate().filter_map(vote).collect()
    }

    /// Clocks of others that disagree with this seed's clock.
    pub fn clocks(&self) -> &Clocks {
        &self.shown.clocks
    }

    /// The overlay as its members report it.
    pub fn topology(&self) -> Topology {
        self.shown.links.topology(self.book.registry())
    }

    /// How far this seed's registry can be relied on.
    pub fn standing(&self) -> Standing {
        self.foothold.standing()
    }

    /// Whether this seed votes yet.
    pub fn is_voting(&self) -> bool {
        self.foothold.votes()
    }

    /// Whether this seed is connected to enough others to make a quorum with them.
    pub fn has_quorum(&self) -> bool {
        self.seeds_reachable() >= self.roster.network().quorum()
    }

    /// Number of seeds that are connected with this one, this one included.
    pub fn seeds_reachable(&self) -> usize {
        self.colleagues.connected()
    }

    /// Number of seeds configured.
    pub fn seeds_configured(&self) -> usize {
        self.roster.count()
    }

    /// Begins a life of this seed.
    fn start(&mut self, turn: &mut SeedTurn<'_>) {
        self.polls.begin(turn.now);
        let (quorum, of) = (self.roster.network().quorum(), self.roster.count());
        turn.log(Event::SeedListening { quorum, of });
        if of.is_multiple_of(2) {
            let keys = vec![("advice", even_advice(of, quorum))];
            turn.note(Severity::Warn, "even number of seeds", keys);
        }
        self.call_colleagues(turn);
        if self.roster.flaw() == Flaw::EmptyVoter {
            self.rise(turn, Standing::Voting);
        } else {
            self.foothold.begin(turn.now, self.roster.signs());
        }
        self.reconsider(turn);
        self.look_at_members(turn);
        self.look_for_expired(turn);
    }

    fn incoming(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, hello: &Hello) {
        let me = self.roster.me();
        let refused = match (hello.purpose, hello.role) {
            _ if hello.from == me => Some(Refused::Myself),
            (Purpose::Probe, _) | (Purpose::Membership, Role::Peer) => None,
            (Purpose::Council, Role::Seed) if self.colleagues.contains(&hello.from) => None,
            _ => Some(Refused::WrongRole),
        };
        if let Some(reason) = refused {
            let keys =
                vec![("from", hello.from.to_string()), ("reason", reason.words().to_owned())];
            let told = self.is_told_of(turn.now, &hello.from);
            let severity = if told { Severity::Warn } else { Severity::Debug };
            turn.note(severity, "link refused", keys);
            turn.refuse(conn, reason, Vec::new());
            return;
        }
        self.shown.clocks.met(turn, hello.from, hello.clock);
        let welcome = Welcome {
            role: Role::Seed,
            from: me,
            incarnation: 0,
            leaving: false,
            clock: 0,
            identity: None,
        };
        turn.welcome(conn, welcome);
        match hello.purpose {
            Purpose::Membership => {
                let (peer, identity) = (hello.from, hello.identity);
                let caller = Caller { peer, identity, heard: turn.now };
                self.sessions.insert(conn, Session::FromPeer(caller));
            }
            Purpose::Council => self.colleague_calls(turn, conn, hello.from),
            _ => turn.close(conn),
        }
    }

    fn received(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, message: Message) {
        let Some(session) = self.sessions.get(conn) else { return };
        let heard = match (session, message) {
            (_, Message::Ping(number)) => {
                turn.send(conn, Message::Pong(number));
                return;
            }
            (Session::ToSeed(seed), message) => {
                self.colleagues.heard(turn.now, &seed);
                match message {
                    Message::Council(said) => self.hear_seed(turn, seed, said),
                    Message::Pong(_) => Ok(()),
                    _ => Err(Breach),
                }
            }
            (Session::FromPeer(caller), message) => {
                let caller = Caller { heard: turn.now, ..caller };
                self.sessions.insert(conn, Session::FromPeer(caller));
                match message {
                    Message::ToSeed(said) => self.hear_peer(turn, conn, &caller, said),
                    Message::Pong(_) => Ok(()),
                    _ => Err(Breach),
                }
            }
            (Session::FromSeed(_), _) => Err(Breach),
        };
        if heard.is_err() {
            let who = match session {
                Session::ToSeed(addr) | Session::FromSeed(addr) => addr,
                Session::FromPeer(caller) => caller.peer,
            };
            turn.close_for_breach(conn, Some(who));
            self.line_down(turn, conn);
        }
    }

    fn line_down(&mut self, turn: &mut SeedTurn<'_>, conn: Conn) {
        match self.sessions.remove(conn) {
            Some(Session::ToSeed(seed) | Session::FromSeed(seed)) => {
                self.colleagues.lost(turn, conn, seed);
            }
            Some(Session::FromPeer(_)) | None => {}
        }
    }

    fn open_result(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        result: Result<Welcome, OpenError>,
    ) {
        let (is_probe, is_look) = (self.judge.is_probe(conn), self.upkeep.recovery.is_look(conn));
        if (is_probe || is_look) && result.is_ok() {
            turn.close(conn);
        }
        if is_probe {
            self.probed(turn, conn, &result);
            self.probe_next(turn);
            // Looks wait while too many deaths are judged.
            self.look_on(turn);
        } else if is_look {
            self.looked(turn, conn, &result);
        } else {
            self.colleague_answers(turn, conn, result);
        }
    }

    /// Begins to probe the members that were on disk: some may have died while nobody watched.
    fn look_at_members(&mut self, turn: &mut SeedTurn<'_>) {
        let registry = self.book.registry();
        self.upkeep.recovery.begin(registry);
        if !registry.is_empty() {
            let keys = vec![
                ("records", registry.len().to_string()),
                ("members", registry.size().to_string()),
            ];
            turn.note(Severity::Info, "registry recovered", keys);
        }
        self.look_on(turn);
    }

    /// Looks at members that were not heard of for long.
    fn look_for_absent(&mut self, turn: &mut SeedTurn<'_>) {
        if !self.foothold.votes() {
            return;
        }
        let registry = self.book.registry();
        let owns = |caller: &&Caller| {
            registry.alive(&caller.peer).is_some_and(|record| record.can_be(caller.identity))
        };
        let heard = self.sessions.callers().filter(owns).map(|caller| (caller.peer, caller.heard));
        let place = (usize::from(self.roster.number()), self.roster.count());
        let (now, patience) = (turn.now, self.roster.suspect_timeout());
        let neighbours = |peer: &Addr| self.shown.links.agreed(peer);
        let attendance = &mut self.upkeep.attendance;
        let absent =
            attendance.look_for_absent((now, patience), registry, heard, neighbours, place);
        for (peer, incarnation) in absent {
            self.upkeep.recovery.look_once(peer, incarnation);
        }
        self.look_on(turn);
    }

    fn look_on(&mut self, turn: &mut SeedTurn<'_>) {
        while self.judge.has_room_for_own()
            && let Some(look) = self.upkeep.recovery.next()
        {
            let conn = self.sessions.next_conn();
            let hello = self.roster.hello(Purpose::Probe);
            turn.open(conn, look.peer, hello, self.roster.probe_timeout());
            self.upkeep.recovery.looks(conn, look);
        }
    }

    /// Handles the end of a look at a recovered member. Proposes the member's death if too many
    /// looks have had no answer.
    fn looked(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, result: &Result<Welcome, OpenError>) {
        if *result == Err(OpenError::Local) {
            self.upkeep.recovery.look_later(turn.now, conn);
            return;
        }
        let registry = self.book.registry();
        let answered = |peer: &Addr| {
            let is_it = |record: &Record| {
                let said = |welcome: &Welcome| record.can_be(welcome.identity);
                result
                    .as_ref()
                    .is_ok_and(|welcome| welcome.is_of(Role::Peer, *peer) && said(welcome))
            };
            registry.alive(peer).is_some_and(is_it)
        };
        let silent = self.upkeep.recovery.looked(turn.now, conn, answered, registry);
        if let Some((peer, incarnation)) = silent {
            // The seeds' own evidence needs no reporting peer: this seed names itself as the
            // reporter.
            let (kind, reporters) = (ChangeKind::Dead, vec![self.roster.me()]);
            let at = turn.now.millis();
            let identity = self.book.registry().alive(&peer).and_then(|record| record.identity);
            let change = Change { kind, peer, incarnation, at, reporters, identity };
            self.propose(turn, change, None);
        }
        self.look_on(turn);
    }

    /// The part whose timer goes off next, and the time when it does.
    fn next_timer(&self) -> Option<(Time, Part)> {
        let timers = [
            (self.colleagues.wake_at(), Part::Colleagues),
            (self.pushes.wake_at(), Part::Pushes),
            (self.polls.wake_at(), Part::Polls),
            (self.cases.wake_at(), Part::Cases),
            (self.upkeep.recovery.wake_at(), Part::Recovery),
            (self.foothold.wake_at(), Part::Foothold),
            (self.judge.wake_at(), Part::Judge),
            (self.upkeep.expiry.wake_at(), Part::Expiry),
        ];
        let set = timers.into_iter().filter_map(|(at, part)| Some((at?, part)));
        // Of timers due at the same time, `min_by_key` returns the first in the list.
        set.min_by_key(|(at, _)| *at)
    }

    /// Does what a part's timer was set for.
    fn fire(&mut self, turn: &mut SeedTurn<'_>, part: Part) {
        match part {
            Part::Colleagues => match self.colleagues.due(turn.now) {
                Some(colleagues::Timer::Redial(seed)) => self.dial(turn, seed),
                Some(colleagues::Timer::Compare) => {
                    self.compare(turn);
                    self.look_for_absent(turn);
                }
                None => {}
            },
            Part::Pushes => self.push(turn),
            Part::Polls => {
                if let Some(ballot) = self.polls.due(turn.now) {
                    self.reject(turn, ballot);
                }
            }
            Part::Cases => self.cases.expire(turn.now),
            Part::Recovery => {
                self.upkeep.recovery.look_again();
                self.look_on(turn);
            }
            Part::Foothold => match self.foothold.due(turn.now) {
                Some(standing::Timer::Vote) => self.may_vote(turn),
                Some(standing::Timer::Found) => self.reconsider(turn),
                Some(standing::Timer::Held) => {
                    while let Some(waiter) = self.foothold.release_held(turn.now) {
                        self.decline(turn, waiter);
                    }
                }
                None => {}
            },
            Part::Judge => {
                if let Some(key) = self.judge.due(turn.now) {
                    self.probe_for(turn, key);
                }
                self.probe_next(turn);
            }
            Part::Expiry => self.look_for_expired(turn),
        }
    }
}

/// Tells the operator why an even number of seeds is no better than one seed fewer.
fn even_advice(of: usize, quorum: usize) -> String {
    format!(
        "a quorum of {of} is {quorum}, so {of} seeds survive the loss of {}, no more than {} would: \
         run {} or {}",
        of - quorum,
        of - 1,
        of - 1,
        of + 1
    )
}

impl Machine for SeedMachine {
    type Command = SeedCommand;
    type Reply = Infallible;
    type Change = Keep;

    fn handle(
        &mut self,
        now: Time,
        input: Input<Self::Command>,
        effects: &mut Vec<EffectOf<Self>>,
    ) {
        let turn = &mut SeedTurn { now, effects };
        match input {
            Input::Start => self.start(turn),
            Input::Incoming { conn, hello } => self.incoming(turn, conn, &hello),
            Input::Opened { conn, welcome } => self.open_result(turn, conn, Ok(welcome)),
            Input::OpenFailed { conn, error } => self.open_result(turn, conn, Err(error)),
            Input::Received { conn, message } => self.received(turn, conn, message),
            Input::Closed { conn } => self.line_down(turn, conn),
            Input::Congested { .. } | Input::Relieved { .. } => {}
            Input::Tick => {}
            Input::Persisted { batch } => self.persisted(turn, batch),
            Input::Command(SeedCommand::Stop) => turn.stopped(),
        }
        while let Some((at, part)) = self.next_timer()
            && at <= now
        {
            self.fire(turn, part);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        self.next_timer().map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests;
