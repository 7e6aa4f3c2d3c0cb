//! The events of the shared log, word for word as CONTRACT.md, section 2, has them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use super::limits::{Drops, Limit};
use super::message::{Addr, ChangeKind, Incarnation};
use super::time::Time;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It ends the process.
    Error,
    /// A user should act on it.
    Warn,
    /// It belongs to the story of the network.
    Info,
    /// It is a detail.
    Debug,
}

/// One line of the log, without its time, its level and the name of the process.
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
        /// The seed that told of the death; none where peers decide alone.
        seed: Option<Addr>,
        votes: usize,
        of: usize,
    },

    ClockSkew {
        peer: Addr,
        /// By how much its clock is ahead of ours, milliseconds.
        ahead: i64,
    },

    /// Something was dropped because of a limit. Machines say so each time; whoever runs one counts
    /// it, and writes one line an hour for each kind.
    OverLimit {
        limit: Limit,
        /// Whose it was, if that is known.
        from: Option<Addr>,
        /// How often it happened.
        times: u64,
    },

    /// One of the events above that others tell as well, or that was told a moment ago: a detail.
    Aside(Box<Event>),

    /// Anything else that is worth a line: an event in words, then keys and values.
    Note {
        severity: Severity,
        what: &'static str,
        keys: Vec<(&'static str, String)>,
    },
}

impl Event {
    /// The event itself if it is `worth` a line of its own; otherwise the event as a detail.
    pub fn told_if(self, worth: bool) -> Self {
        if worth { self } else { Event::Aside(Box::new(self)) }
    }

    /// The event as a line of the log. If it tells of something dropped, that is counted; and there is
    /// no line if this kind was told within the hour, else one that tells of all since.
    pub fn counted(self, now: Time, drops: &mut Drops) -> Option<Self> {
        let Event::OverLimit { limit, from, times } = self else { return Some(self) };
        let times = drops.count(now, limit, times)?;
        Some(Event::OverLimit { limit, from, times })
    }

    /// How much the event matters.
    pub fn severity(&self) -> Severity {
        match self {
            Event::Note { severity, .. } => *severity,
            Event::Aside(_) => Severity::Debug,
            Event::RegistrationRejected { .. }
            | Event::DeadNodeRejected { .. }
            | Event::LeaveRejected { .. }
            | Event::Suspected { .. }
            | Event::OverLimit { .. }
            | Event::ClockSkew { .. } => Severity::Warn,
            _ => Severity::Info,
        }
    }
}

/// The value of one field of an event.
#[derive(Clone)]
pub enum Field<'a> {
    /// A value that needs no quotes: an address, or one of a few words.
    Plain(&'a dyn fmt::Display),
    /// A number.
    Number(u64),
    /// Number of votes, and of how many.
    Votes(usize, usize),
    /// Any text.
    Text(Cow<'a, str>),
    /// Addresses, in order.
    Addrs(&'a [Addr]),
    /// A payload that somebody has published; it is cut if it is long.
    Payload(&'a [u8]),
}

/// Most bytes of a payload that are shown.
const SHOWN_PAYLOAD: usize = 256;

/// A payload as text, with the number of bytes that were left out of it.
fn shown(payload: &[u8]) -> String {
    let start = payload.get(..SHOWN_PAYLOAD).unwrap_or(payload);
    let text = String::from_utf8_lossy(start);
    match payload.len() - start.len() {
        0 => text.into_owned(),
        more => format!("{text}...(+{more} more)"),
    }
}

fn count(number: usize) -> Field<'static> {
    Field::Number(u64::try_from(number).unwrap_or(u64::MAX))
}

fn text(text: &str) -> Field<'_> {
    Field::Text(Cow::Borrowed(text))
}

impl Field<'_> {
    /// The value as it is, without quotes.
    pub fn text(&self) -> String {
        match self {
            Field::Text(text) => text.to_string(),
            Field::Addrs([]) => String::new(),
            Field::Payload(payload) => shown(payload),
            other => other.to_string(),
        }
    }
}

