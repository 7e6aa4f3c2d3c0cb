//! Whether a history of clients of a store with siblings is a causally consistent one.
//!
//! It is told from outside: which client did what where and when, and what it
//! was answered; metadata is not looked into. One thing is before another if the
//! same client did it before, or if what it wrote was read, or by a chain of
//! these. Each value is written once, so a read tells which writes it saw. Of a
//! read of a key must hold:
//!
//! - It returns nothing that was never written, and nothing from its own future.
//! - It returns nothing that was overwritten or deleted by a write of its past
//!   whose client had seen it: nothing comes back.
//! - Each write of its past is returned, or another one is in its place (or none,
//!   after a delete), whose client had seen it: nothing is lost.
//! - It returns nothing that a read of its past had no longer returned, although
//!   that was of that read's past: whatever took it away, gone stays gone. So a
//!   read that finds nothing counts as much as one that finds something.
//!
//! Session guarantees (reading one's own writes, never reading backwards) are the
//! second and third with a past of the client's own.

use std::collections::{BTreeMap, BTreeSet};

/// What a client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Wrote that value.
    Put(u64),
    Delete,
    /// Was shown these values; none if there is no such key.
    Get(BTreeSet<u64>),
}

/// One thing that was done.
#[derive(Clone, Debug)]
pub struct Event {
    pub client: usize,
    /// Where; for whoever reads of a history that is wrong.
    #[allow(dead_code)]
    pub replica: usize,
    pub key: usize,
    pub op: Op,
    /// When it was asked, and when it was answered; unanswered, it may have been done or not, and the
    /// client goes on as if it had not.
    pub asked: u64,
    pub answered: Option<u64>,
}

/// A set of events.
#[derive(Clone, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn put(&mut self, place: usize) {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn has(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    fn join(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }
}

/// What is wrong with a history; none if it is causally consistent.
pub fn judge(events: &[Event]) -> Option<String> {
    let mut wrote = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        if let Op::Put(value) = event.op
            && wrote.insert((event.key, value), place).is_some()
        {
            return Some(format!("{event:?} writes a value that was written before"));
        }
    }
    let (direct, order) = match direct_past(events, &wrote) {
        Ok(known) => known,
        Err(what) => return Some(what),
    };
    let past = closure(&direct, &order);
    events.iter().enumerate().find_map(|(place, event)| {
        let Op::Get(values) = &event.op else { return None };
        judge_read(events, &wrote, &past, place, values)
    })
}

fn judge_read(
    events: &[Event],
    wrote: &BTreeMap<(usize, u64), usize>,
    past: &[Bits],
    place: usize,
    values: &BTreeSet<u64>,
) -> Option<String> {
    let read = &events[place];
    let shown: Vec<usize> =
        values.iter().filter_map(|v| wrote.get(&(read.key, *v)).copied()).collect();
    let writes = (0..events.len())
        .filter(|w| events[*w].key == read.key && !matches!(events[*w].op, Op::Get(_)));
    for write in writes.clone().filter(|write| past[place].has(*write)) {
        if let Some(back) = shown.iter().find(|shown| past[write].has(**shown)) {
            return Some(format!(
                "{read:?} shows {:?}, which {:?} of its past had replaced",
                events[*back], events[write]
            ));
        }
        if matches!(events[write].op, Op::Delete) || shown.contains(&write) {
            continue;
        }
        let in_place = |other: &usize| {
            let may_be_seen = events[*other].asked < read.answered.unwrap_or(u64::MAX);
            may_be_seen && past[*other].has(write)
        };
        if !writes.clone().any(|other| in_place(&other)) {
            return Some(format!(
                "{read:?} does not show {:?}, which is of its past",
                events[write]
            ));
        }
    }
    for (other, event) in events.iter().enumerate() {
        let Op::Get(then) = &event.op else { continue };
        if event.key != read.key || !past[place].has(other) {
            continue;
        }
        let back = |write: &&usize| match events[**write].op {
            Op::Put(value) => past[other].has(**write) && !then.contains(&value),
            _ => false,
        };
        if let Some(back) = shown.iter().find(back) {
            return Some(format!(
                "{read:?} shows {:?}, which was gone for {event:?} of its past",
                events[*back]
            ));
        }
    }
    None
}

/// Of each event what is directly before it, and an order in which nothing comes before its past.
type Direct = (Vec<Vec<usize>>, Vec<usize>);

fn direct_past(events: &[Event], wrote: &BTreeMap<(usize, u64), usize>) -> Result<Direct, String> {
    let mut direct: Vec<Vec<usize>> = vec![Vec::new(); events.len()];
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    let mut by_time: Vec<usize> = (0..events.len()).collect();
    by_time.sort_by_key(|place| events[*place].asked);
    for place in by_time {
        let event = &events[place];
        direct[place].extend(last.get(&event.client));
        if event.answered.is_some() {
            last.insert(event.client, place);
        }
        let Op::Get(values) = &event.op else { continue };
        for value in values {
            let Some(write) = wrote.get(&(event.key, *value)) else {
                return Err(format!("{event:?} shows {value}, which nobody has written"));
            };
            if Some(events[*write].asked) >= event.answered {
                return Err(format!("{event:?} shows {:?} of its future", events[*write]));
            }
            direct[place].push(*write);
        }
    }
    let mut open: Vec<usize> = direct.iter().map(Vec::len).collect();
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); events.len()];
    for (place, before) in direct.iter().enumerate() {
        before.iter().for_each(|other| after[*other].push(place));
    }
    let mut order: Vec<usize> = (0..events.len()).filter(|place| open[*place] == 0).collect();
    let mut next = 0;
    while let Some(place) = order.get(next).copied() {
        next += 1;
        for other in &after[place] {
            open[*other] -= 1;
            if open[*other] == 0 {
                order.push(*other);
            }
        }
    }
    if order.len() < events.len() {
        let ring = open.iter().position(|open| *open > 0).unwrap_or_default();
        return Err(format!("{:?} is before itself", events[ring]));
    }
    Ok((direct, order))
}

