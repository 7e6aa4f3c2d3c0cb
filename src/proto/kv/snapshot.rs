//! What a replica lacks of the store, when it is more than the log holds.
//!
//! The two states are merged as optimised OR-sets: a version that one side does not hold stays only
//! if that side has never seen it; if it has seen it, it was overwritten or deleted there. So a
//! replica that asks says what it has seen. It gets the versions beyond that; and of all others
//! only which of them still stand, as runs of numbers, so that only the difference moves. What must
//! stay true: a snapshot is all of one moment, and is taken over as a whole, so that nothing is
//! ever shown without its causal past.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::clock::{Clock, Dot, MAX_COUNT, Replica};
use super::seal::View;
use super::store::{MAX_KEY, Store, Version, Write, WriteError};
use super::write::{size_of, sort};
use crate::proto::gossip::runs;
use crate::proto::message::Runs;

/// The state of a replica at one moment, without versions that the receiver holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The writes that it had seen.
    pub context: Clock,
    /// Its Lamport time.
    pub lamport: u64,
    /// Seals that the receiver has not seen, each after those that it rests on.
    pub seals: Vec<Arc<Write>>,
    /// Writes that the receiver has seen and whose versions stand, by replica.
    pub standing: Vec<(Replica, Runs)>,
    /// Keys in order, each with its versions that the receiver has not seen.
    pub versions: Vec<(Arc<str>, Vec<Version>)>,
}

/// What taking over a snapshot changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Keys whose versions have changed.
    pub changed: Vec<Arc<str>>,
    /// Seals that were not here before.
    pub seals: Vec<Arc<Write>>,
}

impl Snapshot {
    /// A version by its place: that of its key, then its own among the versions of the key.
    pub(super) fn version(&self, (key, place): (usize, usize)) -> Option<(&Arc<str>, &Version)> {
        let (key, of) = self.versions.get(key)?;
        Some((key, of.get(place)?))
    }

    /// The place that follows a place.
    pub(super) fn after(&self, (key, place): (usize, usize)) -> (usize, usize) {
        let is_last = self.versions.get(key).is_none_or(|(_, of)| place + 1 >= of.len());
        if is_last { (key + 1, 0) } else { (key, place + 1) }
    }

    /// Whether all that it holds, and all that this rests on, had been seen by its replica. `seals`
    /// are those that the receiver lacks.
    fn is_whole(&self, seen: &View<'_>, seals: &[Arc<Write>]) -> bool {
        let is_whole =
            |version: &Version| seen.contains(&version.dot) && seen.includes(&version.past);
        let ends = seals.iter().flat_map(|seal| &seal.replaces);
        self.versions.iter().flat_map(|(_, of)| of).all(is_whole)
            && ends.chain(seals.iter().map(|seal| &seal.dot)).all(|dot| seen.contains(dot))
    }

    /// Whether a replica can have this state. A snapshot from the network may be anything.
    pub fn is_sane(&self) -> bool {
        let Self { context, lamport, seals, standing, versions } = self;
        let is_sane = |version: &Version| {
            version.dot.is_sane()
                && version.past.is_sane()
                && version.lamport <= MAX_COUNT
                && version.value.check().is_ok()
        };
        context.is_sane()
            && *lamport <= MAX_COUNT
            && seals.iter().all(|seal| seal.is_seal() && seal.is_sane())
            && standing.iter().all(|(_, of)| runs::is_sane(of))
            && versions
                .iter()
                .all(|(key, of)| key.chars().count() <= MAX_KEY && of.iter().all(is_sane))
    }
}

fn stands(standing: &BTreeMap<&str, &Runs>, dot: &Dot) -> bool {
    standing.get(&*dot.replica).is_some_and(|of| {
        let after = of.partition_point(|(first, _)| *first <= dot.count);
        let before = after.checked_sub(1).and_then(|place| of.get(place));
        before.is_some_and(|(first, many)| dot.count - first < *many)
    })
}

impl Store {
    /// The state of this moment, for a replica that has seen `seen`. Values are shared, not copied.
    pub fn snapshot(&self, seen: &Clock) -> Snapshot {
        let seals = self.seals.writes(&self.seals.beyond(seen));
        Snapshot { seals, ..self.snapshot_without_seals(seen) }
    }

    /// The state of this moment without the seals, which may be many.
    pub fn snapshot_without_seals(&self, seen: &Clock) -> Snapshot {
        let mut standing: BTreeMap<&Replica, Vec<u64>> = BTreeMap::new();
        let mut versions = Vec::new();
        let theirs = self.seals.view(seen);
        for (key, of) in &self.versions {
            let (known, news): (Vec<_>, Vec<_>) = of.iter().partition(|v| theirs.contains(&v.dot));
            for Version { dot, .. } in known {
                standing.entry(&dot.replica).or_default().push(dot.count);
            }
            if !news.is_empty() {
                versions.push((key.clone(), news.into_iter().cloned().collect()));
            }
        }
        let gathered = standing.into_iter().map(|(replica, mut counts)| {
            counts.sort_unstable();
            (replica.clone(), runs::gather(counts))
        });
        Snapshot {
            context: self.context.clone(),
            lamport: self.lamport(),
            seals: Vec::new(),
            standing: gathered.collect(),
            versions,
        }
    }

