//! The timers of a machine. Each has a name and is set at most once; they fire in order of time,
//! and at the same time in order of name.

use std::collections::{BTreeMap, BTreeSet};

use super::time::Time;

/// A set of named timers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timers<T> {
    order: BTreeSet<(Time, T)>,
    at: BTreeMap<T, Time>,
}

impl<T: Ord + Clone> Default for Timers<T> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), at: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Timers<T> {
    /// Sets a timer; replaces an earlier setting of the same one.
    pub fn set(&mut self, timer: T, at: Time) {
        if let Some(old) = self.at.insert(timer.clone(), at) {
            self.order.remove(&(old, timer.clone()));
        }
        self.order.insert((at, timer));
    }

    /// Whether a timer is set.
    pub fn is_set(&self, timer: &T) -> bool {
        self.at.contains_key(timer)
    }

    /// Sets a timer unless it is set already.
    pub fn set_if_unset(&mut self, timer: T, at: Time) {
        if !self.is_set(&timer) {
            self.set(timer, at);
        }
    }

    /// Sets a timer, unless it is set already to this time or an earlier one.
    pub fn set_earlier(&mut self, timer: T, at: Time) {
        if self.at.get(&timer).is_none_or(|old| at < *old) {
            self.set(timer, at);
        }
    }

    /// Unsets a timer.
    pub fn cancel(&mut self, timer: &T) {
        if let Some(at) = self.at.remove(timer) {
            self.order.remove(&(at, timer.clone()));
        }
    }

    /// Takes out the first timer that is due. Returns when it was due, and its name.
    pub fn due(&mut self, now: Time) -> Option<(Time, T)> {
        let (at, _) = self.order.first()?;
        if *at > now {
            return None;
        }
        let (at, timer) = self.order.pop_first()?;
        self.at.remove(&timer);
        Some((at, timer))
    }

    /// When the next timer is due.
    pub fn next(&self) -> Option<Time> {
        self.order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set("b", Time::from_millis(2));
        timers.set("a", Time::from_millis(9));
        timers.set("a", Time::from_millis(1));
        timers.set_if_unset("a", Time::from_millis(5));
        timers.set("c", Time::from_millis(3));
        timers.cancel(&"c");
        assert_eq!(timers.next(), Some(Time::from_millis(1)));
        let mut fired = Vec::new();
        while let Some((_, timer)) = timers.due(Time::from_millis(100)) {
            fired.push(timer);
        }
        assert_eq!(fired, ["a", "b"]);
        assert_eq!(timers.next(), None);
    }
}
