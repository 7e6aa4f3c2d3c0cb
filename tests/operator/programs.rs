//! The two programs in a directory of their own, with a CONFIG of one seed.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::reserved::Reserved;

pub const SEED: &str = env!("CARGO_BIN_EXE_seed");
pub const PEER: &str = env!("CARGO_BIN_EXE_peer");

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Place {
    dir: tempfile::TempDir,
    pub seed: SocketAddr,
}

impl Place {
    pub fn new() -> Self {
        let seed = free_address();
        let place = Self { dir: tempfile::tempdir().unwrap(), seed };
        fs::write(place.path("c"), format!("{seed}\n")).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The shared log as it is now.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("outputfile.txt")).unwrap_or_default()
    }

    /// Runs a shell's command line in this directory, without any setting of the tester's own.
    pub fn sh(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(self.dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RUMORMILL_") {
                command.env_remove(name);
            }
        }
        command
    }

    pub fn seed_line(&self, options: &str) -> String {
        format!("exec {SEED} {} {} c {options}", self.seed.ip(), self.seed.port())
    }

    /// Starts the seed, and returns when its log says that it listens.
    pub fn start_seed(&self, options: &str) -> Running {
        let running = Running(self.sh(&self.seed_line(options)).spawn().unwrap());
        let listening = format!("seed {} listening", self.seed);
        running.until("it listens", || self.log().contains(&listening).then_some(()));
        running
    }

    /// Starts a peer at that address, and returns when it is registered.
    pub fn start_peer(&self, at: SocketAddr, options: &str) -> Running {
        let line = format!("exec {PEER} {} {} c --gossip-count 0 {options}", at.ip(), at.port());
        let running = Running(self.sh(&line).spawn().unwrap());
        let registered = format!("registration committed peer={at} ");
        running.until("it is registered", || self.log().contains(&registered).then_some(()));
        running
    }
}

/// An address that nobody else gets, and that nobody here gets twice: what a log says of it, it says
/// of whoever is there next.
pub fn free_address() -> SocketAddr {
    static HAD: Mutex<Vec<Reserved>> = Mutex::new(Vec::new());
    let reserved = Reserved::new();
    let address = reserved.addr;
    HAD.lock().unwrap().push(reserved);
    address
}

/// A process; killed with the test.
pub struct Running(pub Child);

impl Running {
    /// Asks again and again, as nobody outside can wait for it otherwise, until there is an answer.
    pub fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(done) = done() {
                return done;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends signals, such as "TERM" and "INT", one right after the other.
    pub fn signal(&self, names: &[&str]) {
        let pid = self.0.id();
        let kills: Vec<String> = names.iter().map(|name| format!("kill -{name} {pid}")).collect();
        assert!(Command::new("sh").args(["-c", &kills.join(";")]).status().unwrap().success());
    }

    /// Exit code, what it said on stderr, and how long the end took.
    pub fn end(&mut self) -> (Option<i32>, String, Duration) {
        let start = Instant::now();
        let deadline = start + PATIENCE;
        let code = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status.code();
            }
            assert!(Instant::now() < deadline, "it still runs after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (code, said, start.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
