//! What was decided about each member, by whom, and why.
//!
//! For whoever asks why a peer is in or out. It is not part of the agreement:
//! each seed remembers the decisions that it took part in or was told of, for
//! this life, within a bound.

use std::collections::{BTreeMap, VecDeque};

use crate::proto::message::{Addr, Decision};

/// Decisions remembered of one member: enough to see why it comes and goes.
const A_MEMBER: usize = 16;
/// Decisions remembered in all, about 300 bytes each.
const IN_ALL: usize = 65_536;
/// Longest reason kept, bytes.
const MAX_REASON: usize = 256;

/// Decisions by member, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct History {
    of: BTreeMap<Addr, VecDeque<Decision>>,
    /// Whose decisions came when, to drop the oldest first.
    order: VecDeque<Addr>,
}

impl History {
    /// Remembers a decision.
    pub fn add(&mut self, mut decision: Decision) {
        for vote in &mut decision.votes {
            if vote.reason.len() > MAX_REASON {
                vote.reason = vote.reason.chars().take(MAX_REASON).collect();
                // Letters may be longer than a byte.
                while vote.reason.len() > MAX_REASON {
                    vote.reason.pop();
                }
            }
        }
        let peer = decision.change.peer;
        // One is what there is of most members.
        let decisions = self.of.entry(peer).or_insert_with(|| VecDeque::with_capacity(1));
        if decisions.len() >= A_MEMBER {
            decisions.pop_front();
        } else {
            self.order.push_back(peer);
        }
        decisions.push_back(decision);
        while self.order.len() > IN_ALL
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(decisions) = self.of.get_mut(&oldest) {
                decisions.pop_front();
                if decisions.is_empty() {
                    self.of.remove(&oldest);
                }
            }
        }
    }

    /// What was decided about a member, oldest first.
    pub fn of(&self, peer: &Addr) -> impl Iterator<Item = &Decision> {
        self.of.get(peer).into_iter().flatten()
    }

    /// Drops what was decided about a member.
    pub fn forget(&mut self, peer: &Addr) {
        // Its places in the order stay until they are the oldest: searching for them would cost
        // more than the words that they take.
        self.of.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::message::{CastVote, Change, ChangeKind};

    fn decision(port: u16, incarnation: u64) -> Decision {
        let peer = ([127, 0, 0, 1], port).into();
        let kind = ChangeKind::Join;
        Decision {
            change: Change { kind, peer, incarnation, at: 0, reporters: Vec::new() },
            proposer: peer,
            decided: 0,
            votes: vec![CastVote { seed: peer, accept: true, reason: "ü".repeat(200) }],
            committed: true,
        }
    }

    #[test]
    fn the_newest_decisions_are_kept_and_their_number_is_bounded() {
        let mut history = History::default();
        let peer = decision(1, 0).change.peer;
        for incarnation in 0..100 {
            history.add(decision(1, incarnation));
        }
        let kept: Vec<u64> = history.of(&peer).map(|d| d.change.incarnation).collect();
        assert_eq!(kept, (84..100).collect::<Vec<_>>());
        assert!(history.of(&peer).all(|d| d.votes[0].reason.len() <= MAX_REASON));
        for port in 2..u16::MAX {
            history.add(decision(port, 1));
            history.add(decision(port, 2));
        }
        assert!(history.order.len() <= IN_ALL);
        assert_eq!(history.of(&peer).count(), 0, "the oldest go first");
        let held: usize = history.of.values().map(VecDeque::len).sum();
        assert_eq!(held, history.order.len());
        let last = decision(u16::MAX - 1, 0).change.peer;
        history.forget(&last);
        assert_eq!(history.of(&last).count(), 0);
    }
}
