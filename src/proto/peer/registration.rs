//! How far a peer is with its seeds: the connection to each of them, the requests under way, and
//! which seeds have accepted this peer.
//!
//! What must stay true: the peer counts as registered once a quorum of distinct seeds has answered
//! that it holds this incarnation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::proto::event::{Event, Severity};
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Breach, Incarnation, Message, Records};
use crate::proto::registry::{Record, Status};
use crate::proto::time::{Time, backoff};
use crate::proto::turn::PeerTurn;

/// First and last pause between two attempts to register.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Most records that one answered list may have.
const MAX_LIST: usize = 1 << 20;
/// Most frames that one list may have; they are counted as well because a frame may be empty.
const MAX_FRAMES: usize = 4_096;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Register(Incarnation),
    Leave,
    Refresh,
}

/// A request that a seed has not fully answered.
#[derive(Clone, Debug)]
pub(super) struct SeedRequest {
    pub seed: Addr,
    pub wish: Wish,
    began: Time,
    /// The version of this peer's list whose digest the request carried.
    pub version: u64,
    /// The frames of the list that have come so far.
    frames: Vec<Records>,
}

impl SeedRequest {
    /// The frames of the list that have come.
    pub fn frames(&self) -> &[Records] {
        &self.frames
    }

    fn records(&self) -> impl Iterator<Item = &(Addr, Record)> {
        self.frames.iter().flat_map(|frame| frame.iter())
    }

    /// Whether the list names a peer.
    pub fn names(&self, peer: &Addr) -> bool {
        self.records().any(|(other, _)| other == peer)
    }

    /// Logs the list with which a seed has answered a registration.
    pub fn log_answer(&self, turn: &mut PeerTurn<'_>) {
        let seed = self.seed;
        let alive = |(_, record): &&(Addr, Record)| record.status == Status::Alive;
        let peers = self.records().filter(alive).map(|(addr, _)| *addr).collect();
        turn.log(Event::PeerListReceived { seed, peers });
        let took = turn.now.since(self.began);
        let keys = vec![
            ("seed", seed.to_string()),
            ("took", format!("{:.1}ms", took.as_secs_f64() * 1e3)),
        ];
        turn.note(Severity::Debug, "registration answered", keys);
    }
}

/// The connection to one seed.
#[derive(Clone, Debug, Default)]
struct KnownSeed {
    dialling: Option<Conn>,
    conn: Option<Conn>,
    queue: Vec<Message>,
    /// Why the seed would not have this peer, as it last said.
    refused: Option<String>,
}

/// What one frame of a list led to.
#[derive(Debug)]
pub(super) enum Framed {
    /// The frame belongs to no open request, or more frames are to come.
    More,
    /// The list is whole.
    Whole(SeedRequest),
}

/// Where a peer stands with its seeds.
#[derive(Debug, Default)]
pub(super) struct Registration {
    seeds: BTreeMap<Addr, KnownSeed>,
    requests: BTreeMap<u64, SeedRequest>,
    requests_used: u64,
    /// Seeds that have accepted this incarnation.
    accepted: BTreeSet<Addr>,
    /// Seeds still to be asked in this attempt; the last one is next.
    to_ask: Vec<Addr>,
    failed_attempts: u32,
    /// Refreshes that failed since a seed last answered one, counted seed by seed.
    failed_refreshes: u32,
    registered: bool,
}

impl Registration {
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// Where there are no seeds, a peer counts as registered from its start until an operator
    /// removes it.
    pub fn set_registered(&mut self, registered: bool) {
        self.registered = registered;
    }

    /// The peer begins a new life, or the seeds have lost the present one: no seed has accepted it.
    pub fn begin_anew(&mut self) {
        self.accepted.clear();
        self.registered = false;
    }

    /// How many seeds have accepted this incarnation.
    pub fn accepted(&self) -> usize {
        self.accepted.len()
    }

    /// A seed has accepted this incarnation. Returns how many have now, unless the peer was
    /// registered already or the seed counted before.
    pub fn accept(&mut self, seed: Addr) -> Option<usize> {
        if let Some(known) = self.seeds.get_mut(&seed) {
            known.refused = None;
        }
        (!self.registered && self.accepted.insert(seed)).then_some(self.accepted.len())
    }

    /// A quorum of seeds has accepted this incarnation.
    pub fn complete(&mut self) {
        self.registered = true;
        self.failed_attempts = 0;
        self.to_ask.clear();
    }

