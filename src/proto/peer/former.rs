//! Who members were before: a peer that has lost its disk comes back at its address as somebody else,
//! and what it published before is still on its way. Kept for as long as a message may be.

use std::collections::VecDeque;

use crate::proto::gossip::MAX_AGE;
use crate::proto::message::{Addr, Identity, Incarnation};
use crate::proto::time::Time;

/// Most identities kept. Disks are not lost more often in an hour, unless somebody makes it so.
const MAX_FORMER: usize = 1_024;

/// The identities that members have lost, the latest last.
#[derive(Debug, Default)]
pub(super) struct Former(VecDeque<(Time, Addr, Incarnation, Identity)>);

impl Former {
    /// A member was somebody else in lives up to that one.
    pub fn add(&mut self, now: Time, (peer, life, identity): (Addr, Incarnation, Identity)) {
        self.0.push_back((now, peer, life, identity));
        let is_over = |(at, ..): &(Time, Addr, Incarnation, Identity)| now.since(*at) > MAX_AGE;
        while self.0.len() > MAX_FORMER || self.0.front().is_some_and(is_over) {
            self.0.pop_front();
        }
    }

    /// Who a member may have been in that life, and is no more.
    pub fn of(&self, peer: &Addr, life: Incarnation) -> impl Iterator<Item = Identity> {
        let was = move |(_, of, last, identity): &(Time, Addr, Incarnation, Identity)| {
            (of == peer && life <= *last).then_some(*identity)
        };
        self.0.iter().rev().filter_map(was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_a_member_was_is_known_for_the_lives_before_and_for_an_hour() {
        let addr = |port| Addr::from(([127, 0, 0, 1], port));
        let (start, id) = (Time::from_millis(1), |byte| Identity([byte; 32]));
        let mut former = Former::default();
        former.add(start, (addr(1), 5, id(1)));
        former.add(start, (addr(1), 9, id(2)));
        former.add(start, (addr(2), 7, id(3)));
        let of = |former: &Former, port, life| former.of(&addr(port), life).collect::<Vec<_>>();
        assert_eq!(of(&former, 1, 5), [id(2), id(1)]);
        assert_eq!(of(&former, 1, 6), [id(2)]);
        assert!(of(&former, 1, 10).is_empty() && of(&former, 3, 1).is_empty());
        former.add(start + MAX_AGE * 2, (addr(3), 1, id(4)));
        assert!(of(&former, 1, 5).is_empty());
        (0..2_000).for_each(|life| former.add(start + MAX_AGE * 2, (addr(4), life, id(5))));
        assert_eq!(former.0.len(), MAX_FORMER);
    }
}
