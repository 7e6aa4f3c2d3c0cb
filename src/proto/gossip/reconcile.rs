//! Finding the difference between two sets of identities, step by step.
//!
//! Each step answers fingerprints of ranges with fingerprints of the parts that differ, until a
//! part is small enough to list; so the cost follows the difference and not the set. What must stay
//! true: a step looks only at the index, its work follows the bytes of the frame that asked for it,
//! and no frame holds more than the limits below (Meyer, "Range-Based Set Reconciliation", SRDS
//! 2023). `benches/reconciliation.rs` measures this beside the `negentropy` crate. That crate
//! cannot keep sums of ranges: its storage trait has a fingerprint of a type that no other crate
//! can name.

use super::index::{IdIndex, print};
use crate::proto::message::{FANOUT, Parts, Prefix, Print, Salt};

/// A range of which this peer holds at most this many identities is listed, not split: sixteen
/// fingerprints cost as much.
const LIST: usize = 16;
/// Most identities listed of a range that cannot be split any further. So many never share such a
/// range by chance.
const LONGEST_LIST: usize = 1_024;
/// Most ranges split in one frame: 200 kB of fingerprints.
const MAX_SPLITS: usize = 2_048;
/// Most ranges listed, or asked from, in one frame.
const MAX_LISTS: usize = 4_096;
/// Most identities listed, or asked for, in one frame: 200 kB of them.
const MAX_LISTED: usize = 32_768;
/// Most messages found in one step that the other side lacks; the next round finds the rest.
const MAX_FOUND: usize = 4_096;

/// What a step found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Numbers of the identities that the other side does not have.
    pub lacking: Vec<u64>,
    /// Numbers of the identities that both have, as far as this step saw.
    pub common: Vec<u64>,
    /// Number of identities that the other side listed or asked for.
    pub compared: usize,
    /// The next step; empty when nothing is left to say.
    pub reply: Parts,
    /// Whether something was left out for want of room.
    pub cut: bool,
}

/// The first step, taken when the digests differ.
pub fn open(index: &mut IdIndex, salt: Salt) -> Parts {
    let mut findings = Findings::default();
    findings.expand(index, salt, Prefix::ALL);
    findings.reply
}

/// Answers a step.
pub fn answer(index: &mut IdIndex, salt: Salt, parts: &Parts) -> Findings {
    let mut findings = Findings::default();
    for (prefix, theirs) in &parts.splits {
        let ours = index.prints(*prefix, salt);
        for (nibble, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let Some(below) = prefix.below(nibble).filter(|_| ours != theirs) else { continue };
            if *theirs == Print::default() {
                // The other side holds nothing there, so it lacks all that is here: no further step
                // is needed.
                findings.compare(index, salt, below, &[]);
            } else {
                findings.expand(index, salt, below);
            }
        }
    }
    for (prefix, theirs) in &parts.lists {
        findings.compared += theirs.len();
        findings.compare(index, salt, *prefix, theirs);
    }
    for (prefix, wanted) in &parts.wants {
        findings.compared += wanted.len();
        // The other side asks for identities that we listed, and a list is short. So of a range
        // that could have been split only the first identities are looked at.
        let mut left = if prefix.depth() < Prefix::DEEPEST { LIST * 8 } else { LONGEST_LIST };
        index.visit(*prefix, |id, number| {
            if wanted.contains(&print(salt, &id.0)) {
                findings.lacking.push(number);
            }
            left -= 1;
            left > 0
        });
    }
    findings
}

impl Findings {
    /// Adds a range that differs to the reply: split if it is large, listed if it is small.
    fn expand(&mut self, index: &mut IdIndex, salt: Salt, prefix: Prefix) {
        if index.count(prefix) > LIST && prefix.depth() < Prefix::DEEPEST {
            if self.reply.splits.len() >= MAX_SPLITS {
                self.cut = true;
                return;
            }
            self.reply.splits.push((prefix, index.prints(prefix, salt)));
            return;
        }
        let mut list = Vec::new();
        index.visit(prefix, |id, _| {
            list.push(print(salt, &id.0));
            list.len() < LONGEST_LIST
        });
        self.say(list, prefix, |reply| &mut reply.lists);
    }

    /// Compares the identities that the other side lists in a range with those that are here.
    fn compare(&mut self, index: &IdIndex, salt: Salt, prefix: Prefix, theirs: &[Print]) {
        let mut unknown = theirs.to_vec();
        let (lacking, common, cut) = (&mut self.lacking, &mut self.common, &mut self.cut);
        index.visit(prefix, |id, number| {
            let name = (!theirs.is_empty()).then(|| print(salt, &id.0));
            if name.is_some_and(|name| theirs.contains(&name)) {
                unknown.retain(|other| Some(*other) != name);
                common.push(number);
            } else {
                lacking.push(number);
            }
            *cut |= lacking.len() >= MAX_FOUND;
            lacking.len() < MAX_FOUND
        });
        if !unknown.is_empty() {
            self.say(unknown, prefix, |reply| &mut reply.wants);
        }
    }

