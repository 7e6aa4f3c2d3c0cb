//! How a peer talks to its seeds: registration, refresh, leave, reports.
//!
//! What must stay true: the peer counts as registered once a quorum of distinct
//! seeds has answered that it holds this incarnation; a seed that is down or
//! hung costs no more than the time after which another one is asked as well.

use std::time::Duration;

use rand::RngExt;

use super::{Dial, Line, PeerMachine, Timer, sample};
use crate::proto::event::{Event, Severity};
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{
    Addr, Breach, Incarnation, Message, Purpose, Records, ToPeer, ToSeed, Welcome,
};
use crate::proto::registry::{Record, Status};
use crate::proto::roles::MemberEvent;
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// A seed that has not answered after this long gets company: another one is asked as well. Some
/// round trips over an ocean; far less than the deadline of the request.
const HEDGE: Duration = Duration::from_millis(300);
/// What a seed may take beyond the probe and the vote that a request needs.
const REQUEST_MARGIN: Duration = Duration::from_millis(900);
/// First and last pause between two attempts to register.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A peer asks each seed what is new this often; seeds also tell by themselves.
const REFRESH: Duration = Duration::from_secs(10);
/// A peer that is registered hears from a quorum alone; soon it is to hear from all, so that one that
/// is lost leaves no gap.
const FIRST_REFRESH: Duration = Duration::from_secs(2);
/// After the connection to a seed is lost the seeds are asked soon: it may have brought news. While
/// fewer than a quorum can be asked, the pause doubles up to the usual one.
const REFRESH_SOON: Duration = Duration::from_millis(500);
/// Records of one list taken in frames.
const MAX_LIST: usize = 1 << 20;
/// And frames, which may be empty.
const MAX_FRAMES: usize = 4_096;

/// The connection to one seed.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    dialling: Option<Conn>,
    line: Option<Conn>,
    queue: Vec<Message>,
    /// Why it would not have this peer, when it last said so.
    refused: Option<String>,
}

impl Desk {
    pub fn is_connected(&self) -> bool {
        self.line.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Register(Incarnation),
    Leave,
    Refresh,
}

/// A request that a seed has not fully answered.
#[derive(Clone, Debug)]
pub(super) struct Request {
    seed: Addr,
    wish: Wish,
    began: Time,
    /// Which state of the list a refresh was asked with.
    version: u64,
    /// The list so far, frame by frame.
    frames: Vec<Records>,
}

impl Request {
    /// Tells what list a seed has answered a registration with.
    fn log_answer(&self, turn: &mut PeerTurn<'_>, seed: Addr) {
        let alive = |(_, record): &&(Addr, Record)| record.status == Status::Alive;
        let told = self.frames.iter().flat_map(|frame| frame.iter());
        let peers = told.filter(alive).map(|(addr, _)| *addr).collect();
        turn.log(Event::PeerListReceived { seed, peers });
        let took = turn.now.since(self.began);
        let keys = vec![
            ("seed", seed.to_string()),
            ("took", format!("{:.1}ms", took.as_secs_f64() * 1e3)),
        ];
        turn.note(Severity::Debug, "registration answered", keys);
    }
}

impl PeerMachine {
    fn quorum(&self) -> usize {
        self.life.config.network.quorum()
    }

    /// Begins an attempt: all seeds that have not accepted yet, in random order.
    pub(super) fn begin_registration(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving || self.registration.registered {
            return;
        }
        self.timers.cancel(&Timer::Register);
        let seeds: Vec<Addr> = self
            .life
            .config
            .network
            .seeds()
            .iter()
            .filter(|seed| !self.registration.accepted.contains(seed))
            .copied()
            .collect();
        let order = sample(&mut self.life.rng, seeds.len(), seeds.len());
        self.registration.to_ask =
            order.into_iter().filter_map(|place| seeds.get(place).copied()).collect();
        self.ask_next_seed(turn);
    }

    fn is_asking(&self) -> bool {
        let mine = Wish::Register(self.life.incarnation);
        self.registration.requests.values().any(|request| request.wish == mine)
    }

    pub(super) fn ask_next_seed(&mut self, turn: &mut PeerTurn<'_>) {
        self.timers.cancel(&Timer::Hedge);
        if self.life.leaving {
            self.ask_next_to_leave(turn);
            return;
        }
        if self.registration.registered {
            return;
        }
        if let Some(seed) = self.registration.to_ask.pop() {
            let incarnation = self.life.incarnation;
            self.request(turn, seed, Wish::Register(incarnation));
            self.timers.set(Timer::Hedge, turn.now + HEDGE);
        } else if !self.is_asking() {
            let jitter = self.life.rng.random_range(0.5..1.0);
            let pause = BACKOFF
                .0
                .saturating_mul(1 << self.registration.failed_attempts.min(8))
                .min(BACKOFF.1);
            self.registration.failed_attempts += 1;
            if self.registration.failed_attempts == 3 {
                let keys = vec![
                    ("accepted", format!("{}/{}", self.registration.accepted.len(), self.quorum())),
                    ("advice", "are enough seeds running and reachable?".to_owned()),
                ];
                turn.note(Severity::Warn, "not registered yet", keys);
            }
            self.timers.set(Timer::Register, turn.now + pause.mul_f64(jitter));
        }
    }

