//! Dots and clocks: which writes there are, and which of them a replica or a client has seen.
//!
//! A replica numbers its writes 1, 2, 3; replica and number make a dot. A clock says for each
//! replica how many of its writes were seen. A replica sees the writes of each replica in order, so
//! one number is enough. A client may also have seen single writes beyond that ([`Seen`]).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use super::name::Replica;
use super::name::{self, Name};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The replica that wrote.
    #[serde(with = "name")]
    pub replica: Replica,
    /// The number of the write among those of this replica, from 1.
    pub count: u64,
}

/// The number of writes of each replica that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Vec<(Name, u64)>", from = "Vec<(Name, u64)>")]
pub struct Clock(Vec<(Replica, u64)>);

impl From<Clock> for Vec<(Name, u64)> {
    fn from(clock: Clock) -> Self {
        clock.0.into_iter().map(|(replica, count)| (Name(replica), count)).collect()
    }
}

impl From<Vec<(Name, u64)>> for Clock {
    fn from(entries: Vec<(Name, u64)>) -> Self {
        Self(entries.into_iter().map(|(Name(replica), count)| (replica, count)).collect())
    }
}

impl Clock {
    /// A clock that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of writes of a replica that were seen.
    pub fn get(&self, replica: &str) -> u64 {
        self.place(replica).map_or(0, |place| self.0[place].1)
    }

    fn place(&self, replica: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| name.as_ref().cmp(replica))
    }

    /// Whether a write was seen.
    pub fn contains(&self, dot: &Dot) -> bool {
        dot.count <= self.get(&dot.replica)
    }

    /// Adds the first `count` writes of a replica.
    pub fn raise(&mut self, replica: &Replica, count: u64) {
        if count == 0 {
            return;
        }
        match self.place(replica) {
            Ok(place) => self.0[place].1 = self.0[place].1.max(count),
            Err(place) => {
                // Each version has a clock, so memory counts, and a vector that grows by itself is
                // half empty.
                self.0.reserve_exact(1);
                self.0.insert(place, (replica.clone(), count));
            }
        }
    }

    /// Keeps only the entries for which `is_kept` is true.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&str, u64) -> bool) {
        self.0.retain(|(replica, count)| is_kept(replica, *count));
    }

    /// This clock without one replica.
    #[must_use]
    pub fn without(&self, replica: &str) -> Self {
        Self(self.0.iter().filter(|(name, _)| **name != *replica).cloned().collect())
    }

    /// Makes a name share the memory of the same name here, if there is one: names come with every
    /// write, and would take more memory than its value.
    pub(super) fn intern(&self, replica: &mut Replica) {
        if let Ok(place) = self.place(replica) {
            *replica = self.0[place].0.clone();
        }
    }

    /// Makes all names of a clock share memory in this way.
    pub(super) fn intern_all(&self, clock: &mut Clock) {
        clock.0.iter_mut().for_each(|(replica, _)| self.intern(replica));
    }

    /// Adds a write, and those of the same replica before it.
    pub fn add(&mut self, dot: &Dot) {
        self.raise(&dot.replica, dot.count);
    }

    /// Adds all that the other clock has seen.
    pub fn merge(&mut self, other: &Clock) {
        let beyond = self.beside(other).filter(|(_, count, here)| count > here);
        let beyond: Vec<(Replica, u64)> =
            beyond.map(|(replica, count, _)| (replica.clone(), count)).collect();
        beyond.iter().for_each(|(replica, count)| self.raise(replica, *count));
    }

    /// This clock with further entries, whose replicas it does not name.
    pub(super) fn joined(&self, others: impl Iterator<Item = (Replica, u64)>) -> Self {
        let mut all: Vec<(Replica, u64)> = self.0.iter().cloned().chain(others).collect();
        all.sort();
        Self(all)
    }

    /// The entries of another clock: replica, count there, and count here.
    pub(super) fn beside<'a>(
        &'a self,
        other: &'a Clock,
    ) -> impl Iterator<Item = (&'a Replica, u64, u64)> {
        // Clocks that are compared mostly name the same replicas and share the names.
        let mut mine = self.0.iter().peekable();
        other.0.iter().map(move |(replica, count)| {
            let is_before =
                |(name, _): &&(Replica, u64)| !Arc::ptr_eq(name, replica) && name < replica;
            while mine.next_if(is_before).is_some() {}
            let here = mine.peek().filter(|(name, _)| name == replica).map_or(0, |(_, here)| *here);
            (replica, *count, here)
        })
    }

    /// Whether this clock has seen all that the other has.
    pub fn covers(&self, other: &Clock) -> bool {
        self.beside(other).all(|(_, count, here)| here >= count)
    }

    /// Replicas and counts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Replica, u64)> {
        self.0.iter().map(|(replica, count)| (replica, *count))
    }

    /// Number of replicas seen.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no write was seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a replica can have this clock. A clock from the network may be anything.
    pub fn is_sane(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self
                .0
                .iter()
                .all(|(name, count)| is_sane_name(name) && (1..=MAX_COUNT).contains(count))
            && self.size() <= MAX_CLOCK
    }

    /// Most bytes that the clock takes on the wire and in memory.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, _)| name.len() + ENTRY).sum()
    }

    /// Whether there is room for an entry of this replica. A replica that has one always has room;
    /// beyond [`MAX_CLOCK`] nothing that carries a clock would fit a frame.
    pub fn has_room_for(&self, replica: &str) -> bool {
        is_sane_name(replica)
            && (self.get(replica) > 0 || self.size() + replica.len() + ENTRY <= MAX_CLOCK)
    }
}

