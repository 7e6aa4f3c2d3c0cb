//! Writes, and the versions that they make.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::{Clock, Dot, MAX_COUNT, Seen};
use super::name;
use super::value::Value;
use crate::proto::time::Time;

/// What a write takes beside its value and key, roughly, bytes.
const OVERHEAD: usize = 160;
/// Lives that one seal ends: it has to fit a frame.
pub(super) const MAX_ENDED: usize = 4_096;

/// A value with its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Which write this is.
    pub dot: Dot,
    /// What its writer had seen; of its own replica, only single writes.
    pub past: Seen,
    /// Of its own replica: the writes up to this one.
    pub own: u64,
    /// Lamport time of the write.
    pub lamport: u64,
    /// When it was written, by its replica's clock.
    pub at: Time,
    /// The value.
    pub value: Value,
}

impl Version {
    /// Lets its names share the memory of those of a clock.
    pub(super) fn intern(&mut self, names: &Clock) {
        names.intern(&mut self.dot.replica);
        self.past.intern(names);
    }

    /// Bytes that it takes, at most.
    pub(super) fn size(&self) -> usize {
        OVERHEAD + self.past.size() + self.value.text().len()
    }

    /// What its writer had seen, as a clock, and itself: what is shown as its vector clock.
    pub fn clock(&self) -> Clock {
        let mut clock = self.past.bound();
        clock.add(&self.dot);
        clock
    }

    /// Lets a client that is shown it have seen it, and what its writer had seen. The single writes are
    /// still to be settled.
    pub(super) fn tell(&self, seen: &mut Seen) {
        seen.clock.merge(&self.past.clock);
        seen.clock.raise(&self.dot.replica, self.own);
        seen.floor.merge(&self.past.floor);
        seen.extra.extend(self.past.extra.iter().chain([&self.dot]).cloned());
    }
}

/// A write, a delete or a seal ([`super::seal`]), as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Write {
    /// Which write.
    pub dot: Dot,
    /// What its writer had seen; of its own replica, only single writes.
    pub past: Seen,
    /// Of its own replica: the writes up to this one.
    pub own: u64,
    /// Lamport time.
    pub lamport: u64,
    /// When it was written, by its replica's clock.
    pub at: Time,
    /// The key.
    pub key: Arc<str>,
    /// Versions of the key that it replaces; of a seal, the last writes of the lives that it ends.
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

    pub(super) fn size(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| value.text().len());
        let replaces: usize = self.replaces.iter().map(|dot| 24 + dot.replica.len()).sum();
        OVERHEAD + self.key.len() + value + self.past.size() + replaces
    }

    /// Whether it is a seal.
    pub fn is_seal(&self) -> bool {
        name::is_sealer(&self.dot.replica)
    }

    /// Whether its writer had seen that, where these seals are known. Of its key, that is what it takes
    /// away: more than it names if a version was gone where it was made and is not yet gone where it
    /// arrives, because the delete is still on its way there.
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

/// Whether such a seal can have been made.
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

/// Puts the version to show first.
pub(super) fn sort(versions: &mut [Version]) {
    versions.sort_by(|one, other| {
        let by_time = other.lamport.cmp(&one.lamport);
        by_time.then_with(|| other.dot.cmp(&one.dot))
    });
}