    fn request(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, wish: Wish) {
        self.registration.requests_used += 1;
        let request = self.registration.requests_used;
        let incarnation = self.life.incarnation;
        let message = match wish {
            Wish::Register(incarnation) => ToSeed::Register { request, incarnation },
            Wish::Leave => ToSeed::Leave { request, incarnation },
            Wish::Refresh => ToSeed::Refresh { request, digest: self.members_digest() },
        };
        let (began, version) = (turn.now, self.membership.members_version);
        let asked = Request { seed, wish, began, version, frames: Vec::new() };
        self.registration.requests.insert(request, asked);
        let patience = self.life.config.detection.probe_timeout * 2 + REQUEST_MARGIN;
        self.timers.set(Timer::Request(request), turn.now + patience);
        self.say(turn, seed, message);
    }

    /// Digest of the list, computed once for each state of it.
    fn members_digest(&mut self) -> [u8; 32] {
        match self.membership.digest_of {
            Some((version, digest)) if version == self.membership.members_version => digest,
            _ => {
                let digest = self.membership.members.status_digest();
                self.membership.digest_of = Some((self.membership.members_version, digest));
                digest
            }
        }
    }

    /// Says something to a seed, over a connection that is opened if there is none.
    pub(super) fn say(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, message: impl Into<Message>) {
        let message = message.into();
        let desk = self.registration.desks.entry(seed).or_default();
        if let Some(line) = desk.line {
            turn.send(line, message);
            return;
        }
        desk.queue.push(message);
        if desk.dialling.is_none() {
            let conn = self.dial(turn, seed, Purpose::Membership, Dial::Seed(seed));
            if let Some(desk) = self.registration.desks.get_mut(&seed) {
                desk.dialling = Some(conn);
            }
        }
    }

    pub(super) fn seed_answers(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        seed: Addr,
        result: Result<Welcome, OpenError>,
    ) {
        let Some(desk) = self.registration.desks.get_mut(&seed) else { return };
        desk.dialling = None;
        let queue = std::mem::take(&mut desk.queue);
        match result {
            Ok(_) => {
                desk.line = Some(conn);
                desk.refused = None;
                self.sessions.insert(conn, Line::Seed(seed));
                for message in queue {
                    turn.send(conn, message);
                }
            }
            Err(error) => {
                desk.refused = match &error {
                    OpenError::Refused(refusal) => Some(refusal.reason.words().to_owned()),
                    _ => None,
                };
                if let Some(reason) = &desk.refused {
                    let keys = vec![("seed", seed.to_string()), ("reason", reason.clone())];
                    let what = "seed refused the link";
                    let news = self.told.repeats.is_news(turn.now, what, seed, reason);
                    let severity = if news { Severity::Warn } else { Severity::Debug };
                    turn.note(severity, what, keys);
                } else {
                    let keys =
                        vec![("seed", seed.to_string()), ("reason", open_error_words(&error))];
                    turn.note(Severity::Debug, "seed not reached", keys);
                }
                self.fail_requests_to(turn, seed);
            }
        }
    }

    pub(super) fn seed_lost(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, seed: Addr) {
        let Some(desk) = self.registration.desks.get_mut(&seed) else { return };
        if desk.line == Some(conn) {
            desk.line = None;
            self.fail_requests_to(turn, seed);
            if self.registration.registered && !self.life.leaving {
                let soon = self.jitter(REFRESH_SOON);
                self.timers.set_earlier(Timer::Refresh, turn.now + soon);
            }
        }
    }

    fn fail_requests_to(&mut self, turn: &mut PeerTurn<'_>, seed: Addr) {
        let failed: Vec<u64> = self
            .registration
            .requests
            .iter()
            .filter(|(_, r)| r.seed == seed)
            .map(|(id, _)| *id)
            .collect();
        for request in failed {
            self.request_failed(turn, request);
        }
    }

    /// The seed is hung: its connection is given up, so that the next request opens a new one.
    pub(super) fn request_timed_out(&mut self, turn: &mut PeerTurn<'_>, request: u64) {
        if let Some(seed) = self.registration.requests.get(&request).map(|request| request.seed)
            && let Some(desk) = self.registration.desks.get_mut(&seed)
            && let Some(line) = desk.line.take()
        {
            self.sessions.remove(line);
            turn.close(line);
        }
        self.request_failed(turn, request);
    }