    /// Takes over what another replica had.
    ///
    /// # Errors
    ///
    /// If no replica can have had that, because something that it rests on is missing; or if the
    /// replicas that both sides count are more than fit. Nothing is taken over then.
    pub fn merge(&mut self, snapshot: Snapshot) -> Result<Merged, WriteError> {
        let mut merged = Merged::default();
        if self.covers(&snapshot.context) {
            return Ok(merged);
        }
        let mut seals = Cow::Borrowed(&self.seals);
        merged.seals = snapshot.seals.iter().filter(|seal| !self.has(&seal.dot)).cloned().collect();
        let lamport = merged.seals.iter().map(|seal| seal.lamport).fold(snapshot.lamport, u64::max);
        if !merged.seals.iter().all(|seal| seals.to_mut().keep(seal))
            || !seals.knows(&snapshot.context)
        {
            return Err(WriteError::Metadata);
        }
        let mut both = self.context.clone();
        both.merge(&snapshot.context);
        seals.shorten(&mut both);
        if !both.is_sane() {
            return Err(WriteError::Replica);
        }
        let (ours, theirs) = (seals.view(&self.context), seals.view(&snapshot.context));
        if !snapshot.is_whole(&theirs, &merged.seals)
            || self.would_lose(&snapshot, &theirs) > self.unseen(&snapshot)
        {
            return Err(WriteError::Metadata);
        }
        merged.changed = merge_versions(
            &mut self.versions,
            snapshot.versions,
            &snapshot.standing,
            &snapshot.context,
            (&ours, &theirs),
        );
        // All keys were looked at just now, so they may be counted anew as well.
        self.live = self.versions.values().flatten().map(|version| &version.dot).collect();
        self.bytes = size_of(&self.versions);
        self.context = both;
        if let Cow::Owned(seals) = seals {
            self.seals = seals;
        }
        self.not_told_apart();
        self.raise_lamport(lamport);
        self.forget_log();
        self.release_into(&mut merged);
        Ok(merged)
    }

    /// Applies the writes that had waited for something in a snapshot. They change keys, too, and
    /// have to be kept with the rest.
    fn release_into(&mut self, merged: &mut Merged) {
        let (released, keys): (Vec<_>, Vec<_>) =
            self.release().into_iter().partition(|write| write.is_seal());
        merged.seals.extend(released);
        merged.changed.extend(keys.iter().map(|write| write.key.clone()));
        merged.changed.sort();
        merged.changed.dedup();
    }
}

impl Store {
    /// Number of writes that a snapshot names and that have not been seen here, those of ended
    /// lives included.
    fn unseen(&self, snapshot: &Snapshot) -> u64 {
        let named = snapshot.context.iter();
        let ended = snapshot.seals.iter().flat_map(|seal| &seal.replaces);
        let all = named.chain(ended.map(|last| (&last.replica, last.count)));
        let unseen = all.map(|(replica, count)| count.saturating_sub(self.count(replica)));
        unseen.fold(0, u64::saturating_add)
    }

    /// Number of keys that would lose a version by a snapshot. Each of them was written or deleted
    /// there by a write that has not been seen here, and a write is of one key. So they cannot be
    /// more than such writes: nobody empties a store by saying that it has seen all and holds
    /// nothing.
    fn would_lose(&self, snapshot: &Snapshot, theirs: &View<'_>) -> u64 {
        let standing = by_replica(&snapshot.standing);
        let news: BTreeMap<&str, &[Version]> =
            snapshot.versions.iter().map(|(key, of)| (&**key, of.as_slice())).collect();
        let loses = |(key, of): &(&Arc<str>, &[Version])| {
            let news = news.get(&***key).copied().unwrap_or_default();
            of.iter().any(|version| !stays(theirs, &standing, news, &version.dot))
        };
        self.iter().filter(loses).count() as u64
    }
}

fn by_replica(standing: &[(Replica, Runs)]) -> BTreeMap<&str, &Runs> {
    standing.iter().map(|(replica, runs)| (&**replica, runs)).collect()
}

/// Whether a version that is held here stays when a snapshot is taken over that has `news` of its
/// key.
fn stays(theirs: &View<'_>, standing: &BTreeMap<&str, &Runs>, news: &[Version], dot: &Dot) -> bool {
    !theirs.contains(dot) || stands(standing, dot) || news.iter().any(|version| version.dot == *dot)
}

/// Takes over versions not seen here, and drops those that the other replica has seen and does not
/// hold any more. Returns the keys that have changed.
fn merge_versions(
    held: &mut BTreeMap<Arc<str>, Vec<Version>>,
    news: Vec<(Arc<str>, Vec<Version>)>,
    standing: &[(Replica, Runs)],
    context: &Clock,
    (ours, theirs): (&View<'_>, &View<'_>),
) -> Vec<Arc<str>> {
    let mut changed = Vec::new();
    let standing = by_replica(standing);
    let mut news: BTreeMap<Arc<str>, Vec<Version>> = news.into_iter().collect();
    for (key, versions) in &mut *held {
        let news = news.remove(key).unwrap_or_default();
        let before: Vec<Dot> = versions.iter().map(|version| version.dot.clone()).collect();
        versions.retain(|version| stays(theirs, &standing, &news, &version.dot));
        versions.extend(news.into_iter().filter(|version| !ours.contains(&version.dot)));
        sort(versions);
        if !versions.iter().map(|version| &version.dot).eq(before.iter()) {
            changed.push(key.clone());
        }
    }
    held.retain(|_, versions| !versions.is_empty());
    for (key, mut versions) in news {
        versions.retain(|version| !ours.contains(&version.dot));
        if !versions.is_empty() {
            versions.iter_mut().for_each(|version| version.intern(context));
            sort(&mut versions);
            versions.shrink_to_fit();
            changed.push(key.clone());
            held.insert(key, versions);
        }
    }
    changed
}
