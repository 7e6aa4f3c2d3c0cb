//! What a user waits for, and what an idle network costs, with real processes.
//!
//! `cargo bench --bench processes [-- ROUNDS]`: start to registered (three seeds up, one of three
//! down, twenty peers at once), kill -9 and a hung process to removal at all seeds, resident memory
//! and processor time of idle processes. Times are taken from the shared log's own timestamps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

struct Network {
    dir: tempfile::TempDir,
    seeds: Vec<Option<Child>>,
    peers: Vec<Child>,
}

struct Line {
    /// Seconds since the Unix epoch.
    at: f64,
    text: String,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

impl Network {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let held: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(held);
        let text: String = ports.iter().map(|port| format!("127.0.0.1:{port}\n")).collect();
        fs::write(dir.path().join("config.txt"), text).unwrap();
        let mut network = Self { dir, seeds: Vec::new(), peers: Vec::new() };
        for port in ports {
            let seed = network.spawn(env!("CARGO_BIN_EXE_seed"), &port.to_string(), &[]);
            network.seeds.push(Some(seed));
        }
        network.wait(Duration::from_secs(5), |lines| {
            lines.iter().filter(|l| l.text.contains("seed connected")).count() == 6
        });
        network
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("outputfile.txt")
    }

    fn spawn(&self, program: &str, port: &str, options: &[&str]) -> Child {
        Command::new(program)
            .args(["127.0.0.1", port, "config.txt"])
            .args(options)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn peer(&mut self, options: &[&str]) -> u32 {
        let peer = self.spawn(env!("CARGO_BIN_EXE_peer"), "0", options);
        let pid = peer.id();
        self.peers.push(peer);
        pid
    }

    fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let (time, text) = line.split_once(' ')?;
                let at = chrono::DateTime::parse_from_rfc3339(time).ok()?;
                Some(Line { at: at.timestamp_micros() as f64 / 1e6, text: text.to_owned() })
            })
            .collect()
    }

    fn wait(&self, patience: Duration, done: impl Fn(&[Line]) -> bool) -> Vec<Line> {
        let start = Instant::now();
        loop {
            let lines = self.lines();
            if done(&lines) {
                return lines;
            }
            assert!(start.elapsed() < patience, "not within {patience:?}");
            sleep(Duration::from_millis(5));
        }
    }

    /// Starts a peer; milliseconds until it was registered, and its address.
    fn registration(&mut self, options: &[&str]) -> (f64, String) {
        let seen = self.lines().len();
        let start = now();
        self.peer(options);
        let done = |l: &&Line| l.text.contains(" registered ") && l.text.contains("count=2/2");
        let lines =
            self.wait(Duration::from_secs(20), |lines| lines.iter().skip(seen).any(|l| done(&l)));
        let line = lines.iter().skip(seen).find(done).unwrap();
        let who = line.text.split(' ').nth(2).unwrap().to_owned();
        ((line.at - start) * 1e3, who)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in self.peers.iter_mut().chain(self.seeds.iter_mut().flatten()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn show(name: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
    let n = values.len();
    println!("{name:<52}{:>10.2}{:>10.2}{:>10.2}  {unit} (n={n})", at(0.0), at(0.5), at(1.0));
}

fn removal(network: &Network, victim: &str, start: f64, patience: Duration) -> f64 {
    let word = format!("dead-node committed peer={victim} ");
    let lines = network.wait(patience, |lines| {
        lines.iter().filter(|l| l.at >= start && l.text.contains(&word)).count() == 3
    });
    let last = lines.iter().filter(|l| l.text.contains(&word)).map(|l| l.at).fold(0.0, f64::max);
    last - start
}

fn resident_and_cpu(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
    let mut cpu = 0;
    for task in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        cpu += text.split(' ').next().unwrap().parse::<u64>().unwrap();
    }
    (kib / 1024.0, cpu as f64 / 1e6)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let rounds: usize = match args.first().map(|arg| arg.parse()) {
        None => 10,
        Some(Ok(rounds)) => rounds,
        // `cargo test --benches` and name filters: nothing to do.
        Some(Err(_)) => return println!("usage: cargo bench --bench processes [-- ROUNDS]"),
    };
    println!("{:<52}{:>10}{:>10}{:>10}", "figure", "minimum", "median", "maximum");

    let quiet = ["--gossip-count", "0"];
    let mut network = Network::start();
    let times = (0..rounds).map(|_| network.registration(&quiet).0).collect();
    show("process start to registered, 3 seeds", "ms", times);

    let mut down = network.seeds[0].take().unwrap();
    down.kill().unwrap();
    down.wait().unwrap();
    let times = (0..rounds).map(|_| network.registration(&quiet).0).collect();
    show("process start to registered, one of 3 seeds down", "ms", times);
    drop(network);

    let mut everywhere = Vec::new();
    for _ in 0..rounds.div_ceil(2) {
        let mut network = Network::start();
        let start = now();
        for _ in 0..20 {
            network.peer(&["--gossip-count", "1"]);
        }
        let of = |lines: &[Line], word: &str| -> Vec<f64> {
            lines.iter().filter(|l| l.text.contains(word)).map(|l| l.at).collect()
        };
        let lines = network.wait(Duration::from_secs(30), |lines| {
            of(lines, "count=2/2").len() >= 20 && of(lines, " gossip received ").len() >= 20 * 19
        });
        assert_eq!(of(&lines, " gossip received ").len(), 20 * 19, "each message once");
        let last = of(&lines, " gossip received ").into_iter().fold(0.0, f64::max);
        let last = of(&lines, "count=2/2").into_iter().fold(last, f64::max);
        everywhere.push((last - start) * 1e3);
    }
    show("20 peers at once: all registered, all messages", "ms", everywhere);

    let mut network = Network::start();
    let mut names = Vec::new();
    for _ in 0..8 + rounds {
        names.push(network.registration(&quiet).1);
    }
    network.wait(Duration::from_secs(5), |lines| {
        let linked = |name: &&String| {
            let up = format!("peer {name} neighbour up");
            lines.iter().any(|line| line.text.contains(&up))
        };
        names.iter().filter(linked).count() == names.len()
    });
    let mut removals = Vec::new();
    for _ in 0..rounds {
        let victim = names.pop().unwrap();
        let mut child = network.peers.pop().unwrap();
        let start = now();
        child.kill().unwrap();
        child.wait().unwrap();
        removals.push(removal(&network, &victim, start, Duration::from_secs(20)) * 1e3);
    }
    show("kill -9 to removal at all seeds", "ms", removals);

    let (idle_start, pids) = (Instant::now(), (network.peers[3].id(), network.seeds[1].as_ref()));
    let seed_pid = pids.1.unwrap().id();
    let before = (resident_and_cpu(pids.0), resident_and_cpu(seed_pid));
    // What an idle process costs can only be seen by leaving it alone.
    sleep(Duration::from_secs(20));
    let idle = idle_start.elapsed().as_secs_f64();
    for (name, pid, before) in [("peer", pids.0, before.0), ("seed", seed_pid, before.1)] {
        let (memory, cpu) = resident_and_cpu(pid);
        show(&format!("resident memory of an idle {name}"), "MB", vec![memory]);
        show(&format!("processor time of an idle {name}"), "ms/s", vec![(cpu - before.1) / idle]);
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    fs::write(network.dir.path().join("config.txt"), format!("127.0.0.1:{port}\n")).unwrap();
    let mut alone = network.spawn(env!("CARGO_BIN_EXE_seed"), &port, &["--ephemeral"]);
    network.wait(Duration::from_secs(5), |lines| {
        lines.iter().any(|l| l.text.contains("listening quorum=1 of=1"))
    });
    let (memory, _) = resident_and_cpu(alone.id());
    show("resident memory of an idle seed, --ephemeral", "MB", vec![memory]);
    alone.kill().unwrap();
    alone.wait().unwrap();

    let mut hung = Vec::new();
    for _ in 0..2 {
        let victim = names.pop().unwrap();
        let child = network.peers.pop().unwrap();
        let start = now();
        let stop = |signal: &str| {
            Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        };
        stop("-STOP");
        hung.push(removal(&network, &victim, start, Duration::from_secs(60)));
        network.peers.insert(0, child);
    }
    show("hung process to removal, --suspect-timeout 15s", "s", hung);
}
