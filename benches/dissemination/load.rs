//! The load, what is measured, and how it is shown.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, Semaphore};

/// Bytes of a payload.
pub const PAYLOAD: usize = 128;
/// Messages before the clock starts, from each node: enough for trees to form.
pub const WARM_UP: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Paced,
    Flight,
    Sustained,
}

impl Mode {
    pub fn parse(text: &str) -> Self {
        match text {
            "paced" => Mode::Paced,
            "flight" => Mode::Flight,
            _ => Mode::Sustained,
        }
    }

    pub fn messages(self) -> usize {
        match self {
            Mode::Paced | Mode::Flight => 1_000,
            Mode::Sustained => 20_000,
        }
    }
}

/// Who has received what, and when.
pub struct Ledger {
    /// Nodes that are to receive a message, its sender among them.
    nodes: usize,
    /// A node that will die: it sends nothing, and what it receives does not count.
    doomed: AtomicUsize,
    started: Vec<Mutex<Instant>>,
    received: Vec<AtomicUsize>,
    latencies: Vec<Mutex<Vec<u32>>>,
    pub in_flight: Semaphore,
    delivered: AtomicUsize,
    expected: AtomicUsize,
    all: Notify,
    recording: AtomicBool,
}

impl Ledger {
    pub fn new(nodes: usize, messages: usize) -> Self {
        Self {
            nodes,
            doomed: AtomicUsize::new(usize::MAX),
            started: (0..messages).map(|_| Mutex::new(Instant::now())).collect(),
            received: (0..messages).map(|_| AtomicUsize::new(0)).collect(),
            latencies: (0..nodes).map(|_| Mutex::new(Vec::with_capacity(messages))).collect(),
            in_flight: Semaphore::new(64),
            delivered: AtomicUsize::new(0),
            expected: AtomicUsize::new(usize::MAX),
            all: Notify::new(),
            recording: AtomicBool::new(false),
        }
    }

    fn others(&self) -> usize {
        self.nodes - 1 - usize::from(self.doomed.load(Ordering::Relaxed) < self.nodes)
    }

    /// From now on this node does not count; to be said before the load.
    pub fn doom(&self, node: usize) {
        self.doomed.store(node, Ordering::Relaxed);
    }

    /// Some node received a payload that another one had sent.
    pub fn received(&self, node: usize, payload: &[u8]) {
        if node == self.doomed.load(Ordering::Relaxed) {
            return;
        }
        let Some(bytes) = payload.first_chunk::<8>() else { return };
        let message = u64::from_le_bytes(*bytes) as usize;
        let Some(count) = self.received.get(message) else { return };
        let latency = self.started[message].lock().unwrap().elapsed();
        if self.recording.load(Ordering::Relaxed) {
            self.latencies[node].lock().unwrap().push(latency.as_micros() as u32);
        }
        if count.fetch_add(1, Ordering::Relaxed) + 1 == self.others() {
            self.in_flight.add_permits(1);
        }
        let delivered = self.delivered.fetch_add(1, Ordering::AcqRel) + 1;
        if delivered >= self.expected.load(Ordering::Acquire) {
            self.all.notify_one();
        }
    }

    /// Waits for a place among the messages in flight. A message that never arrives everywhere would
    /// hold its place for ever: then the run has failed, and says so.
    async fn place(&self) {
        let place = tokio::time::timeout(Duration::from_secs(20), self.in_flight.acquire()).await;
        place.expect("a message did not reach everybody within 20 s").unwrap().forget();
    }

    fn expect(&self, deliveries: usize) {
        self.expected.store(deliveries, Ordering::Release);
    }

