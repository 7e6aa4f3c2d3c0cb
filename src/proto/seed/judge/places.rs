//! The places for probes of those who want to join or leave: who has one, and who waits for one.
//!
//! Anybody may ask to be registered at any address, also at one where nobody answers, and a probe
//! of that takes the whole timeout. What must stay true: whoever answers quickly gets its turn,
//! however many ask that do not answer. So those that have no place wait, those of each IP in a row
//! of their own; and while somebody waits, the probe that has lasted longest gives way.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use super::super::ballot::ChangeKey;
use crate::proto::machine::Conn;
use crate::proto::time::Time;

/// Probes of these under way at the same time: each takes a descriptor.
const MAX_PROBES: usize = 1_024;
/// Most that wait for a place. Further ones get a no at once.
const MAX_WAITING: usize = 8_192;
/// A probe gives way to one that waits after this long. A peer that lives answers in a few
/// milliseconds, or in some hundred across the world.
const GIVES_WAY_AFTER: Duration = Duration::from_millis(250);
/// Whoever has waited for so long is not looked at any more: its ballot is over.
const WAITS_AT_MOST: Duration = Duration::from_secs(1);

/// Who has a place and who waits for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Places {
    /// When each probe began. Numbers of connections rise, so the first one has lasted longest.
    held: BTreeMap<Conn, Time>,
    /// Who waits, by IP, and since when.
    waiting: BTreeMap<IpAddr, VecDeque<(Time, ChangeKey)>>,
    waiting_in_all: usize,
    /// The IP that had its turn last.
    last: Option<IpAddr>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// This one gets a place.
    Probe(ChangeKey),
    /// This one has waited too long.
    TooLate(ChangeKey),
    /// This probe has lasted long enough.
    GivesWay(Conn),
}

impl Places {
    /// Whether there is room for one more, with a place or without.
    pub fn has_room(&self) -> bool {
        self.is_free() || self.waiting_in_all < MAX_WAITING
    }

    /// Whether a place is free, and nobody waits for it.
    pub fn is_free(&self) -> bool {
        self.held.len() < MAX_PROBES && self.waiting_in_all == 0
    }

    /// A probe begins.
    pub fn hold(&mut self, now: Time, conn: Conn) {
        self.held.insert(conn, now);
    }

    /// A probe has ended.
    pub fn free(&mut self, conn: Conn) {
        self.held.remove(&conn);
    }

    /// Somebody has to wait.
    pub fn wait(&mut self, now: Time, key: ChangeKey) {
        self.waiting.entry(key.1.ip()).or_default().push_back((now, key));
        self.waiting_in_all += 1;
    }

    /// When somebody's turn comes if no probe ends before.
    pub fn wake_at(&self) -> Option<Time> {
        if self.waiting_in_all == 0 {
            return None;
        }
        let oldest = self.held.first_key_value().map(|(_, began)| *began + GIVES_WAY_AFTER);
        Some(oldest.filter(|_| self.held.len() >= MAX_PROBES).unwrap_or_default())
    }

    /// Takes out whose turn it is now.
    pub fn next(&mut self, now: Time) -> Option<Turn> {
        if self.waiting_in_all == 0 {
            return None;
        }
        if self.held.len() >= MAX_PROBES {
            let (conn, began) = self.held.first_key_value()?;
            let conn = *conn;
            if now.since(*began) < GIVES_WAY_AFTER {
                return None;
            }
            self.held.remove(&conn);
            return Some(Turn::GivesWay(conn));
        }
        let (since, key) = self.take_waiting()?;
        let late = now.since(since) > WAITS_AT_MOST;
        Some(if late { Turn::TooLate(key) } else { Turn::Probe(key) })
    }

    /// Takes out the first of the IP that follows on the one that had its turn last.
    fn take_waiting(&mut self) -> Option<(Time, ChangeKey)> {
        let after = self.last.map_or(Unbounded, Excluded);
        let next = self.waiting.range((after, Unbounded)).next();
        let ip = *next.or_else(|| self.waiting.first_key_value())?.0;
        let row = self.waiting.get_mut(&ip)?;
        let first = row.pop_front();
        if row.is_empty() {
            self.waiting.remove(&ip);
        }
        self.waiting_in_all -= usize::from(first.is_some());
        self.last = Some(ip);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::message::ChangeKind;

    fn key(ip: u8, port: u16) -> ChangeKey {
        (ChangeKind::Join, ([10, 0, 0, ip], port).into(), 1, None)
    }

    #[test]
    fn each_ip_has_its_turn_and_the_oldest_probe_gives_way_to_who_waits() {
        let (start, mut places) = (Time::from_millis(1), Places::default());
        for conn in 0..MAX_PROBES as u64 {
            assert!(places.is_free());
            places.hold(start, conn);
        }
        assert!(!places.is_free() && places.has_room());
        for port in 1..=3 {
            places.wait(start, key(1, port));
        }
        places.wait(start, key(2, 1));
        assert_eq!((places.next(start), places.wake_at()), (None, Some(start + GIVES_WAY_AFTER)));
        places.free(7);
        assert_eq!(places.next(start), Some(Turn::Probe(key(1, 1))));
        places.hold(start, 5_000);
        let later = start + GIVES_WAY_AFTER;
        assert_eq!(places.next(later), Some(Turn::GivesWay(0)));
        assert_eq!(places.next(later), Some(Turn::Probe(key(2, 1))), "it need not wait for all");
        assert_eq!(places.next(later), Some(Turn::Probe(key(1, 2))));
        let late = start + WAITS_AT_MOST + GIVES_WAY_AFTER;
        assert_eq!(places.next(late), Some(Turn::TooLate(key(1, 3))));
        assert_eq!((places.next(late), places.wake_at()), (None, None));
    }

    #[test]
    fn only_so_many_wait() {
        let (start, mut places) = (Time::from_millis(1), Places::default());
        places.wait(start, key(1, 1));
        assert!(!places.is_free(), "who waits comes first");
        for port in 1..MAX_WAITING {
            places.wait(start, key(1, u16::try_from(port).unwrap_or(0)));
        }
        assert!(!places.has_room());
    }
}
