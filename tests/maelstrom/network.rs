//! Networks of nodes in simulated time: what a broadcast costs, how long it takes, and that nothing
//! is lost when the network is cut.
//!
//! The load is that of the well-known challenge: 25 nodes, 100 ms a link, 100 operations a second,
//! half of them reads. Latency is the time from a broadcast's answer until the last node has it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rumormill::maelstrom::{DEFAULT_BATCH, Node, Options, Out};
use rumormill::proto::time::Time;
use serde_json::{Value, json};

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const START: Time = Time::from_millis(1_795_206_851_000);

/// Who cannot hear whom: nodes of different groups.
pub type Groups = Vec<usize>;

pub struct Network {
    pub now: Time,
    pub nodes: Vec<Node>,
    lines: BTreeMap<(Time, u64), (usize, String)>,
    sequence: u64,
    latency: Duration,
    pub loss: f64,
    pub groups: Option<Groups>,
    pub rng: SmallRng,
    /// Messages between nodes.
    pub messages: u64,
    /// When each value was broadcast, and how many nodes have it since when at the latest.
    spread: BTreeMap<u64, (Time, usize, Time)>,
    seen: Vec<Vec<u64>>,
    replies: Vec<Value>,
}

impl Network {
    pub fn new(many: usize, batch: Duration, number: u64) -> Self {
        Self::with(many, Options::new(batch), number)
    }

    pub fn with(many: usize, options: Options, number: u64) -> Self {
        let names: Vec<String> = (0..many).map(|place| format!("n{place}")).collect();
        let mut network = Self {
            now: START,
            nodes: (0..many as u64).map(|seed| Node::new(options.clone(), seed)).collect(),
            lines: BTreeMap::new(),
            sequence: 0,
            latency: ms(100),
            loss: 0.0,
            groups: None,
            rng: SmallRng::seed_from_u64(number),
            messages: 0,
            spread: BTreeMap::new(),
            seen: vec![Vec::new(); many],
            replies: Vec::new(),
        };
        for (place, name) in names.iter().enumerate() {
            network.ask(place, json!({"type": "init", "node_id": name, "node_ids": names}));
            network.ask(place, json!({"type": "topology", "topology": {}}));
        }
        network
    }

    /// A client's request, which takes no time to arrive.
    pub fn ask(&mut self, place: usize, mut body: Value) -> Value {
        body["msg_id"] = json!(1);
        let line = json!({"src": "c1", "dest": format!("n{place}"), "body": body}).to_string();
        let is_read = body["type"] == "read";
        if is_read {
            self.hand_over(place, Some(&line))
        } else {
            self.feed(place, Some(&line))
        }
        let reply = self.replies.pop().expect("a client is answered at once");
        reply["body"].clone()
    }

    fn feed(&mut self, place: usize, line: Option<&str>) {
        self.hand_over(place, line);
        if self.nodes[place].known() > self.seen[place].len() {
            self.look(place);
        }
    }

    fn hand_over(&mut self, place: usize, line: Option<&str>) {
        let mut out = Vec::new();
        match line {
            Some(line) => self.nodes[place].line(self.now, line, &mut out),
            None => self.nodes[place].tick(self.now, &mut out),
        }
        for out in out {
            match out {
                Out::Message(message) => self.route(place, &message),
                Out::Complaint(complaint) => panic!("n{place}: {complaint}"),
                Out::Event(_) => {}
            }
        }
    }

    /// Notes what is new at a node.
    fn look(&mut self, place: usize) {
        let reply = self.ask(place, json!({"type": "read"}));
        let all: Vec<u64> = of_reply(&reply).iter().map(|v| v.as_u64().unwrap()).collect();
        assert!(all.is_sorted());
        for value in &all {
            if self.seen[place].binary_search(value).is_err()
                && let Some((_, count, last)) = self.spread.get_mut(value)
            {
                *count += 1;
                *last = self.now;
            }
        }
        self.seen[place] = all;
    }

    fn route(&mut self, from: usize, message: &str) {
        let parsed: Value = serde_json::from_str(message).unwrap();
        let to = parsed["dest"].as_str().unwrap();
        let Some(to) = to.strip_prefix('n').map(|place| place.parse::<usize>().unwrap()) else {
            self.replies.push(parsed);
            return;
        };
        self.messages += 1;
        let cut = self.groups.as_ref().is_some_and(|groups| groups[from] != groups[to]);
        if cut || (self.loss > 0.0 && self.rng.random_bool(self.loss)) {
            return;
        }
        self.sequence += 1;
        self.lines.insert((self.now + self.latency, self.sequence), (to, message.to_owned()));
    }

