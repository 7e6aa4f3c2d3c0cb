//! A driver that plays Maelstrom's network for real processes: it delays what nodes say to each
//! other, cuts them apart, and asks as clients do.
//!
//! Latencies are Maelstrom's: from a broadcast's answer to the last read that did not show it. They
//! are told, and held to loose bounds only: time is real here, and the machine has other things to
//! do. `network` holds the same node to its goals in simulated time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Of a link between two nodes.
const LATENCY: Duration = Duration::from_millis(100);
/// Between two operations.
const PACE: Duration = Duration::from_millis(10);
/// What Maelstrom waits after the load, and counts.
const QUIET: Duration = Duration::from_secs(10);
/// A node that takes longer for an answer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Driver {
    nodes: Vec<(Child, ChildStdin)>,
    said: Receiver<(usize, String)>,
    under_way: BTreeMap<(Instant, u64), (usize, String)>,
    sequence: u64,
    messages: u64,
    pub groups: Option<Vec<usize>>,
    pub rng: SmallRng,
    /// Open requests: when they were made, to whom, and the value if it is a broadcast.
    open: BTreeMap<u64, (Instant, usize, Option<u64>)>,
    next: u64,
    /// When each broadcast was answered, and the last read since then that did not show it.
    answered: BTreeMap<u64, (Instant, Instant)>,
    /// What each node showed last.
    shown: Vec<BTreeSet<u64>>,
    /// What each node answered last to a read of a value, and all identifiers that were generated.
    pub values: Vec<Value>,
    pub ids: Vec<Value>,
}

