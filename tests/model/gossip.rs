//! Gossip among three real peers: a message crosses a link at most once in each direction
//! (invariant 6), in whatever order things arrive and timers fire.
//!
//! A peer's machine cannot be copied, but it follows from its inputs: so a
//! state is the inputs that each peer has had, which also makes two orders of
//! things that do not touch each other one state. The seed is played by the
//! model. Connections keep messages in order, as TCP does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rumormill::proto::config::{Network, PeerConfig};
use rumormill::proto::gossip::{MessageId, message_id};
use rumormill::proto::machine::{self, Conn, EffectOf, Machine, OpenError};
use rumormill::proto::message::{Addr, Answer, Broadcast, Message, Role, ToPeer, ToSeed, Welcome};
use rumormill::proto::peer::PeerMachine;
use rumormill::proto::planted::Flaw;
use rumormill::proto::registry::{Record, Status};
use rumormill::proto::roles::PeerCommand;
use rumormill::proto::time::Time;
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::scenario::depth;

type Input = machine::Input<PeerCommand>;
type Effect = EffectOf<PeerMachine>;

const NOW: Time = Time::from_millis(1_795_206_851_000);
const PEERS: usize = 3;

fn seed() -> Addr {
    ([127, 0, 0, 1], 5000).into()
}

fn addr(peer: usize) -> Addr {
    ([127, 0, 0, 1], 6000 + peer as u16).into()
}

fn records() -> Vec<(Addr, Record)> {
    let record = |peer: usize| {
        Record::plain(NOW.millis(), Status::Alive, NOW.millis() + peer as u64, vec![0])
    };
    (0..PEERS).map(|peer| (addr(peer), record(peer))).collect()
}

/// One end of a connection: whose, and its number there.
type End = (usize, Conn);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Circle {
    inputs: [Vec<(Time, Input)>; PEERS],
    now: [Time; PEERS],
    incoming: [Conn; PEERS],
    to_seed: BTreeSet<End>,
    ends: BTreeMap<End, End>,
    queues: BTreeMap<End, VecDeque<Message>>,
    /// What was sent from each end.
    sent: BTreeSet<(End, MessageId)>,
    twice: bool,
    published: u8,
    ticks: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Publish { peer: usize },
    Deliver { to: End },
    Tick { peer: usize },
}

struct Gossip {
    flaw: Flaw,
    publishers: &'static [usize],
    ticks: u8,
}

impl Gossip {
    fn machine(&self, circle: &Circle, peer: usize) -> PeerMachine {
        let network = Network::new("model", [seed()]);
        let config = PeerConfig::new(addr(peer), network).gossip_count(0);
        let mut machine = PeerMachine::new(config.with_flaw(self.flaw), 1);
        for (now, input) in &circle.inputs[peer] {
            machine.handle(*now, input.clone(), &mut Vec::new());
        }
        machine
    }

    /// Gives a peer an input; messages to other peers wait to be delivered.
    fn give(&self, circle: &mut Circle, peer: usize, input: Input) {
        let mut todo = VecDeque::from([(peer, input)]);
        while let Some((peer, input)) = todo.pop_front() {
            let mut machine = self.machine(circle, peer);
            let mut effects = Vec::new();
            let now = circle.now[peer];
            machine.handle(now, input.clone(), &mut effects);
            circle.inputs[peer].push((now, input));
            for effect in effects {
                circle.apply(peer, effect, &mut todo);
            }
        }
    }

    /// Three peers that are registered and linked, and have said all that this takes.
    fn linked(&self) -> Circle {
        let mut circle = Circle {
            inputs: Default::default(),
            now: [NOW; PEERS],
            incoming: [1; PEERS],
            to_seed: BTreeSet::new(),
            ends: BTreeMap::new(),
            queues: BTreeMap::new(),
            sent: BTreeSet::new(),
            twice: false,
            published: 0,
            ticks: 0,
        };
        (0..PEERS).for_each(|peer| self.give(&mut circle, peer, Input::Start));
        while let Some(to) = circle.waiting().first().copied() {
            self.deliver(&mut circle, to);
        }
        let links = |peer| self.machine(&circle, peer).neighbours().len();
        assert!((0..PEERS).all(|peer| links(peer) == PEERS - 1), "all are linked with all");
        circle
    }

    fn deliver(&self, circle: &mut Circle, to: End) {
        if let Some(message) = circle.queues.get_mut(&to).and_then(VecDeque::pop_front) {
            self.give(circle, to.0, Input::Received { conn: to.1, message });
        }
    }
}

impl Circle {
    /// Ends that something is on its way to.
    fn waiting(&self) -> Vec<End> {
        let waiting = self.queues.iter().filter(|(_, queue)| !queue.is_empty());
        waiting.map(|(end, _)| *end).collect()
    }

