//! Real seeds and peers in a directory of their own, and their shared log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::log::{Line, Log};
use crate::reserved::Reserved;

const SEED: &str = env!("CARGO_BIN_EXE_seed");
const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// How long anything that must happen may take before a test fails: for a machine that compiles
/// something else meanwhile. What must be quick is measured by the times in the log.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a file or a process: neither can be waited for with a deadline.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Bytes of a page of memory, with Linux on every machine that this is tested on.
const PAGE: u64 = 4_096;

/// Lines of the log that a failure shows.
const SHOWN_LINES: usize = 60;

/// Some seeds, whatever peers a test starts, and the log that they share.
pub struct Network {
    pub log: Log,
    dir: tempfile::TempDir,
    seeds: Vec<Reserved>,
    running: BTreeMap<SocketAddr, Child>,
    started: usize,
    /// What processes started from here on find in their environment.
    pub env: Vec<(&'static str, String)>,
}

impl Network {
    /// A network of which nothing runs yet.
    pub fn of_seeds(count: usize) -> Self {
        let seeds: Vec<Reserved> = (0..count).map(|_| Reserved::new()).collect();
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<String> = seeds.iter().map(|seed| format!("{}\n", seed.addr)).collect();
        fs::write(dir.path().join("config.txt"), lines.concat()).unwrap();
        let log = Log::of(dir.path().join("outputfile.txt"));
        Self { log, dir, seeds, running: BTreeMap::new(), started: 0, env: Vec::new() }
    }

    /// Three seeds that run and are connected to each other.
    pub fn with_three_seeds() -> Self {
        let mut network = Self::of_seeds(3);
        network.start_three_seeds();
        network
    }

    /// Starts the three seeds; returns when they are connected to each other.
    pub fn start_three_seeds(&mut self) {
        for seed in self.seeds() {
            self.start_seed(seed);
        }
        self.wait_for("three connected seeds", |log| {
            (log.events("seed connected").count() == 6).then_some(())
        });
    }

    /// Three seeds, and so many peers which are registered and known at every seed.
    pub fn with_peers(count: usize, options: &[&str]) -> (Self, Vec<SocketAddr>) {
        let mut network = Self::with_three_seeds();
        let peers = network.start_peers(count, options);
        network.wait_for_members(&peers);
        (network, peers)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn seeds(&self) -> Vec<SocketAddr> {
        self.seeds.iter().map(|seed| seed.addr).collect()
    }

    pub fn start_seed(&mut self, seed: SocketAddr) {
        let console = self.spawn(SEED, seed, &[]);
        assert_eq!(self.enlist(console), seed);
    }

    /// Starts a peer on any free port, and returns its address.
    pub fn start_peer(&mut self, options: &[&str]) -> SocketAddr {
        self.start_peers(1, options)[0]
    }

    /// Starts peers at the same time.
    pub fn start_peers(&mut self, count: usize, options: &[&str]) -> Vec<SocketAddr> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let consoles: Vec<_> = (0..count).map(|_| self.spawn(PEER, any, options)).collect();
        consoles.into_iter().map(|console| self.enlist(console)).collect()
    }

    pub fn start_peer_on(&mut self, addr: SocketAddr, options: &[&str]) {
        let console = self.spawn(PEER, addr, options);
        assert_eq!(self.enlist(console), addr);
    }

    fn spawn(&mut self, program: &str, addr: SocketAddr, options: &[&str]) -> (Child, PathBuf) {
        self.started += 1;
        let console = self.path(&format!("console-{}", self.started));
        let stderr = OpenOptions::new().create(true).append(true).open(self.path("stderr"));
        let mut command = Command::new(program);
        command
            .args([&addr.ip().to_string(), &addr.port().to_string(), "config.txt"])
            .args(options)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(File::create(&console).unwrap())
            .stderr(stderr.unwrap());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RUMORMILL_") {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        (command.spawn().unwrap(), console)
    }

