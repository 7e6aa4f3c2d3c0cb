//! The shared log, read back: CONTRACT.md, section 2, taken strictly.
//!
//! A line that does not parse fails the test that reads it, so every test here is also one of the
//! log's format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a line at most, newline included.
const LINE_LIMIT: usize = 8_000;

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    pub raw: String,
    /// Microseconds since the Unix epoch.
    pub time: i64,
    pub level: String,
    pub who: String,
    pub addr: SocketAddr,
    pub event: String,
    pub keys: Vec<(String, String)>,
}

impl Line {
    pub fn parse(raw: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what}: {raw:?}");
        let mut parts = raw.splitn(5, ' ');
        let mut part = || parts.next().ok_or_else(|| wrong("too few words"));
        let (time, level, who, addr) = (part()?, part()?, part()?, part()?);
        let rest = part()?;
        if time.len() != "2026-11-21T08:15:00.123456Z".len() || !time.ends_with('Z') {
            return Err(wrong("not a time in microseconds"));
        }
        let time = chrono::DateTime::parse_from_rfc3339(time)
            .map_err(|_| wrong("not RFC 3339"))?
            .timestamp_micros();
        if !["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level) {
            return Err(wrong("not a level"));
        }
        if !["seed", "peer"].contains(&who) {
            return Err(wrong("neither seed nor peer"));
        }
        let addr = addr.parse().map_err(|_| wrong("not an address"))?;
        let mut event = Vec::new();
        let mut keys = Vec::new();
        for word in words(rest).ok_or_else(|| wrong("an open quote"))? {
            match word.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    keys.push((key.to_owned(), value.to_owned()));
                }
                _ if keys.is_empty() && !word.is_empty() => event.push(word),
                _ => return Err(wrong("a word among the keys, or an empty one")),
            }
        }
        if event.is_empty() {
            return Err(wrong("no event"));
        }
        let (level, who) = (level.to_owned(), who.to_owned());
        Ok(Self { raw: raw.to_owned(), time, level, who, addr, event: event.join(" "), keys })
    }

    /// The value of a key; none if the line has no such key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of a key that the contract promises.
    pub fn value(&self, key: &str) -> &str {
        self.get(key).unwrap_or_else(|| panic!("no {key}= in {:?}", self.raw))
    }

    /// The address in `peer=`.
    pub fn peer(&self) -> SocketAddr {
        self.value("peer").parse().unwrap_or_else(|_| panic!("no address in {:?}", self.raw))
    }

    /// A number such as `size=`.
    pub fn number(&self, key: &str) -> u64 {
        self.value(key).parse().unwrap_or_else(|_| panic!("{key}= is no number: {:?}", self.raw))
    }

    /// A fraction such as `votes=2/3`.
    pub fn fraction(&self, key: &str) -> (usize, usize) {
        let parse = |(a, b): (&str, &str)| Some((a.parse().ok()?, b.parse().ok()?));
        let fraction = self.value(key).split_once('/').and_then(parse);
        fraction.unwrap_or_else(|| panic!("{key}= is no fraction: {:?}", self.raw))
    }

    /// A list such as `witnesses=IP:PORT,IP:PORT`.
    pub fn list(&self, key: &str) -> Vec<SocketAddr> {
        let parse =
            |one: &str| one.parse().unwrap_or_else(|_| panic!("no address list: {:?}", self.raw));
        self.value(key).split(',').filter(|one| !one.is_empty()).map(parse).collect()
    }
}

/// Words between single spaces; a value in quotes keeps its spaces and loses the quotes.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if escaped {
            escaped = false;
            words.last_mut()?.push(c);
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        } else if c == ' ' && !quoted {
            words.push(String::new());
        } else {
            words.last_mut()?.push(c);
        }
    }
    (!quoted).then_some(words)
}

/// The log of a network as far as it has been read.
#[derive(Debug, Default)]
pub struct Log {
    path: PathBuf,
    read_to: u64,
    rest: Vec<u8>,
    lines: Vec<Line>,
}

impl Log {
    pub fn of(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }

    /// The file, opened, for whoever has no time to open it.
    pub fn open(&self) -> File {
        File::open(&self.path).unwrap()
    }

