//! What goes wrong in a run, drawn from its number: crashes, cuts, hangs, bad weather.
//!
//! One thing never goes wrong here: the disks of more than a minority of the
//! seeds are lost at the same time, where one counts as lost until its seed
//! votes again. Nothing could be promised then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rumormill::proto::kv::replica::Request;
use rumormill::proto::kv::value::Value;
use rumormill::proto::message::Standing;
use rumormill::proto::roles::PeerCommand;
use rumormill::proto::time::Time;

use super::node::{NodeId, State};
use super::wire::Weather;
use super::world::World;

/// Peers that run at any time, at least.
const FEWEST: usize = 3;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How trouble ends.
#[derive(Clone, Copy, Debug)]
enum Undo {
    Start(NodeId),
    Resume(NodeId),
    Heal,
}

/// The source of trouble.
pub struct Trouble {
    rng: SmallRng,
    /// How often each kind is drawn, in the order of [`Trouble::strike`].
    weights: Vec<u32>,
    undo: Vec<(Time, Undo)>,
    seeds: Vec<NodeId>,
    leaving: BTreeSet<NodeId>,
    tokens: u64,
    /// Clients of the store: the token of each one's last question.
    clients: [u64; CLIENTS],
    /// Started at the end whatever happened, because others count on it.
    pub anchor: Option<NodeId>,
}

const KINDS: usize = 12;

/// Keys of the store that are written: few, so that writes meet.
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// Clients of the store, each of which goes on with what it has seen.
const CLIENTS: usize = 4;

impl Trouble {
    pub fn new(number: u64, seeds: Vec<NodeId>) -> Self {
        let mut rng = SmallRng::seed_from_u64(number ^ 0x7472_6f75_626c_6521);
        // Each run has its own mixture, in which some kinds are missing.
        let weights = (0..KINDS).map(|_| *[0, 1, 1, 2, 5].choose(&mut rng).unwrap_or(&1)).collect();
        Self {
            rng,
            weights,
            undo: Vec::new(),
            seeds,
            leaving: BTreeSet::new(),
            tokens: 0,
            clients: [0; CLIENTS],
            anchor: None,
        }
    }

    /// Makes trouble until `until`.
    pub fn rage(&mut self, world: &mut World, until: Time) {
        let pause = ms(self.rng.random_range(150..1_500));
        let mut next = world.now;
        while world.now < until {
            let at = self.undo.iter().map(|(at, _)| *at).fold(next, Time::min).min(until);
            world.run_until(at);
            self.relent(world);
            if world.now >= next {
                self.strike(world);
                next = world.now + self.rng.random_range(Duration::ZERO..pause * 2);
            }
        }
    }

    /// Ends all trouble: what follows must heal.
    pub fn end(&mut self, world: &mut World) {
        self.undo.retain(|(_, undo)| matches!(undo, Undo::Start(_)));
        while !world.weather.cuts.is_empty() {
            world.heal();
        }
        world.weather = Weather::default();
        for id in 0..world.nodes.len() {
            world.resume(id);
        }
        for id in self.seeds.clone() {
            self.start(world, id);
        }
        for id in 0..world.nodes.len() {
            let due =
                self.undo.iter().any(|(_, undo)| matches!(undo, Undo::Start(up) if *up == id));
            let due = due || self.anchor == Some(id);
            if world.nodes[id].is_peer() && (due || self.running(world).len() < FEWEST) {
                self.start(world, id);
            }
        }
        self.undo.clear();
    }

    /// Each peer says something more, so that a network that only looks healed is found out.
    pub fn speak_all(&mut self, world: &mut World) {
        for id in world.peers_up() {
            self.publish(world, id);
            self.ask_store(world, id);
        }
    }

    fn relent(&mut self, world: &mut World) {
        let now = world.now;
        let due: Vec<Undo> =
            self.undo.iter().filter(|(at, _)| *at <= now).map(|(_, undo)| *undo).collect();
        self.undo.retain(|(at, _)| *at > now);
        for undo in due {
            match undo {
                Undo::Start(id) => self.start(world, id),
                Undo::Resume(id) => world.resume(id),
                Undo::Heal => world.heal(),
            }
        }
    }

