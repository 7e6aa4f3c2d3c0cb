//! Replicas without seeds in a directory of their own, with links and HTTP at one port.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http1;
use crate::reserved::Reserved;
use crate::spaces::Spaces;

pub const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// How long anything that must happen may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The port of replicas that have a host each.
const PORT: u16 = 8_085;

pub struct Replicas {
    pub addrs: Vec<SocketAddr>,
    pub spaces: Option<Spaces>,
    dir: tempfile::TempDir,
    running: Vec<Option<Child>>,
    _reserved: Vec<Reserved>,
}

/// A peer that nothing in the environment of the test changes.
pub fn plain(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("RUMORMILL_") || name == "SOCKET_ADDRESS" || name == "VIEW" {
            command.env_remove(&*name);
        }
    }
}

impl Replicas {
    /// On loopback; none of them runs yet.
    pub fn on_loopback(count: usize) -> Self {
        let reserved: Vec<Reserved> = (0..count).map(|_| Reserved::new()).collect();
        let addrs = reserved.iter().map(|reserved| reserved.addr).collect();
        Self::of(addrs, None, reserved)
    }

    /// Each on a host of its own if that is possible; none of them runs yet.
    pub fn apart(count: u8) -> Self {
        let Some(spaces) = Spaces::make(count) else {
            eprintln!("no network namespaces here (that takes root): nothing is cut");
            return Self::on_loopback(count.into());
        };
        let hosts = (0..usize::from(count)).map(Spaces::host);
        let addrs = hosts.map(|ip| SocketAddr::new(ip, PORT)).collect();
        Self::of(addrs, Some(spaces), Vec::new())
    }

    fn of(addrs: Vec<SocketAddr>, spaces: Option<Spaces>, reserved: Vec<Reserved>) -> Self {
        let running = addrs.iter().map(|_| None).collect();
        let dir = tempfile::tempdir().unwrap();
        Self { addrs, spaces, dir, running, _reserved: reserved }
    }

    /// Starts one that names these, with these options.
    pub fn start(&mut self, place: usize, named: &[SocketAddr], options: &[&str]) {
        let addr = self.addrs[place];
        let peers: Vec<String> = named.iter().map(ToString::to_string).collect();
        let mut command = match &self.spaces {
            Some(spaces) => spaces.command(place, PEER),
            None => Command::new(PEER),
        };
        command
            .args([&addr.ip().to_string(), &addr.port().to_string()])
            .args(["--peers", &peers.join(","), "--http", &addr.to_string(), "--insecure"])
            .args(["--gossip-count", "0"])
            .args(options);
        plain(&mut command);
        self.spawn(place, command);
    }

    /// Starts all; each names all.
    pub fn start_all(&mut self, options: &[&str]) {
        let named = self.addrs.clone();
        (0..named.len()).for_each(|place| self.start(place, &named, options));
    }

    /// Starts one that is told by its environment alone who it is and whom it is to find.
    pub fn start_by_environment(&mut self, place: usize, view: &str) {
        let mut command = Command::new(PEER);
        plain(&mut command);
        command.env("SOCKET_ADDRESS", self.addrs[place].to_string()).env("VIEW", view);
        self.spawn(place, command);
    }

    fn spawn(&mut self, place: usize, mut command: Command) {
        let errors = OpenOptions::new().create(true).append(true).open(self.path("stderr"));
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(File::create(self.path(&format!("stdout-{place}"))).unwrap())
            .stderr(errors.unwrap());
        self.running[place] = Some(command.spawn().unwrap());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("outputfile.txt")).unwrap_or_default()
    }

    pub fn kill(&mut self, place: usize) {
        if let Some(mut child) = self.running[place].take() {
            child.kill().unwrap(); // also one that is stopped
            child.wait().unwrap();
        }
    }

    /// The shell's own `kill`, because a bare machine has no program of that name.
    pub fn signal(&self, place: usize, name: &str) {
        let line = format!("kill -{name} {}", self.running[place].as_ref().unwrap().id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// Ends one by a signal that it handles; its exit code.
    pub fn stop(&mut self, place: usize, signal: &str) -> Option<i32> {
        self.signal(place, signal);
        self.running[place].take().unwrap().wait().unwrap().code()
    }

    /// Waits until those that run are ready and all see just these.
    pub fn wait_for_view(&self, places: &[usize]) {
        let mut view: Vec<String> = places.iter().map(|p| self.addrs[*p].to_string()).collect();
        view.sort();
        for place in places {
            let addr = self.addrs[*place];
            until(&format!("{addr} sees {view:?} and is ready"), || {
                let seen = get(addr, "/view").map(|(_, body)| body["view"].clone());
                let mut seen: Vec<String> = serde_json::from_value(seen?).ok()?;
                seen.sort();
                let is_ready = get(addr, "/ready")?.0 == 200;
                (seen == view && is_ready).then_some(())
            });
        }
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        (0..self.running.len()).for_each(|place| self.kill(place));
        if std::thread::panicking() {
            // Several tests, or runs, may fail side by side.
            let name = format!("store-{}-{}.log", std::process::id(), self.addrs[0].port());
            let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
            if fs::copy(self.path("outputfile.txt"), &kept).is_ok() {
                eprintln!("the log is kept in {}", kept.display());
            }
            // Why one that should run does not.
            let errors = fs::read_to_string(self.path("stderr")).unwrap_or_default();
            eprintln!("on stderr: {errors}");
        }
    }
}

/// Looks again and again until there is something to see: a process cannot be waited on for that.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    unless_late(look).unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// The same, for whoever has more to say when it takes too long.
pub fn unless_late<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Status and body of one request, over a connection of its own; none if it came to nothing.
pub fn ask_within(
    addr: SocketAddr,
    method: &str,
    path: &str,
    body: &Value,
    patience: Duration,
) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&addr, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let length = text.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + &text).as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let (head, body) = http1::split(&answer)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(&body).unwrap_or_else(|_| json!(body))))
}

pub fn ask(addr: SocketAddr, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    ask_within(addr, method, path, body, PATIENCE)
}

pub fn get(addr: SocketAddr, path: &str) -> Option<(u16, Value)> {
    ask(addr, "GET", path, &Value::Null)
}

pub fn put(addr: SocketAddr, key: &str, value: Value) -> Value {
    let (status, body) =
        ask(addr, "PUT", &format!("/kvs/{key}"), &json!({ "value": value })).unwrap();
    assert!(status == 200 || status == 201, "{status} {body}");
    body["causal-metadata"].clone()
}
