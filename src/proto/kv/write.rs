//! Writes, and the versions that they make.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::{Clock, Dot, MAX_COUNT, Seen};
use super::name;
use super::value::Value;
use crate::proto::time::Time;

/// Bytes that a write takes beside its value and key, roughly.
const OVERHEAD: usize = 160;
/// Bytes that a key takes beside its characters and versions, roughly: its place in the map, and
/// the vector of its versions.
const KEY_OVERHEAD: usize = 64;
/// Most lives that one seal ends: it has to fit a frame.
pub(super) const MAX_ENDED: usize = 4_096;

/// A value with its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The write that made it.
    pub dot: Dot,
    /// What its writer had seen, but of its own replica only single writes.
    pub past: Seen,
    /// How many writes of its own replica, from the first, its writer had seen.
    pub own: u64,
    /// Lamport time of the write.
    pub lamport: u64,
    /// When it was written, by its replica's clock.
    pub at: Time,
    /// The value.
    pub value: Value,
}

impl Version {
    /// Makes its names share the memory of those of a clock.
    pub(super) fn intern(&mut self, names: &Clock) {
        names.intern(&mut self.dot.replica);
        self.past.intern(names);
    }

    /// Most bytes that it takes.
    pub(super) fn size(&self) -> usize {
        OVERHEAD + self.past.size() + self.value.text().len()
    }

    /// A clock of what its writer had seen and of this write itself; shown as the vector clock.
    pub fn clock(&self) -> Clock {
        let mut clock = self.past.bound();
        clock.add(&self.dot);
        clock
    }

    /// Adds to what a client has seen this version, which it is shown, and what its writer had
    /// seen. The caller has to settle the single writes.
    pub(super) fn tell(&self, seen: &mut Seen) {
        seen.clock.merge(&self.past.clock);
        seen.clock.raise(&self.dot.replica, self.own);
        seen.floor.merge(&self.past.floor);
        seen.extra.extend(self.past.extra.iter().chain([&self.dot]).cloned());
    }
}

/// Bytes that a key with no version takes.
pub(super) fn key_size(key: &str) -> usize {
    KEY_OVERHEAD + key.len()
}

/// Bytes that these keys and their versions take.
pub(super) fn size_of<'a>(
    keys: impl IntoIterator<Item = (&'a Arc<str>, &'a Vec<Version>)>,
) -> usize {
    let of = |(key, versions): (&Arc<str>, &Vec<Version>)| {
        key_size(key) + versions.iter().map(Version::size).sum::<usize>()
    };
    keys.into_iter().map(of).sum()
}

/// A write, a delete or a seal ([`super::seal`]), as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Write {
    /// The dot of this write.
    pub dot: Dot,
    /// What its writer had seen, but of its own replica only single writes.
    pub past: Seen,
    /// How many writes of its own replica, from the first, its writer had seen.
    pub own: u64,
    /// Lamport time of the write.
    pub lamport: u64,
    /// When it was written, by its replica's clock.
    pub at: Time,
    /// The key.
    pub key: Arc<str>,
    /// Versions of the key that it replaces; in a seal, the last writes of the lives that it ends.
    pub replaces: Vec<Dot>,
    /// The value; none of a delete or a seal.
    pub value: Option<Value>,
}

impl Write {
    /// The version that it makes; none of a delete or a seal.
    pub fn version(&self) -> Option<Version> {
        self.value.as_ref().map(|value| Version {
            dot: self.dot.clone(),
            past: self.past.clone(),
            own: self.own,
            lamport: self.lamport,
            at: self.at,
            value: value.clone(),
        })
    }

    /// Most bytes that the version takes that it makes.
    pub(super) fn version_size(&self) -> usize {
        let of = |value: &Value| OVERHEAD + self.past.size() + value.text().len();
        self.value.as_ref().map_or(0, of)
    }

    pub(super) fn size(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| value.text().len());
        let replaces: usize = self.replaces.iter().map(|dot| 24 + dot.replica.len()).sum();
        OVERHEAD + self.key.len() + value + self.past.size() + replaces
    }

    /// Whether it is a seal.
    pub fn is_seal(&self) -> bool {
        name::is_sealer(&self.dot.replica)
    }

    /// Whether its writer had seen a write; `in_past` tells this for its clock, seals included. A
    /// write takes away the versions of its key that its writer had seen. These may be more than it
    /// names: a version may be gone where the write was made and still stand where it arrives,
    /// because the delete is still on its way there.
    pub(super) fn had_seen(&self, in_past: impl Fn(&Dot) -> bool, dot: &Dot) -> bool {
        let own = dot.replica == self.dot.replica && dot.count <= self.own;
        own || in_past(dot) || self.past.extra.contains(dot)
    }

    /// Whether a replica can have made it.
    pub(super) fn is_sane(&self) -> bool {
        let Self { dot, past, own, lamport, .. } = self;
        let is_earlier = |single: &Dot| single.replica != dot.replica || single.count < dot.count;
        dot.is_sane()
            && past.is_sane()
            && past.clock.get(&dot.replica) == 0
            && past.floor.get(&dot.replica) == 0
            && past.extra.iter().all(is_earlier)
            && *own < dot.count
            && *lamport <= MAX_COUNT
            && (!self.is_seal() || is_sane_seal(self))
    }
}

/// Whether a replica can have made this seal.
pub(super) fn is_sane_seal(write: &Write) -> bool {
    let Write { dot, past, own, key, replaces, value, .. } = write;
    name::is_sealer(&dot.replica)
        && value.is_none()
        && key.is_empty()
        && own + 1 == dot.count
        && past.extra.is_empty()
        && past.floor.is_empty()
        && past.clock.iter().all(|(name, _)| name::is_sealer(name))
        && (1..=MAX_ENDED).contains(&replaces.len())
        && replaces.iter().all(|last| last.is_sane() && name::is_usual(&last.replica))
        && replaces.windows(2).all(|pair| pair[0].replica < pair[1].replica)
}

/// Sorts versions; the one to show first comes first.
pub(super) fn sort(versions: &mut [Version]) {
    versions.sort_by(|one, other| {
        let by_time = other.lamport.cmp(&one.lamport);
        by_time.then_with(|| other.dot.cmp(&one.dot))
    });
}