    fn apply(&mut self, peer: usize, effect: Effect, todo: &mut VecDeque<(usize, Input)>) {
        match effect {
            Effect::Open { conn, to, hello, .. } => {
                let Some(other) = (0..PEERS).find(|other| addr(*other) == to) else {
                    self.to_seed.insert((peer, conn));
                    let welcome = Welcome {
                        role: Role::Seed,
                        from: to,
                        incarnation: 0,
                        leaving: false,
                        clock: 0,
                        identity: None,
                    };
                    todo.push_back((peer, Input::Opened { conn, welcome }));
                    return;
                };
                self.incoming[other] += 2;
                let theirs = self.incoming[other];
                self.ends.insert((peer, conn), (other, theirs));
                self.ends.insert((other, theirs), (peer, conn));
                todo.push_back((other, Input::Incoming { conn: theirs, hello }));
            }
            Effect::Answer { conn, answer } => {
                let Some(&(other, theirs)) = self.ends.get(&(peer, conn)) else { return };
                match answer {
                    Answer::Welcome(welcome) => {
                        todo.push_back((other, Input::Opened { conn: theirs, welcome }));
                    }
                    Answer::Refused(refusal) => {
                        self.cut((peer, conn));
                        let error = OpenError::Refused(refusal);
                        todo.push_back((other, Input::OpenFailed { conn: theirs, error }));
                    }
                }
            }
            Effect::Send { conn, message } => self.send((peer, conn), message, todo),
            Effect::SendMany { conns, message } => {
                conns.into_iter().for_each(|conn| self.send((peer, conn), message.clone(), todo));
            }
            Effect::Close { conn } => {
                self.to_seed.remove(&(peer, conn));
                if let Some((other, conn)) = self.cut((peer, conn)) {
                    todo.push_back((other, Input::Closed { conn }));
                }
            }
            Effect::Persist { .. } | Effect::Log(_) | Effect::Reply(_) | Effect::Stopped => {}
        }
    }

    fn cut(&mut self, end: End) -> Option<End> {
        let other = self.ends.remove(&end)?;
        self.ends.remove(&other);
        self.queues.remove(&end);
        self.queues.remove(&other);
        Some(other)
    }

    fn send(&mut self, from: End, message: Message, todo: &mut VecDeque<(usize, Input)>) {
        if self.to_seed.contains(&from) {
            let mut say =
                |message| todo.push_back((from.0, Input::Received { conn: from.1, message }));
            match message {
                Message::ToSeed(ToSeed::Register { request, .. }) => {
                    say(Message::ToPeer(ToPeer::Granted { request, votes: 1 }));
                    say(Message::ToPeer(ToPeer::List {
                        request,
                        records: records().into(),
                        more: false,
                    }));
                }
                Message::ToSeed(ToSeed::Refresh { request, .. }) => {
                    say(Message::ToPeer(ToPeer::Unchanged { request }))
                }
                _ => {}
            }
            return;
        }
        let Some(to) = self.ends.get(&from) else { return };
        if let Message::Broadcast(Broadcast::Gossip(gossip)) = &message {
            self.twice |= !self.sent.insert((from, message_id(gossip)));
        }
        self.queues.entry(*to).or_default().push_back(message);
    }
}

impl Model for Gossip {
    type State = Circle;
    type Action = Action;

    fn init_states(&self) -> Vec<Circle> {
        vec![self.linked()]
    }

    fn actions(&self, circle: &Circle, actions: &mut Vec<Action>) {
        let next = self.publishers.get(usize::from(circle.published));
        actions.extend(next.map(|peer| Action::Publish { peer: *peer }));
        actions.extend(circle.waiting().into_iter().map(|to| Action::Deliver { to }));
        if circle.ticks < self.ticks {
            actions.extend((0..PEERS).map(|peer| Action::Tick { peer }));
        }
    }

    fn next_state(&self, before: &Circle, action: Action) -> Option<Circle> {
        let mut circle = before.clone();
        match action {
            Action::Publish { peer } => {
                circle.published += 1;
                let payload = Bytes::from_static(b"rumor");
                let publish = PeerCommand::Publish { token: 0, payload };
                self.give(&mut circle, peer, Input::Command(publish));
            }
            Action::Deliver { to } => self.deliver(&mut circle, to),
            Action::Tick { peer } => {
                circle.ticks += 1;
                let due = self.machine(&circle, peer).wake_at()?;
                circle.now[peer] = circle.now[peer].max(due);
                self.give(&mut circle, peer, Input::Tick);
            }
        }
        Some(circle)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, circle: &Circle| !circle.twice),
            Property::sometimes(HEARD, |gossip: &Gossip, circle: &Circle| {
                let all = gossip.publishers.len();
                (0..PEERS).all(|peer| gossip.machine(circle, peer).rumors().list().len() == all)
            }),
        ]
    }
}

const ONCE: &str = "6: a message crosses a link at most once in each direction";
const HEARD: &str = "everybody has heard everything";

/// Two messages of two peers, and timers that fire at any time.
fn two_rumors(flaw: Flaw) -> Gossip {
    Gossip { flaw, publishers: &[0, 2], ticks: 1 + depth() }
}

#[test]
fn a_message_crosses_a_link_once_in_each_direction() {
    let checker = two_rumors(Flaw::None).checker().threads(2).spawn_dfs().join();
    let states = checker.unique_state_count();
    println!("gossip: {states} states, up to {} steps deep", checker.max_depth());
    assert!(
        checker.discovery(ONCE).is_none(),
        "{:?}",
        checker.discovery(ONCE).map(|it| it.into_actions())
    );
    assert!(checker.discovery(HEARD).is_some(), "nobody hears anything");
    assert!(states >= 1_000, "only {states} states");
}

#[test]
fn a_peer_that_forwards_twice_is_seen() {
    let checker = two_rumors(Flaw::ForwardTwice)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discovery(ONCE).expect("a counterexample");
    println!("ForwardTwice: {:?}", found.into_actions());
}