    fn later(&mut self, world: &World, millis: std::ops::Range<u64>, undo: Undo) {
        let at = world.now + ms(self.rng.random_range(millis));
        self.undo.push((at, undo));
    }

    fn start(&mut self, world: &mut World, id: NodeId) {
        if world.nodes[id].state == State::Down {
            if world.nodes[id].life > 0 {
                world.tally.one("restarts");
            }
            self.leaving.remove(&id);
            world.start(id);
        }
    }

    /// Peers that run and mean to go on.
    fn running(&self, world: &World) -> Vec<NodeId> {
        let mut peers: Vec<NodeId> = (0..world.nodes.len())
            .filter(|id| world.nodes[*id].is_peer() && world.nodes[*id].state != State::Down)
            .collect();
        peers.retain(|id| !self.leaving.contains(id));
        peers
    }

    fn a_peer(&mut self, world: &World) -> Option<NodeId> {
        self.running(world).choose(&mut self.rng).copied()
    }

    /// A peer that the network can do without.
    fn a_spare_peer(&mut self, world: &World) -> Option<NodeId> {
        let running = self.running(world);
        if running.len() <= FEWEST { None } else { running.choose(&mut self.rng).copied() }
    }

    fn strike(&mut self, world: &mut World) {
        let total: u32 = self.weights.iter().sum();
        let mut drawn = self.rng.random_range(0..total.max(1));
        let kind = self.weights.iter().position(|weight| {
            let hit = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            hit
        });
        match kind {
            Some(0) => self.change_weather(world),
            Some(1) => self.cut(world),
            Some(2) => {
                let Some(id) = self.a_spare_peer(world) else { return };
                world.tally.one("crashes");
                world.crash(id);
                if self.rng.random_bool(0.2) {
                    world.lose_shelf(id);
                }
                if self.rng.random_bool(0.7) {
                    self.later(world, 1..8_000, Undo::Start(id));
                }
            }
            Some(3) => self.crash_a_seed(world),
            Some(4) => {
                let id = self.rng.random_range(0..world.nodes.len());
                if world.nodes[id].is_up() {
                    world.tally.one("hangs");
                    world.hang(id);
                    self.later(world, 200..8_000, Undo::Resume(id));
                }
            }
            Some(5) => {
                let Some(id) = self.a_spare_peer(world) else { return };
                self.leaving.insert(id);
                world.tally.one("leaves asked for");
                world.command(id, PeerCommand::Leave);
                if self.rng.random_bool(0.4) {
                    self.later(world, 3_000..9_000, Undo::Start(id));
                }
            }
            Some(6) => {
                let Some(id) = self.a_peer(world) else { return };
                self.publish(world, id);
            }
            Some(7) => self.congest(world),
            Some(8) => {
                let Some(id) = self.a_peer(world) else { return };
                let links: Vec<usize> =
                    world.nodes[id].conns.values().map(|(link, _)| *link).collect();
                if let Some(link) = links.choose(&mut self.rng) {
                    world.tally.one("links broken");
                    world.break_link(*link);
                }
            }
            Some(9) => {
                let fresh: Vec<NodeId> = (0..world.nodes.len())
                    .filter(|id| world.nodes[*id].is_peer() && world.nodes[*id].life == 0)
                    .collect();
                if let Some(id) = fresh.first() {
                    world.start(*id);
                }
            }
            Some(10) => {
                for _ in 0..self.rng.random_range(1..=5) {
                    let Some(id) = self.a_peer(world) else { return };
                    self.ask_store(world, id);
                }
            }
            _ => {
                // A restart so quick that nobody may have noticed; but no process starts within a
                // millisecond, which is what an incarnation counts.
                let Some(id) = self.a_peer(world) else { return };
                world.tally.one("crashes");
                world.crash(id);
                self.later(world, 3..50, Undo::Start(id));
            }
        }
    }