fn closure(direct: &[Vec<usize>], order: &[usize]) -> Vec<Bits> {
    let mut past = vec![Bits::default(); direct.len()];
    for place in order {
        let mut all = Bits::default();
        for before in &direct[*place] {
            all.join(&past[*before]);
            all.put(*before);
        }
        past[*place] = all;
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client, replica, key and what was done, one after the other.
    fn history(told: &[(usize, usize, usize, Op)]) -> Vec<Event> {
        (0..)
            .zip(told)
            .map(|(time, (client, replica, key, op))| Event {
                client: *client,
                replica: *replica,
                key: *key,
                op: op.clone(),
                asked: 2 * time,
                answered: Some(2 * time + 1),
            })
            .collect()
    }

    fn shows(values: &[u64]) -> Op {
        Op::Get(values.iter().copied().collect())
    }

    #[test]
    fn siblings_of_writers_that_had_not_seen_each_other_are_fine() {
        let told = [
            (0, 0, 0, Op::Put(1)),
            (1, 1, 0, Op::Put(2)),
            (0, 0, 0, shows(&[1])),
            (1, 0, 0, shows(&[1, 2])),
            (1, 0, 0, Op::Put(3)),
            (0, 0, 0, shows(&[3])),
            (0, 1, 0, Op::Delete),
            (0, 2, 0, shows(&[])),
        ];
        assert_eq!(judge(&history(&told)), None);
        // A client with no past may be shown an old state.
        let told = [(0, 0, 0, Op::Put(1)), (0, 0, 0, Op::Put(2)), (1, 1, 0, shows(&[1]))];
        assert_eq!(judge(&history(&told)), None);
    }

    #[test]
    fn every_kind_of_wrong_is_seen() {
        let wrong = |told: &[(usize, usize, usize, Op)], says: &str| {
            let what =
                judge(&history(told)).unwrap_or_else(|| panic!("nothing is said of {told:?}"));
            assert!(what.contains(says), "{what}");
        };
        // One's own write is not read.
        wrong(&[(0, 0, 0, Op::Put(1)), (0, 1, 0, shows(&[]))], "does not show");
        // One reads backwards.
        wrong(
            &[
                (0, 0, 0, Op::Put(1)),
                (0, 0, 0, Op::Put(2)),
                (1, 0, 0, shows(&[2])),
                (1, 1, 0, shows(&[1])),
            ],
            "had replaced",
        );
        // The answer is seen and the question is not.
        wrong(
            &[
                (0, 0, 0, Op::Put(1)),
                (1, 1, 0, shows(&[1])),
                (1, 1, 1, Op::Put(2)),
                (2, 2, 1, shows(&[2])),
                (2, 2, 0, shows(&[])),
            ],
            "does not show",
        );
        // What was deleted comes back.
        wrong(
            &[(0, 0, 0, Op::Put(1)), (0, 0, 0, Op::Delete), (0, 1, 0, shows(&[1]))],
            "had replaced",
        );
        // A sibling is lost: the one who overwrote had seen but one of them.
        wrong(
            &[
                (0, 0, 0, Op::Put(1)),
                (1, 0, 0, Op::Put(2)),
                (1, 0, 1, Op::Put(9)),
                (1, 0, 0, Op::Put(3)),
                (2, 0, 0, shows(&[1, 2])),
                (2, 0, 0, shows(&[3])),
            ],
            "does not show",
        );
        // What was seen to be gone comes back, whoever took it away: for one client, and for one who
        // reads what that client wrote then.
        let gone = [
            (0, 0, 0, Op::Put(1)),
            (1, 1, 0, shows(&[1])),
            (2, 0, 0, shows(&[1])),
            (2, 0, 0, Op::Delete),
            (1, 0, 0, shows(&[])),
        ];
        wrong(&[&gone[..], &[(1, 1, 0, shows(&[1]))]].concat(), "was gone");
        let told = [(1, 0, 1, Op::Put(2)), (3, 1, 1, shows(&[2])), (3, 1, 0, shows(&[1]))];
        wrong(&[&gone[..], &told].concat(), "was gone");
        wrong(&[(0, 0, 0, shows(&[7]))], "nobody has written");
        wrong(&[(1, 0, 0, shows(&[1])), (0, 0, 0, Op::Put(1))], "of its future");
    }

    #[test]
    fn a_write_that_was_never_answered_may_have_been_done_or_not() {
        let told = [(0, 0, 0, Op::Put(1)), (0, 1, 0, shows(&[])), (1, 0, 0, shows(&[1]))];
        let mut events = history(&told);
        events[0].answered = None;
        assert_eq!(judge(&events), None);
    }
}
