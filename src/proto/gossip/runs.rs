//! A set of message numbers, kept as runs: however many consecutive numbers take no more room than
//! their two ends. What must stay true: the number of runs is bounded, and numbers that follow each
//! other always find room.

use crate::proto::message::Runs;

/// Most runs kept, so that nobody can make the set grow by leaving holes between numbers.
const MAX_RUNS: usize = 1_024;

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSet {
    /// `(first, last)`, both included, ascending, never touching each other.
    runs: Vec<(u64, u64)>,
}

impl RunSet {
    /// Whether a number is in the set.
    pub fn contains(&self, number: u64) -> bool {
        match self.runs.last() {
            Some((first, last)) if *first <= number => return number <= *last,
            None => return false,
            _ => {}
        }
        let after = self.runs.partition_point(|(first, _)| *first <= number);
        after > 0 && number <= self.runs[after - 1].1
    }

    /// Whether a number may be put in. A new run needs room, but a run that grows needs none, so
    /// that a forger's holes keep no honest number out.
    pub fn has_room_for(&self, number: u64) -> bool {
        let touches = |other: Option<u64>| other.is_some_and(|other| self.contains(other));
        self.runs.len() < MAX_RUNS
            || self.contains(number)
            || touches(number.checked_sub(1))
            || touches(number.checked_add(1))
    }

    /// The numbers of a run from the wire that are not in the set, as runs `(first, last)`.
    pub fn gaps(&self, first: u64, many: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = first.saturating_add(many);
        let start = self.runs.partition_point(|(_, last)| *last < first);
        let mut next = first;
        let inside = self.runs.get(start..).unwrap_or(&[]).iter().map_while(move |(low, high)| {
            if *low >= end {
                return None;
            }
            let gap = (next < *low).then(|| (next, low - 1));
            next = high.saturating_add(1);
            Some((gap, next))
        });
        let mut tail = Some(first);
        let mut inside = inside.fuse();
        std::iter::from_fn(move || {
            loop {
                match inside.next() {
                    Some((gap, after)) => {
                        tail = Some(after);
                        if gap.is_some() {
                            return gap;
                        }
                    }
                    None => {
                        let after = tail.take()?;
                        return (after < end).then(|| (after, end - 1));
                    }
                }
            }
        })
    }

    /// Puts a number in; [`Self::has_room_for`] tells before whether it may be.
    pub fn insert(&mut self, number: u64) {
        let after = self.runs.partition_point(|(first, _)| *first <= number);
        if after > 0 && number <= self.runs[after - 1].1 {
            return;
        }
        let joins_before = after > 0 && self.runs[after - 1].1.checked_add(1) == Some(number);
        let joins_after =
            self.runs.get(after).is_some_and(|(first, _)| first.checked_sub(1) == Some(number));
        match (joins_before, joins_after) {
            (true, true) => {
                self.runs[after - 1].1 = self.runs[after].1;
                self.runs.remove(after);
            }
            (true, false) => self.runs[after - 1].1 = number,
            (false, true) => self.runs[after].0 = number,
            (false, false) => self.runs.insert(after, (number, number)),
        }
    }

    /// The runs as they are sent: `(first, how many)`.
    pub fn to_wire(&self) -> Runs {
        self.runs.iter().map(|(first, last)| (*first, (last - first).saturating_add(1))).collect()
    }
}

/// Whether runs from the wire are ascending, not empty and within the numbers that exist.
pub fn is_sane(runs: &Runs) -> bool {
    let mut next = 1;
    runs.iter().all(|(first, many)| {
        let end = first.checked_add(*many);
        let sane = *first >= next && *many > 0 && end.is_some();
        next = end.unwrap_or(u64::MAX);
        sane
    })
}

/// Gathers ascending numbers into runs; a number that comes twice counts once.
pub fn gather(numbers: impl IntoIterator<Item = u64>) -> Runs {
    let mut runs: Runs = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, many)) if first.checked_add(*many) == Some(number) => *many += 1,
            Some((first, many)) if number - *first < *many => {}
            _ => runs.push((number, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn runs_are_a_set(numbers in proptest::collection::vec(1u64..200, 0..300)) {
            let mut runs = RunSet::default();
            let mut set = BTreeSet::new();
            for number in numbers {
                runs.insert(number);
                set.insert(number);
            }
            let wire = runs.to_wire();
            prop_assert!(is_sane(&wire));
            prop_assert_eq!(&wire, &gather(set.iter().copied()));
            for number in 0..210 {
                prop_assert_eq!(runs.contains(number), set.contains(&number));
            }
        }
    }

    #[test]
    fn holes_cannot_make_the_set_grow_nor_keep_honest_numbers_out() {
        let mut runs = RunSet::default();
        runs.insert(1);
        for number in (1..10_000)
            .map(|number| number * 100)
            .filter(|n| runs.has_room_for(*n))
            .collect::<Vec<_>>()
        {
            if runs.has_room_for(number) {
                runs.insert(number);
            }
        }
        assert_eq!(runs.to_wire().len(), MAX_RUNS);
        for honest in 2..500 {
            assert!(runs.has_room_for(honest), "{honest}");
            runs.insert(honest);
        }
    }

    proptest! {
        #[test]
        fn gaps_are_what_is_not_there(
            numbers in proptest::collection::btree_set(1u64..60, 0..40),
            first in 1u64..60,
            many in 1u64..30,
        ) {
            let mut runs = RunSet::default();
            numbers.iter().for_each(|number| runs.insert(*number));
            let found: Vec<u64> = runs.gaps(first, many).flat_map(|(a, b)| a..=b).collect();
            let expected: Vec<u64> =
                (first..first + many).filter(|number| !numbers.contains(number)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_greatest_number_is_no_trap() {
        let mut runs = RunSet::default();
        runs.insert(u64::MAX);
        runs.insert(u64::MAX - 1);
        assert!(runs.contains(u64::MAX));
        assert!(!is_sane(&vec![(u64::MAX, 2)]));
        assert!(!is_sane(&vec![(3, 2), (4, 1)]));
        assert!(!is_sane(&vec![(0, 1)]));
    }
}
