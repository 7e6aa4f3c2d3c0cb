//! The processes of the demo and the log that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

/// The log, in the current directory.
pub const LOG: &str = "outputfile.txt";
/// What an older log is renamed to.
pub const OLD_LOG: &str = "outputfile.txt.before";
/// The whole demo takes some seconds; when it takes longer than this, something is wrong.
const DEADLINE: Duration = Duration::from_secs(45);
/// Between two looks at the log.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One line of the log.
pub struct Line {
    /// Microseconds since the Unix epoch.
    pub time: i64,
    pub who: SocketAddr,
    pub event: String,
    keys: Vec<(String, String)>,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ' ');
        let time = chrono::DateTime::parse_from_rfc3339(parts.next()?).ok()?.timestamp_micros();
        let (_level, _role) = (parts.next()?, parts.next()?);
        let who = parts.next()?.parse().ok()?;
        let (mut event, mut keys) = (Vec::new(), Vec::new());
        let mut rest = parts.next()?;
        while !rest.is_empty() {
            let (word, after) = next_word(rest);
            match word.split_once('=') {
                Some((key, value)) => keys.push((key.to_owned(), value.replace('"', ""))),
                None => event.push(word),
            }
            rest = after;
        }
        Some(Self { time, who, event: event.join(" "), keys })
    }

    pub fn get(&self, key: &str) -> &str {
        self.keys.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.get("peer").parse().ok()
    }

    pub fn is_about(&self, event: &str, peer: SocketAddr) -> bool {
        self.event == event && self.peer() == Some(peer)
    }
}

/// The text up to the next space that is not in quotes, and what follows.
fn next_word(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let end = text.find(|c| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    });
    end.and_then(|end| text.split_at_checked(end))
        .map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

/// A process and the name that the demo gives it.
struct Actor {
    name: String,
    child: Child,
    /// It is meant to end now.
    dismissed: bool,
}

pub struct Stage {
    pub began: i64,
    pub lines: Vec<Line>,
    pub seeds: Vec<SocketAddr>,
    pub peers: Vec<SocketAddr>,
    dir: tempfile::TempDir,
    actors: BTreeMap<SocketAddr, Actor>,
    /// Bound and never listened on: nobody else gets these ports.
    reserved: Vec<TcpSocket>,
    read_to: u64,
    rest: Vec<u8>,
    deadline: Instant,
}

