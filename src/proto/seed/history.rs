//! Decisions about each member: what was decided, by whom, and why.
//!
//! This answers operators who ask why a peer is in or out; the seeds' agreement does not rest on
//! it. Each seed remembers the decisions that it took part in or was told of, for this life only.
//!
//! What must stay true: the history never holds more than its bounds, however often members come
//! and go.

use std::collections::{BTreeMap, VecDeque};

use crate::proto::message::{Addr, Decision};

/// Decisions kept of one member: enough to see why it comes and goes.
const A_MEMBER: usize = 16;
/// Decisions kept of all members, about 300 bytes each.
const IN_ALL: usize = 65_536;
/// Longest reason kept, in bytes: other seeds write them.
const MAX_REASON: usize = 256;

/// Decisions by member, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct History {
    of: BTreeMap<Addr, VecDeque<Decision>>,
    /// The member of each decision, oldest first, so that the oldest decision is dropped first.
    order: VecDeque<Addr>,
}

impl History {
    /// Adds a decision, and drops old ones that are too many.
    pub fn add(&mut self, mut decision: Decision) {
        for vote in &mut decision.votes {
            if vote.reason.len() > MAX_REASON {
                vote.reason = vote.reason.chars().take(MAX_REASON).collect();
                // The line above counts characters, which may be longer than a byte.
                while vote.reason.len() > MAX_REASON {
                    vote.reason.pop();
                }
            }
        }
        let peer = decision.change.peer;
        // Most members have one decision only, so a new queue makes room for one.
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

    /// Decisions about a member, oldest first.
    pub fn of(&self, peer: &Addr) -> impl Iterator<Item = &Decision> {
        self.of.get(peer).into_iter().flatten()
    }

    /// Drops all decisions about a member.
    pub fn forget(&mut self, peer: &Addr) {
        // Its entries in `order` stay until they are the oldest: to search for them would cost more
        // than the memory that they take.
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
            change: Change {
                kind,
                peer,
                incarnation,
                at: 0,
                reporters: Vec::new(),
                identity: None,
            },
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