    fn request_failed(&mut self, turn: &mut PeerTurn<'_>, request: u64) {
        self.timers.cancel(&Timer::Request(request));
        let Some(request) = self.registration.requests.remove(&request) else { return };
        match request.wish {
            Wish::Register(incarnation) if incarnation == self.life.incarnation => {
                self.ask_next_seed(turn);
            }
            Wish::Register(_) => {}
            Wish::Leave => self.ask_next_to_leave(turn),
            Wish::Refresh => {
                let heard =
                    self.registration.desks.values().filter(|desk| desk.is_connected()).count();
                if heard < self.quorum() && !self.life.leaving {
                    let pause =
                        REFRESH_SOON.saturating_mul(1 << self.registration.failed_refreshes.min(8));
                    self.registration.failed_refreshes += 1;
                    let soon = self.jitter(pause.min(REFRESH));
                    self.timers.set_earlier(Timer::Refresh, turn.now + soon);
                }
            }
        }
    }

    /// What a seed says. A breach if it makes no sense.
    pub(super) fn hear_seed(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        message: ToPeer,
    ) -> Result<(), Breach> {
        match message {
            ToPeer::Granted { request, .. } => self.granted(turn, seed, request),
            ToPeer::Denied { request, reason, known, .. } => {
                self.denied(turn, seed, request, reason, known);
            }
            ToPeer::List { request, records, more } => {
                return self.list_received(turn, seed, request, records, more);
            }
            ToPeer::Unchanged { request } => self.unchanged(turn, seed, request),
            ToPeer::NoMember { peer } => self.learn_absence(turn, seed, peer),
            ToPeer::Update(records) => self.learn(turn, seed, records),
        }
        Ok(())
    }

    /// A seed has the list that it was asked with.
    fn unchanged(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, id: u64) {
        let Some(request) = self.registration.requests.get(&id) else { return };
        if request.seed != seed || request.wish != Wish::Refresh {
            return;
        }
        let version = request.version;
        self.registration.requests.remove(&id);
        self.timers.cancel(&Timer::Request(id));
        self.registration.failed_refreshes = 0;
        // It spoke of the list as it was then. If that has changed since, the next refresh tells.
        if version == self.membership.members_version {
            self.learn_agreement(turn, seed);
        }
    }

    fn granted(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, id: u64) {
        let Some(request) = self.registration.requests.get(&id) else { return };
        if request.seed != seed {
            return;
        }
        match request.wish {
            Wish::Register(incarnation)
                if incarnation == self.life.incarnation && !self.life.leaving =>
            {
                if let Some(desk) = self.registration.desks.get_mut(&seed) {
                    desk.refused = None;
                }
                if self.registration.registered || !self.registration.accepted.insert(seed) {
                    return;
                }
                let (count, quorum) = (self.registration.accepted.len(), self.quorum());
                turn.log(Event::Registered { seed, count, quorum });
                if count >= quorum {
                    self.registration.registered = true;
                    self.registration.failed_attempts = 0;
                    self.registration.to_ask.clear();
                    self.timers.cancel(&Timer::Hedge);
                    turn.member(MemberEvent::Registered);
                    let pause = self.jitter(FIRST_REFRESH);
                    self.timers.set(Timer::Refresh, turn.now + pause);
                }
            }
            Wish::Leave if self.life.leaving => {
                self.timers.set(Timer::Leave, turn.now + super::LAST_WORDS);
            }
            _ => {}
        }
    }

    fn denied(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        id: u64,
        reason: String,
        known: Incarnation,
    ) {
        let Some(request) = self.registration.requests.get(&id) else { return };
        if request.seed != seed {
            return;
        }
        let wish = request.wish;
        let (severity, what) = match wish {
            Wish::Register(_) => (Severity::Warn, "registration denied"),
            Wish::Leave => (Severity::Warn, "leave denied"),
            Wish::Refresh => (Severity::Debug, "refresh denied"),
        };
        let news = self.told.repeats.is_news(turn.now, what, seed, &reason);
        let severity = if news { severity } else { Severity::Debug };
        if let (Wish::Register(_), Some(desk)) = (wish, self.registration.desks.get_mut(&seed)) {
            desk.refused = Some(reason.clone());
        }
        turn.note(severity, what, vec![("seed", seed.to_string()), ("reason", reason)]);
        // Somebody knows a later life of this address: come back above it.
        let later = known >= self.life.incarnation && super::is_believable(known, turn.now);
        if wish == Wish::Register(self.life.incarnation) && later {
            self.registration.requests.remove(&id);
            self.timers.cancel(&Timer::Request(id));
            self.rise_above(turn, known);
        } else {
            self.request_failed(turn, id);
        }
    }

