//! Connections between nodes, carried by Maelstrom's messages.
//!
//! A body of type `frames` carries everything that waits to go to one node. Each frame names a
//! connection, by the number that the node which opened it gave it, and opens the connection,
//! answers the opening, says something over the connection, or closes it. The bytes are those of
//! `net::codec`, in hex.
//!
//! What must stay true: a node that hears of a connection that it does not know says that it is
//! closed. Otherwise the other side would talk into the void for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::net::codec;
use crate::proto::hex::{self, Hex};
use crate::proto::machine::{Conn, Effect, Input, OpenError};
use crate::proto::message::{Addr, Answer, AntiEntropy, Broadcast, Hello, Message};
use crate::proto::time::Time;

/// Connections at the same time. A network of some hundred nodes needs so many.
const MAX_LINES: usize = 16_384;

/// A message that nobody waits for is held back this long, to go with others to the same node.
const PATIENCE: Duration = Duration::from_millis(350);
/// A question of anti-entropy is held back longer. It may not be more, because the question and its
/// answer have to come before the question is asked again.
const QUESTION: Duration = Duration::from_millis(400);

/// The other node, the number of the connection at the node that opened it, and whether that was
/// this node.
type Name = (String, Conn, bool);

/// The connections of a node.
#[derive(Debug)]
pub(super) struct Links {
    me: Addr,
    names: BTreeMap<Addr, String>,
    addresses: BTreeMap<String, Addr>,
    lines: BTreeMap<Conn, Name>,
    conns: BTreeMap<Name, Conn>,
    /// Connections that are not answered yet, and when each is given up.
    opening: BTreeMap<Conn, Time>,
    incoming_used: Conn,
    queues: BTreeMap<String, Queue>,
    company: Duration,
}

/// Frames that wait to go to one node.
#[derive(Debug)]
struct Queue {
    frames: Vec<Value>,
    /// The latest time at which they go.
    due: Time,
}

impl Links {
    /// The connections of the node at `me` with all these nodes. `company` is how long gossip to an
    /// older node may wait for more.
    pub fn new(me: Addr, all: impl Iterator<Item = (String, Addr)>, company: Duration) -> Self {
        let addresses: BTreeMap<String, Addr> = all.collect();
        let names = addresses.iter().map(|(name, addr)| (*addr, name.clone())).collect();
        Self {
            me,
            names,
            addresses,
            lines: BTreeMap::new(),
            conns: BTreeMap::new(),
            opening: BTreeMap::new(),
            incoming_used: 1,
            queues: BTreeMap::new(),
            company,
        }
    }

    /// The time at which something is due.
    pub fn wake_at(&self) -> Option<Time> {
        let queues = self.queues.values().map(|queue| queue.due);
        queues.chain(self.opening.values().copied()).min()
    }

