//! A simulated process: a machine, its connections, and whether it runs.

use std::collections::{BTreeMap, VecDeque};

use rumormill::proto::config::{PeerConfig, SeedConfig};
use rumormill::proto::kv::replica::StoreChange;
use rumormill::proto::machine::{self, Conn, Machine};
use rumormill::proto::message::{Addr, Incarnation};
use rumormill::proto::peer::PeerMachine;
use rumormill::proto::roles::{Keep, PeerCommand, PeerReply, SeedCommand};
use rumormill::proto::seed::SeedMachine;
use rumormill::proto::time::Time;

/// A node by its place in the world's list.
pub type NodeId = usize;

/// The address of a seed by its place.
pub fn seed_addr(place: u8) -> Addr {
    ([10, 0, 0, place + 1], 5000).into()
}

/// What the world tells any node: a seed can only be asked to stop.
pub type Input = machine::Input<PeerCommand>;

/// What any node wants done: a seed has nothing to reply.
pub type Effect = machine::Effect<PeerReply, Change>;

/// What any node keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Registry(Keep),
    Store(StoreChange),
}

/// A process that is none of ours: a liar, written for one test.
pub type Script = dyn Machine<Command = PeerCommand, Reply = PeerReply, Change = Change>;

/// What runs on a node.
pub enum Body {
    Seed(Box<SeedMachine>),
    Peer(Box<PeerMachine>),
    Script(Box<Script>),
}

/// An input of any node as one of a seed; none if a seed has no such input.
fn to_seed(input: Input) -> Option<machine::Input<SeedCommand>> {
    Some(match input {
        Input::Command(PeerCommand::Leave) => machine::Input::Command(SeedCommand::Stop),
        Input::Command(_) => return None,
        Input::Start => machine::Input::Start,
        Input::Incoming { conn, hello } => machine::Input::Incoming { conn, hello },
        Input::Opened { conn, welcome } => machine::Input::Opened { conn, welcome },
        Input::OpenFailed { conn, error } => machine::Input::OpenFailed { conn, error },
        Input::Received { conn, message } => machine::Input::Received { conn, message },
        Input::Closed { conn } => machine::Input::Closed { conn },
        Input::Congested { conn } => machine::Input::Congested { conn },
        Input::Relieved { conn } => machine::Input::Relieved { conn },
        Input::Tick => machine::Input::Tick,
        Input::Persisted { batch } => machine::Input::Persisted { batch },
    })
}

/// An effect of one role as one of any node.
fn of_any<R, K>(
    effect: machine::Effect<R, K>,
    reply: impl Fn(R) -> PeerReply,
    change: impl Fn(K) -> Change,
) -> Effect {
    use machine::Effect as Of;
    match effect {
        Of::Open { conn, to, hello, within } => Effect::Open { conn, to, hello, within },
        Of::Answer { conn, answer } => Effect::Answer { conn, answer },
        Of::Send { conn, message } => Effect::Send { conn, message },
        Of::SendMany { conns, message } => Effect::SendMany { conns, message },
        Of::Close { conn } => Effect::Close { conn },
        Of::Persist { batch, changes } => {
            Effect::Persist { batch, changes: changes.into_iter().map(change).collect() }
        }
        Of::Reply(of) => Effect::Reply(reply(of)),
        Of::Log(event) => Effect::Log(event),
        Of::Stopped => Effect::Stopped,
    }
}

impl Machine for Body {
    type Command = PeerCommand;
    type Reply = PeerReply;
    type Change = Change;

    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match self {
            Body::Seed(machine) => {
                let Some(input) = to_seed(input) else { return };
                let mut own = Vec::new();
                machine.handle(now, input, &mut own);
                let of_seed = |effect| of_any(effect, |never| match never {}, Change::Registry);
                effects.extend(own.into_iter().map(of_seed));
            }
            Body::Peer(machine) => {
                let mut own = Vec::new();
                machine.handle(now, input, &mut own);
                let of_peer = |effect| of_any(effect, |reply| reply, Change::Store);
                effects.extend(own.into_iter().map(of_peer));
            }
            Body::Script(machine) => machine.handle(now, input, effects),
        }
    }

    fn wake_at(&self) -> Option<Time> {
        match self {
            Body::Seed(machine) => machine.wake_at(),
            Body::Peer(machine) => machine.wake_at(),
            Body::Script(machine) => machine.wake_at(),
        }
    }
}

/// What a node is made of each time that it starts.
#[derive(Clone)]
pub enum Kind {
    Seed(SeedConfig),
    Peer(PeerConfig),
    Script,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never started, crashed or gone.
    Down,
    Up,
    /// SIGSTOPped: the kernel still takes what comes, the process sees none of it.
    Hung,
}

/// One process.
pub struct Node {
    pub addr: Addr,
    pub kind: Kind,
    /// By how much its clock is ahead of the world's, microseconds.
    pub ahead: i64,
    pub state: State,
    /// Counts starts; 0 before the first.
    pub life: u32,
    /// How often its disk was replaced by an empty one. Its identity went with it.
    pub disks_lost: u32,
    /// When that last happened.
    pub disk_lost_at: Option<Time>,
    pub body: Option<Body>,
    /// Open and half-open connections: the link behind each, and which of its ends this is.
    pub conns: BTreeMap<Conn, (usize, usize)>,
    /// The last number given to an incoming connection in this life.
    pub incoming: Conn,
    /// The greatest number that the machine has used in this life.
    pub opened: Conn,
    /// When the machine's timer is set in the queue.
    pub wake: Option<Time>,
    /// When it last had a tick.
    pub ticked: Option<Time>,
    /// Ticks at one and the same time: a machine that never stops wanting them spins.
    pub spins: u32,
    /// What came while it was hung.
    pub backlog: VecDeque<Input>,
    /// It ended by its own will in its last life.
    pub left: bool,
}

impl Node {
    pub fn new(addr: Addr, kind: Kind) -> Self {
        Self {
            addr,
            kind,
            ahead: 0,
            state: State::Down,
            life: 0,
            disks_lost: 0,
            disk_lost_at: None,
            body: None,
            conns: BTreeMap::new(),
            incoming: 1,
            opened: 0,
            wake: None,
            ticked: None,
            spins: 0,
            backlog: VecDeque::new(),
            left: false,
        }
    }

    /// What its clock says.
    pub fn clock(&self, world: Time) -> Time {
        Time::from_micros(world.micros().saturating_add_signed(self.ahead))
    }

    /// When its machine wants a tick, by the world's clock.
    pub fn wake_at(&self) -> Option<Time> {
        let at = self.body.as_ref().and_then(Machine::wake_at)?;
        Some(Time::from_micros(at.micros().saturating_add_signed(-self.ahead)))
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    pub fn is_seed(&self) -> bool {
        matches!(self.kind, Kind::Seed(_))
    }

    pub fn is_peer(&self) -> bool {
        matches!(self.kind, Kind::Peer(_))
    }

    /// The peer that runs here, if one does.
    pub fn peer(&self) -> Option<&PeerMachine> {
        match &self.body {
            Some(Body::Peer(machine)) => Some(machine),
            _ => None,
        }
    }

    /// The seed that runs here, if one does.
    pub fn seed(&self) -> Option<&SeedMachine> {
        match &self.body {
            Some(Body::Seed(machine)) => Some(machine),
            _ => None,
        }
    }

    /// The incarnation of the peer that runs here.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.peer().map(PeerMachine::incarnation)
    }
}