    fn list_received(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        id: u64,
        records: Records,
        more: bool,
    ) -> Result<(), Breach> {
        let Some(request) = self.registration.requests.get_mut(&id) else { return Ok(()) };
        if request.seed != seed {
            return Ok(());
        }
        let so_far: usize = request.frames.iter().map(|frame| frame.len()).sum();
        if so_far + records.len() > MAX_LIST || request.frames.len() >= MAX_FRAMES {
            return Err(Breach);
        }
        request.frames.push(records);
        if more {
            return Ok(());
        }
        let Some(request) = self.registration.requests.remove(&id) else { return Ok(()) };
        self.timers.cancel(&Timer::Request(id));
        if matches!(request.wish, Wish::Register(_)) {
            request.log_answer(turn, seed);
        }
        let me = self.life.config.me;
        let mut told = request.frames.iter().flat_map(|frame| frame.iter());
        let missing = !told.any(|(peer, _)| *peer == me);
        self.registration.failed_refreshes = 0;
        self.learn_list(turn, seed, &request.frames);
        if missing && self.registration.registered && request.wish == Wish::Refresh {
            // The seed, and perhaps all of them, lost what it knew.
            let incarnation = self.life.incarnation;
            self.request(turn, seed, Wish::Register(incarnation));
        }
        if !self.registration.registered {
            self.ask_next_seed(turn);
        } else {
            self.fill(turn);
        }
        Ok(())
    }

    /// Asks each seed for what is new.
    pub(super) fn refresh(&mut self, turn: &mut PeerTurn<'_>) {
        let pause = self.jitter(REFRESH);
        self.timers.set(Timer::Refresh, turn.now + pause);
        if self.life.leaving {
            return;
        }
        let asked = |machine: &Self, seed: &Addr| {
            machine
                .registration
                .requests
                .values()
                .any(|r| r.wish == Wish::Refresh && r.seed == *seed)
        };
        for seed in self.life.config.network.seeds().to_vec() {
            if !asked(self, &seed) {
                self.request(turn, seed, Wish::Refresh);
            }
        }
        self.report_links(turn);
    }

    /// Seeds to which there is a connection.
    pub fn seeds_reachable(&self) -> usize {
        self.registration.desks.values().filter(|desk| desk.is_connected()).count()
    }

    /// Why a quorum of seeds would not have this peer as a member, if that is how it stands: they
    /// refuse it, or their lists have it as dead or gone.
    pub(super) fn rejection(&self) -> Option<String> {
        let me = self.life.config.me;
        let mut reasons: Vec<String> = Vec::new();
        for seed in self.life.config.network.seeds() {
            let refused = self.registration.desks.get(seed).and_then(|desk| desk.refused.clone());
            let told = self.membership.testimony.word(&self.membership.members, seed, &me);
            let gone = || match told? {
                Some(record) if record.incarnation < self.life.incarnation => None,
                Some(record) => match record.status {
                    Status::Alive => None,
                    Status::Left => Some("it has this peer as left".to_owned()),
                    Status::Dead => Some("it has this peer as dead".to_owned()),
                },
                None => None,
            };
            reasons.extend(refused.or_else(gone).map(|reason| format!("{seed}: {reason}")));
        }
        (reasons.len() >= self.quorum()).then(|| reasons.join("; "))
    }

    /// Asks the seeds to commit the leave: first those that are connected.
    pub(super) fn ask_to_leave(&mut self, turn: &mut PeerTurn<'_>) {
        let mut seeds: Vec<Addr> = self.life.config.network.seeds().to_vec();
        seeds.sort_by_key(|seed| {
            self.registration.desks.get(seed).is_some_and(|desk| desk.line.is_some())
        });
        self.registration.to_ask = seeds;
        self.ask_next_to_leave(turn);
    }

    fn ask_next_to_leave(&mut self, turn: &mut PeerTurn<'_>) {
        if let Some(seed) = self.registration.to_ask.pop() {
            self.request(turn, seed, Wish::Leave);
            self.timers.set(Timer::Hedge, turn.now + HEDGE);
        } else if !self.registration.requests.values().any(|request| request.wish == Wish::Leave) {
            self.stop(turn);
        }
    }
}

/// Why a connection did not come to be, in words.
pub(super) fn open_error_words(error: &OpenError) -> String {
    match error {
        OpenError::Unreachable => "connection refused".to_owned(),
        OpenError::TimedOut => "no answer in time".to_owned(),
        OpenError::Refused(refusal) => refusal.reason.words().to_owned(),
        OpenError::Garbage => "something else listens there".to_owned(),
        OpenError::Local => "this process is out of descriptors or memory".to_owned(),
    }
}
