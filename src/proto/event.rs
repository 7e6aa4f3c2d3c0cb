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

/// A value of the log: quoted if it holds a space, a quote or nothing at all, and never more than
/// one line.
pub struct Value<'a>(pub &'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| !(c.is_whitespace() || c.is_control() || c == '"' || c == '\\');
        if !self.0.is_empty() && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

struct List<'a>(&'a [Addr]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("\"\"");
        }
        for (i, addr) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{addr}")?;
        }
        Ok(())
    }
}

struct Payload<'a>(&'a Bytes);

/// Bytes of a payload that a log line shows at most.
const SHOWN_PAYLOAD: usize = 256;

impl fmt::Display for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN_PAYLOAD).unwrap_or(self.0);
        let text = String::from_utf8_lossy(shown);
        if shown.len() < self.0.len() {
            let more = self.0.len() - shown.len();
            write!(f, "{}", Value(&format!("{text}...(+{more} more)")))
        } else {
            write!(f, "{}", Value(&text))
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::SeedListening { quorum, of } => write!(f, "listening quorum={quorum} of={of}"),
            Event::PeerListening { incarnation } => {
                write!(f, "listening incarnation={incarnation}")
            }
            Event::RegistrationProposed { peer, incarnation } => {
                write!(f, "registration proposed peer={peer} incarnation={incarnation}")
            }
            Event::Vote { on, peer, accept, reason, incarnation } => write!(
                f,
                "vote on={} peer={peer} accept={accept} reason={} incarnation={incarnation}",
                on.words(),
                Value(reason)
            ),
            Event::RegistrationCommitted { peer, incarnation, votes, of } => write!(
                f,
                "registration committed peer={peer} incarnation={incarnation} votes={votes}/{of}"
            ),
            Event::RegistrationRejected { peer, votes, of, reason } => write!(
                f,
                "registration rejected peer={peer} votes={votes}/{of} reason={}",
                Value(reason)
            ),
            Event::DeadNodeProposed { peer, reporters, incarnation } => write!(
                f,
                "dead-node proposed peer={peer} reporters={} incarnation={incarnation}",
                List(reporters)
            ),
            Event::DeadNodeCommitted { peer, votes, of, incarnation } => write!(
                f,
                "dead-node committed peer={peer} votes={votes}/{of} incarnation={incarnation}"
            ),
            Event::DeadNodeRejected { peer, votes, of, reason } => write!(
                f,
                "dead-node rejected peer={peer} votes={votes}/{of} reason={}",
                Value(reason)
            ),
            Event::LeaveCommitted { peer, votes, of, incarnation } => {
                write!(
                    f,
                    "leave committed peer={peer} votes={votes}/{of} incarnation={incarnation}"
                )
            }
            Event::LeaveRejected { peer, votes, of, reason } => {
                write!(f, "leave rejected peer={peer} votes={votes}/{of} reason={}", Value(reason))
            }
            Event::PeerList { size } => write!(f, "peer list size={size}"),
            Event::Registered { seed, count, quorum } => {
                write!(f, "registered seed={seed} count={count}/{quorum}")
            }
            Event::PeerListReceived { seed, peers } => {
                write!(
                    f,
                    "peer list received seed={seed} size={} peers={}",
                    peers.len(),
                    List(peers)
                )
            }
            Event::NeighbourUp { peer, degree } => {
                write!(f, "neighbour up peer={peer} degree={degree}")
            }
            Event::NeighbourDown { peer, degree } => {
                write!(f, "neighbour down peer={peer} degree={degree}")
            }
            Event::GossipSent { message } => write!(f, "gossip sent message={}", Payload(message)),
            Event::GossipReceived { message, from } => {
                write!(f, "gossip received message={} from={from}", Payload(message))
            }
            Event::Suspected { peer, reason } => {
                write!(f, "suspected peer={peer} reason={}", Value(reason))
            }
            Event::SuspectNotice { peer, from } => {
                write!(f, "suspect notice peer={peer} from={from}")
            }
            Event::SuspicionRefuted { peer, by } => {
                write!(f, "suspicion refuted peer={peer} by={by}")
            }
            Event::PeerLevelConsensus { peer, witnesses } => {
                write!(f, "peer-level consensus peer={peer} witnesses={}", List(witnesses))
            }
            Event::DeadNodeMessage { text } => f.write_str(text),
            Event::DeadNodeConfirmed { peer, seed, votes, of } => {
                let seed = seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string());
                write!(f, "dead node confirmed peer={peer} seed={seed} votes={votes}/{of}")
            }
            Event::Aside(event) => event.fmt(f),
            Event::ClockSkew { peer, ahead } => {
                let words = super::time::offset_words(*ahead);
                let advice =
                    format!("the clock of {peer} is {words} of ours: set the wrong one right");
                let seconds = *ahead / 1_000;
                write!(f, "clock skew peer={peer} offset={seconds:+}s advice={}", Value(&advice))
            }
            Event::Note { what, keys, .. } => {
                f.write_str(what)?;
                for (key, value) in keys {
                    write!(f, " {key}={}", Value(value))?;
                }
                Ok(())
            }
        }
    }
}
