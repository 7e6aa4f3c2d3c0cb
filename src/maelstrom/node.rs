//! A Maelstrom node without input and output: it takes lines and the time, and returns lines.
//!
//! What must stay true: nothing is answered before `init` has named the node; requests that come
//! earlier wait for it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use super::body::{Call, Mistake, envelope};
use super::counter::Counter;
use super::elements::{self, Elements};
use super::links::Links;
use super::workload::{Kind, Workload};
use crate::proto::config::{Membership, Network, Overlay, PeerConfig};
use crate::proto::event::Event;
use crate::proto::limits::Drops;
use crate::proto::machine::{Effect, EffectOf, Input, Machine};
use crate::proto::message::{Addr, Gossip};
use crate::proto::peer::PeerMachine;
use crate::proto::roles::{PeerCommand, PeerReply};
use crate::proto::time::Time;

/// Messages that may wait for `init`. Further ones are refused, with a word on stderr.
const MAX_HELD: usize = 1_024;
/// Bytes of a digest in hex: the cost of a comparison that would otherwise send lists.
const DIGEST_HEX: u64 = 64;

/// The options of `peer --maelstrom`.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a node may gather broadcasts before it forwards them. With zero, each broadcast
    /// goes straight from its origin to all others.
    pub batch: Duration,
    /// The workload, if it is known before a request tells.
    pub workload: Option<Workload>,
    /// The settings of the peer; address and members follow from `init`, the overlay from `batch`.
    pub peer: PeerConfig,
}

impl Options {
    /// Gathers for that long. All other options have the defaults of this mode, whose partitions
    /// last seconds and whose links take a tenth of a second.
    pub fn new(batch: Duration) -> Self {
        let nobody = (Ipv4Addr::UNSPECIFIED, 0).into();
        let peer = PeerConfig::new(nobody, Network::without_seeds("maelstrom"))
            .probe_timeout(Duration::from_millis(700))
            .ping_interval(Duration::from_secs(1))
            .suspect_timeout(Duration::from_secs(6))
            .sync_interval(Duration::from_secs(3))
            .gossip_count(0)
            // The workloads keep no keys.
            .replicates(false);
        Self { batch, workload: None, peer }
    }
}

/// The usual batch: long enough to need less than two messages for a broadcast, and short enough
/// for a median below 300 ms, with 25 nodes and links of 100 ms.
pub const DEFAULT_BATCH: Duration = Duration::from_millis(170);

/// A line to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// A message, for stdout.
    Message(String),
    /// A complaint about the input, for stderr.
    Complaint(String),
    /// An event that the machine logs, for stderr.
    Event(Event),
}

/// A node.
#[derive(Debug)]
pub struct Node {
    options: Options,
    rng: SmallRng,
    next_msg_id: u64,
    /// Senders and bodies that came before `init`.
    held: VecDeque<(String, String)>,
    started: Option<Started>,
    out: Vec<Out>,
}

/// The part of a node that exists once it knows its name.
#[derive(Debug)]
struct Started {
    name: String,
    others: Vec<String>,
    machine: PeerMachine,
    links: Links,
    effects: Vec<EffectOf<PeerMachine>>,
    inputs: VecDeque<Input<PeerCommand>>,
    elements: Elements,
    counter: Counter,
    /// A number that no other life of this node and no other node has: part of each identifier.
    life: u64,
    generated: u64,
    tokens: u64,
    stats: Stats,
    /// What was dropped because of a limit, so that each kind is told once an hour.
    drops: Drops,
}

/// Counts of what clients asked for and the machine does not count.
#[derive(Debug, Default)]
struct Stats {
    rounds: u64,
    matched: u64,
    messages_saved: u64,
    bytes_saved: u64,
}

impl Node {
    /// A node that waits for `init`. `rng_seed` decides everything that is left to chance.
    pub fn new(options: Options, rng_seed: u64) -> Self {
        Self {
            options,
            rng: SmallRng::seed_from_u64(rng_seed),
            next_msg_id: 0,
            held: VecDeque::new(),
            started: None,
            out: Vec::new(),
        }
    }

    /// Takes a line of input. Adds to `out` what is to be written.
    pub fn line(&mut self, now: Time, line: &str, out: &mut Vec<Out>) {
        if !line.trim().is_empty() {
            match envelope(line) {
                Ok((src, body)) => self.message(now, &src, &body),
                Err(complaint) => self.out.push(Out::Complaint(complaint)),
            }
        }
        self.finish(now, false, out);
    }