impl Clock {
    /// Whether the replica `me`, which has seen this, may write. A write for which others have no
    /// room is refused where it is made, not acknowledged and then lost.
    pub(super) fn lets_write(&self, me: &str) -> bool {
        self.get(me) > 0 || self.size() + me.len() + ENTRY <= MAX_CLOCK_TO_BEGIN
    }
}

impl FromIterator<(Replica, u64)> for Clock {
    fn from_iter<T: IntoIterator<Item = (Replica, u64)>>(entries: T) -> Self {
        let mut clock = Self::new();
        for (replica, count) in entries {
            clock.raise(&replica, count);
        }
        clock
    }
}

/// What a client has seen: a clock, and single writes beyond it. A client that wrote beside another
/// client's write at the same replica has seen its own write and not the other, which a count alone
/// could not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    /// The writes seen in order.
    pub clock: Clock,
    /// Single writes beyond that.
    pub extra: Vec<Dot>,
    /// How far, beyond both, a replica must be to serve this client. A client that was shown that a
    /// value is gone must not meet a replica at which it still stands, so not one that lacks the
    /// deletes. But the client was not shown what was written beside those deletes, and replaces
    /// none of it.
    #[serde(default)]
    pub floor: Clock,
}

/// Greatest count in metadata. Not every JSON reader keeps greater whole numbers apart (RFC 8259,
/// section 6), so a client could not hand them back; a million writes a second take 285 years.
pub(super) const MAX_COUNT: u64 = (1 << 53) - 1;
/// Most single writes kept beyond a clock: they travel with each request and each write. The store
/// decides what happens to more, because it knows which of them still stand.
pub const MAX_EXTRA: usize = 64;
/// Longest name of a replica, bytes: an address and an incarnation, and room for those that replicas of
/// another make take.
const MAX_NAME: usize = 128;
/// Most bytes that a clock takes, by [`Clock::size`]: room for ten thousand lives of replicas that
/// wrote. A clock has to fit a frame beside the greatest value.
pub const MAX_CLOCK: usize = 512 << 10;
/// Most bytes that a clock may take where a replica begins to write: its first write is one entry
/// more in every clock from then on. The rest is for replicas that began meanwhile where this one
/// could not see them: after a cut the entries of both sides have to fit one clock.
const MAX_CLOCK_TO_BEGIN: usize = MAX_CLOCK - MAX_CLOCK / 4;
/// Bytes that an entry of a clock takes beside its name.
const ENTRY: usize = 16;
/// Stands between the name of a replica and the number of a single write.
const SINGLE: char = '#';
/// Stands after the name of a replica in [`Seen::floor`].
const FLOOR: char = '^';

/// Why metadata from a client is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It is not a JSON object.
    #[error("causal-metadata has to be a JSON object or null")]
    NoObject,
    /// A count is not a whole number, is too great, or differs from the number in its name.
    #[error("causal-metadata of {0:?} is no count")]
    NoCount(String),
    /// More single writes than a client is given.
    #[error("causal-metadata has more than {MAX_EXTRA} single writes")]
    TooMany,
    /// A name is not that of a replica.
    #[error("causal-metadata names an unknown replica {0:?}")]
    UnknownReplica(String),
}

