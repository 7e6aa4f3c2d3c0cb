//! The seed: keeps the registry, judges proposed changes, and agrees on them
//! with the other seeds by a leaderless majority (DESIGN.md, section 3).
//!
//! What must stay true: no record changes without accepts from a quorum of the
//! configured seeds, each given by that seed's own judgement; nothing is
//! answered before it is durable; every committed transition is logged once.
//!
//! `decide` takes a change from the asking to the answer, `ballot` counts its
//! votes, `judge` gives this seed's own, `keep` makes things durable, `settled` knows what is durable
//! at a quorum. `council`
//! talks to the other seeds, `compare` (with `tree`) finds what differs,
//! `standing` says when this seed may vote, `recovery` looks at members after a
//! restart, `expiry` drops those long gone. `desk` talks to the peers, `links`
//! and `history` remember for whoever asks. This file holds them together.

mod ballot;
mod compare;
mod council;
mod decide;
mod desk;
mod expiry;
mod history;
mod judge;
mod keep;
mod links;
pub mod message;
mod recovery;
mod settled;
mod standing;
mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::hash::{Hash, Hasher};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::ballot::{Ballot, ChangeKey, SeedNumber};
use self::council::Colleague;
use self::desk::SentList;
use self::expiry::Round;
use self::history::History;
use self::judge::{Judgement, Verdict};
use self::keep::Pending;
use self::links::Links;
use self::recovery::Look;
use self::settled::Unsettled;
use self::standing::Held;
use self::tree::Tree;
use super::clocks::Clocks;
use super::config::SeedConfig;
use super::event::{Event, Severity};
use super::machine::{Conn, EffectOf, Input, Machine, OpenError};
use super::message::{
    Addr, Breach, Decision, Hello, Incarnation, Message, Purpose, Refused, Role, Standing, Welcome,
};
use super::registry::Registry;
use super::repeats::Repeats;
use super::roles::{Keep, SeedCommand};
use super::time::Time;
use super::timers::Timers;
use super::turn::SeedTurn;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Vote, compared or not.
    Vote,
    /// A proposal has waited long enough for this seed to vote.
    Held,
    /// Probe once more a member accused in a wave.
    SecondProbe(ChangeKey),
    /// Look for records of members long gone.
    Expire,
}

/// What an open connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Case {
    reporters: BTreeSet<Addr>,
}

/// What is left to chance: when a seed is dialled again. Two seeds that differ in nothing else
/// are equal, so that a model checker sees one state where there is one.
#[derive(Clone, Debug)]
struct Chance(SmallRng);

impl PartialEq for Chance {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Chance {}

impl Hash for Chance {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeedMachine {
    config: SeedConfig,
    me: SeedNumber,
    rng: Chance,
    registry: Registry,
    tree: Tree,
    /// What is durable, and what is being written.
    standing: Standing,
    wants_standing: Standing,
    /// Marks of the founding that the registry goes back to.
    founders: BTreeSet<u64>,
    unsettled: Unsettled,
    /// Whether this seed votes yet.
    votes: bool,
    /// Proposals that wait until it does.
    held: VecDeque<Held>,
    /// Digest over all statuses, until a record changes.
    status_digest: Option<[u8; 32]>,
    list: SentList,
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
    verdicts_by_age: VecDeque<(Time, ChangeKey)>,
    cases: BTreeMap<(Addr, Incarnation), Case>,
    /// Open cases to which a peer has added its report.
    reports_by: BTreeMap<Addr, usize>,
    /// Members accused, and when last.
    accused: BTreeMap<Addr, Time>,
    history: History,
    links: Links,
    /// Peers whose links the other seeds do not know yet.
    news_of_links: BTreeSet<Addr>,
    expiring: Option<Round>,
    rounds_used: u64,
    pending: BTreeMap<u64, Vec<Pending>>,
    batches_used: u64,
    changed: BTreeSet<Addr>,
    /// Recovered members: still to be looked at, being looked at, and those that did not answer.
    to_look: Vec<Look>,
    looks: BTreeMap<Conn, Look>,
    unanswered: Vec<Look>,
    clocks: Clocks,
    repeats: Repeats,
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
            rng: Chance(SmallRng::seed_from_u64(rng_seed)),
            registry: Registry::new(),
            tree: Tree::default(),
            standing: Standing::Fresh,
            wants_standing: Standing::Fresh,
            founders: BTreeSet::new(),
            unsettled: Unsettled::default(),
            votes: false,
            held: VecDeque::new(),
            status_digest: None,
            list: SentList::default(),
            lines: BTreeMap::new(),
            conns_used: 0,
            colleagues,
            ballots: BTreeMap::new(),
            ballot_of: BTreeMap::new(),
            ballots_used: 0,
            judgements: BTreeMap::new(),
            probes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            verdicts_by_age: VecDeque::new(),
            cases: BTreeMap::new(),
            reports_by: BTreeMap::new(),
            accused: BTreeMap::new(),
            history: History::default(),
            links: Links::new(),
            news_of_links: BTreeSet::new(),
            expiring: None,
            rounds_used: 0,
            pending: BTreeMap::new(),
            batches_used: 0,
            changed: BTreeSet::new(),
            to_look: Vec::new(),
            looks: BTreeMap::new(),
            unanswered: Vec::new(),
            clocks: Clocks::default(),
            repeats: Repeats::default(),
            timers: Timers::default(),
            config,
        }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What was decided about a member while this seed ran, oldest first.
    pub fn history(&self, peer: &Addr) -> impl Iterator<Item = &Decision> {
        self.history.of(peer)
    }