impl Stage {
    /// Free ports, a CONFIG, and a fresh log; whether there was an older one.
    pub fn set(seeds: usize, peers: usize) -> Result<(Self, bool), String> {
        let renamed = match fs::rename(LOG, OLD_LOG) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(format!("cannot rename {LOG} to {OLD_LOG}: {error}")),
        };
        let dir =
            tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let mut stage = Self {
            began: now(),
            lines: Vec::new(),
            seeds: Vec::new(),
            peers: Vec::new(),
            dir,
            actors: BTreeMap::new(),
            reserved: Vec::new(),
            read_to: 0,
            rest: Vec::new(),
            deadline: Instant::now() + DEADLINE,
        };
        stage.seeds = stage.reserve(seeds)?;
        stage.peers = stage.reserve(peers)?;
        let list: String = stage.seeds.iter().map(|seed| format!("{seed}\n")).collect();
        fs::write(stage.config(), list).map_err(|error| format!("cannot write CONFIG: {error}"))?;
        Ok((stage, renamed))
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.txt")
    }

    fn stderr_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// So many addresses in order, for names that are in the same order.
    fn reserve(&mut self, count: usize) -> Result<Vec<SocketAddr>, String> {
        let reserve = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(([127, 0, 0, 1], 0).into())?;
            Ok((socket.local_addr()?, socket))
        };
        let mut addrs = Vec::new();
        for _ in 0..count {
            let (addr, socket) =
                reserve().map_err(|error: std::io::Error| format!("no free port: {error}"))?;
            self.reserved.push(socket);
            addrs.push(addr);
        }
        addrs.sort();
        Ok(addrs)
    }

    /// Starts this same program again, as a seed or a peer.
    pub fn start(&mut self, addr: SocketAddr, options: &[&str]) -> Result<(), String> {
        let name = self.name(addr);
        let role = if self.seeds.contains(&addr) { "seed" } else { "peer" };
        let spawn = || {
            Command::new(std::env::current_exe()?)
                .args([role, &addr.ip().to_string(), &addr.port().to_string()])
                .arg(self.config())
                .args(["--ephemeral", "--log-file", LOG])
                .args(options)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(self.stderr_of(&name))?)
                .spawn()
        };
        let child = spawn()
            .map_err(|error: std::io::Error| format!("cannot start the {role} {name}: {error}"))?;
        self.actors.insert(addr, Actor { name, child, dismissed: false });
        Ok(())
    }

    /// S1, P1 and so on; the address of whoever is neither.
    pub fn name(&self, addr: SocketAddr) -> String {
        let place = |all: &[SocketAddr]| all.iter().position(|one| *one == addr);
        match (place(&self.seeds), place(&self.peers)) {
            (Some(place), _) => format!("S{}", place + 1),
            (_, Some(place)) => format!("P{}", place + 1),
            _ => addr.to_string(),
        }
    }

    /// The names of addresses in a text such as `127.0.0.1:5000,127.0.0.1:5001`.
    pub fn names(&self, list: &str) -> String {
        let name = |addr: &str| addr.parse().map_or(addr.to_owned(), |addr| self.name(addr));
        list.split(',').map(name).collect::<Vec<_>>().join(" and ")
    }

    pub fn pid(&self, addr: SocketAddr) -> u32 {
        self.actors.get(&addr).map_or(0, |actor| actor.child.id())
    }

    /// kill -9; returns when.
    pub fn kill(&mut self, addr: SocketAddr) -> Result<i64, String> {
        let Some(actor) = self.actors.get_mut(&addr) else { return Ok(now()) };
        actor.dismissed = true;
        let sent = now();
        actor.child.kill().map_err(|error| format!("cannot kill {}: {error}", actor.name))?;
        Ok(sent)
    }

    /// SIGTERM; returns when.
    pub fn ask_to_leave(&mut self, addr: SocketAddr) -> Result<i64, String> {
        if let Some(actor) = self.actors.get_mut(&addr) {
            actor.dismissed = true;
        }
        let sent = now();
        kill("TERM", &[self.pid(addr)])?;
        Ok(sent)
    }

    /// The exit code of a process that has ended; none while it runs.
    pub fn ended(&mut self, addr: SocketAddr) -> Option<Option<i32>> {
        let status = self.actors.get_mut(&addr)?.child.try_wait().ok()??;
        Some(status.code())
    }

    /// Waits a moment and reads what the log has got meanwhile. An error if a process has ended
    /// that should not have, or if the demo has taken too long, `waiting` for what.
    pub async fn step(&mut self, waiting: &str) -> Result<(), String> {
        tokio::time::sleep(LOOK_AGAIN).await;
        self.read().map_err(|error| format!("cannot read {LOG}: {error}"))?;
        let texts = self.dir.path().to_owned();
        for actor in self.actors.values_mut().filter(|actor| !actor.dismissed) {
            if let Ok(Some(status)) = actor.child.try_wait() {
                let error = fs::read_to_string(texts.join(&actor.name)).unwrap_or_default();
                return Err(format!("{} ended by itself, {status}: {}", actor.name, error.trim()));
            }
        }
        if Instant::now() > self.deadline {
            return Err(format!("gave up after {} s, waiting for {waiting}", DEADLINE.as_secs()));
        }
        Ok(())
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut file = match File::open(LOG) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        file.seek(SeekFrom::Start(self.read_to))?;
        self.read_to += file.read_to_end(&mut self.rest)? as u64;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        self.lines.extend(String::from_utf8_lossy(&whole).lines().filter_map(Line::parse));
        Ok(())
    }

    pub fn events<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.event == event)
    }

    /// The neighbours of each peer in `among` now, as its own lines say.
    pub fn overlay(&self, among: &[SocketAddr]) -> BTreeMap<SocketAddr, BTreeSet<SocketAddr>> {
        let mut overlay: BTreeMap<_, BTreeSet<_>> =
            among.iter().map(|peer| (*peer, BTreeSet::new())).collect();
        for line in &self.lines {
            let (Some(links), Some(peer)) = (overlay.get_mut(&line.who), line.peer()) else {
                continue;
            };
            match line.event.as_str() {
                "neighbour up" => _ = links.insert(peer),
                "neighbour down" => _ = links.remove(&peer),
                _ => {}
            }
        }
        overlay
    }

    /// Ends everybody at the same moment, so that nobody has time to wonder about the others in
    /// the log.
    pub fn clear(&mut self) {
        let pids: Vec<u32> = self
            .actors
            .values_mut()
            .filter_map(|actor| match actor.child.try_wait() {
                Ok(None) => Some(actor.child.id()),
                _ => None,
            })
            .collect();
        if !pids.is_empty() {
            let _ = kill("STOP", &pids);
        }
        for actor in self.actors.values_mut() {
            let _ = actor.child.kill();
        }
        for actor in self.actors.values_mut() {
            let _ = actor.child.wait();
        }
        self.actors.clear();
    }
}

impl Drop for Stage {
    /// Whatever happened, a panic included: nobody stays behind.
    fn drop(&mut self) {
        self.clear();
    }
}

/// The shell's own `kill`: std has no signals but one.
fn kill(signal: &str, pids: &[u32]) -> Result<(), String> {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let line = format!("kill -{signal} {}", pids.join(" "));
    match Command::new("sh").args(["-c", &line]).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{line:?} failed: {status}")),
        Err(error) => Err(format!("cannot run sh: {error}")),
    }
}

pub fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// From one time to a later one.
pub fn between(earlier: i64, later: i64) -> Duration {
    Duration::from_micros(u64::try_from(later - earlier).unwrap_or_default())
}
