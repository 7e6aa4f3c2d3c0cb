//! The whole store, for a replica that lacks more than the log holds.
//!
//! Both states are merged as optimised OR-sets: a version that one side does
//! not hold stays only if that side has never seen it; if it has seen it, it was
//! overwritten or deleted there. What must stay true: a snapshot is of one
//! moment, and is taken over as a whole, so that nothing is ever shown without
//! its causal past.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clock::{Clock, Dot};
use super::store::{Store, Version, sort};

/// The state of a replica at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What it had seen.
    pub context: Clock,
    /// Its Lamport time.
    pub lamport: u64,
    /// Keys and versions, in order of key.
    pub versions: Vec<(Arc<str>, Vec<Version>)>,
}

/// What taking over a snapshot changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Keys whose versions are others now.
    pub changed: Vec<Arc<str>>,
}

impl Store {
    /// The state of this moment. Values are shared, not copied.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            context: self.context.clone(),
            lamport: self.lamport(),
            versions: self.versions.iter().map(|(key, of)| (key.clone(), of.clone())).collect(),
        }
    }

    /// Takes over what another replica had.
    pub fn merge(&mut self, snapshot: Snapshot) -> Merged {
        let mut merged = Merged::default();
        if self.context.covers(&snapshot.context) {
            return merged;
        }
        let theirs: BTreeMap<Arc<str>, Vec<Version>> = snapshot.versions.into_iter().collect();
        let keys: BTreeSet<Arc<str>> = self.versions.keys().chain(theirs.keys()).cloned().collect();
        for key in keys {
            let ours = self.versions.remove(&key).unwrap_or_default();
            let theirs = theirs.get(&key).map_or(&[][..], Vec::as_slice);
            let before: Vec<Dot> = ours.iter().map(|version| version.dot.clone()).collect();
            let holds = |dot: &Dot| theirs.iter().any(|version| version.dot == *dot);
            let mut versions = ours;
            versions.retain(|v| holds(&v.dot) || !snapshot.context.contains(&v.dot));
            let news = theirs.iter().filter(|v| !self.context.contains(&v.dot));
            versions.extend(news.cloned());
            sort(&mut versions);
            if !versions.iter().map(|version| &version.dot).eq(before.iter()) {
                merged.changed.push(key.clone());
            }
            if !versions.is_empty() {
                self.versions.insert(key, versions);
            }
        }
        self.context.merge(&snapshot.context);
        self.raise_lamport(snapshot.lamport);
        self.forget_log();
        // What had waited for a part of it changes keys, too, and has to be kept with the rest.
        let released = self.release();
        merged.changed.extend(released.iter().map(|write| write.key.clone()));
        merged.changed.sort();
        merged.changed.dedup();
        merged
    }
}