    fn say(
        &mut self,
        names: Vec<Print>,
        prefix: Prefix,
        to: impl Fn(&mut Parts) -> &mut Vec<(Prefix, Vec<Print>)>,
    ) {
        let lists = to(&mut self.reply);
        let listed: usize = lists.iter().map(|(_, names)| names.len()).sum();
        if lists.len() >= MAX_LISTS || listed + names.len() > MAX_LISTED {
            self.cut = true;
        } else {
            lists.push((prefix, names));
        }
    }
}

/// Whether a peer could have sent these parts: ranges in order that do not overlap, and no more of
/// anything than this peer itself would send.
pub fn is_sane(parts: &Parts) -> bool {
    let split = |(prefix, _): &(Prefix, [Print; FANOUT])| prefix.depth() < Prefix::DEEPEST;
    parts.splits.len() <= MAX_SPLITS
        && parts.splits.iter().all(split)
        && is_ascending(parts.splits.iter().map(|(prefix, _)| *prefix))
        && is_sane_list(&parts.lists)
        && is_sane_list(&parts.wants)
}

fn is_sane_list(lists: &[(Prefix, Vec<Print>)]) -> bool {
    let fits = |(prefix, names): &(Prefix, Vec<Print>)| {
        let most = if prefix.depth() < Prefix::DEEPEST { LIST } else { LONGEST_LIST };
        names.len() <= most
    };
    lists.len() <= MAX_LISTS
        && lists.iter().all(fits)
        && lists.iter().map(|(_, names)| names.len()).sum::<usize>() <= MAX_LISTED
        && is_ascending(lists.iter().map(|(prefix, _)| *prefix))
}

