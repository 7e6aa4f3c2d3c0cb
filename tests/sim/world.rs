//! Time, the nodes, and the queue of what happens next.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rumormill::proto::identity::Identity;
use rumormill::proto::kv::clock::Seen;
use rumormill::proto::kv::replica::seen_of;
use rumormill::proto::machine::{Conn, Machine};
use rumormill::proto::message::{Addr, Answer, Hello, Message};
use rumormill::proto::peer::PeerMachine;
use rumormill::proto::roles::{PeerCommand, PeerReply};
use rumormill::proto::seed::SeedMachine;
use rumormill::proto::time::Time;

use super::check::Checks;
use super::disk::{Disk, SeedState};
use super::node::{Body, Change, Effect, Input, Kind, Node, NodeId, Script, State};
use super::stores::Shelf;
use super::tally::Tally;
use super::trace::Trace;
use super::watch::Watch;
use super::wire::{Link, Weather};

/// When every simulation starts: some day in 2026.
pub const START: Time = Time::from_millis(1_795_206_851_000);

/// Ticks at one and the same time after which a machine is said to spin.
const MAX_SPINS: u32 = 10_000;

/// What happens at its time.
pub enum Action {
    /// A machine's timer is due.
    Wake { node: NodeId, life: u32, due: Time },
    /// A hello reaches the host that was called.
    Knock { link: usize, hello: Hello },
    /// An answer reaches the caller.
    Answered { link: usize, answer: Answer },
    /// A reset reaches the caller: nobody listens.
    Unreachable { link: usize },
    /// The caller has waited long enough.
    GiveUp { link: usize },
    /// A message reaches an end of a link.
    Frame { link: usize, end: usize, message: Message },
    /// The other side's close or reset reaches an end of a link.
    Close { link: usize, end: usize },
    /// A link that a cut has silenced for long breaks at both ends, unless it heals before.
    Break { link: usize },
    /// The disk is done.
    Persisted { node: NodeId, life: u32, batch: u64 },
    /// A congested connection has emptied.
    Relieve { node: NodeId, life: u32, conn: Conn },
}

/// The whole simulated world.
pub struct World {
    pub now: Time,
    queue: BTreeMap<(Time, u64), Action>,
    sequence: u64,
    pub nodes: Vec<Node>,
    /// What seeds have on disk.
    pub disks: BTreeMap<NodeId, Disk<SeedState>>,
    /// What peers have on disk.
    pub shelves: BTreeMap<NodeId, Disk<Shelf>>,
    /// Whether a disk is there after a crash.
    pub disks_survive: bool,
    /// Whether links are encrypted, so that every process has an identity.
    pub keyed: bool,
    /// What each seed has written down of who the others are, in the order in which it met them.
    pub(super) met: BTreeMap<NodeId, Vec<(Addr, Identity)>>,
    pub(super) places: HashMap<Addr, NodeId>,
    pub(super) links: Vec<Link>,
    pub weather: Weather,
    pub rng: SmallRng,
    /// What watches every step; none where only the shape of the network matters.
    pub checks: Option<Box<Checks>>,
    pub trace: Trace,
    /// What a spectator remembers, if there is one.
    pub watch: Option<Box<Watch>>,
    pub tally: Tally,
    /// What clients of the store have seen, by the token of their last question.
    pub sessions: BTreeMap<u64, Seen>,
    effects: Vec<Effect>,
}