    /// Those of `seeds` that have not accepted this incarnation yet.
    pub fn missing(&self, seeds: &[Addr]) -> Vec<Addr> {
        seeds.iter().filter(|seed| !self.accepted.contains(seed)).copied().collect()
    }

    /// Sets whom to ask; the last one is asked first.
    pub fn ask(&mut self, seeds: Vec<Addr>) {
        self.to_ask = seeds;
    }

    /// Takes out the seed to ask next.
    pub fn next_to_ask(&mut self) -> Option<Addr> {
        self.to_ask.pop()
    }

    /// Whether any request with this wish is open.
    pub fn is_asking(&self, wish: Wish) -> bool {
        self.requests.values().any(|request| request.wish == wish)
    }

    /// Whether a seed has a refresh still to answer.
    pub fn is_refreshing(&self, seed: &Addr) -> bool {
        self.requests.values().any(|r| r.wish == Wish::Refresh && r.seed == *seed)
    }

    /// Whether any seed was ever asked anything.
    pub fn has_asked(&self) -> bool {
        self.requests_used > 0
    }

    /// An attempt to register has failed. Returns how many have in a row, and how long to pause
    /// now.
    pub fn attempt_failed(&mut self) -> (u32, Duration) {
        let pause = backoff(BACKOFF, self.failed_attempts);
        self.failed_attempts += 1;
        (self.failed_attempts, pause)
    }

    /// A refresh has failed. Returns how long to pause: `first` after the first failure, then twice
    /// as long each time.
    pub fn refresh_failed(&mut self, first: Duration) -> Duration {
        let pause = backoff((first, Duration::MAX), self.failed_refreshes);
        self.failed_refreshes += 1;
        pause
    }

    /// A seed has answered a refresh.
    pub fn refresh_answered(&mut self) {
        self.failed_refreshes = 0;
    }

    /// Begins a request. Returns its number.
    pub fn begin(&mut self, now: Time, seed: Addr, wish: Wish, version: u64) -> u64 {
        self.requests_used += 1;
        let request = SeedRequest { seed, wish, began: now, version, frames: Vec::new() };
        self.requests.insert(self.requests_used, request);
        self.requests_used
    }

    /// The open request with this number, if it was made to this seed.
    pub fn request_to(&self, seed: Addr, id: u64) -> Option<&SeedRequest> {
        self.requests.get(&id).filter(|request| request.seed == seed)
    }

    /// Ends a request. Returns it, if it was open.
    pub fn end(&mut self, id: u64) -> Option<SeedRequest> {
        self.requests.remove(&id)
    }

    /// Takes one frame of the list with which a seed answers a request. A list over the limits is a
    /// breach.
    pub fn frame(
        &mut self,
        seed: Addr,
        id: u64,
        records: Records,
        more: bool,
    ) -> Result<Framed, Breach> {
        let Some(request) = self.requests.get_mut(&id).filter(|request| request.seed == seed)
        else {
            return Ok(Framed::More);
        };
        let so_far = request.records().count();
        if so_far + records.len() > MAX_LIST || request.frames.len() >= MAX_FRAMES {
            return Err(Breach);
        }
        request.frames.push(records);
        match if more { None } else { self.requests.remove(&id) } {
            Some(request) => Ok(Framed::Whole(request)),
            None => Ok(Framed::More),
        }
    }

    /// The requests that a seed has not answered.
    pub fn requests_of(&self, seed: &Addr) -> Vec<u64> {
        self.requests.iter().filter(|(_, r)| r.seed == *seed).map(|(id, _)| *id).collect()
    }

    /// Number of seeds to which there is a connection.
    pub fn connected(&self) -> usize {
        self.seeds.values().filter(|known| known.conn.is_some()).count()
    }

    /// Whether there is a connection to this seed.
    pub fn is_connected(&self, seed: &Addr) -> bool {
        self.seeds.get(seed).is_some_and(|known| known.conn.is_some())
    }

    /// The first seed, by address, to which there is a connection.
    pub fn first_connected(&self) -> Option<Addr> {
        self.seeds.iter().find(|(_, known)| known.conn.is_some()).map(|(seed, _)| *seed)
    }

    /// Sends a message to a seed, or queues it until there is a connection. True if the caller has
    /// to dial the seed.
    pub fn say(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, message: Message) -> bool {
        let known = self.seeds.entry(seed).or_default();
        if let Some(conn) = known.conn {
            turn.send(conn, message);
            return false;
        }
        known.queue.push(message);
        known.dialling.is_none()
    }

