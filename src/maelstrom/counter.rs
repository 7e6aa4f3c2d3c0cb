//! The sum that clients of `g-counter` and `pn-counter` see.
//!
//! Each life of each node has a total, which that node alone changes (Shapiro, Preguiça, Baquero,
//! Zawirski, "A comprehensive study of Convergent and Commutative Replicated Data Types", 2011,
//! section 3.1). What must stay true: a node gossips its total, and not what was added. So each
//! message stands for all earlier ones of that life. A message that comes twice, comes late or is
//! lost does no harm, as long as a later one arrives.

use std::collections::BTreeMap;

use crate::proto::message::Gossip;

/// The first character of a gossiped total.
const MARK: char = 'c';

/// The totals of all nodes, by life. A life is a number that a node draws when it starts. So a node
/// that has lost its total begins a new one, and what it added before still counts.
#[derive(Debug)]
pub(super) struct Counter {
    life: u64,
    mine: i64,
    /// For each other life, its total and the number of the message that told it, the newest so
    /// far.
    others: BTreeMap<u64, (u64, i64)>,
}

impl Counter {
    /// The counter of a node that is in this life.
    pub fn new(life: u64) -> Self {
        Self { life, mine: 0, others: BTreeMap::new() }
    }

    /// Adds to this node's own total. Returns the text to gossip, or none if the total would not
    /// fit.
    pub fn add(&mut self, delta: i64) -> Option<String> {
        self.mine = self.mine.checked_add(delta)?;
        Some(format!("{MARK}{:x}:{}", self.life, self.mine))
    }

    /// Takes in what another node gossiped; false if that is not a total.
    pub fn receive(&mut self, gossip: &Gossip) -> bool {
        let Some((life, total)) = read(&gossip.payload) else { return false };
        if life != self.life {
            let newest = self.others.entry(life).or_insert((0, 0));
            if gossip.number >= newest.0 {
                *newest = (gossip.number, total);
            }
        }
        true
    }

    /// The sum of all totals.
    pub fn sum(&self) -> i128 {
        let others = self.others.values().map(|(_, total)| i128::from(*total));
        i128::from(self.mine) + others.sum::<i128>()
    }
}

/// Reads a life and its total.
fn read(payload: &[u8]) -> Option<(u64, i64)> {
    let (life, total) = std::str::from_utf8(payload).ok()?.strip_prefix(MARK)?.split_once(':')?;
    Some((u64::from_str_radix(life, 16).ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(life: u64, number: u64, total: i64) -> Gossip {
        Gossip {
            origin: ([10, 0, 0, 1], 1).into(),
            life: 1,
            number,
            offset: 0,
            age: 0,
            payload: format!("c{life:x}:{total}").into_bytes().into(),
            signature: None,
        }
    }

    #[test]
    fn the_newest_total_of_each_node_counts_in_whatever_order_they_come() {
        let mut counter = Counter::new(10);
        assert_eq!(counter.add(-2).as_deref(), Some("ca:-2"));
        for told in [told(7, 2, 9), told(7, 1, 4), told(7, 2, 9), told(10, 1, -2)] {
            assert!(counter.receive(&told));
        }
        assert_eq!(counter.sum(), 7);
        assert!(counter.receive(&told(8, 1, 1)), "another life of somebody");
        assert_eq!(counter.sum(), 8);
    }

    #[test]
    fn what_is_no_total_changes_nothing() {
        let mut counter = Counter::new(10);
        for payload in ["", "c", "c1", "cx:1", "m1:1", "c1:99999999999999999999"] {
            let gossip = Gossip { payload: payload.as_bytes().to_vec().into(), ..told(1, 1, 1) };
            assert!(!counter.receive(&gossip), "{payload:?}");
        }
        assert_eq!(counter.sum(), 0);
        assert_eq!(counter.add(i64::MAX).as_deref(), Some("ca:9223372036854775807"));
        assert_eq!(counter.add(1), None);
        assert_eq!(counter.sum(), i128::from(i64::MAX));
    }
}