impl World {
    /// An empty world whose every chance follows from `number`.
    pub fn new(number: u64) -> Self {
        Self {
            now: START,
            queue: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            disks: BTreeMap::new(),
            shelves: BTreeMap::new(),
            disks_survive: false,
            keyed: false,
            met: BTreeMap::new(),
            places: HashMap::new(),
            links: Vec::new(),
            weather: Weather::default(),
            rng: SmallRng::seed_from_u64(number),
            checks: None,
            trace: Trace::new(START),
            watch: None,
            tally: Tally::default(),
            sessions: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// Adds a node that does not run yet.
    pub fn add(&mut self, addr: Addr, kind: Kind) -> NodeId {
        self.places.insert(addr, self.nodes.len());
        self.nodes.push(Node::new(addr, kind));
        self.nodes.len() - 1
    }

    /// Adds a process of a test's own, and starts it.
    pub fn add_script(&mut self, addr: Addr, machine: Box<Script>) -> NodeId {
        let node = self.add(addr, Kind::Script);
        self.launch(node, Body::Script(machine));
        node
    }

    pub fn schedule(&mut self, at: Time, action: Action) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), action);
    }

    /// Runs until `until`, everything due at that time included.
    pub fn run_until(&mut self, until: Time) {
        while let Some(first) = self.queue.first_entry() {
            let at = first.key().0;
            if at > until {
                break;
            }
            let action = first.remove();
            self.now = at;
            self.act(action);
        }
        self.now = until.max(self.now);
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Wake { node, life, due } => self.wake(node, life, due),
            Action::Persisted { node, life, batch } => {
                if self.nodes[node].life == life {
                    if self.nodes[node].is_seed() {
                        self.disks.entry(node).or_default().sync(batch);
                        self.check_disks();
                    } else {
                        self.shelves.entry(node).or_default().sync(batch);
                    }
                    self.give(node, Input::Persisted { batch });
                }
            }
            Action::Relieve { node, life, conn } => {
                if self.nodes[node].life == life && self.nodes[node].conns.contains_key(&conn) {
                    self.give(node, Input::Relieved { conn });
                }
            }
            Action::Knock { link, hello } => self.knock(link, hello),
            Action::Answered { link, answer } => self.answered(link, answer),
            Action::Unreachable { link } => self.unreachable(link),
            Action::GiveUp { link } => self.give_up(link),
            Action::Frame { link, end, message } => self.arrive(link, end, message),
            Action::Close { link, end } => self.close_arrives(link, end),
            Action::Break { link } => self.break_if_cut(link),
        }
    }

    /// Starts a node that is down, in a new life.
    pub fn start(&mut self, id: NodeId) {
        let rng_seed = self.rng.random();
        let signer = self.signer(id);
        let body = match &self.nodes[id].kind {
            Kind::Seed(config) => {
                let disk = self.disks.entry(id).or_default();
                let kept = disk.kept.registry.iter().map(|(peer, record)| (*peer, record.clone()));
                let mut seed = SeedMachine::new(config.clone(), rng_seed);
                if let Some(signer) = signer {
                    seed = seed.signing(signer, self.met.get(&id).cloned().unwrap_or_default());
                }
                Body::Seed(Box::new(seed.recovered(
                    disk.kept.standing,
                    disk.kept.founders.iter().copied(),
                    kept,
                )))
            }
            Kind::Peer(config) => {
                let store = self.shelves.entry(id).or_default().kept.store();
                let mut peer = PeerMachine::new(config.clone(), rng_seed);
                if let Some(signer) = signer {
                    peer = peer.signing(signer);
                }
                Body::Peer(Box::new(peer.recovered(store)))
            }
            Kind::Script => return,
        };
        self.launch(id, body);
    }

    fn launch(&mut self, id: NodeId, body: Body) {
        let node = &mut self.nodes[id];
        if node.state != State::Down {
            return;
        }
        let (life, ahead) = (node.life + 1, node.ahead);
        let (disks_lost, disk_lost_at) = (node.disks_lost, node.disk_lost_at);
        let fresh = Node::new(node.addr, node.kind.clone());
        *node = Node {
            life,
            ahead,
            disks_lost,
            disk_lost_at,
            state: State::Up,
            body: Some(body),
            ..fresh
        };
        let life = node.life;
        self.note(id, || format!("== starts, life {life}"));
        self.give(id, Input::Start);
    }

    /// `kill -9`: the process is gone, its kernel says goodbye to those that were connected.
    pub fn crash(&mut self, id: NodeId) {
        if self.nodes[id].state == State::Down {
            return;
        }
        self.note(id, || "== crashes".to_owned());
        self.end(id);
    }

    /// What was answered for has to be on disks enough.
    fn check_disks(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.disks(&self.disks);
        }
    }

    /// A seed's disk is replaced by an empty one; the seed must be down.
    pub fn lose_disk(&mut self, id: NodeId) {
        assert!(self.nodes[id].state == State::Down, "nobody takes the disk out of a running seed");
        self.note(id, || "== loses its disk".to_owned());
        self.tally.one("disks lost");
        self.disks.entry(id).or_default().lose();
        self.met.remove(&id);
        self.another_disk(id);
        self.check_disks();
    }

    /// A peer's disk is replaced by an empty one; the peer must be down.
    pub fn lose_shelf(&mut self, id: NodeId) {
        assert!(self.nodes[id].state == State::Down, "nobody takes the disk out of a running peer");
        self.note(id, || "== loses its disk".to_owned());
        self.tally.one("replicas lost");
        self.shelves.entry(id).or_default().lose();
        self.another_disk(id);
    }

    fn end(&mut self, id: NodeId) {
        self.harvest(id);
        if self.nodes[id].is_seed() {
            self.disks.entry(id).or_default().crash(&mut self.rng);
        } else if self.nodes[id].is_peer() {
            let shelf = self.shelves.entry(id).or_default();
            shelf.crash(&mut self.rng);
            if let (Some(checks), Some(name)) = (&mut self.checks, shelf.kept.name()) {
                checks.stores.ends(name, &shelf.kept.context());
            }
        }
        if let Some(checks) = &mut self.checks {
            checks.ended(&self.nodes[id].addr);
        }
        let node = &mut self.nodes[id];
        node.state = State::Down;
        node.body = None;
        node.backlog.clear();
        node.wake = None;
        for (link, end) in std::mem::take(&mut node.conns).into_values() {
            self.hang_up(link, end);
        }
        if self.nodes[id].is_seed() && !self.disks_survive {
            self.lose_disk(id);
        }
    }

    /// SIGSTOP.
    pub fn hang(&mut self, id: NodeId) {
        if self.nodes[id].is_up() {
            self.note(id, || "== hangs".to_owned());
            self.nodes[id].state = State::Hung;
        }
    }

    /// SIGCONT: all that came meanwhile is there at once, and so are the timers that are late.
    /// Which of the two the process sees first is chance.
    pub fn resume(&mut self, id: NodeId) {
        if self.nodes[id].state != State::Hung {
            return;
        }
        self.note(id, || "== goes on".to_owned());
        self.nodes[id].state = State::Up;
        if self.rng.random() {
            self.tick_if_due(id);
        }
        while self.nodes[id].is_up()
            && let Some(input) = self.nodes[id].backlog.pop_front()
        {
            self.feed(id, input);
        }
        self.rearm(id);
    }

    pub fn command(&mut self, id: NodeId, command: PeerCommand) {
        self.give(id, Input::Command(command));
    }

    /// A queue runs full, and empties after a while.
    pub fn congest(&mut self, id: NodeId, conn: Conn, relieved_after: Duration) {
        let life = self.nodes[id].life;
        self.give(id, Input::Congested { conn });
        self.schedule(self.now + relieved_after, Action::Relieve { node: id, life, conn });
    }

    /// Hands an input to a node: now if it runs, later if it hangs, never if it is down.
    pub(super) fn give(&mut self, id: NodeId, input: Input) {
        match self.nodes[id].state {
            State::Up => self.feed(id, input),
            State::Hung => self.nodes[id].backlog.push_back(input),
            State::Down => {}
        }
    }

    fn feed(&mut self, id: NodeId, input: Input) {
        let now = self.now;
        let node = &mut self.nodes[id];
        self.trace.feed((now, id, &input));
        self.trace.line(now, &node.addr, || format!("<- {input:?}"));
        if let Some(checks) = &mut self.checks {
            checks.before(now, id, node, &input);
        }
        let clock = node.clock(now);
        let Some(body) = &mut node.body else { return };
        let mut effects = std::mem::take(&mut self.effects);
        body.handle(clock, input, &mut effects);
        if let Some(checks) = &mut self.checks {
            let disk = self.shelves.get(&id).map(|shelf| shelf.kept.context());
            checks.after(now, id, node, &effects, disk.as_ref(), &mut self.tally);
        }
        self.trace_violations();
        for effect in effects.drain(..) {
            if self.nodes[id].state != State::Down {
                self.apply(id, effect);
            }
        }
        self.effects = effects;
        self.rearm(id);
    }

    fn apply(&mut self, id: NodeId, effect: Effect) {
        let addr = self.nodes[id].addr;
        self.trace.line(self.now, &addr, || match &effect {
            Effect::Log(event) => format!("   {event}"),
            Effect::Reply(reply) => format!("-> {reply:?}"),
            effect => format!("-> {effect:?}"),
        });
        if let Some(watch) = &mut self.watch {
            match &effect {
                Effect::Log(event) => watch.log(event),
                Effect::Reply(PeerReply::Deliver(delivery)) => watch.deliver(self.now, delivery.id),
                _ => {}
            }
        }
        match effect {
            Effect::Open { conn, to, hello, within } => self.dial(id, conn, to, hello, within),
            Effect::Answer { conn, answer } => self.answer(id, conn, answer),
            Effect::Send { conn, message } => self.send(id, conn, message),
            Effect::SendMany { conns, message } => {
                for conn in conns {
                    self.send(id, conn, message.clone());
                }
            }
            Effect::Close { conn } => {
                if let Some((link, end)) = self.nodes[id].conns.remove(&conn) {
                    self.hang_up(link, end);
                }
            }
            Effect::Persist { batch, changes } => {
                let life = self.nodes[id].life;
                let done = self.now + self.between(self.weather.disk);
                let is_seed = self.nodes[id].is_seed();
                let (mut records, mut writes) = (Vec::new(), Vec::new());
                for change in changes {
                    match change {
                        Change::Registry(change) => records.push(change),
                        Change::Store(change) => writes.push(change),
                    }
                }
                let busy_until = if is_seed {
                    let disk = self.disks.entry(id).or_default();
                    disk.write(batch, records);
                    &mut disk.busy_until
                } else {
                    let shelf = self.shelves.entry(id).or_default();
                    shelf.write(batch, writes);
                    &mut shelf.busy_until
                };
                let done = done.max(*busy_until);
                *busy_until = done;
                self.schedule(done, Action::Persisted { node: id, life, batch });
            }
            Effect::Reply(PeerReply::Stored { token, reply }) => {
                self.tally.one("store answers");
                if let Some(seen) = seen_of(&reply) {
                    self.sessions.insert(token, seen.clone());
                }
            }
            Effect::Stopped => {
                self.note(id, || "== has left".to_owned());
                self.end(id);
                self.nodes[id].left = true;
            }
            Effect::Log(_) | Effect::Reply(_) => {}
        }
    }

    fn wake(&mut self, id: NodeId, life: u32, due: Time) {
        let node = &mut self.nodes[id];
        if node.life != life || node.wake != Some(due) {
            return;
        }
        node.wake = None;
        if node.is_up() {
            self.tick_if_due(id);
            self.rearm(id);
        }
    }

    fn tick_if_due(&mut self, id: NodeId) {
        let wanted = self.nodes[id].wake_at();
        if wanted.is_some_and(|at| at <= self.now) {
            let node = &mut self.nodes[id];
            let again = node.ticked == Some(self.now);
            node.ticked = Some(self.now);
            node.spins = if again { node.spins + 1 } else { 0 };
            assert!(node.spins < MAX_SPINS, "{} wants a tick at {} for ever", node.addr, self.now);
            self.feed(id, Input::Tick);
        }
    }

    /// Puts a machine's next wish for a tick into the queue, if it is earlier than what is there.
    fn rearm(&mut self, id: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[id];
        let Some(at) = node.wake_at() else { return };
        let at = at.max(now);
        if node.wake.is_none_or(|set| at < set) {
            node.wake = Some(at);
            let life = node.life;
            self.schedule(at, Action::Wake { node: id, life, due: at });
        }
    }

    pub fn between(&mut self, (low, high): (Duration, Duration)) -> Duration {
        if low >= high { low } else { self.rng.random_range(low..=high) }
    }

    /// Writes into the trace what the checkers have found since the last time.
    fn trace_violations(&mut self) {
        let Some(checks) = &mut self.checks else { return };
        for violation in checks.unseen() {
            self.trace.line(self.now, &violation.whose, || format!("!! {violation}"));
        }
    }

    /// A line of the trace that is no input and no effect.
    pub fn note(&mut self, id: NodeId, words: impl FnOnce() -> String) {
        let addr = self.nodes[id].addr;
        self.trace.line(self.now, &addr, words);
    }

    /// Adds the counters of a peer's life to the tally.
    pub fn harvest(&mut self, id: NodeId) {
        let Some(counters) = self.nodes[id].peer().map(|peer| peer.counters().clone()) else {
            return;
        };
        self.tally.add("duplicates", counters.duplicates);
        self.tally.add("prunes", counters.prunes);
        self.tally.add("grafts", counters.grafts);
        self.tally.add("wants", counters.wants);
        self.tally.add("resent", counters.resent);
        self.tally.add("sync rounds", counters.sync.rounds);
        let repairs = counters.sync.rounds.saturating_sub(counters.sync.matched);
        self.tally.add("sync repairs", repairs);
        if let Some(store) = self.nodes[id].peer().map(|peer| peer.replica().counters().clone()) {
            self.tally.add("writes", store.written);
            self.tally.add("writes repaired", store.repaired);
            self.tally.add("snapshots", store.snapshots);
            self.tally.add("requests behind", store.behind);
        }
    }

    /// Those of these nodes that run peers, with the neighbours that each names.
    pub fn neighbours_of(&self, ids: &[NodeId]) -> Vec<(Addr, Vec<Addr>)> {
        let named = ids.iter().filter_map(|id| {
            let node = &self.nodes[*id];
            Some((node.addr, node.peer()?.neighbours()))
        });
        named.collect()
    }

    /// Nodes that run peers.
    pub fn peers_up(&self) -> Vec<NodeId> {
        (0..self.nodes.len())
            .filter(|id| self.nodes[*id].is_up() && self.nodes[*id].is_peer())
            .collect()
    }
}
