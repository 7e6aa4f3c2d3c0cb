//! One state of the model, and what follows from an input: three seats, the connections between
//! them, the peers.
//!
//! A connection between two seeds is made in one step, and carries messages in
//! order. What a peer says reaches its seed as soon as it is said, because a
//! script may say it at any time; what a seed answers counts as heard at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rumormill::proto::event::Event;
use rumormill::proto::machine::{Conn, EffectOf, Machine, OpenError};
use rumormill::proto::message::{Answer, Hello, Incarnation, Message, Role, ToSeed, Welcome};
use rumormill::proto::seed::SeedMachine;
use rumormill::proto::time::Time;

use super::history::Entry;
use super::ledger::{Ledger, Sight};
use super::scenario::{FAULTS, PEERS, SEEDS, Scenario};
use super::seat::{Input, Seat, network, peer_addr, peer_at, seed_addr, seed_at};

type Effect = EffectOf<SeedMachine>;

/// A connection between two seeds, by who dialled and who was called. A seed speaks only on those
/// that it was called on, so messages go to the one who dialled.
pub type LinkName = (usize, usize);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Its number at the one who dialled, and at the other.
    pub conns: (Conn, Conn),
    pub queue: VecDeque<Message>,
}

/// A peer's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    pub incarnation: Incarnation,
    pub leaving: bool,
}

/// A list that is being asked for, from one seed after another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reading {
    pub number: u8,
    /// Seeds that were asked, as bits.
    pub asked: u8,
    pub answers: Vec<Entry>,
    pub agreed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub seats: [Arc<Seat>; SEEDS],
    pub links: BTreeMap<LinkName, Link>,
    pub peers: [Option<Life>; PEERS],
    /// Lines of the script that were said, as bits.
    pub said: u32,
    pub reading: Reading,
    pub ledger: Arc<Ledger>,
    pub spent: [u8; FAULTS],
}

/// Whether anything came of an input that somebody else could notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noticed(pub bool);

/// Timers that may pass at a tick before one of them does anything.
const IDLE_TIMERS: usize = 12;

impl World {
    /// Three seeds that have founded the network, and the scenario's members in it.
    pub fn new(scenario: &Scenario) -> Self {
        let life = |(incarnation, _)| Life { incarnation, leaving: false };
        let mut world = Self {
            seats: [0, 1, 2].map(|place| Arc::new(Seat::new(place, scenario.flaw))),
            links: BTreeMap::new(),
            peers: scenario.peers.map(|peer| peer.map(life)),
            said: 0,
            reading: Reading::default(),
            ledger: Arc::new(Ledger::new([None; PEERS])),
            spent: [0; FAULTS],
        };
        for place in 0..SEEDS {
            world.start(scenario, place);
        }
        world.settle(scenario);
        let mut granted = [None; PEERS];
        for (peer, member) in scenario.peers.iter().enumerate() {
            if let Some((incarnation, true)) = *member {
                let request = 0;
                world.say(
                    scenario,
                    0,
                    peer,
                    Message::ToSeed(ToSeed::Register { request, incarnation }),
                );
                world.settle(scenario);
                granted[peer] = world.listed(0, peer);
                assert!(granted[peer].is_some(), "peer {peer} is registered at the beginning");
            }
        }
        Arc::make_mut(&mut world.ledger).begin(granted);
        (scenario.before)(&mut world, scenario);
        world.seal();
        world
    }

    pub fn seat(&mut self, place: usize) -> &mut Seat {
        Arc::make_mut(&mut self.seats[place]).open()
    }

    /// Takes the fingerprints of the seats that changed.
    pub fn seal(&mut self) {
        for seat in self.seats.iter_mut().filter(|seat| !seat.is_sealed()) {
            Arc::make_mut(seat).seal();
        }
    }

    /// What a seed's registry says of a peer; none also if it does not run.
    pub fn listed(&self, seed: usize, peer: usize) -> Entry {
        let record = self.seats[seed].registry()?.get(&peer_addr(peer))?;
        Some((record.incarnation, record.status))
    }