/// The value as it stands in a line of the log: quoted if it holds a space, a control character, a
/// quote, a backslash or nothing at all, and never longer than one line.
impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Plain(value) => value.fmt(f),
            Field::Number(number) => number.fmt(f),
            Field::Votes(votes, of) => write!(f, "{votes}/{of}"),
            Field::Text(text) => quoted(text, f),
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
            Field::Payload(payload) => quoted(&shown(payload), f),
        }
    }
}

fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || c == '"' || c == '\\');
    if !text.is_empty() && text.chars().all(plain) {
        f.write_str(text)
    } else {
        write!(f, "{text:?}")
    }
}

/// One line of the log, without its time, its level and the name of the process.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())?;
        self.fields().iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

/// The name of a field, and its value.
pub type Named<'a> = (&'static str, Field<'a>);

impl Event {
    /// The words to grep for (CONTRACT.md, section 2).
    pub fn words(&self) -> &str {
        match self {
            Event::SeedListening { .. } | Event::PeerListening { .. } => "listening",
            Event::RegistrationProposed { .. } => "registration proposed",
            Event::Vote { .. } => "vote",
            Event::RegistrationCommitted { .. } => "registration committed",
            Event::RegistrationRejected { .. } => "registration rejected",
            Event::DeadNodeProposed { .. } => "dead-node proposed",
            Event::DeadNodeCommitted { .. } => "dead-node committed",
            Event::DeadNodeRejected { .. } => "dead-node rejected",
            Event::LeaveCommitted { .. } => "leave committed",
            Event::LeaveRejected { .. } => "leave rejected",
            Event::PeerList { .. } => "peer list",
            Event::Registered { .. } => "registered",
            Event::PeerListReceived { .. } => "peer list received",
            Event::NeighbourUp { .. } => "neighbour up",
            Event::NeighbourDown { .. } => "neighbour down",
            Event::GossipSent { .. } => "gossip sent",
            Event::GossipReceived { .. } => "gossip received",
            Event::Suspected { .. } => "suspected",
            Event::SuspectNotice { .. } => "suspect notice",
            Event::SuspicionRefuted { .. } => "suspicion refuted",
            Event::PeerLevelConsensus { .. } => "peer-level consensus",
            Event::DeadNodeMessage { text } => text,
            Event::DeadNodeConfirmed { .. } => "dead node confirmed",
            Event::ClockSkew { .. } => "clock skew",
            Event::OverLimit { .. } => "over the limit",
            Event::Aside(event) => event.words(),
            Event::Note { what, .. } => what,
        }
    }

