//! Messages that came before the news that their origin is a member: a message may be faster than
//! what the seeds tell. They wait for a while; who is not known by then is no member, or
//! anti-entropy brings its message once more.
//!
//! Also those that were refused because nobody here knows the one who signed them. They may be true:
//! a member that lost its disk has lost its identity, and who has come since knows the new one only.
//! Comparisons count both as held, or they would be sent again each time.

use std::collections::VecDeque;
use std::time::Duration;

use super::{MAX_AGE, MessageId};
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Gossip};
use crate::proto::time::Time;

/// Most messages that wait. A new member says little before all others have heard of it.
const MAX_WAITING: usize = 256;
/// Most payload bytes that wait.
const MAX_BYTES: usize = 4 << 20;
/// Most refused messages that are remembered: what a member has said before it lost its disk.
const MAX_REFUSED: usize = 256;
/// How long a message waits. Seeds tell of a new member within a part of a second, and when they come
/// back if they were away.
const PATIENCE: Duration = Duration::from_secs(300);

/// A message that waits: since when, and the link that it came over with its other side.
type Waiting = (Time, MessageId, (Conn, Addr), Gossip);

/// The messages that wait, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Early {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    refused: VecDeque<(Time, MessageId)>,
}

impl Early {
    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Has a message wait that came over a link, unless it waits already.
    pub fn push(&mut self, now: Time, id: MessageId, from: (Conn, Addr), gossip: Gossip) {
        if self.waiting.iter().all(|(_, waiting, ..)| *waiting != id) {
            self.bytes += gossip.payload.len();
            self.waiting.push_back((now, id, from, gossip));
        }
    }

    /// Drops the oldest messages, until the rest have room and have not waited too long. Returns
    /// those that were dropped.
    pub fn drop_surplus(&mut self, now: Time) -> Vec<MessageId> {
        let is_over = |(at, ..): &Waiting| now.since(*at) > PATIENCE;
        let mut dropped = Vec::new();
        while (self.waiting.len() > MAX_WAITING
            || self.bytes > MAX_BYTES
            || self.waiting.front().is_some_and(is_over))
            && let Some((_, id, _, gossip)) = self.waiting.pop_front()
        {
            self.bytes -= gossip.payload.len();
            dropped.push(id);
        }
        dropped
    }

    /// Remembers that a message was refused. Returns those that are not remembered any more.
    pub fn refuse(&mut self, now: Time, id: MessageId) -> Vec<MessageId> {
        if self.refused.iter().all(|(_, refused)| *refused != id) {
            self.refused.push_back((now, id));
        }
        let mut forgotten = Vec::new();
        let is_over = |(at, _): &(Time, MessageId)| now.since(*at) > MAX_AGE;
        while (self.refused.len() > MAX_REFUSED || self.refused.front().is_some_and(is_over))
            && let Some((_, id)) = self.refused.pop_front()
        {
            forgotten.push(id);
        }
        forgotten
    }

    /// Takes out all messages.
    pub fn take(&mut self) -> impl Iterator<Item = (MessageId, (Conn, Addr), Gossip)> + use<> {
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        waiting.map(|(_, id, from, gossip)| (id, from, gossip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::gossip::message_id;
    use bytes::Bytes;

    fn gossip(number: u64, length: usize) -> Gossip {
        Gossip {
            origin: ([127, 0, 0, 1], 6000).into(),
            life: 1,
            number,
            offset: 0,
            age: 0,
            payload: Bytes::from(vec![b'x'; length]),
            signature: None,
        }
    }

    #[test]
    fn what_waits_is_bounded_in_number_in_bytes_and_in_time() {
        let start = Time::from_millis(1_000);
        let mut early = Early::default();
        let mut push = |at, number, length| {
            let gossip = gossip(number, length);
            early.push(at, message_id(&gossip), (1, gossip.origin), gossip);
            early.drop_surplus(at).len()
        };
        let dropped: usize = (0..1_000).map(|number| push(start, number, 1)).sum();
        assert_eq!(dropped, 1_000 - MAX_WAITING);
        assert_eq!(push(start, 999, 1), 0, "it waits already");
        let dropped: usize = (0..9).map(|number| push(start, number, 1 << 20)).sum();
        assert_eq!(dropped, MAX_WAITING + 5);
        assert_eq!(push(start + PATIENCE * 2, 1, 1), 4, "they have waited too long");
        let left: Vec<u64> = early.take().map(|(_, _, gossip)| gossip.number).collect();
        assert_eq!((left, early.is_empty(), early.bytes), (vec![1], true, 0));
    }

    #[test]
    fn what_was_refused_is_remembered_for_an_hour_and_up_to_a_number() {
        let start = Time::from_millis(1_000);
        let mut early = Early::default();
        let id = |number: usize| MessageId([u8::try_from(number % 256).unwrap(); 32]);
        let forgotten: usize = (0..1_000).map(|n| early.refuse(start, id(n)).len()).sum();
        assert_eq!(forgotten, 0, "256 different ones");
        assert_eq!(early.refuse(start, id(9)), []);
        let other = message_id(&gossip(1, 1));
        assert_eq!(early.refuse(start, other), [id(0)]);
        assert_eq!(early.refuse(start + MAX_AGE * 2, id(3)).len(), 256);
    }
}
