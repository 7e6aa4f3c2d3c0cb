//! What the shared log tells: the events of CONTRACT.md, section 2, word for word.

use std::fmt;

use bytes::Bytes;

use super::message::{Addr, ChangeKind, Incarnation};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// What ends the process.
    Error,
    /// Something a user should act on.
    Warn,
    /// The story.
    Info,
    /// Details.
    Debug,
}

/// One line of the log, but for time, level and who says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the keys that CONTRACT.md explains
pub enum Event {
    SeedListening {
        quorum: usize,
        of: usize,
    },
    PeerListening {
        incarnation: Incarnation,
    },
    RegistrationProposed {
        peer: Addr,
        incarnation: Incarnation,
    },
    Vote {
        on: ChangeKind,
        peer: Addr,
        accept: bool,
        reason: String,
        incarnation: Incarnation,
    },
    RegistrationCommitted {
        peer: Addr,
        incarnation: Incarnation,
        votes: usize,
        of: usize,
    },
    RegistrationRejected {
        peer: Addr,
        votes: usize,
        of: usize,
        reason: String,
    },
    DeadNodeProposed {
        peer: Addr,
        reporters: Vec<Addr>,
        incarnation: Incarnation,
    },
    DeadNodeCommitted {
        peer: Addr,
        votes: usize,
        of: usize,
        incarnation: Incarnation,
    },
    DeadNodeRejected {
        peer: Addr,
        votes: usize,
        of: usize,
        reason: String,
    },
    LeaveCommitted {
        peer: Addr,
        votes: usize,
        of: usize,
        incarnation: Incarnation,
    },
    LeaveRejected {
        peer: Addr,
        votes: usize,
        of: usize,
        reason: String,
    },
    PeerList {
        size: usize,
    },

    Registered {
        seed: Addr,
        count: usize,
        quorum: usize,
    },
    PeerListReceived {
        seed: Addr,
        peers: Vec<Addr>,
    },
    NeighbourUp {
        peer: Addr,
        degree: usize,
    },
    NeighbourDown {
        peer: Addr,
        degree: usize,
    },
    GossipSent {
        message: Bytes,
    },
    GossipReceived {
        message: Bytes,
        from: Addr,
    },
    Suspected {
        peer: Addr,
        reason: &'static str,
    },
    SuspectNotice {
        peer: Addr,
        from: Addr,
    },
    SuspicionRefuted {
        peer: Addr,
        by: Addr,
    },
    PeerLevelConsensus {
        peer: Addr,
        witnesses: Vec<Addr>,
    },
    DeadNodeMessage {
        text: String,
    },
    DeadNodeConfirmed {
        peer: Addr,
        /// Which seed told; none where peers decide alone.
        seed: Option<Addr>,
        votes: usize,
        of: usize,
    },

    ClockSkew {
        peer: Addr,
        /// By how much its clock is ahead of ours, milliseconds.
        ahead: i64,
    },

    /// One of the above that others tell as well, or that was told a moment ago: a detail.
    Aside(Box<Event>),

    /// Anything else worth a line: an event in words, then keys and values.
    Note {
        severity: Severity,
        what: &'static str,
        keys: Vec<(&'static str, String)>,
    },
}

impl Event {
    /// The event, as a detail unless it is `worth` a line of its own.
    pub fn told_if(self, worth: bool) -> Self {
        if worth { self } else { Event::Aside(Box::new(self)) }
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Event::Note { severity, .. } => *severity,
            Event::Aside(_) => Severity::Debug,
            Event::RegistrationRejected { .. }
            | Event::DeadNodeRejected { .. }
            | Event::LeaveRejected { .. }
            | Event::Suspected { .. }
            | Event::ClockSkew { .. } => Severity::Warn,
            _ => Severity::Info,
        }
    }
}