    /// A connection to a seed is being opened.
    pub fn dialling(&mut self, seed: Addr, conn: Conn) {
        self.seeds.entry(seed).or_default().dialling = Some(conn);
    }

    /// A seed has answered the call: the queued messages go out.
    pub fn connect(&mut self, turn: &mut PeerTurn<'_>, seed: &Addr, conn: Conn) {
        let Some(known) = self.seeds.get_mut(seed) else { return };
        known.dialling = None;
        known.conn = Some(conn);
        known.refused = None;
        for message in std::mem::take(&mut known.queue) {
            turn.send(conn, message);
        }
    }

    /// A seed has not answered the call, or has refused it for this reason: the queued messages are
    /// lost.
    pub fn not_connected(&mut self, seed: &Addr, refused: Option<String>) {
        if let Some(known) = self.seeds.get_mut(seed) {
            known.dialling = None;
            known.queue.clear();
            known.refused = refused;
        }
    }

    /// A connection to a seed is gone. Returns whether it was the one in use.
    pub fn disconnect(&mut self, seed: &Addr, conn: Conn) -> bool {
        let known = self.seeds.get_mut(seed).filter(|known| known.conn == Some(conn));
        known.is_some_and(|known| known.conn.take().is_some())
    }

    /// A seed that has not answered a request hangs: gives up its connection, and returns it.
    pub fn give_up(&mut self, id: u64) -> Option<Conn> {
        let seed = self.requests.get(&id)?.seed;
        self.seeds.get_mut(&seed)?.conn.take()
    }

    /// A seed says that it would not have this peer, and why.
    pub fn refuse(&mut self, seed: &Addr, reason: String) {
        if let Some(known) = self.seeds.get_mut(seed) {
            known.refused = Some(reason);
        }
    }

    /// Why a seed would not have this peer, as it last said.
    pub fn refusal(&self, seed: &Addr) -> Option<String> {
        self.seeds.get(seed)?.refused.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(number: u16) -> Addr {
        ([127, 0, 0, 1], 5000 + number).into()
    }

    #[test]
    fn each_seed_counts_once_and_what_it_refused_is_forgotten_when_it_accepts() {
        let mut registration = Registration::default();
        registration.dialling(seed(0), 2);
        registration.refuse(&seed(0), "known in a later life".to_owned());
        assert!(registration.refusal(&seed(0)).is_some());
        assert_eq!(registration.accept(seed(0)), Some(1));
        assert_eq!((registration.accept(seed(0)), registration.refusal(&seed(0))), (None, None));
        assert_eq!(registration.missing(&[seed(0), seed(1)]), [seed(1)]);
        assert_eq!(registration.accept(seed(1)), Some(2));
        registration.complete();
        assert_eq!(registration.accept(seed(2)), None, "it is registered");
        registration.begin_anew();
        assert_eq!((registration.is_registered(), registration.accepted()), (false, 0));
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut registration = Registration::default();
        let pauses: Vec<u128> =
            (0..8).map(|_| registration.attempt_failed().1.as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        let first = Duration::from_millis(500);
        let pauses: Vec<u128> =
            (0..3).map(|_| registration.refresh_failed(first).as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000]);
        registration.refresh_answered();
        assert_eq!(registration.refresh_failed(first), first);
    }

    #[test]
    fn what_is_said_waits_for_the_connection_and_a_list_for_its_last_frame() {
        let (mut registration, mut effects) = (Registration::default(), Vec::new());
        let turn = &mut PeerTurn { now: Time::from_millis(1), effects: &mut effects };
        assert!(registration.say(turn, seed(0), Message::Ping(1)));
        registration.dialling(seed(0), 2);
        assert!(!registration.say(turn, seed(0), Message::Ping(2)), "it is being opened");
        registration.connect(turn, &seed(0), 2);
        assert!(!registration.say(turn, seed(0), Message::Ping(3)));
        assert_eq!(turn.effects.len(), 3);
        let id = registration.begin(turn.now, seed(0), Wish::Refresh, 7);
        let frame = |registration: &mut Registration, by, more| {
            registration.frame(by, id, Vec::new().into(), more).unwrap()
        };
        assert!(matches!(frame(&mut registration, seed(0), true), Framed::More));
        assert!(matches!(frame(&mut registration, seed(1), false), Framed::More), "not its own");
        let Framed::Whole(request) = frame(&mut registration, seed(0), false) else { panic!() };
        assert_eq!((request.frames().len(), request.version), (2, 7));
        assert_eq!((registration.give_up(id), registration.is_connected(&seed(0))), (None, true));
    }
}