    /// Waits until a process says where it listens.
    fn enlist(&mut self, (child, console): (Child, PathBuf)) -> SocketAddr {
        let addr = wait_until(|| {
            let text = fs::read_to_string(&console).unwrap();
            let (whole, _) = text.rsplit_once('\n')?;
            let mut lines = whole.lines().filter_map(|line| Line::parse(line).ok());
            lines.find(|line| line.event == "listening").map(|line| line.addr)
        });
        let addr = addr.unwrap_or_else(|| {
            panic!("a process does not listen; its stderr: {:?}", self.errors());
        });
        self.running.insert(addr, child);
        addr
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// What the programs print on stderr is a failure or a panic.
    pub fn assert_no_errors(&self) {
        assert_eq!(self.errors(), "", "nothing is to be on stderr");
    }

    pub fn pid(&self, addr: SocketAddr) -> u32 {
        self.running[&addr].id()
    }

    /// Bytes of memory that a process occupies.
    pub fn resident(&self, addr: SocketAddr) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid(addr))).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE
    }

    /// Where a process answers HTTP.
    pub fn http_of(&mut self, addr: SocketAddr) -> SocketAddr {
        self.wait_for("where HTTP is", |log| {
            let mut lines = log.events("http listening").filter(|line| line.addr == addr);
            lines.next()?.get("http")?.parse().ok()
        })
    }

    pub fn is_running(&mut self, addr: SocketAddr) -> bool {
        self.running.get_mut(&addr).is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The shell's own `kill`, because a bare machine has no program of that name.
    pub fn signal(&self, addr: SocketAddr, name: &str) {
        let line = format!("kill -{name} {}", self.pid(addr));
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// kill -9. Returns when the process is gone, with a time just before.
    pub fn kill(&mut self, addr: SocketAddr) -> i64 {
        let mut child = self.running.remove(&addr).unwrap();
        let time = chrono::Utc::now().timestamp_micros();
        child.kill().unwrap();
        child.wait().unwrap();
        time
    }

    /// Ends a process by a signal that it handles; its exit code, and how long that took.
    pub fn stop(&mut self, addr: SocketAddr, signal: &str) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        self.signal(addr, signal);
        let mut child = self.running.remove(&addr).unwrap();
        match wait_until(|| child.try_wait().unwrap()) {
            Some(status) => (status.code(), asked.elapsed()),
            None => {
                let _ = child.kill();
                panic!("{addr} goes on after SIG{signal}")
            }
        }
    }

    /// Waits until the log shows something.
    pub fn wait_for<T>(&mut self, what: &str, mut seen: impl FnMut(&Log) -> Option<T>) -> T {
        let found = wait_until(|| {
            self.log.read_more();
            seen(&self.log)
        });
        found.unwrap_or_else(|| {
            let lines = self.log.lines();
            let mut end = String::new();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                let _ = writeln!(end, "{}", line.raw);
            }
            panic!("{what}: not within {PATIENCE:?}; stderr {:?}; log:\n{end}", self.errors())
        })
    }

    /// Waits until these peers are registered, and these alone are at every seed.
    pub fn wait_for_members(&mut self, peers: &[SocketAddr]) {
        let (seeds, size) = (self.seeds(), u64::try_from(peers.len()).unwrap());
        self.wait_for(&format!("{size} registered peers at every seed"), |log| {
            let registered = peers.iter().all(|peer| log.is_registered(*peer));
            (registered && seeds.iter().all(|seed| log.size_at(*seed) == size)).then_some(())
        });
    }

    /// Waits until every one of these peers has links enough, both ends of each link agree, and
    /// one can get from every peer to every other.
    pub fn wait_for_overlay(
        &mut self,
        peers: &[SocketAddr],
    ) -> BTreeMap<SocketAddr, BTreeSet<SocketAddr>> {
        let enough = 3.min(peers.len() - 1);
        self.wait_for("a connected overlay of links known at both ends", |log| {
            let overlay = log.overlay(peers);
            let sound = overlay.iter().all(|(peer, neighbours)| {
                let agreed = |other| overlay.get(other).is_some_and(|of| of.contains(peer));
                neighbours.len() >= enough && neighbours.iter().all(agreed)
            });
            (sound && is_connected(&overlay)).then_some(overlay)
        })
    }

    /// Waits until these peers have sent `count` messages in all, and each of them has had each of
    /// them once. Two peers of one IP may say the same in the same microsecond: that text is then
    /// to come twice.
    pub fn wait_for_messages(&mut self, peers: &[SocketAddr], count: usize) -> Vec<String> {
        self.wait_for(&format!("{count} messages at every peer"), |log| {
            let had = |peer: &SocketAddr| log.messages_at(*peer).values().sum::<usize>();
            peers.iter().all(|peer| had(peer) >= count).then_some(())
        });
        let sent = self.log.messages_sent();
        assert_eq!(sent.values().sum::<usize>(), count, "messages sent: {sent:#?}");
        for peer in peers {
            assert_eq!(self.log.messages_at(*peer), sent, "each message once, at {peer}");
        }
        sent.into_keys().map(str::to_owned).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill(); // also ends a stopped process
            let _ = child.wait();
        }
        if !std::thread::panicking() {
            self.assert_no_errors();
            return;
        }
        // What a failure leaves to look at.
        let name = format!("network-{}.log", self.seeds[0].addr.port());
        let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        if fs::copy(self.path("outputfile.txt"), &kept).is_ok() {
            eprintln!("the log is kept in {}", kept.display());
        }
    }
}

fn is_connected(overlay: &BTreeMap<SocketAddr, BTreeSet<SocketAddr>>) -> bool {
    let mut reached = BTreeSet::new();
    let mut open: Vec<SocketAddr> = overlay.keys().next().copied().into_iter().collect();
    while let Some(peer) = open.pop() {
        if reached.insert(peer) {
            open.extend(overlay.get(&peer).into_iter().flatten());
        }
    }
    reached.len() == overlay.len()
}

/// Looks again and again; none if nothing comes of it in time.
/// Asks a process over HTTP; returns the head of the answer and its body.
pub fn ask(to: SocketAddr, request: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

pub fn wait_until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