    fn publish(&mut self, world: &mut World, id: NodeId) {
        self.tokens += 1;
        let payload = Bytes::from(format!("payload {}", self.tokens));
        world.command(id, PeerCommand::Publish { token: self.tokens, payload });
    }

    /// A client reads or writes somewhere, mostly with what it has seen elsewhere.
    fn ask_store(&mut self, world: &mut World, id: NodeId) {
        self.tokens += 1;
        let token = self.tokens;
        let key: Arc<str> = (*KEYS.choose(&mut self.rng).unwrap_or(&"a")).into();
        let number = serde_json::json!(token);
        let request = match self.rng.random_range(0..10) {
            0..=2 => Request::Get(key.clone()),
            3..=4 => Request::Delete(key.clone()),
            _ => match Value::new(&number) {
                Ok(value) => Request::Put(key.clone(), value),
                Err(error) => panic!("{number} is a value: {error}"),
            },
        };
        let client = self.rng.random_range(0..CLIENTS);
        let before = self.clients[client];
        let seen = match self.rng.random_bool(0.8) {
            true => world.sessions.get(&before).cloned(),
            false => None,
        };
        self.clients[client] = token;
        if let Some(checks) = &mut world.checks {
            checks.stores.asks(token, key, seen.is_some().then_some(before));
        }
        world.command(id, PeerCommand::Store { token, request, seen });
    }

    fn change_weather(&mut self, world: &mut World) {
        let rng = &mut self.rng;
        let latencies = [(1, 2), (1, 20), (20, 80), (1, 200)];
        let (low, high) = *latencies.choose(rng).unwrap_or(&(1, 2));
        world.weather.latency = (ms(low), ms(high));
        world.weather.disk = (ms(0), ms(*[1, 5, 60].choose(rng).unwrap_or(&1)));
        world.weather.loss = *[0.0, 0.0, 0.01, 0.05, 0.15].choose(rng).unwrap_or(&0.0);
        world.weather.twice = *[0.0, 0.0, 0.05].choose(rng).unwrap_or(&0.0);
        world.weather.overtaken = *[0.0, 0.0, 0.05, 0.2].choose(rng).unwrap_or(&0.0);
    }

    fn cut(&mut self, world: &mut World) {
        if world.weather.cuts.len() >= 2 {
            return;
        }
        let all = world.nodes.len();
        let side = if self.rng.random() {
            1 << self.rng.random_range(0..all) // one node alone
        } else {
            self.rng.random_range(1..(1_u64 << all) - 1)
        };
        world.cut(side);
        self.later(world, 300..10_000, Undo::Heal);
    }

    fn crash_a_seed(&mut self, world: &mut World) {
        let all = self.seeds.clone();
        if world.disks_survive && self.rng.random_bool(0.2) {
            world.tally.one("all seeds crashed");
            for id in all {
                world.crash(id);
                self.later(world, 200..8_000, Undo::Start(id));
            }
            return;
        }
        let Some(id) = self.seeds.choose(&mut self.rng).copied() else { return };
        let loses = !world.disks_survive || self.rng.random_bool(0.4);
        if world.nodes[id].state == State::Down || loses && !self.may_lose_disk(world, id) {
            return;
        }
        world.tally.one("seed crashes");
        world.crash(id);
        if loses && world.disks_survive {
            world.lose_disk(id);
        }
        self.later(world, 200..8_000, Undo::Start(id));
    }

    /// Whether only a minority of disks were lost without this seed's, too.
    fn may_lose_disk(&self, world: &World, id: NodeId) -> bool {
        let lost = |seed: &&NodeId| {
            **seed == id
                || world.disks.get(seed).is_none_or(|disk| disk.kept.standing != Standing::Voting)
        };
        self.seeds.iter().filter(lost).count() <= (self.seeds.len() - 1) / 2
    }

    fn congest(&mut self, world: &mut World) {
        let Some(id) = self.a_peer(world) else { return };
        let conns = world.open_conns(id);
        if let Some(conn) = conns.choose(&mut self.rng) {
            world.tally.one("congestions");
            let relieved_after = ms(self.rng.random_range(100..2_000));
            world.congest(id, *conn, relieved_after);
        }
    }
}
