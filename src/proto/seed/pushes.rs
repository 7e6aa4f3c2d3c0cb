//! Records that have changed and of which connected peers have still to be told.
//!
//! What must stay true: changes are told together after a short pause, except that a leave is told
//! at once, and all other changes with it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::proto::message::Addr;
use crate::proto::time::Time;

/// Pause between the first change and the telling, in which more may gather: a thousand peers that
/// join at once must not cost a million frames.
const PUSH_DELAY: Duration = Duration::from_millis(20);
/// Further pause for each open connection. Telling a thousand peers takes some milliseconds, and
/// must take only a small part of the seed's time.
const PUSH_DELAY_A_PEER: Duration = Duration::from_micros(300);

/// Peers whose records have changed, and when to tell of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pushes {
    changed: BTreeSet<Addr>,
    due: Option<Time>,
}

impl Pushes {
    /// When connected peers are to be told.
    pub fn wake_at(&self) -> Option<Time> {
        self.due
    }

    /// Adds a changed record. With `at_once` all changes are told now: nobody should look in vain
    /// for a peer that has left.
    pub fn add(&mut self, now: Time, peer: Addr, at_once: bool, connections: usize) {
        self.changed.insert(peer);
        let peers = u32::try_from(connections).unwrap_or(u32::MAX);
        if at_once {
            self.due = Some(now);
        } else if self.due.is_none() {
            self.due = Some(now + PUSH_DELAY + PUSH_DELAY_A_PEER.saturating_mul(peers));
        }
    }

    /// Takes the peers whose records have changed.
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