/// Whether a replica can have this name although nothing from it has come here. Replicas of this
/// make are named by an address and a life, those of another make often by an address alone.
pub fn is_name(name: &str) -> bool {
    name::is_usual(name) || name::is_sealer(name) || name.parse::<SocketAddr>().is_ok()
}

fn is_sane_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME
}

impl Dot {
    /// Whether this can be the dot of a write. A dot from the network may be anything.
    pub fn is_sane(&self) -> bool {
        is_sane_name(&self.replica) && (1..=MAX_COUNT).contains(&self.count)
    }
}

impl Seen {
    /// A client that has seen what a clock has, and nothing else.
    pub fn of(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Whether a write was seen.
    pub fn contains(&self, dot: &Dot) -> bool {
        self.clock.contains(dot) || self.extra.contains(dot)
    }

    /// Whether a client can have this. What comes from the network may be anything.
    pub fn is_sane(&self) -> bool {
        self.clock.is_sane()
            && self.floor.is_sane()
            && self.extra.len() <= MAX_EXTRA
            && self.extra.iter().all(Dot::is_sane)
    }

    /// Whether a replica with this context has all that the client has seen.
    pub fn is_within(&self, context: &Clock) -> bool {
        context.covers(&self.clock)
            && context.covers(&self.floor)
            && self.extra.iter().all(|single| context.contains(single))
    }

    /// From now on only replicas that have seen all of `floor` may serve the client.
    pub(super) fn raise_floor(&mut self, floor: &Clock) {
        self.floor.merge(floor);
        self.settle();
    }

    /// Adds single writes.
    pub(super) fn add(&mut self, dots: impl IntoIterator<Item = Dot>) {
        self.extra.extend(dots);
        self.settle();
    }

    /// Most bytes that it takes.
    pub(super) fn size(&self) -> usize {
        let extra = self.extra.iter().map(|single| single.replica.len() + ENTRY);
        self.clock.size() + self.floor.size() + extra.sum::<usize>()
    }

    /// Makes its names share the memory of those of a clock.
    pub(super) fn intern(&mut self, names: &Clock) {
        names.intern_all(&mut self.clock);
        names.intern_all(&mut self.floor);
        self.extra.iter_mut().for_each(|single| names.intern(&mut single.replica));
    }

    /// Moves single writes that follow on the clock into it, and keeps of the floor only what is
    /// above the clock.
    fn settle(&mut self) {
        self.extra.sort();
        self.extra.dedup();
        self.absorb(|clock, single| clock.get(&single.replica) + 1 >= single.count);
    }

    /// Moves the single writes for which `goes_in` is true into the clock, the lowest first. All
    /// earlier writes of their replica then count as seen, too.
    pub(super) fn absorb(&mut self, goes_in: impl Fn(&Clock, &Dot) -> bool) {
        let Self { clock, extra, floor } = self;
        extra.retain(|single| {
            let goes_in = goes_in(clock, single);
            if goes_in {
                clock.add(single);
            }
            !goes_in
        });
        floor.0.retain(|(replica, count)| clock.get(replica) < *count);
    }

    /// A clock that covers all of it, and perhaps more: what a replica must have seen to serve this
    /// client.
    pub fn bound(&self) -> Clock {
        let mut clock = self.clock.clone();
        clock.merge(&self.floor);
        self.extra.iter().for_each(|dot| clock.add(dot));
        clock
    }

    /// The metadata that a client is given.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        for (replica, count) in self.clock.iter() {
            object.insert(replica.to_string(), count.into());
        }
        for Dot { replica, count } in &self.extra {
            object.insert(format!("{replica}{SINGLE}{count}"), (*count).into());
        }
        for (replica, count) in self.floor.iter() {
            object.insert(format!("{replica}{FLOOR}"), count.into());
        }
        serde_json::Value::Object(object)
    }

    /// Reads the metadata that a client brought back; none if it is null.
    ///
    /// # Errors
    ///
    /// If it is not an object from names that `is_replica` knows to counts.
    pub fn from_json(
        json: &serde_json::Value,
        is_replica: impl Fn(&str) -> bool,
    ) -> Result<Option<Self>, MetadataError> {
        let object = match json {
            serde_json::Value::Null => return Ok(None),
            serde_json::Value::Object(object) => object,
            _ => return Err(MetadataError::NoObject),
        };
        let mut seen = Self::default();
        for (name, count) in object {
            let no_count = || MetadataError::NoCount(name.clone());
            let count = count.as_u64().filter(|count| *count <= MAX_COUNT).ok_or_else(no_count)?;
            let floor = name.strip_suffix(FLOOR);
            let (replica, single) = match (floor, name.rsplit_once(SINGLE)) {
                (Some(replica), _) => (replica, None),
                (None, Some((replica, number))) => (replica, Some(number)),
                (None, None) => (name.as_str(), None),
            };
            if !is_replica(replica) {
                return Err(MetadataError::UnknownReplica(name.clone()));
            }
            match single {
                None if floor.is_some() => seen.floor.raise(&replica.into(), count),
                None => seen.clock.raise(&replica.into(), count),
                Some(_) if seen.extra.len() >= MAX_EXTRA => return Err(MetadataError::TooMany),
                Some(number) if number.parse() == Ok(count) && count > 0 => {
                    seen.extra.push(Dot { replica: replica.into(), count });
                }
                Some(_) => return Err(no_count()),
            }
        }
        seen.settle();
        Ok(Some(seen))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map: BTreeMap<&str, u64> = self.iter().map(|(name, count)| (&**name, count)).collect();
        write!(f, "{map:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dot(replica: &str, count: u64) -> Dot {
        Dot { replica: replica.into(), count }
    }

    #[test]
    fn a_clock_has_seen_what_was_added_and_what_came_before() {
        let mut clock = Clock::new();
        clock.add(&dot("b", 3));
        clock.add(&dot("a", 1));
        clock.add(&dot("b", 2));
        assert!(clock.contains(&dot("b", 3)) && clock.contains(&dot("b", 1)));
        assert!(!clock.contains(&dot("b", 4)) && !clock.contains(&dot("c", 1)));
        let mut other = Clock::new();
        other.add(&dot("c", 1));
        assert!(!clock.covers(&other));
        clock.merge(&other);
        assert!(clock.covers(&other) && clock.is_sane());
        assert_eq!(clock.to_string(), r#"{"a": 1, "b": 3, "c": 1}"#);
    }

    #[test]
    fn metadata_comes_back_as_it_was_given() {
        let mut seen = Seen::default();
        seen.clock.add(&dot("127.0.0.1:6000@7", 2));
        seen.add([dot("127.0.0.1:6000@7", 5)]);
        let json = seen.to_json();
        assert_eq!(json, json!({"127.0.0.1:6000@7": 2, "127.0.0.1:6000@7#5": 5}));
        assert_eq!(Seen::from_json(&json, |_| true), Ok(Some(seen.clone())));
        assert!(seen.contains(&dot("127.0.0.1:6000@7", 5)));
        assert!(!seen.contains(&dot("127.0.0.1:6000@7", 4)));
        assert_eq!(seen.bound().get("127.0.0.1:6000@7"), 5);
        let floor = [("127.0.0.1:6000@7".into(), 9), ("127.0.0.1:6001@7".into(), 1)];
        seen.raise_floor(&floor.into_iter().collect());
        let json = seen.to_json();
        assert_eq!(json["127.0.0.1:6000@7^"], 9);
        assert_eq!(Seen::from_json(&json, |name| !name.ends_with('^')), Ok(Some(seen.clone())));
        assert_eq!(seen.bound().get("127.0.0.1:6000@7"), 9);
        assert!(!seen.contains(&dot("127.0.0.1:6000@7", 9)), "it was not shown");
        seen.add([dot("127.0.0.1:6001@7", 1)]);
        assert_eq!(seen.floor.get("127.0.0.1:6001@7"), 0, "what was shown is above it");
        assert_eq!(Seen::from_json(&json!(null), |_| true), Ok(None));
    }

    #[test]
    fn metadata_that_makes_no_sense_is_refused() {
        for json in [json!(1), json!([1]), json!("x"), json!({"a": -1}), json!({"a": 1.5})] {
            assert!(Seen::from_json(&json, |_| true).is_err(), "{json}");
        }
        for json in [json!({"a": 1_u64 << 53}), json!({"a": u64::MAX})] {
            assert!(Seen::from_json(&json, |_| true).is_err(), "{json}");
        }
        for json in [json!({"a": "1"}), json!({"a": 1e30}), json!({"a#1": 2}), json!({"a#x": 2})] {
            assert!(Seen::from_json(&json, |_| true).is_err(), "{json}");
        }
        assert_eq!(
            Seen::from_json(&json!({"nobody": 1}), |name| name == "a"),
            Err(MetadataError::UnknownReplica("nobody".to_owned()))
        );
    }
}