    /// Clocks that disagree with this seed's.
    pub fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    fn next_conn(&mut self) -> Conn {
        self.conns_used += 2;
        self.conns_used
    }

    fn hello(&self, purpose: Purpose) -> Hello {
        self.config.network.hello(Role::Seed, self.config.me, 0, purpose)
    }

    fn incoming(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, hello: &Hello) {
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
        self.clocks.met(turn, hello.from, hello.clock);
        let me = self.config.me;
        let welcome =
            Welcome { role: Role::Seed, from: me, incarnation: 0, leaving: false, clock: 0 };
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

    fn received(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, message: Message) {
        let Some(line) = self.lines.get(&conn).copied() else { return };
        let heard = match (line, message) {
            (_, Message::Ping(number)) => {
                turn.send(conn, Message::Pong(number));
                return;
            }
            (Line::ToSeed(seed), message) => {
                self.heard_from(turn, &seed);
                match message {
                    Message::Council(said) => self.hear_seed(turn, seed, said),
                    Message::Pong(_) => Ok(()),
                    _ => Err(Breach),
                }
            }
            (Line::FromPeer { peer, .. }, message) => {
                self.lines.insert(conn, Line::FromPeer { peer, heard: turn.now });
                match message {
                    Message::ToSeed(said) => {
                        self.hear_peer(turn, conn, peer, said);
                        Ok(())
                    }
                    Message::Pong(_) => Ok(()),
                    _ => Err(Breach),
                }
            }
            (Line::FromSeed(_), _) => Err(Breach),
        };
        if heard.is_err() {
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

    fn line_down(&mut self, turn: &mut SeedTurn<'_>, conn: Conn) {
        match self.lines.remove(&conn) {
            Some(Line::ToSeed(seed) | Line::FromSeed(seed)) => {
                self.colleague_lost(turn, conn, seed);
            }
            Some(Line::FromPeer { .. }) | None => {}
        }
    }

    fn open_result(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        result: Result<Welcome, OpenError>,
    ) {
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

    fn fire(&mut self, turn: &mut SeedTurn<'_>, timer: Timer) {
        match timer {
            Timer::Redial(seed) => self.dial(turn, seed),
            Timer::Compare => self.compare(turn),
            Timer::Push => self.push(turn),
            Timer::Look => self.look_again(turn),
            Timer::Ballot(number) => self.reject(turn, number),
            Timer::Case(peer, incarnation) => self.close_case(peer, incarnation),
            Timer::Vote => self.may_vote(turn),
            Timer::Held => self.release_held(turn),
            Timer::SecondProbe(key) => self.probe_again(turn, key),
            Timer::Expire => self.look_for_expired(turn),
        }
    }
}

/// What an even number of seeds is good for.
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
            Input::Start => {
                // A late vote on a ballot of a former life must not count for one of this life.
                self.ballots_used = now.micros();
                let (quorum, of) = (self.config.network.quorum(), self.seeds());
                turn.log(Event::SeedListening { quorum, of });
                if of.is_multiple_of(2) {
                    let keys = vec![("advice", even_advice(of, quorum))];
                    turn.note(Severity::Warn, "even number of seeds", keys);
                }
                self.call_colleagues(turn);
                self.begin_standing(turn);
                self.look_at_members(turn);
                self.look_for_expired(turn);
            }
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
