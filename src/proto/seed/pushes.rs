//! Records that have changed, until connected peers are told of them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::proto::message::Addr;
use crate::proto::time::Time;

/// Changes are told to connected peers together, at most this much later: a thousand peers that
/// join at once must not cost a million frames.
const PUSH_DELAY: Duration = Duration::from_millis(20);
/// And so much later for each of them: to tell a thousand takes some milliseconds, and is to take
/// a small part of the time.
const PUSH_DELAY_A_PEER: Duration = Duration::from_micros(300);

/// What is to be told, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pushes {
    changed: BTreeSet<Addr>,
    due: Option<Time>,
}

impl Pushes {
    /// When they are due.
    pub fn wake_at(&self) -> Option<Time> {
        self.due
    }

    /// A record has changed; nobody is to look in vain for one that has left, so that is told at
    /// once, and all else with it.
    pub fn add(&mut self, now: Time, peer: Addr, at_once: bool, connections: usize) {
        self.changed.insert(peer);
        let peers = u32::try_from(connections).unwrap_or(u32::MAX);
        if at_once {
            self.due = Some(now);
        } else if self.due.is_none() {
            self.due = Some(now + PUSH_DELAY + PUSH_DELAY_A_PEER.saturating_mul(peers));
        }
    }

    /// Takes what has changed.
    pub fn take(&mut self) -> BTreeSet<Addr> {
        self.due = None;
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_gather_for_a_moment_and_one_that_left_waits_for_nothing() {
        let (now, mut pushes) = (Time::from_millis(100), Pushes::default());
        let addr = |port: u16| Addr::from(([127, 0, 0, 1], port));
        pushes.add(now, addr(1), false, 0);
        pushes.add(now + PUSH_DELAY / 2, addr(2), false, 0);
        assert_eq!(pushes.wake_at(), Some(now + PUSH_DELAY));
        pushes.add(now + PUSH_DELAY / 2, addr(3), true, 1_000);
        assert_eq!(pushes.wake_at(), Some(now + PUSH_DELAY / 2));
        assert_eq!((pushes.take().len(), pushes.wake_at()), (3, None));
        pushes.add(now, addr(1), false, 1_000);
        assert_eq!(pushes.wake_at(), Some(now + PUSH_DELAY + PUSH_DELAY_A_PEER * 1_000));
    }
}