    /// Tells the node that the time of `wake_at` has come.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Out>) {
        if let Some(node) = &mut self.started {
            node.inputs.extend(node.links.overdue(now));
            node.inputs.push_back(Input::Tick);
        }
        self.finish(now, false, out);
    }

    /// The time at which the node wants a tick.
    pub fn wake_at(&self) -> Option<Time> {
        let node = self.started.as_ref()?;
        [node.machine.wake_at(), node.links.wake_at()].into_iter().flatten().min()
    }

    /// The number of elements that the node holds.
    pub fn known(&self) -> usize {
        self.started.as_ref().map_or(0, |node| node.elements.len())
    }

    /// Ends the input: writes the frames that wait for company. False if gossip is still being
    /// gathered, which the caller has to wait for.
    pub fn end(&mut self, now: Time, out: &mut Vec<Out>) -> bool {
        self.finish(now, true, out);
        self.started.as_ref().is_none_or(|node| !node.machine.rumors().is_gathering())
    }

    fn message(&mut self, now: Time, src: &str, body: &Map<String, Value>) {
        let kind = body.get("type").and_then(Value::as_str);
        if self.started.is_none() && kind != Some("init") {
            if self.held.len() < MAX_HELD {
                let body = Value::Object(body.clone()).to_string();
                self.held.push_back((src.to_owned(), body));
            } else {
                self.out.push(Out::Complaint(format!("too much before init; {src} is not heard")));
            }
            return;
        }
        let in_reply_to = body.get("msg_id").and_then(Value::as_u64);
        let workload = self.started.as_ref().and_then(|node| node.elements.kind());
        let reply = match Call::read(body, workload) {
            Ok(Call::Answer) => return,
            Ok(Call::Init { name, all }) => self.init(now, name, all),
            Ok(request) => self.serve(now, src, request),
            Err(mistake) => Err(mistake),
        };
        match reply {
            Ok(None) => {}
            Ok(Some(reply)) => self.reply(src, in_reply_to, reply),
            Err(Mistake { code, text }) => {
                self.reply(src, in_reply_to, json!({"type": "error", "code": code, "text": text}));
            }
        }
        while self.started.is_some()
            && let Some((src, body)) = self.held.pop_front()
        {
            if let Ok(Value::Object(body)) = serde_json::from_str(&body) {
                self.message(now, &src, &body);
            }
        }
    }

    fn init(
        &mut self,
        now: Time,
        name: String,
        mut all: Vec<String>,
    ) -> Result<Option<Value>, Mistake> {
        if let Some(node) = &self.started {
            return match node.name == name {
                true => Ok(Some(json!({"type": "init_ok"}))),
                false => Err(Mistake::malformed("the node has another name already")),
            };
        }
        // Shorter names come first, so that n2 counts as older than n10.
        all.push(name.clone());
        all.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
        all.dedup();
        let addresses: Vec<Addr> = (1..).zip(&all).map(|(number, _)| address(number)).collect();
        let me = all.iter().zip(&addresses).find(|(other, _)| **other == name);
        let Some((_, me)) = me else { return Err(Mistake::crash("no address for this node")) };
        let config = self.config_of(*me, &addresses);
        let batch = self.options.batch;
        // A batch longer than usual asks for fewer messages. Then gossip to the hub may wait for
        // more, too, for a quarter of the time beyond the usual batch.
        let company = batch.saturating_sub(DEFAULT_BATCH) / 4;
        let links = Links::new(*me, all.iter().cloned().zip(addresses), company);
        let others = all.into_iter().filter(|other| *other != name).collect();
        let mut elements = Elements::default();
        if let Some(workload) = self.options.workload {
            elements.hint(workload.into());
        }
        let life = self.rng.random();
        self.started = Some(Started {
            name,
            others,
            machine: PeerMachine::new(config, self.rng.random()),
            links,
            effects: Vec::new(),
            inputs: VecDeque::from([Input::Start]),
            elements,
            counter: Counter::new(life),
            life,
            generated: 0,
            tokens: 0,
            stats: Stats::default(),
            drops: Drops::default(),
        });
        // The machine starts before any held message is served.
        self.run_machine(now);
        Ok(Some(json!({"type": "init_ok"})))
    }

    /// The settings of the machine, for a network of nodes at these addresses.
    fn config_of(&self, me: Addr, addresses: &[Addr]) -> PeerConfig {
        let batch = self.options.batch;
        let mut config = self.options.peer.clone();
        config.me = me;
        let max_links = addresses.len().max(config.topology.max_links);
        config
            .overlay(if batch.is_zero() { Overlay::Full } else { Overlay::Hub })
            .gather(batch)
            .membership(Membership::Fixed(addresses.to_vec()))
            .max_links(max_links)
    }

    fn serve(&mut self, now: Time, src: &str, request: Call) -> Result<Option<Value>, Mistake> {
        let Some(node) = &mut self.started else {
            return Err(Mistake::crash("not started"));
        };
        let reply = match request {
            Call::Topology => {
                node.elements.hint(Kind::Message);
                json!({"type": "topology_ok"})
            }
            Call::Echo(echo) => json!({"type": "echo_ok", "echo": echo}),
            Call::Say(kind, element) => {
                node.add(Some(kind), element);
                let ok = if kind == Kind::Message { "broadcast_ok" } else { "add_ok" };
                json!({"type": ok})
            }
            Call::Read => node.read()?,
            Call::Count(delta) => {
                node.count(delta)?;
                json!({"type": "add_ok"})
            }
            Call::Generate => node.generate(),
            Call::Round => self.round(),
            Call::Sync(messages) => {
                json!({"type": "gossip_sync_ok", "new_count": node.add_all(messages)})
            }
            Call::Digest => {
                let (digest, count) = (node.elements.digest(), node.elements.len());
                json!({"type": "digest_ok", "digest": digest, "count": count})
            }
            Call::DigestSync { digest, messages } => node.digest_sync(&digest, messages),
            Call::Stats => node.stats(),
            Call::Frames(frames) => {
                let (inputs, complaint) = node.links.frames(src, &frames);
                node.inputs.extend(inputs);
                self.out.extend(complaint.map(Out::Complaint));
                self.run_machine(now);
                return Ok(None);
            }
            Call::Init { .. } | Call::Answer => return Ok(None),
        };
        self.run_machine(now);
        Ok(Some(reply))
    }

    /// Sends all elements to a few other nodes.
    fn round(&mut self) -> Value {
        let Some(node) = &mut self.started else { return Value::Null };
        node.stats.rounds += 1;
        let mut others = node.others.clone();
        let mut chosen = Vec::new();
        while chosen.len() < self.options.peer.sync.fanout && !others.is_empty() {
            chosen.push(others.swap_remove(self.rng.random_range(0..others.len())));
        }
        let all = node.elements.all();
        let reply = json!({
            "type": "gossip_round_ok",
            "peers_contacted": chosen.len(),
            "messages_sent": chosen.len() * all.len(),
        });
        if !all.is_empty() {
            for other in chosen {
                let body = json!({"type": "gossip_sync", "messages": all});
                self.say(&other, body);
            }
        }
        reply
    }

    /// Hands the machine the inputs that wait, and those that follow from them.
    fn run_machine(&mut self, now: Time) {
        let Some(node) = &mut self.started else { return };
        while let Some(input) = node.inputs.pop_front() {
            node.machine.handle(now, input, &mut node.effects);
            for effect in std::mem::take(&mut node.effects) {
                match effect {
                    Effect::Reply(PeerReply::Deliver(delivery)) => node.receive(&delivery.gossip),
                    Effect::Log(event) => {
                        self.out.extend(event.counted(now, &mut node.drops).map(Out::Event));
                    }
                    Effect::Persist { batch, .. } => {
                        node.inputs.push_back(Input::Persisted { batch });
                    }
                    // The element is in the set all the same, and goes out with the next round.
                    Effect::Reply(PeerReply::Published { result: Err(error), .. }) => {
                        self.out.push(Out::Complaint(format!("not gossiped: {error}")));
                    }
                    Effect::Reply(_) | Effect::Stopped => {}
                    other => node.inputs.extend(node.links.perform(now, other)),
                }
            }
        }
    }

    /// Ends a turn: runs the machine, and writes the frames that are due.
    fn finish(&mut self, now: Time, all: bool, out: &mut Vec<Out>) {
        self.run_machine(now);
        let due = self.started.as_mut().map(|node| node.links.due(now, all)).unwrap_or_default();
        for (to, frames) in due {
            self.say(&to, json!({"type": "frames", "frames": frames}));
        }
        out.append(&mut self.out);
    }

    fn reply(&mut self, to: &str, in_reply_to: Option<u64>, mut body: Value) {
        if let Some(msg_id) = in_reply_to {
            body["in_reply_to"] = json!(msg_id);
        }
        self.say(to, body);
    }

    fn say(&mut self, to: &str, mut body: Value) {
        let Some(node) = &self.started else {
            // A node without a name cannot say anything.
            self.out.push(Out::Complaint(format!("no init yet; {to} gets no answer")));
            return;
        };
        body["msg_id"] = json!(self.next_msg_id);
        self.next_msg_id += 1;
        let message = json!({"src": node.name, "dest": to, "body": body});
        self.out.push(Out::Message(message.to_string()));
    }
}