fn is_ascending(prefixes: impl Iterator<Item = Prefix>) -> bool {
    let mut next = 0;
    for prefix in prefixes {
        match prefix.range() {
            Some((start, end)) if start >= next => next = end,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::gossip::MessageId;
    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use sha2::{Digest, Sha256};
    use std::collections::BTreeSet;

    fn id(number: u32) -> MessageId {
        MessageId(Sha256::digest(number.to_le_bytes()).into())
    }

    /// One of the two sides: its index, and the numbers of what it has.
    struct Side {
        index: IdIndex,
        has: BTreeSet<u32>,
    }

    impl Side {
        fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
            let mut side = Self { index: IdIndex::default(), has: BTreeSet::new() };
            numbers.into_iter().for_each(|number| side.take(number));
            side
        }

        fn take(&mut self, number: u32) {
            self.has.insert(number);
            self.index.insert(id(number), u64::from(number));
        }
    }

    /// Approximate bytes of parts on the wire.
    fn bytes(parts: &Parts) -> usize {
        let lists = parts.lists.iter().chain(&parts.wants);
        parts.splits.len() * 100 + lists.map(|(_, names)| 5 + names.len() * 6).sum::<usize>()
    }

    /// One round. Each time `lose` says so, a step or a payload is lost. Returns bytes and steps.
    fn round(
        one: &mut Side,
        other: &mut Side,
        salt: Salt,
        mut lose: impl FnMut() -> bool,
    ) -> (usize, usize) {
        if one.index.digest() == other.index.digest() {
            return (0, 0);
        }
        let (mut asks, mut answers) = (other, one);
        let mut parts = open(&mut asks.index, salt);
        let (mut total, mut steps) = (0, 0);
        let mut under_way = Vec::new();
        while !parts.is_empty() {
            assert!(is_sane(&parts), "{parts:?}");
            total += bytes(&parts);
            steps += 1;
            if lose() {
                break;
            }
            let findings = answer(&mut answers.index, salt, &parts);
            // Messages arrive after the step that was sent before them.
            std::mem::take(&mut under_way).into_iter().for_each(|number| answers.take(number));
            for number in findings.lacking {
                let number = u32::try_from(number).unwrap();
                assert!(answers.has.contains(&number), "only what is held is sent");
                assert!(!asks.has.contains(&number), "only what is lacking is sent");
                if !lose() {
                    under_way.push(number);
                }
            }
            parts = findings.reply;
            (asks, answers) = (answers, asks);
        }
        under_way.into_iter().for_each(|number| answers.take(number));
        (total, steps)
    }

    fn side(most: u32) -> impl Strategy<Value = BTreeSet<u32>> {
        prop_oneof![
            proptest::collection::btree_set(0..most, 0..40),
            proptest::collection::btree_set(0..most, 0..most as usize),
            Just((0..most).collect()),
            Just(BTreeSet::new()),
        ]
    }

    proptest! {
        #[test]
        fn any_two_sets_end_equal_at_a_cost_within_its_bound(
            one in side(2_000), other in side(2_000), salt in any::<Salt>(),
        ) {
            let differ = one.symmetric_difference(&other).count();
            let union: BTreeSet<u32> = one.union(&other).copied().collect();
            let (mut one, mut other) = (Side::of(one), Side::of(other));
            let (bytes, steps) = round(&mut one, &mut other, salt, || false);
            prop_assert_eq!(&one.has, &union);
            prop_assert_eq!(&other.has, &union);
            prop_assert_eq!(one.index.digest(), other.index.digest());
            // At most a path of three levels, a list and a request for each identity that differs.
            prop_assert!(bytes <= 250 + differ * 420, "{bytes} bytes for {differ}");
            prop_assert!(steps <= 6, "{steps} steps");
        }

        #[test]
        fn any_two_sets_end_equal_whatever_is_lost(
            one in side(300), other in side(300),
            fate in any::<u64>(),
        ) {
            let union: BTreeSet<u32> = one.union(&other).copied().collect();
            let (mut one, mut other) = (Side::of(one), Side::of(other));
            let mut fate = SmallRng::seed_from_u64(fate);
            for number in 0..200u64 {
                let lose = || fate.random_bool(0.2);
                let (a, b) = if number % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
                round(a, b, number.to_le_bytes(), lose);
                if one.has == union && other.has == union {
                    return Ok(());
                }
            }
            prop_assert!(false, "{} and {} of {}", one.has.len(), other.has.len(), union.len());
        }

        #[test]
        fn whatever_the_other_side_says_the_answer_is_bounded_and_sane(
            held in 0u32..3_000,
            splits in proptest::collection::vec((0u8..15, any::<u64>(), any::<[Print; 16]>()), 0..40),
            lists in proptest::collection::vec(
                (0u8..16, any::<u64>(), proptest::collection::vec(any::<Print>(), 0..16)), 0..40),
            sort in any::<bool>(),
        ) {
            let prefix = |depth: u8, nibbles: u64| {
                let nibbles = nibbles.checked_shr(64 - 4 * u32::from(depth)).unwrap_or(0);
                Prefix::new(depth, nibbles).unwrap()
            };
            let mut parts = Parts {
                splits: splits.into_iter().map(|(d, n, prints)| (prefix(d, n), prints)).collect(),
                lists: lists.into_iter().map(|(d, n, names)| (prefix(d, n), names)).collect(),
                wants: Vec::new(),
            };
            if sort {
                parts.splits.sort();
                parts.splits.dedup_by_key(|(prefix, _)| prefix.depth());
                parts.lists.truncate(1);
            }
            if is_sane(&parts) {
                let mut side = Side::of(0..held);
                let findings = answer(&mut side.index, [1; 8], &parts);
                prop_assert!(is_sane(&findings.reply));
                prop_assert!(findings.reply.splits.len() <= parts.splits.len() * FANOUT);
                prop_assert!(findings.lacking.len() <= MAX_FOUND + LIST * parts.lists.len());
            }
        }
    }

    #[test]
    fn what_no_peer_would_say_is_told_apart() {
        let at = |depth, nibbles| Prefix::new(depth, nibbles).unwrap();
        let lists = |prefixes: &[Prefix], names: usize| {
            let list = |prefix: &Prefix| (*prefix, vec![[1; 6]; names]);
            Parts { lists: prefixes.iter().map(list).collect(), ..Parts::default() }
        };
        let splits = |prefixes: &[Prefix]| Parts {
            splits: prefixes.iter().map(|prefix| (*prefix, [[1; 6]; 16])).collect(),
            ..Parts::default()
        };
        assert!(is_sane(&lists(&[at(1, 3), at(2, 0x40), at(1, 5)], LIST)));
        assert!(!is_sane(&lists(&[at(1, 5), at(1, 3)], 1)), "out of order");
        assert!(!is_sane(&splits(&[at(1, 3), at(1, 3)])), "twice");
        assert!(!is_sane(&splits(&[at(1, 3), at(2, 0x3f)])), "one within the other");
        assert!(!is_sane(&lists(&[at(1, 3)], LIST + 1)), "a list that should be split");
        assert!(!is_sane(&splits(&[at(Prefix::DEEPEST, 0)])), "a split of the last nibble");
        assert!(!is_sane(&splits(&(0..=MAX_SPLITS as u64).map(|n| at(4, n)).collect::<Vec<_>>())));
        assert!(!is_sane(&lists(&(0..=MAX_LISTS as u64).map(|n| at(4, n)).collect::<Vec<_>>(), 0)));
        let long = (0..=(MAX_LISTED / LIST) as u64).map(|n| at(4, n)).collect::<Vec<_>>();
        assert!(!is_sane(&lists(&long, LIST)), "too many in all");
        assert_eq!(Prefix::new(2, 0x100), None, "more nibbles than it says");
        assert_eq!(Prefix::new(Prefix::DEEPEST + 1, 0), None, "deeper than an index is");
    }
}