/// The value of one field of an event.
#[derive(Clone, Copy)]
pub enum Field<'a> {
    /// What needs no quotes: a number, an address, one of a few words.
    Plain(&'a dyn fmt::Display),
    /// Any text.
    Text(&'a str),
    /// Addresses, in order.
    Addrs(&'a [Addr]),
    /// What somebody has published, cut if it is long.
    Payload(&'a [u8]),
}

/// Takes in what an event says: first its words, then its fields in order.
pub trait Telling {
    /// The words to grep for.
    fn words(&mut self, words: &str);
    /// A field.
    fn field(&mut self, key: &'static str, value: Field<'_>);
}

/// Bytes of a payload that are shown at most.
const SHOWN_PAYLOAD: usize = 256;

/// A payload as text, and what was left out of it.
fn shown(payload: &[u8]) -> String {
    let start = payload.get(..SHOWN_PAYLOAD).unwrap_or(payload);
    let text = String::from_utf8_lossy(start);
    match payload.len() - start.len() {
        0 => text.into_owned(),
        more => format!("{text}...(+{more} more)"),
    }
}

impl Field<'_> {
    /// The value as it is, without quotes.
    pub fn text(&self) -> String {
        match self {
            Field::Plain(value) => value.to_string(),
            Field::Text(text) => (*text).to_owned(),
            Field::Addrs(addrs) => addrs.iter().map(Addr::to_string).collect::<Vec<_>>().join(","),
            Field::Payload(payload) => shown(payload),
        }
    }
}

/// As in a line of the log: quoted if it holds a space, a quote or nothing at all, and never more than
/// one line.
impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Plain(value) => value.fmt(f),
            Field::Text(text) => {
                let plain =
                    |c: char| !(c.is_whitespace() || c.is_control() || c == '"' || c == '\\');
                if !text.is_empty() && text.chars().all(plain) {
                    f.write_str(text)
                } else {
                    write!(f, "{text:?}")
                }
            }
            Field::Addrs([]) => f.write_str("\"\""),
            Field::Addrs(addrs) => {
                for (i, addr) in addrs.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{addr}")?;
                }
                Ok(())
            }
            Field::Payload(payload) => Field::Text(&shown(payload)).fmt(f),
        }
    }
}

/// Votes of so many.
struct Of(usize, usize);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// One line of the log, being written.
struct Line<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    result: fmt::Result,
}

impl Telling for Line<'_, '_> {
    fn words(&mut self, words: &str) {
        self.result = self.result.and_then(|()| self.to.write_str(words));
    }

    fn field(&mut self, key: &'static str, value: Field<'_>) {
        self.result = self.result.and_then(|()| write!(self.to, " {key}={value}"));
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line { to: f, result: Ok(()) };
        self.tell(&mut line);
        line.result
    }
}