    /// The fields, in the order of CONTRACT.md, section 2.
    pub fn fields(&self) -> Vec<Named<'_>> {
        use Field::{Number, Payload, Plain, Votes};
        match self {
            Event::SeedListening { quorum, of } => {
                vec![("quorum", count(*quorum)), ("of", count(*of))]
            }
            Event::PeerListening { incarnation } => vec![("incarnation", Number(*incarnation))],
            Event::RegistrationProposed { peer, incarnation } => {
                vec![("peer", Plain(peer)), ("incarnation", Number(*incarnation))]
            }
            Event::RegistrationRejected { peer, votes, of, reason }
            | Event::DeadNodeRejected { peer, votes, of, reason }
            | Event::LeaveRejected { peer, votes, of, reason } => {
                vec![("peer", Plain(peer)), ("votes", Votes(*votes, *of)), ("reason", text(reason))]
            }
            Event::DeadNodeCommitted { peer, votes, of, incarnation }
            | Event::LeaveCommitted { peer, votes, of, incarnation } => {
                let (incarnation, votes) = (Number(*incarnation), Votes(*votes, *of));
                vec![("peer", Plain(peer)), ("votes", votes), ("incarnation", incarnation)]
            }
            Event::PeerList { size } => vec![("size", count(*size))],
            Event::NeighbourUp { peer, degree } | Event::NeighbourDown { peer, degree } => {
                vec![("peer", Plain(peer)), ("degree", count(*degree))]
            }
            Event::GossipSent { message } => vec![("message", Payload(message))],
            Event::Suspected { peer, reason } => {
                vec![("peer", Plain(peer)), ("reason", text(reason))]
            }
            Event::SuspectNotice { peer, from } => {
                vec![("peer", Plain(peer)), ("from", Plain(from))]
            }
            Event::SuspicionRefuted { peer, by } => vec![("peer", Plain(peer)), ("by", Plain(by))],
            Event::DeadNodeMessage { .. } => Vec::new(),
            Event::Aside(event) => event.fields(),
            Event::Note { keys, .. } => {
                keys.iter().map(|(key, value)| (*key, text(value))).collect()
            }
            Event::Vote { .. }
            | Event::RegistrationCommitted { .. }
            | Event::PeerLevelConsensus { .. }
            | Event::GossipReceived { .. }
            | Event::DeadNodeProposed { .. }
            | Event::Registered { .. }
            | Event::PeerListReceived { .. }
            | Event::DeadNodeConfirmed { .. }
            | Event::OverLimit { .. }
            | Event::ClockSkew { .. } => self.more_fields(),
        }
    }

    /// The fields of the events that have many, or some that have to be computed first.
    fn more_fields(&self) -> Vec<Named<'_>> {
        use Field::{Addrs, Number, Payload, Plain, Votes};
        match self {
            Event::Vote { on, peer, accept, reason, incarnation } => vec![
                ("on", text(on.words())),
                ("peer", Plain(peer)),
                ("accept", Plain(accept)),
                ("reason", text(reason)),
                ("incarnation", Number(*incarnation)),
            ],
            Event::RegistrationCommitted { peer, incarnation, votes, of } => {
                let (incarnation, votes) = (Number(*incarnation), Votes(*votes, *of));
                vec![("peer", Plain(peer)), ("incarnation", incarnation), ("votes", votes)]
            }
            Event::PeerLevelConsensus { peer, witnesses } => {
                vec![("peer", Plain(peer)), ("witnesses", Addrs(witnesses))]
            }
            Event::GossipReceived { message, from } => {
                vec![("message", Payload(message)), ("from", Plain(from))]
            }
            Event::DeadNodeProposed { peer, reporters, incarnation } => {
                let incarnation = Number(*incarnation);
                vec![
                    ("peer", Plain(peer)),
                    ("reporters", Addrs(reporters)),
                    ("incarnation", incarnation),
                ]
            }
            Event::Registered { seed, count, quorum } => {
                vec![("seed", Plain(seed)), ("count", Votes(*count, *quorum))]
            }
            Event::PeerListReceived { seed, peers } => {
                vec![("seed", Plain(seed)), ("size", count(peers.len())), ("peers", Addrs(peers))]
            }
            Event::DeadNodeConfirmed { peer, seed, votes, of } => {
                let seed = seed.as_ref().map_or_else(|| text("none"), |seed| Plain(seed));
                vec![("peer", Plain(peer)), ("seed", seed), ("votes", Votes(*votes, *of))]
            }
            Event::ClockSkew { peer, ahead } => skew_fields(peer, *ahead),
            Event::OverLimit { limit, from, times } => {
                let mut fields = vec![("limit", text(limit.label()))];
                fields.extend(from.as_ref().map(|from| ("from", Plain(from))));
                fields.push(("times", Number(*times)));
                fields.push(("reason", text(limit.words())));
                fields
            }
            // The fields of all other events are told by `fields`.
            _ => Vec::new(),
        }
    }
}

fn skew_fields(peer: &Addr, ahead: i64) -> Vec<Named<'_>> {
    let words = super::time::offset_words(ahead);
    let advice = format!("the clock of {peer} is {words} of ours: set the wrong one right");
    let offset = format!("{:+}s", ahead / 1_000);
    vec![
        ("peer", Field::Plain(peer)),
        ("offset", Field::Text(offset.into())),
        ("advice", Field::Text(advice.into())),
    ]
}