    pub fn run_until(&mut self, until: Time) {
        loop {
            let line = self.lines.first_key_value().map(|((at, _), _)| *at);
            let ticks = self.nodes.iter().enumerate();
            let tick = ticks.filter_map(|(place, node)| Some((node.wake_at()?, place))).min();
            let tick_at = tick.map(|(at, _)| at);
            let Some(next) = [line, tick_at].into_iter().flatten().min() else { break };
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            if line == Some(next) {
                let (_, (place, line)) = self.lines.pop_first().unwrap();
                self.feed(place, Some(&line));
            } else if let Some((_, place)) = tick {
                self.feed(place, None);
            }
        }
        self.now = until.max(self.now);
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// One broadcast at a random node.
    fn broadcast(&mut self) {
        let value = self.spread.len() as u64;
        let place = self.rng.random_range(0..self.nodes.len());
        self.spread.insert(value, (self.now, 0, self.now));
        let reply = self.ask(place, json!({"type": "broadcast", "message": value}));
        assert_eq!(reply["type"], "broadcast_ok");
    }

    /// A hundred operations a second, half of them reads; returns how many.
    fn load(&mut self, time: Duration) -> u64 {
        let end = self.now + time;
        let mut operations = 0;
        while self.now < end {
            if self.rng.random() {
                self.broadcast();
            } else {
                let place = self.rng.random_range(0..self.nodes.len());
                self.ask(place, json!({"type": "read"}));
            }
            operations += 1;
            self.run_for(ms(10));
        }
        operations
    }

    /// Values that some node does not have.
    fn lost(&self) -> usize {
        self.spread.values().filter(|(_, count, _)| *count < self.nodes.len()).count()
    }

    /// Median and greatest latency.
    fn latencies(&self) -> (Duration, Duration) {
        let mut all: Vec<Duration> =
            self.spread.values().map(|(at, _, last)| last.since(*at)).collect();
        all.sort();
        (all[all.len() / 2], all[all.len() - 1])
    }
}

/// What a read shows.
fn of_reply(reply: &Value) -> &[Value] {
    let shown = reply["messages"].as_array().or_else(|| reply["value"].as_array());
    shown.map(Vec::as_slice).expect("a list")
}

/// Messages between servers per operation, and latencies, as Maelstrom counts them: all messages of
/// the whole run, from `init` over 20 s of load to the end of the ten quiet seconds that it grants
/// before its last reads.
fn figures(batch: Duration) -> (f64, Duration, Duration) {
    let mut network = Network::new(25, batch, 1);
    network.run_for(ms(1_000)); // clients come when all nodes have answered
    let operations = network.load(ms(20_000));
    let under_load = network.messages;
    network.run_for(ms(10_000));
    assert_eq!(network.lost(), 0);
    let quiet = network.messages - under_load;
    let (median, most) = network.latencies();
    let each = network.messages as f64 / operations as f64;
    println!(
        "batch {batch:?}: {each:.2} messages an operation ({under_load} under load, {quiet} in the quiet), \
         median {median:?}, most {most:?}"
    );
    (each, median, most)
}

#[test]
fn by_default_a_broadcast_is_cheap_and_quick() {
    let (each, median, most) = figures(DEFAULT_BATCH);
    assert!(each <= 2.0 && median <= ms(300) && most <= ms(600), "{each} {median:?} {most:?}");
}

#[test]
fn without_a_batch_a_broadcast_takes_the_shortest_way() {
    let (each, median, most) = figures(Duration::ZERO);
    // By Maelstrom's count it was 13.9; 12 of these are the broadcasts themselves.
    assert!(each <= 13.5 && median <= ms(100) && most <= ms(200), "{each} {median:?} {most:?}");
}

#[test]
fn with_a_long_batch_a_broadcast_costs_little() {
    let (each, median, most) = figures(ms(500));
    assert!(each <= 1.1 && median <= ms(600) && most <= ms(1_000), "{each} {median:?} {most:?}");
}

/// Cuts of ten seconds with ten seconds between them, as Maelstrom's nemesis makes them, and then
/// the ten seconds that it grants at the end.
fn nemesis(many: usize, batch: Duration, number: u64, loss: f64) {
    let mut network = Network::new(many, batch, number);
    network.loss = loss;
    network.run_for(ms(2_000));
    for cut in 0..2 {
        network.load(ms(2_000));
        let sides = if cut == 0 { 2 } else { many };
        network.groups = Some((0..many).map(|_| network.rng.random_range(0..sides)).collect());
        network.load(ms(10_000));
        network.groups = None;
        network.load(ms(2_000));
    }
    network.loss = 0.0;
    let healed = network.now;
    let mut took = None;
    while network.now < healed + ms(10_000) {
        network.run_for(ms(100));
        if network.lost() == 0 {
            took.get_or_insert(network.now.since(healed));
        }
    }
    println!("{many} nodes, batch {batch:?}, number {number}, loss {loss}: whole after {took:?}");
    assert_eq!(network.lost(), 0, "{many} nodes, batch {batch:?}, number {number}, loss {loss}");
}

#[test]
fn nothing_is_lost_when_the_network_is_cut() {
    nemesis(5, DEFAULT_BATCH, 1, 0.0);
    nemesis(5, Duration::ZERO, 2, 0.0);
    nemesis(5, ms(500), 3, 0.0);
    nemesis(25, DEFAULT_BATCH, 4, 0.0);
    nemesis(25, Duration::ZERO, 5, 0.0);
}

#[test]
fn nothing_is_lost_when_a_tenth_of_all_messages_is() {
    nemesis(25, DEFAULT_BATCH, 6, 0.1);
    nemesis(5, Duration::ZERO, 7, 0.1);
}