    /// Gives up connections that were not answered in time.
    pub fn overdue<C>(&mut self, now: Time) -> Vec<Input<C>> {
        let late: Vec<Conn> = self
            .opening
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(conn, _)| *conn)
            .collect();
        let mut inputs = Vec::new();
        for conn in late {
            self.forget(conn);
            inputs.push(Input::OpenFailed { conn, error: OpenError::TimedOut });
        }
        inputs
    }

    /// Takes out the frames that are due, or all that wait, for each node.
    pub fn due(&mut self, now: Time, all: bool) -> Vec<(String, Vec<Value>)> {
        let due =
            |(name, queue): (&String, &Queue)| (all || queue.due <= now).then(|| name.clone());
        let names: Vec<String> = self.queues.iter().filter_map(due).collect();
        let take = |name| self.queues.remove_entry(&name);
        names.into_iter().filter_map(take).map(|(name, queue)| (name, queue.frames)).collect()
    }

    /// Does what the machine wants with its connections. Returns what the machine has to hear at
    /// once.
    pub fn perform<C, R, K>(&mut self, now: Time, effect: Effect<R, K>) -> Option<Input<C>> {
        match effect {
            Effect::Open { conn, to, hello, within } => {
                let mut bytes = Vec::new();
                let name = self.names.get(&to).cloned();
                let Some(name) = name.filter(|_| codec::encode_hello(&hello, &mut bytes).is_ok())
                else {
                    return Some(Input::OpenFailed { conn, error: OpenError::Unreachable });
                };
                self.remember(conn, (name, conn, true));
                self.opening.insert(conn, now + within);
                self.queue(now, conn, "open", &bytes, Duration::ZERO);
            }
            Effect::Answer { conn, answer } => {
                let mut bytes = Vec::new();
                if codec::encode_answer(&answer, &mut bytes).is_ok() {
                    self.queue(now, conn, "answer", &bytes, Duration::ZERO);
                }
                if matches!(answer, Answer::Refused(_)) {
                    self.forget(conn);
                }
            }
            Effect::Send { conn, message } => self.send(now, &[conn], &message),
            Effect::SendMany { conns, message } => self.send(now, &conns, &message),
            Effect::Close { conn } => {
                self.queue(now, conn, "close", &[], PATIENCE);
                self.forget(conn);
            }
            _ => {}
        }
        None
    }

    fn send(&mut self, now: Time, conns: &[Conn], message: &Message) {
        let mut bytes = Vec::new();
        if codec::encode(message, &mut bytes).is_err() {
            return;
        }
        for conn in conns {
            let wait = self.wait(*conn, message);
            self.queue(now, *conn, "say", &bytes, wait);
        }
    }

    /// How long a message may wait for others to the same node.
    fn wait(&self, conn: Conn, message: &Message) -> Duration {
        match message {
            Message::Broadcast(Broadcast::Gossip(_)) => {
                // Gossip from the hub was gathered there already. Older nodes have lower addresses.
                let to = self.lines.get(&conn).and_then(|(name, ..)| self.addresses.get(name));
                if to.is_some_and(|to| *to < self.me) { self.company } else { Duration::ZERO }
            }
            // These are urgent: a step of a comparison comes only if two nodes differ, and the
            // first question over a new link is what heals a cut.
            Message::Broadcast(Broadcast::Want(_))
            | Message::AntiEntropy(AntiEntropy::Ranges(_))
            | Message::AntiEntropy(AntiEntropy::Digest { fresh: true, .. }) => Duration::ZERO,
            Message::AntiEntropy(AntiEntropy::Digest { .. }) => QUESTION,
            _ => PATIENCE,
        }
    }

    fn queue(&mut self, now: Time, conn: Conn, what: &str, bytes: &[u8], wait: Duration) {
        let Some((name, number, mine)) = self.lines.get(&conn).cloned() else { return };
        // The length in front is left out, because the text has a length of its own.
        let bytes = bytes.get(4..).unwrap_or(&[]);
        self.put(now, name, json!([number, mine, what, Hex(bytes).to_string()]), wait);
    }

    fn put(&mut self, now: Time, name: String, frame: Value, wait: Duration) {
        let due = now + wait;
        let queue = self.queues.entry(name).or_insert(Queue { frames: Vec::new(), due });
        queue.frames.push(frame);
        queue.due = queue.due.min(due);
    }

    fn remember(&mut self, conn: Conn, name: Name) {
        self.conns.insert(name.clone(), conn);
        self.lines.insert(conn, name);
    }

    fn forget(&mut self, conn: Conn) {
        self.opening.remove(&conn);
        if let Some(name) = self.lines.remove(&conn) {
            self.conns.remove(&name);
        }
    }

    /// Takes in a connection that another node opens.
    fn take_in(&mut self, from: Addr, hello: &Hello, name: Name) -> Result<Conn, String> {
        if hello.from != from {
            return Err("it claims the address of another".to_owned());
        }
        if self.lines.len() >= MAX_LINES {
            return Err("too many connections".to_owned());
        }
        self.incoming_used += 2;
        self.remember(self.incoming_used, name);
        Ok(self.incoming_used)
    }

    /// Reads frames of another node. Frames that make no sense are skipped, and the last is
    /// complained about.
    pub fn frames<C>(&mut self, src: &str, frames: &[Value]) -> (Vec<Input<C>>, Option<String>) {
        let Some(from) = self.addresses.get(src).copied().filter(|from| *from != self.me) else {
            return (Vec::new(), Some(format!("frames from {src}, who is no other node; skipped")));
        };
        let mut inputs = Vec::new();
        let mut complaint = None;
        for frame in frames {
            match self.frame(src, from, frame) {
                Ok(input) => inputs.extend(input),
                Err(reason) => complaint = Some(format!("a frame from {src}, skipped: {reason}")),
            }
        }
        (inputs, complaint)
    }

    fn frame<C>(
        &mut self,
        src: &str,
        from: Addr,
        frame: &Value,
    ) -> Result<Option<Input<C>>, String> {
        let (number, theirs, what, bytes) = parts(frame)?;
        let name: Name = (src.to_owned(), number, !theirs);
        let conn = self.conns.get(&name).copied();
        let text = |error: codec::DecodeError| error.to_string();
        Ok(match (what, conn) {
            ("open", None) if theirs => {
                let hello = codec::decode_hello(&bytes).map_err(text)?;
                let conn = self.take_in(from, &hello, name)?;
                Some(Input::Incoming { conn, hello })
            }
            ("answer", Some(conn)) if !theirs && self.opening.remove(&conn).is_some() => {
                match codec::decode_answer(&bytes).map_err(text)? {
                    Answer::Welcome(welcome) => Some(Input::Opened { conn, welcome }),
                    Answer::Refused(refusal) => {
                        self.forget(conn);
                        Some(Input::OpenFailed { conn, error: OpenError::Refused(refusal) })
                    }
                }
            }
            ("say", Some(conn)) => {
                let message = codec::decode(&bytes).map_err(text)?;
                Some(Input::Received { conn, message })
            }
            ("close", Some(conn)) => {
                let opening = self.opening.contains_key(&conn);
                self.forget(conn);
                Some(if opening {
                    Input::OpenFailed { conn, error: OpenError::Unreachable }
                } else {
                    Input::Closed { conn }
                })
            }
            // This node has closed the connection, and the other has not heard of it: the news is
            // lost or on its way.
            ("say" | "answer", None) => {
                let gone = json!([number, !theirs, "close", ""]);
                let now = Time::default();
                self.put(now, src.to_owned(), gone, Duration::ZERO);
                None
            }
            ("close", None) | ("open" | "answer", Some(_)) => None,
            (other, _) => return Err(format!("{other:?} is nothing that is said")),
        })
    }
}

/// Splits a frame into its number, its side, its kind and its bytes.
fn parts(frame: &Value) -> Result<(u64, bool, &str, Vec<u8>), String> {
    let parts = frame.as_array().map(Vec::as_slice);
    let Some(
        [Value::Number(number), Value::Bool(theirs), Value::String(what), Value::String(digits)],
    ) = parts
    else {
        return Err("not a frame".to_owned());
    };
    let number = number.as_u64().ok_or("no number of a connection")?;
    let bytes = hex::parse(digits).ok_or("not hex")?;
    Ok((number, *theirs, what, bytes))
}