    /// Takes in whatever has been written meanwhile.
    pub fn read_more(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        file.seek(SeekFrom::Start(self.read_to)).unwrap();
        let fresh = file.read_to_end(&mut self.rest).unwrap();
        self.read_to += u64::try_from(fresh).unwrap();
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        for line in String::from_utf8(whole).expect("the log is UTF-8").lines() {
            assert!(line.len() < LINE_LIMIT, "a line of {} bytes: {line}", line.len() + 1);
            match Line::parse(line) {
                Ok(line) => self.lines.push(line),
                Err(wrong) => panic!("torn or misshapen line: {wrong}"),
            }
        }
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn events<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.event == event)
    }

    /// Lines of an event that one process logged.
    pub fn of_node<'a>(
        &'a self,
        addr: SocketAddr,
        event: &'a str,
    ) -> impl Iterator<Item = &'a Line> {
        self.events(event).filter(move |line| line.addr == addr)
    }

    /// Lines of an event about a peer.
    pub fn about<'a>(&'a self, peer: SocketAddr, event: &'a str) -> impl Iterator<Item = &'a Line> {
        self.events(event).filter(move |line| line.peer() == peer)
    }

    /// The size that a seed last gave for its list.
    pub fn size_at(&self, seed: SocketAddr) -> u64 {
        self.of_node(seed, "peer list").last().map_or(0, |line| line.number("size"))
    }

    /// Whether a peer has a quorum of its seeds.
    pub fn is_registered(&self, peer: SocketAddr) -> bool {
        self.of_node(peer, "registered").any(|line| {
            let (count, quorum) = line.fraction("count");
            count >= quorum
        })
    }

    /// From `listening` to the last `registered` of a peer's first life.
    pub fn registration_time(&self, peer: SocketAddr) -> Duration {
        let began = self.of_node(peer, "listening").next().expect("listening").time;
        let ended = self.of_node(peer, "registered").last().expect("registered").time;
        between(began, ended)
    }

    /// The neighbours of each of these peers now, as its own lines say.
    pub fn overlay(&self, peers: &[SocketAddr]) -> BTreeMap<SocketAddr, BTreeSet<SocketAddr>> {
        let mut overlay: BTreeMap<SocketAddr, BTreeSet<SocketAddr>> =
            peers.iter().map(|peer| (*peer, BTreeSet::new())).collect();
        for line in self.lines.iter().filter(|line| line.who == "peer") {
            let Some(neighbours) = overlay.get_mut(&line.addr) else { continue };
            match line.event.as_str() {
                "neighbour up" => {
                    neighbours.insert(line.peer());
                }
                "neighbour down" => {
                    neighbours.remove(&line.peer());
                }
                // Another life begins.
                "listening" => neighbours.clear(),
                _ => {}
            }
        }
        overlay
    }

    /// How often each text was sent.
    pub fn messages_sent(&self) -> BTreeMap<&str, usize> {
        let mut count = BTreeMap::new();
        for line in self.events("gossip sent") {
            *count.entry(line.value("message")).or_default() += 1;
        }
        count
    }

    /// How often each text came to a peer, its own ones included.
    pub fn messages_at(&self, peer: SocketAddr) -> BTreeMap<&str, usize> {
        let mut count = BTreeMap::new();
        for event in ["gossip sent", "gossip received"] {
            for line in self.of_node(peer, event) {
                *count.entry(line.value("message")).or_default() += 1;
            }
        }
        count
    }
}

/// From one line's time to another's.
pub fn between(earlier: i64, later: i64) -> Duration {
    Duration::from_micros(u64::try_from(later - earlier).unwrap_or_default())
}

#[test]
fn what_is_not_a_line_of_the_contract_is_found() {
    let time = "2026-11-21T08:15:00.123456Z";
    let good = format!("{time} WARN seed 127.0.0.1:5000 registration rejected reason=\"a b\" x=1");
    let line = Line::parse(&good).unwrap();
    assert_eq!((line.event.as_str(), line.value("reason")), ("registration rejected", "a b"));
    for bad in [
        "",
        "08:15 INFO seed 127.0.0.1:5000 listening",
        &format!("{time} INFO seed 127.0.0.1:5000"),
        &format!("{time} INFO sed 127.0.0.1:5000 listening"),
        &format!("{time} INFO seed 127.0.0.1 listening"),
        &format!("{time} INFO seed 127.0.0.1:5000 listening quorum=2{time} INFO seed"),
        &format!("{time} INFO seed 127.0.0.1:5000 listening reason=\"a b"),
        &format!("{time} INFO seed 127.0.0.1:5000 listening  quorum=2"),
    ] {
        assert!(Line::parse(bad).is_err(), "{bad:?}");
    }
}