impl Started {
    /// Answers a read: all elements, or the sum of the counter.
    fn read(&self) -> Result<Value, Mistake> {
        let (field, value) = match self.elements.kind() {
            Some(Kind::Element) => ("value", Value::Array(self.elements.all())),
            Some(Kind::Counter { .. }) => ("value", self.sum()?),
            // The workload is not known. Both fields cannot be sent: one too many ends the clients
            // of Maelstrom.
            _ => ("messages", Value::Array(self.elements.all())),
        };
        Ok(json!({"type": "read_ok", field: value}))
    }

    /// Makes an identifier that nobody else makes.
    fn generate(&mut self) -> Value {
        self.elements.hint(Kind::Nothing);
        self.generated += 1;
        let id = format!("{}-{:016x}-{}", self.name, self.life, self.generated);
        json!({"type": "generate_ok", "id": id})
    }

    /// Puts an element in and gossips it; false if it was there before.
    fn add(&mut self, kind: Option<Kind>, element: Value) -> bool {
        let payload = Bytes::from(elements::payload(kind, &element));
        let is_new = self.elements.insert(kind, element);
        if is_new {
            self.publish(payload);
        }
        is_new
    }

    /// Puts in the elements of another node. Returns how many of them were new.
    fn add_all(&mut self, elements: Vec<Value>) -> usize {
        let kind = self.elements.kind();
        elements.into_iter().filter(|element| self.add(kind, element.clone())).count()
    }

