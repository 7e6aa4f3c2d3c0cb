//! A set of message numbers as runs: consecutive numbers cost nothing more
//! than their two ends.

use crate::proto::message::Runs;

/// Runs kept at most; beyond, the lowest gap counts as seen, so that nobody can make the set grow
/// by numbering with holes.
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

    /// Puts a number in.
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
        if self.runs.len() > MAX_RUNS {
            self.runs[0].1 = self.runs[1].1;
            self.runs.remove(1);
        }
    }

    /// The runs as they travel: `(first, how many)`.
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

/// Whether a number lies in runs from the wire, which are ascending.
pub fn wire_contains(runs: &Runs, number: u64) -> bool {
    let after = runs.partition_point(|(first, _)| *first <= number);
    after > 0 && number - runs[after - 1].0 < runs[after - 1].1
}

/// Gathers ascending numbers into runs; one that comes twice counts once.
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
                prop_assert_eq!(wire_contains(&wire, number), set.contains(&number));
            }
        }
    }

    #[test]
    fn holes_cannot_make_the_set_grow() {
        let mut runs = RunSet::default();
        for number in 1..10_000 {
            runs.insert(number * 2);
        }
        assert!(runs.to_wire().len() <= MAX_RUNS);
        assert!(runs.contains(19_998));
        assert!(!runs.contains(19_997), "the newest gaps stay open");
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