impl Event {
    /// Tells its words and its fields, in the order of CONTRACT.md, section 2.
    pub fn tell(&self, to: &mut dyn Telling) {
        use Field::{Addrs, Payload, Plain, Text};
        match self {
            Event::SeedListening { quorum, of } => {
                tell(to, "listening", &[("quorum", Plain(quorum)), ("of", Plain(of))]);
            }
            Event::PeerListening { incarnation } => {
                tell(to, "listening", &[("incarnation", Plain(incarnation))]);
            }
            Event::RegistrationProposed { peer, incarnation } => {
                let fields = [("peer", Plain(peer)), ("incarnation", Plain(incarnation))];
                tell(to, "registration proposed", &fields);
            }
            Event::Vote { on, peer, accept, reason, incarnation } => {
                let fields = [
                    ("on", Plain(&on.words())),
                    ("peer", Plain(peer)),
                    ("accept", Plain(accept)),
                    ("reason", Text(reason)),
                    ("incarnation", Plain(incarnation)),
                ];
                tell(to, "vote", &fields);
            }
            Event::RegistrationCommitted { peer, incarnation, votes, of } => {
                let fields = [
                    ("peer", Plain(peer)),
                    ("incarnation", Plain(incarnation)),
                    ("votes", Plain(&Of(*votes, *of))),
                ];
                tell(to, "registration committed", &fields);
            }
            Event::RegistrationRejected { peer, votes, of, reason } => {
                rejected(to, "registration rejected", peer, Of(*votes, *of), reason);
            }
            Event::DeadNodeProposed { peer, reporters, incarnation } => {
                let fields = [
                    ("peer", Plain(peer)),
                    ("reporters", Addrs(reporters)),
                    ("incarnation", Plain(incarnation)),
                ];
                tell(to, "dead-node proposed", &fields);
            }
            Event::DeadNodeCommitted { peer, votes, of, incarnation } => {
                gone(to, "dead-node committed", peer, Of(*votes, *of), *incarnation);
            }
            Event::DeadNodeRejected { peer, votes, of, reason } => {
                rejected(to, "dead-node rejected", peer, Of(*votes, *of), reason);
            }
            Event::LeaveCommitted { peer, votes, of, incarnation } => {
                gone(to, "leave committed", peer, Of(*votes, *of), *incarnation);
            }
            Event::LeaveRejected { peer, votes, of, reason } => {
                rejected(to, "leave rejected", peer, Of(*votes, *of), reason);
            }
            Event::PeerList { size } => tell(to, "peer list", &[("size", Plain(size))]),
            Event::Registered { seed, count, quorum } => {
                let count = Of(*count, *quorum);
                tell(to, "registered", &[("seed", Plain(seed)), ("count", Plain(&count))]);
            }
            Event::PeerListReceived { seed, peers } => {
                let fields =
                    [("seed", Plain(seed)), ("size", Plain(&peers.len())), ("peers", Addrs(peers))];
                tell(to, "peer list received", &fields);
            }
            Event::NeighbourUp { peer, degree } => {
                tell(to, "neighbour up", &[("peer", Plain(peer)), ("degree", Plain(degree))]);
            }
            Event::NeighbourDown { peer, degree } => {
                tell(to, "neighbour down", &[("peer", Plain(peer)), ("degree", Plain(degree))]);
            }
            Event::GossipSent { message } => {
                tell(to, "gossip sent", &[("message", Payload(message))]);
            }
            Event::GossipReceived { message, from } => {
                let fields = [("message", Payload(message)), ("from", Plain(from))];
                tell(to, "gossip received", &fields);
            }
            Event::Suspected { peer, reason } => {
                tell(to, "suspected", &[("peer", Plain(peer)), ("reason", Text(reason))]);
            }
            Event::SuspectNotice { peer, from } => {
                tell(to, "suspect notice", &[("peer", Plain(peer)), ("from", Plain(from))]);
            }
            Event::SuspicionRefuted { peer, by } => {
                tell(to, "suspicion refuted", &[("peer", Plain(peer)), ("by", Plain(by))]);
            }
            Event::PeerLevelConsensus { peer, witnesses } => {
                let fields = [("peer", Plain(peer)), ("witnesses", Addrs(witnesses))];
                tell(to, "peer-level consensus", &fields);
            }
            Event::DeadNodeMessage { text } => to.words(text),
            Event::DeadNodeConfirmed { peer, seed, votes, of } => {
                let votes = Of(*votes, *of);
                let seed: &dyn fmt::Display = match seed {
                    Some(seed) => seed,
                    None => &"none",
                };
                let fields =
                    [("peer", Plain(peer)), ("seed", Plain(seed)), ("votes", Plain(&votes))];
                tell(to, "dead node confirmed", &fields);
            }
            Event::Aside(event) => event.tell(to),
            Event::ClockSkew { peer, ahead } => {
                let words = super::time::offset_words(*ahead);
                let advice =
                    format!("the clock of {peer} is {words} of ours: set the wrong one right");
                let offset = format!("{:+}s", *ahead / 1_000);
                let fields =
                    [("peer", Plain(peer)), ("offset", Plain(&offset)), ("advice", Text(&advice))];
                tell(to, "clock skew", &fields);
            }
            Event::Note { what, keys, .. } => {
                to.words(what);
                for (key, value) in keys {
                    to.field(key, Text(value));
                }
            }
        }
    }
}

fn tell(to: &mut dyn Telling, words: &str, fields: &[(&'static str, Field<'_>)]) {
    to.words(words);
    for (key, value) in fields {
        to.field(key, *value);
    }
}

fn rejected(to: &mut dyn Telling, words: &str, peer: &Addr, votes: Of, reason: &str) {
    use Field::{Plain, Text};
    let fields = [("peer", Plain(peer)), ("votes", Plain(&votes)), ("reason", Text(reason))];
    tell(to, words, &fields);
}

fn gone(to: &mut dyn Telling, words: &str, peer: &Addr, votes: Of, incarnation: Incarnation) {
    use Field::Plain;
    let fields =
        [("peer", Plain(peer)), ("votes", Plain(&votes)), ("incarnation", Plain(&incarnation))];
    tell(to, words, &fields);
}