    /// Adds to the counter, and gossips the new total of this node.
    fn count(&mut self, delta: i64) -> Result<(), Mistake> {
        self.elements.hint(Kind::Counter { grows_only: false });
        if delta == 0 {
            return Ok(());
        }
        let Some(total) = self.counter.add(delta) else {
            return Err(Mistake::malformed("add: the sum would not fit 64 bits"));
        };
        self.publish(Bytes::from(total));
        Ok(())
    }

    fn sum(&self) -> Result<Value, Mistake> {
        let sum = i64::try_from(self.counter.sum());
        sum.map(Value::from).map_err(|_| Mistake::crash("the sum does not fit 64 bits"))
    }

    /// Takes in what came by gossip: a total or an element.
    fn receive(&mut self, gossip: &Gossip) {
        if self.counter.receive(gossip) {
            self.elements.hint(Kind::Counter { grows_only: false });
        } else {
            self.elements.receive(&gossip.payload);
        }
    }

    fn publish(&mut self, payload: Bytes) {
        self.tokens += 1;
        let publish = PeerCommand::Publish { token: self.tokens, payload };
        self.inputs.push_back(Input::Command(publish));
    }

    fn digest_sync(&mut self, digest: &str, messages: Option<Vec<Value>>) -> Value {
        self.stats.rounds += 1;
        if digest.eq_ignore_ascii_case(&self.elements.digest()) {
            let list = Value::Array(self.elements.all()).to_string().len() as u64;
            self.stats.matched += 1;
            self.stats.messages_saved += self.elements.len() as u64;
            self.stats.bytes_saved += list.saturating_sub(DIGEST_HEX);
            return json!({"type": "digest_sync_ok", "match": true, "transferred": 0});
        }
        let transferred = messages.map_or(0, |messages| self.add_all(messages));
        json!({
            "type": "digest_sync_ok",
            "match": false,
            "transferred": transferred,
            // The set after the merge. The asker takes from it what it lacks, and then has all.
            "local_messages": self.elements.all(),
        })
    }

    fn stats(&self) -> Value {
        // The machine's savings are counted against lists of all identities, of 32 bytes each.
        let counters = self.machine.counters();
        json!({
            "type": "stats_ok",
            "rounds": self.stats.rounds + counters.sync.rounds,
            "digests_matched": self.stats.matched + counters.sync.matched,
            "messages_saved": self.stats.messages_saved + counters.sync.saved / 32,
            "bytes_saved": self.stats.bytes_saved + counters.sync.saved,
        })
    }
}

/// The address under which the machine knows the node of that number. Any would do, since nobody
/// connects to it.
fn address(number: u32) -> Addr {
    (Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)).saturating_add(number)), 1).into()
}