    /// Gives a seed an input, and at once what follows from it without anybody else's doing.
    pub fn give(&mut self, scenario: &Scenario, seed: usize, input: Input) -> Noticed {
        let mut noticed = Noticed(false);
        let mut todo = VecDeque::from([(seed, input)]);
        while let Some((place, input)) = todo.pop_front() {
            let seat = self.seat(place);
            let sight = match &input {
                Input::Opened { conn, welcome } => {
                    let answer = Ok(welcome.clone());
                    seat.probes.remove(conn).map(|peer| Sight { peer, answer })
                }
                Input::OpenFailed { conn, error } => {
                    let answer = Err(error.clone());
                    seat.probes.remove(conn).map(|peer| Sight { peer, answer })
                }
                _ => None,
            };
            let now = seat.now;
            let Some(machine) = &mut seat.machine else { continue };
            let mut effects = Vec::new();
            machine.handle(now, input, &mut effects);
            for effect in effects {
                noticed.0 |= self.apply(scenario, place, effect, sight.as_ref(), &mut todo);
            }
            if !scenario.slow_disks
                && let Some(input) = self.seat(place).sync()
            {
                todo.push_back((place, input));
            }
        }
        noticed
    }

    /// Does what a seed wants done; false if nobody notices.
    fn apply(
        &mut self,
        scenario: &Scenario,
        place: usize,
        effect: Effect,
        sight: Option<&Sight>,
        todo: &mut VecDeque<(usize, Input)>,
    ) -> bool {
        match effect {
            Effect::Open { conn, to, hello, .. } => match (seed_at(to), peer_at(to)) {
                (Some(other), _) => return self.connect(place, other, conn, hello, todo),
                (None, Some(peer)) => {
                    self.seat(place).probes.insert(conn, peer);
                    if !scenario.slow_probes {
                        todo.push_back((place, self.dial_back(conn, peer)));
                    }
                }
                (None, None) => panic!("seed {place} dials {to}, which is nobody"),
            },
            Effect::Answer { answer, .. } => {
                assert!(matches!(answer, Answer::Welcome(_)), "seed {place} refuses: {answer:?}");
                return false;
            }
            Effect::Send { conn, message } => return self.send(scenario, place, conn, message),
            Effect::SendMany { conns, message } => {
                let sent: Vec<bool> = conns
                    .into_iter()
                    .map(|conn| self.send(scenario, place, conn, message.clone()))
                    .collect();
                return sent.contains(&true);
            }
            Effect::Close { conn } => self.hang_up(place, conn, todo),
            Effect::Persist { batch, changes } => {
                let unsynced = &mut self.seat(place).disk.unsynced;
                let nothing = changes.is_empty() && unsynced.is_empty();
                unsynced.push_back((batch, changes));
                if nothing {
                    todo.extend(self.seat(place).sync().map(|input| (place, input)));
                }
            }
            Effect::Log(event) => self.hear_log(place, &event, sight),
            Effect::Reply(never) => match never {},
            Effect::Stopped => return false,
        }
        true
    }

    fn hear_log(&mut self, place: usize, event: &Event, sight: Option<&Sight>) {
        let event = if let Event::Aside(event) = event { &**event } else { event };
        match event {
            Event::Vote { on, peer, accept: true, incarnation, .. } => {
                if let Some(peer) = peer_at(*peer) {
                    let ledger = Arc::make_mut(&mut self.ledger);
                    ledger.accepts(place, *on, peer, *incarnation, sight);
                }
            }
            Event::DeadNodeProposed { peer, incarnation, .. } => {
                if let Some(peer) = peer_at(*peer) {
                    Arc::make_mut(&mut self.ledger).proposes_death(peer, *incarnation);
                }
            }
            _ => {}
        }
    }

    /// What a peer's process, or the kernel where it is none, answers to a dial.
    pub fn dial_back(&self, conn: Conn, peer: usize) -> Input {
        match self.peers[peer] {
            Some(Life { incarnation, leaving }) => {
                let (role, from) = (Role::Peer, peer_addr(peer));
                Input::Opened {
                    conn,
                    welcome: Welcome { role, from, incarnation, leaving, clock: 0, identity: None },
                }
            }
            None => Input::OpenFailed { conn, error: OpenError::Unreachable },
        }
    }

    fn connect(
        &mut self,
        place: usize,
        other: usize,
        conn: Conn,
        hello: Hello,
        todo: &mut VecDeque<(usize, Input)>,
    ) -> bool {
        if self.seats[other].machine.is_none() {
            todo.push_back((place, Input::OpenFailed { conn, error: OpenError::Unreachable }));
            return false;
        }
        let theirs = self.seat(other).next_incoming();
        let link = Link { conns: (conn, theirs), queue: VecDeque::new() };
        self.links.insert((place, other), link);
        todo.push_back((other, Input::Incoming { conn: theirs, hello }));
        let (role, from) = (Role::Seed, seed_addr(other));
        let welcome =
            Welcome { role, from, incarnation: 0, leaving: false, clock: 0, identity: None };
        todo.push_back((place, Input::Opened { conn, welcome }));
        true
    }

