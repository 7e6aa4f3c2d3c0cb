//! Messages that came before the news that their origin is a member: a message may be faster than
//! what the seeds tell. They wait a moment; who is not known by then is no member, or anti-entropy
//! brings its message once more.

use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::machine::Conn;
use crate::proto::message::Gossip;
use crate::proto::time::Time;

/// Most messages that wait. A new member says little before all others have heard of it.
const MAX_WAITING: usize = 256;
/// Most payload bytes that wait.
const MAX_BYTES: usize = 4 << 20;
/// How long a message waits: seeds tell of a new member within a part of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The messages that wait, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Early {
    waiting: VecDeque<(Time, Conn, Gossip)>,
    bytes: usize,
}

impl Early {
    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Has a message wait that came over a link. The oldest make room for it.
    pub fn push(&mut self, now: Time, conn: Conn, gossip: Gossip) {
        self.bytes += gossip.payload.len();
        self.waiting.push_back((now, conn, gossip));
        let is_over = |(at, ..): &(Time, Conn, Gossip)| now.since(*at) > PATIENCE;
        while self.waiting.len() > MAX_WAITING
            || self.bytes > MAX_BYTES
            || self.waiting.front().is_some_and(is_over)
        {
            let Some((_, _, gossip)) = self.waiting.pop_front() else { return };
            self.bytes -= gossip.payload.len();
        }
    }

    /// Takes out all messages that have not waited too long.
    pub fn take(&mut self, now: Time) -> impl Iterator<Item = (Conn, Gossip)> + use<> {
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let in_time = waiting.filter(move |(at, ..)| now.since(*at) <= PATIENCE);
        in_time.map(|(_, conn, gossip)| (conn, gossip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        (0..1_000).for_each(|number| early.push(start, 1, gossip(number, 1)));
        let numbers: Vec<u64> = early.take(start).map(|(_, gossip)| gossip.number).collect();
        assert_eq!((numbers.len(), numbers[0], early.is_empty()), (MAX_WAITING, 744, true));
        (0..9).for_each(|number| early.push(start, 1, gossip(number, 1 << 20)));
        assert_eq!(early.take(start).count(), 4);
        early.push(start, 1, gossip(1, 1));
        early.push(start + PATIENCE * 2, 1, gossip(2, 1));
        assert_eq!(early.bytes, 1, "the first one has waited too long");
        assert_eq!(early.take(start + PATIENCE * 4).count(), 0);
    }
}
