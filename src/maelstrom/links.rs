//! Connections between nodes, carried by Maelstrom's messages.
//!
//! A body of type `frames` carries all that is to go to one node: each frame
//! names a connection, by the number that the node which opened it gave it, and
//! says hello, answers one, says something over it, or ends it; the bytes are
//! those of `net::codec`, in hex. What must stay true: a node that does not know
//! a connection says so, or the other side would talk into the void for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::net::codec;
use crate::proto::hex::{self, Hex};
use crate::proto::machine::{Conn, Effect, Input, OpenError};
use crate::proto::message::{Addr, Answer, AntiEntropy, Broadcast, Hello, Message};
use crate::proto::time::Time;

/// Connections at the same time; a network of some hundred nodes needs as many.
const MAX_LINES: usize = 16_384;

/// What nobody waits for waits this long for a message that goes the same way.
const PATIENCE: Duration = Duration::from_millis(350);
/// So does a question of anti-entropy, longer: with the answer to it that has to come before it is asked
/// again.
const QUESTION: Duration = Duration::from_millis(400);

/// The other node, the number that the one who opened the connection gave it, and whether that was
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
    /// Opened, not answered, and until when that is waited for.
    opening: BTreeMap<Conn, Time>,
    incoming_used: Conn,
    queues: BTreeMap<String, Queue>,
    company: Duration,
}

/// What waits to go to one node.
#[derive(Debug)]
struct Queue {
    frames: Vec<Value>,
    /// When it goes at the latest.
    due: Time,
}

impl Links {
    /// Of the node at `me`, among these nodes. Gossip to an older one may wait so long for company.
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

    /// When something is due.
    pub fn wake_at(&self) -> Option<Time> {
        let queues = self.queues.values().map(|queue| queue.due);
        queues.chain(self.opening.values().copied()).min()
    }

    /// Gives up connections that nobody has answered in time.
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

    /// Takes out what is due, or all that waits: for each node its frames.
    pub fn due(&mut self, now: Time, all: bool) -> Vec<(String, Vec<Value>)> {
        let due =
            |(name, queue): (&String, &Queue)| (all || queue.due <= now).then(|| name.clone());
        let names: Vec<String> = self.queues.iter().filter_map(due).collect();
        let take = |name| self.queues.remove_entry(&name);
        names.into_iter().filter_map(take).map(|(name, queue)| (name, queue.frames)).collect()
    }

    /// Does what the machine wants of its connections; returns what it has to hear at once.
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

    /// How long a message may wait for another one that goes the same way.
    fn wait(&self, conn: Conn, message: &Message) -> Duration {
        match message {
            Message::Broadcast(Broadcast::Gossip(_)) => {
                // What comes from the hub has been gathered there. The older ones have the lower addresses.
                let to = self.lines.get(&conn).and_then(|(name, ..)| self.addresses.get(name));
                if to.is_some_and(|to| *to < self.me) { self.company } else { Duration::ZERO }
            }
            // A step of a comparison comes only if the two differ, and the first question over a new
            // link is what heals a cut.
            Message::Broadcast(Broadcast::Want(_))
            | Message::AntiEntropy(AntiEntropy::Ranges(_))
            | Message::AntiEntropy(AntiEntropy::Digest { fresh: true, .. }) => Duration::ZERO,
            Message::AntiEntropy(AntiEntropy::Digest { .. }) => QUESTION,
            _ => PATIENCE,
        }
    }

    fn queue(&mut self, now: Time, conn: Conn, what: &str, bytes: &[u8], wait: Duration) {
        let Some((name, number, mine)) = self.lines.get(&conn).cloned() else { return };
        // Without the length in front: the text has its own.
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

    /// Takes in a connection that another node has opened.
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

    /// Reads what another node sends; what makes no sense is skipped, and complained about.
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
            // Closed here, while the news of it was lost or is on its way.
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

/// The number and side of a frame, what it does, and its bytes.
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