    fn send(&mut self, scenario: &Scenario, place: usize, conn: Conn, message: Message) -> bool {
        let to_seed =
            |((_, called), link): &(&LinkName, &mut Link)| *called == place && link.conns.1 == conn;
        if let Some((_, link)) = self.links.iter_mut().find(to_seed) {
            link.queue.push_back(message);
            return true;
        }
        if self.seats[place].clients.contains(&Some(conn)) {
            return self.hear_answer(scenario, message);
        }
        false
    }

    fn hang_up(&mut self, place: usize, conn: Conn, todo: &mut VecDeque<(usize, Input)>) {
        let at = |(dialled, called): &LinkName, link: &Link| {
            (*dialled == place && link.conns.0 == conn)
                || (*called == place && link.conns.1 == conn)
        };
        let found = self.links.iter().find(|(name, link)| at(name, link)).map(|(name, _)| *name);
        if let Some(name) = found
            && let Some(link) = self.links.remove(&name)
        {
            let (other, theirs) =
                if name.0 == place { (name.1, link.conns.1) } else { (name.0, link.conns.0) };
            todo.push_back((other, Input::Closed { conn: theirs }));
        }
        let seat = self.seat(place);
        seat.probes.remove(&conn);
        seat.clients.iter_mut().filter(|it| **it == Some(conn)).for_each(|it| *it = None);
    }

    /// A connection breaks; both ends learn of it.
    pub fn break_link(&mut self, scenario: &Scenario, name: LinkName) {
        if let Some(link) = self.links.remove(&name) {
            self.give(scenario, name.0, Input::Closed { conn: link.conns.0 });
            self.give(scenario, name.1, Input::Closed { conn: link.conns.1 });
        }
    }

    /// The next timers of a seed are due, until one of them does something.
    pub fn tick(&mut self, scenario: &Scenario, place: usize) {
        for _ in 0..IDLE_TIMERS {
            let Some(due) = self.due(place) else { return };
            self.wait_until(place, due);
            let noticed = self.give(scenario, place, Input::Tick);
            if noticed.0 {
                return;
            }
        }
    }

    pub fn wait_until(&mut self, place: usize, due: Time) {
        let seat = self.seat(place);
        seat.now = seat.now.max(due);
    }

    pub fn due(&self, place: usize) -> Option<Time> {
        self.seats[place].machine.as_ref().and_then(Machine::wake_at)
    }

    /// A seed dials another one again, whatever timers come before.
    pub fn redial(&mut self, scenario: &Scenario, name: LinkName) {
        for _ in 0..IDLE_TIMERS {
            if self.links.contains_key(&name) {
                return;
            }
            let Some(due) = self.due(name.0) else { return };
            self.wait_until(name.0, due);
            self.give(scenario, name.0, Input::Tick);
        }
    }

    /// The process of a seed ends; those that are connected to it learn of it.
    pub fn end(&mut self, scenario: &Scenario, place: usize) {
        let names: Vec<LinkName> = self
            .links
            .keys()
            .copied()
            .filter(|(dialled, called)| *dialled == place || *called == place)
            .collect();
        for name in names {
            if let Some(link) = self.links.remove(&name) {
                let (other, conn) =
                    if name.0 == place { (name.1, link.conns.1) } else { (name.0, link.conns.0) };
                self.give(scenario, other, Input::Closed { conn });
            }
        }
    }

    /// A seed's process begins, on what its disk holds.
    pub fn start(&mut self, scenario: &Scenario, place: usize) {
        self.seat(place).boot();
        self.give(scenario, place, Input::Start);
    }

    /// The message at that place in a connection's queue arrives.
    pub fn deliver(&mut self, scenario: &Scenario, name: LinkName, at: usize) {
        let Some(link) = self.links.get_mut(&name) else { return };
        let conn = link.conns.0;
        if let Some(message) = link.queue.remove(at) {
            self.give(scenario, name.0, Input::Received { conn, message });
        }
    }
}

/// How many lists a reader wants that say the same.
pub fn quorum() -> usize {
    network().quorum()
}