    async fn wait(&self) {
        let all = async {
            while self.delivered.load(Ordering::Acquire) < self.expected.load(Ordering::Acquire) {
                self.all.notified().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(15), all).await;
    }
}

pub fn payload(message: usize) -> Vec<u8> {
    let mut payload = vec![0x5a; PAYLOAD];
    payload[..8].copy_from_slice(&(message as u64).to_le_bytes());
    payload
}

/// Plays a load; `send` publishes a payload at a node.
pub async fn play(
    mode: Mode,
    ledger: &Ledger,
    send: impl AsyncFn(usize, Vec<u8>),
    copies: impl AsyncFn() -> u64,
    mut at_second: impl AsyncFnMut(usize),
) -> Figures {
    let nodes = ledger.nodes;
    let warm = WARM_UP * nodes;
    let mut rng = SmallRng::seed_from_u64(7);
    let others = ledger.others();
    let doomed = ledger.doomed.load(Ordering::Relaxed);
    let sender = |node: usize| if node == doomed { (node + 1) % nodes } else { node };
    ledger.expect(warm * others);
    for message in 0..warm {
        ledger.place().await;
        *ledger.started[message].lock().unwrap() = Instant::now();
        send(sender(message % nodes), payload(message)).await;
    }
    ledger.wait().await;
    // What follows a warm-up (prunes, announcements) is over when the machine has gone quiet.
    tokio::time::sleep(Duration::from_millis(400)).await;
    ledger.recording.store(true, Ordering::Relaxed);

    let before = Usage::now();
    let copies_before = copies().await;
    let delivered_before = ledger.delivered.load(Ordering::Acquire);
    let messages = mode.messages();
    ledger.expect((warm + messages) * others);
    let start = Instant::now();
    for message in warm..warm + messages {
        if mode == Mode::Paced {
            let at = start + Duration::from_millis(10) * (message - warm) as u32;
            tokio::time::sleep_until(at.into()).await;
            if (message - warm).is_multiple_of(100) {
                at_second((message - warm) / 100).await;
            }
        } else {
            ledger.place().await;
        }
        *ledger.started[message].lock().unwrap() = Instant::now();
        send(sender(rng.random_range(0..nodes)), payload(message)).await;
    }
    ledger.wait().await;
    let took = start.elapsed();
    let copies = copies().await - copies_before;
    // The announcements and acknowledgements that belong to the load are counted too.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let used = Usage::now();

    let deliveries = ledger.delivered.load(Ordering::Acquire) - delivered_before;
    let mut latencies: Vec<u32> =
        ledger.latencies.iter().flat_map(|l| l.lock().unwrap().clone()).collect();
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        f64::from(latencies.get(place.min(latencies.len().saturating_sub(1))).copied().unwrap_or(0))
            / 1e3
    };
    let per = |value: f64| value / deliveries as f64;
    Figures(vec![
        ("delivered %", 100.0 * deliveries as f64 / (messages * others) as f64),
        ("deliveries a second", deliveries as f64 / took.as_secs_f64()),
        ("latency p50 ms", at(0.5)),
        ("latency p90 ms", at(0.9)),
        ("latency p99 ms", at(0.99)),
        ("latency max ms", at(1.0)),
        ("CPU us a delivery", per((used.cpu - before.cpu).as_secs_f64() * 1e6)),
        ("wire bytes a delivery", per((used.wire - before.wire) as f64)),
        ("payload copies a delivery", per(copies as f64)),
        ("peak memory MB", peak_memory()),
    ])
}

struct Usage {
    cpu: Duration,
    wire: u64,
}

impl Usage {
    fn now() -> Self {
        // Nanoseconds on the processor, of each thread.
        let mut cpu = 0;
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            cpu += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        // All bytes that crossed the loopback device, headers and acknowledgements included.
        let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
        let lo = devices.lines().find_map(|line| line.trim().strip_prefix("lo:"));
        let wire = lo.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        Self { cpu: Duration::from_nanos(cpu), wire }
    }
}

fn peak_memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 =
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN);
    kib / 1024.0
}

/// What one run measured.
#[derive(Clone, Debug)]
pub struct Figures(pub Vec<(&'static str, f64)>);

const NAMES: [&str; 10] = [
    "delivered %",
    "deliveries a second",
    "latency p50 ms",
    "latency p90 ms",
    "latency p99 ms",
    "latency max ms",
    "CPU us a delivery",
    "wire bytes a delivery",
    "payload copies a delivery",
    "peak memory MB",
];

impl Figures {
    pub fn to_line(&self) -> String {
        let values: Vec<String> = self.0.iter().map(|(_, value)| value.to_string()).collect();
        values.join(" ")
    }

    pub fn parse(line: &str) -> Option<Self> {
        let values: Option<Vec<f64>> = line.split(' ').map(|value| value.parse().ok()).collect();
        let values = values.filter(|values| values.len() == NAMES.len())?;
        Some(Self(NAMES.into_iter().zip(values).collect()))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn print_table(ours: &[Figures], floors: &[Figures]) {
    println!(
        "{:<28}{:>12}{:>12}{:>12}{:>12}{:>8}",
        "figure", "median", "worst", "best", "floor", "ratio"
    );
    for (place, name) in NAMES.into_iter().enumerate() {
        let column = |runs: &[Figures]| -> Vec<f64> {
            runs.iter().filter_map(|run| run.0.get(place).map(|(_, value)| *value)).collect()
        };
        let (mine, floor) = (column(ours), column(floors));
        let ratios: Vec<f64> = mine.iter().zip(&floor).map(|(a, b)| a / b).collect();
        let low = mine.iter().copied().fold(f64::INFINITY, f64::min);
        let high = mine.iter().copied().fold(0.0, f64::max);
        let more_is_better = place < 2;
        let (worst, best) = if more_is_better { (low, high) } else { (high, low) };
        let show = |value: f64| match value.abs() {
            v if v >= 1_000.0 => format!("{value:.0}"),
            v if v >= 10.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        println!(
            "{name:<28}{:>12}{:>12}{:>12}{:>12}{:>8}",
            show(median(mine)),
            show(worst),
            show(best),
            if floor.is_empty() { "-".to_owned() } else { show(median(floor)) },
            if ratios.is_empty() { "-".to_owned() } else { format!("{:.2}", median(ratios)) },
        );
    }
}

/// Node numbers by address.
pub type Numbers = HashMap<std::net::SocketAddr, usize>;