impl Driver {
    pub fn start(many: usize, options: &[&str]) -> Self {
        let (sender, said) = channel();
        let nodes = (0..many).map(|place| {
            let mut node = Command::new(env!("CARGO_BIN_EXE_peer"))
                .arg("--maelstrom")
                .args(options)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let (stdin, stdout) = (node.stdin.take().unwrap(), node.stdout.take().unwrap());
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send((place, line)).is_err() {
                        return;
                    }
                }
            });
            (node, stdin)
        });
        let nodes: Vec<_> = nodes.collect();
        let mut driver = Self {
            nodes,
            said,
            under_way: BTreeMap::new(),
            sequence: 0,
            messages: 0,
            groups: None,
            rng: SmallRng::seed_from_u64(1),
            open: BTreeMap::new(),
            next: 0,
            answered: BTreeMap::new(),
            shown: vec![BTreeSet::new(); many],
            values: vec![Value::Null; many],
            ids: Vec::new(),
        };
        let names: Vec<String> = (0..many).map(|place| format!("n{place}")).collect();
        for (place, name) in names.iter().enumerate() {
            let init = json!({"type": "init", "node_id": name, "node_ids": names});
            driver.ask(place, init, None);
        }
        driver.settle();
        for place in 0..many {
            driver.ask(place, json!({"type": "topology", "topology": {}}), None);
        }
        driver.settle();
        driver
    }

    fn tell(&mut self, place: usize, line: &str) {
        writeln!(self.nodes[place].1, "{line}").expect("a node that has ended by itself");
    }

    pub fn ask(&mut self, place: usize, mut body: Value, value: Option<u64>) {
        self.next += 1;
        body["msg_id"] = json!(self.next);
        self.open.insert(self.next, (Instant::now(), place, value));
        let message = json!({"src": "c1", "dest": format!("n{place}"), "body": body});
        self.tell(place, &message.to_string());
    }

    /// Plays the network until then.
    pub fn play_until(&mut self, until: Instant) {
        loop {
            let now = Instant::now();
            while let Some(first) = self.under_way.first_entry()
                && first.key().0 <= now
            {
                let (place, line) = first.remove();
                self.tell(place, &line);
            }
            if now >= until {
                return;
            }
            let next = self.under_way.first_key_value().map_or(until, |((at, _), _)| *at);
            match self.said.recv_timeout(next.min(until).saturating_duration_since(now)) {
                Ok((from, line)) => self.hear(from, &line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("all nodes have ended"),
            }
        }
    }

    fn hear(&mut self, from: usize, line: &str) {
        let message: Value = serde_json::from_str(line).expect("stdout carries messages alone");
        let to = message["dest"].as_str().unwrap();
        if let Some(to) = to.strip_prefix('n') {
            let to: usize = to.parse().unwrap();
            self.messages += 1;
            if self.groups.as_ref().is_none_or(|groups| groups[from] == groups[to]) {
                self.sequence += 1;
                let at = Instant::now() + LATENCY;
                self.under_way.insert((at, self.sequence), (to, line.to_owned()));
            }
            return;
        }
        let body = &message["body"];
        let id = body["in_reply_to"].as_u64().unwrap();
        let (asked, place, value) = self.open.remove(&id).expect("one reply each");
        assert_eq!(place, from);
        assert_ne!(body["type"], "error", "{body}");
        if let Some(value) = value {
            let now = Instant::now();
            self.answered.insert(value, (now, now));
        }
        if body["type"] == "generate_ok" {
            self.ids.push(body["id"].clone());
        }
        if body["type"] == "read_ok" {
            self.values[place] = body["value"].clone();
        }
        if let Some(values) = body["messages"].as_array() {
            let shown: BTreeSet<u64> = values.iter().map(|v| v.as_u64().unwrap()).collect();
            for (value, (answered, absent)) in &mut self.answered {
                if *answered < asked && !shown.contains(value) {
                    *absent = asked;
                }
            }
            self.shown[place] = shown;
        }
    }

    /// Waits until every request has its reply.
    pub fn settle(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !self.open.is_empty() {
            assert!(Instant::now() < end, "no answer to {:?}", self.open);
            self.play_until(Instant::now() + PACE);
        }
    }

    /// A hundred operations a second, half of them reads; returns how many.
    fn load(&mut self, time: Duration) -> u64 {
        let (start, mut operations) = (Instant::now(), 0);
        while start.elapsed() < time {
            let place = self.rng.random_range(0..self.nodes.len());
            if self.rng.random() {
                let value = self.next;
                self.ask(place, json!({"type": "broadcast", "message": value}), Some(value));
            } else {
                self.ask(place, json!({"type": "read"}), None);
            }
            operations += 1;
            self.play_until(start + PACE * u32::try_from(operations).unwrap());
        }
        self.settle();
        operations
    }

    /// How long it takes until every node shows everything.
    fn until_whole(&mut self) -> Duration {
        let start = Instant::now();
        loop {
            for place in 0..self.nodes.len() {
                self.ask(place, json!({"type": "read"}), None);
            }
            self.settle();
            let all = self.answered.len();
            if self.shown.iter().all(|shown| shown.len() == all) {
                return start.elapsed();
            }
            let lacking: Vec<usize> = self.shown.iter().map(|shown| all - shown.len()).collect();
            assert!(start.elapsed() < PATIENCE, "lacking at each node: {lacking:?} of {all}");
            self.play_until(Instant::now() + PACE * 10);
        }
    }

    /// Median and greatest latency.
    fn latencies(&self) -> (Duration, Duration) {
        let took = |(answered, absent): &(Instant, Instant)| absent.duration_since(*answered);
        let mut all: Vec<Duration> = self.answered.values().map(took).collect();
        all.sort();
        (all[all.len() / 2], all[all.len() - 1])
    }

    /// The end of input is the end of every node.
    pub fn end(self) {
        for (mut node, stdin) in self.nodes {
            drop(stdin);
            assert!(node.wait().unwrap().success());
        }
    }
}

#[test]
fn twenty_five_processes_hear_every_broadcast_at_two_messages_an_operation() {
    let mut driver = Driver::start(25, &[]);
    let operations = driver.load(Duration::from_secs(10));
    let (median, most) = driver.latencies();
    let whole = driver.until_whole();
    driver.play_until(Instant::now() + QUIET);
    // As Maelstrom counts: from `init` to the end of the quiet.
    let each = driver.messages as f64 / operations as f64;
    println!(
        "25 processes: {each:.2} messages an operation, median {median:?}, most {most:?}, whole after {whole:?}"
    );
    assert!(each <= 2.5, "{each} messages an operation");
    assert!(median <= Duration::from_secs(1), "{median:?}");
    driver.end();
}

#[test]
fn five_processes_lose_nothing_to_a_cut() {
    let mut driver = Driver::start(5, &[]);
    driver.load(Duration::from_secs(1));
    // The oldest, which is the hub, is on the smaller side.
    driver.groups = Some(vec![0, 1, 0, 1, 1]);
    driver.load(Duration::from_secs(7));
    driver.groups = None;
    driver.load(Duration::from_secs(1));
    let whole = driver.until_whole();
    println!("5 processes: whole {whole:?} after the cut");
    driver.end();
}
