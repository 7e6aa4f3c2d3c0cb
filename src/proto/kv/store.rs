//! One replica of the store.
//!
//! A write takes the next dot of its replica, carries its causal past, and names the versions that
//! it replaces: those of its key that the writer had seen. It is applied once its past is here.
//! Until then it waits, within a bound; a write that found no room to wait, or was lost on the way,
//! is found by comparing contexts. The newest writes are kept in the order in which they were
//! applied, so that another replica gets just those that it lacks; one that lacks older ones gets
//! the whole store ([`super::snapshot`]). What must stay true: a write is never applied before its
//! past.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::clock::{Clock, Dot, MAX_COUNT, Replica, Seen};
use super::live::Live;
use super::name;
use super::seal::Seals;
use super::value::{Value, ValueError};
pub use super::write::{Version, Write};
use super::write::{key_size, size_of, sort};
use crate::proto::time::Time;

/// Longest key that replicas take from each other, characters. What clients may write is a setting
/// of each peer, and no greater: a replica that is set to less has to take what others are set to.
pub const MAX_KEY: usize = 1_024;
/// Not a key: over HTTP the whole store is read at its path.
pub const RESERVED_KEY: &str = "sync";
/// Most versions that may stand beside what a client writes: one answer shows all versions of a
/// key.
const MAX_SIBLINGS: usize = 256;
/// Most writes that may wait for their causal past, and most bytes of these.
const MAX_HELD: (usize, usize) = (4_096, 16 << 20);
/// Most writes kept for replicas that lack them, and most bytes of these.
const MAX_LOG: (usize, usize) = (16_384, 16 << 20);
/// A write that comes may be this much further in Lamport time than this replica. The writes that
/// its replica had seen and this one has not are fewer. A greater step is a lie, and followed it
/// would put an end to the order of versions for good: nothing is later than the greatest time.
const MAX_LEAP: u64 = 1 << 16;
/// So many writes are sent one by one even if few of their versions stand.
const MANY: usize = 512;

/// What the store did with a write from another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// These were applied, in this order: the write, and those that had waited for it.
    Applied(Vec<Arc<Write>>),
    /// It waits for its causal past.
    Held,
    /// It was seen before.
    Known,
    /// There is no room for it to wait; it comes again when contexts are compared.
    Dropped,
}

/// Why a write from another replica was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Its value is not a value, or not that of its `cid`.
    #[error("{0}")]
    Value(#[from] ValueError),
    /// Its key is too long.
    #[error("the key is longer than {MAX_KEY} characters")]
    Key,
    /// Its metadata is such as no replica makes.
    #[error("its metadata makes no sense")]
    Metadata,
    /// There is no room to count one more replica.
    #[error("there are too many replicas, or its name is too long")]
    Replica,
}

/// The last writes, for replicas that lack few.
#[derive(Clone, Debug)]
struct Log {
    writes: VecDeque<Arc<Write>>,
    /// Bytes that they take.
    size: usize,
    /// All writes that are in the context and not in this clock are in the log.
    from: Clock,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) me: Replica,
    pub(super) lamport: u64,
    /// The writes seen, without those for which the seals in it stand.
    pub(super) context: Clock,
    pub(super) seals: Seals,
    pub(super) versions: BTreeMap<Arc<str>, Vec<Version>>,
    /// The dots of these versions.
    pub(super) live: Live,
    /// Bytes that the keys and their versions take.
    pub(super) bytes: usize,
    held: BTreeMap<Dot, Arc<Write>>,
    held_size: usize,
    log: Log,
    /// Covers each delete that was seen. It may cover more, and is not kept on disk: where single
    /// writes are not told apart, it is all that was seen.
    pub(super) deletes: Clock,
}

impl Store {
    /// An empty replica named `me`.
    pub fn new(me: Replica) -> Self {
        Self::recovered(me, Clock::new(), 0, [], [])
    }

    /// A replica that had this on disk. Each of the seals comes after those that it rests on.
    pub fn recovered(
        me: Replica,
        mut context: Clock,
        lamport: u64,
        seals: impl IntoIterator<Item = Arc<Write>>,
        versions: impl IntoIterator<Item = (Arc<str>, Vec<Version>)>,
    ) -> Self {
        let mut kept = Seals::default();
        seals.into_iter().for_each(|seal| _ = kept.keep(&seal));
        kept.shorten(&mut context);
        let mut of: BTreeMap<Arc<str>, Vec<Version>> = versions.into_iter().collect();
        for versions in of.values_mut() {
            versions.iter_mut().for_each(|version| version.intern(&context));
            sort(versions);
        }
        let lamport = lamport.min(total(&context, &kept).saturating_add(MAX_LEAP));
        Self {
            me,
            lamport,
            log: Log { writes: VecDeque::new(), size: 0, from: context.clone() },
            deletes: context.clone(),
            context,
            seals: kept,
            live: of.values().flatten().map(|version| &version.dot).collect(),
            bytes: size_of(&of),
            versions: of,
            held: BTreeMap::new(),
            held_size: 0,
        }
    }

    /// The name of this replica.
    pub fn name(&self) -> &Replica {
        &self.me
    }

    /// From now on this replica writes under another name: others know of more writes than its disk
    /// does, so the next dots of the old name are taken.
    pub fn rename(&mut self, me: Replica) {
        self.me = me;
    }

    /// The writes that this replica has seen, without those for which its seals stand.
    pub fn context(&self) -> &Clock {
        &self.context
    }

    /// The seals that this replica has seen. A context need not name what they stand for.
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    /// Number of writes of a replica that have been seen.
    pub fn count(&self, replica: &str) -> u64 {
        match self.context.get(replica) {
            0 => self.seals.count(replica),
            count => count,
        }
    }

    /// Whether a write has been seen.
    pub fn has(&self, dot: &Dot) -> bool {
        dot.count <= self.count(&dot.replica)
    }

    /// Whether all that a clock names has been seen.
    pub fn covers(&self, clock: &Clock) -> bool {
        let mut counts = self.context.beside(clock);
        counts.all(|(replica, count, here)| here >= count || self.seals.count(replica) >= count)
    }

    /// Whether this replica has seen all that a client has.
    pub fn is_as_far_as(&self, seen: &Seen) -> bool {
        self.covers(&seen.clock)
            && self.covers(&seen.floor)
            && seen.extra.iter().all(|single| self.has(single))
    }

    /// Whether a replica with this context has all that this one has.
    pub fn is_covered_by(&self, context: &Clock) -> bool {
        self.seals.view(context).covers(&self.context)
    }

    /// Whether a replica with context `one` has all that a replica with context `other` has.
    pub fn is_as_far(&self, one: &Clock, other: &Clock) -> bool {
        self.seals.view(one).covers(other)
    }

    /// Whether a replica with this context has seen a write.
    pub fn is_known_with(&self, context: &Clock, dot: &Dot) -> bool {
        self.seals.view(context).contains(dot)
    }

    /// The context of this replica as told to one with context `theirs`. All that is named there is
    /// named here too, because that replica may not know the seal that stands for it.
    pub fn context_for(&self, theirs: &Clock) -> Clock {
        let named = self.context.beside(theirs).filter(|(_, _, here)| *here == 0);
        let ended = named.map(|(replica, ..)| (replica.clone(), self.seals.count(replica)));
        let context = self.context.joined(ended.filter(|(_, count)| *count > 0));
        if context.is_sane() { context } else { self.context.clone() }
    }

    /// The Lamport time.
    pub fn lamport(&self) -> u64 {
        self.lamport
    }

    /// Keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.versions.keys()
    }

    /// Keys and their versions, in order of key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &[Version])> {
        self.versions.iter().map(|(key, versions)| (key, versions.as_slice()))
    }

    /// The versions of a key, the one to show first: the greatest Lamport time, then the greatest
    /// name.
    pub fn get(&self, key: &str) -> &[Version] {
        self.versions.get(key).map_or(&[], Vec::as_slice)
    }

    /// What a client has seen once it is shown all versions of a key: these versions, what their
    /// writers had seen, and that others which it may have seen before are gone. A version that is
    /// gone was deleted, or replaced by one that stands or was deleted. So raising the floor to the
    /// deletes is enough, and nothing has to be kept for each key.
    pub fn seen_with(&self, key: &str, before: Option<&Seen>) -> Seen {
        let mut seen = before.cloned().unwrap_or_default();
        self.get(key).iter().for_each(|version| version.tell(&mut seen));
        seen.raise_floor(&self.deletes);
        self.keep_few(&mut seen, |dot| self.get(key).iter().any(|version| version.dot == *dot));
        self.keep_short(&mut seen);
        seen
    }

    /// Writes a value, as a client that has seen `seen`; without it, the client counts as having
    /// seen all that this replica has. Returns the write, which is applied here, and what the
    /// client has seen now.
    pub fn put(
        &mut self,
        now: Time,
        key: &str,
        value: Value,
        seen: Option<&Seen>,
    ) -> (Arc<Write>, Seen) {
        let (write, seen) = self.draft(now, key, Some(value), seen);
        self.commit(write, seen)
    }

    /// Whether this replica may write: only so many replicas can be counted.
    pub fn has_room_to_write(&self) -> bool {
        self.context.lets_write(&self.me)
    }

    /// Whether a client that has seen `seen` may write to a key: only so many versions may stand
    /// beside each other.
    pub fn has_room_for_sibling(&self, key: &str, seen: Option<&Seen>) -> bool {
        let unseen = |seen: &Seen| {
            let view = self.seals.view(&seen.clock);
            let is_seen = |dot: &Dot| view.contains(dot) || seen.extra.contains(dot);
            self.get(key).iter().filter(|version| !is_seen(&version.dot)).count()
        };
        seen.is_none_or(|seen| unseen(seen) < MAX_SIBLINGS)
    }

    /// Deletes the versions of a key that a client has seen. None if none of these is here.
    pub fn delete(
        &mut self,
        now: Time,
        key: &str,
        seen: Option<&Seen>,
    ) -> Option<(Arc<Write>, Seen)> {
        let is_seen = |version: &Version| {
            seen.is_none_or(|seen| {
                let view = self.seals.view(&seen.clock);
                view.contains(&version.dot) || seen.extra.contains(&version.dot)
            })
        };
        self.get(key).iter().any(is_seen).then(|| {
            let (write, seen) = self.draft(now, key, None, seen);
            self.commit(write, seen)
        })
    }

    /// The causal past of a relayed write with this clock. None unless the write is the next one of
    /// just one replica, or has been seen.
    pub(super) fn past_of(&self, clock: &Clock) -> Option<Clock> {
        let mut ahead = clock.iter().filter(|(name, count)| self.count(name) < *count);
        match (ahead.next(), ahead.next()) {
            (None, _) => Some(clock.clone()),
            (Some((name, count)), None)
                if self.count(name) + 1 == count && !name::is_sealer(name) =>
            {
                let mut past = clock.without(name);
                past.raise(name, count - 1);
                Some(past)
            }
            _ => None,
        }
    }

    /// Takes a write that a replica of another make relays with its own clock; none if it was here
    /// before. Such a write has no Lamport time. The sum of its clock serves as one: it grows with
    /// causality too, and is the same at every replica.
    pub(super) fn relayed(
        &mut self,
        now: Time,
        key: &str,
        value: Option<Value>,
        clock: &Clock,
    ) -> Option<Arc<Write>> {
        let (replica, count) = clock.iter().find(|(name, count)| self.count(name) < *count)?;
        let past = self.past_of(clock)?;
        let view = self.seals.view(&past);
        let stands = self.get(key).iter().filter(|version| view.contains(&version.dot));
        let write = Arc::new(Write {
            dot: Dot { replica: replica.clone(), count },
            replaces: stands.map(|version| version.dot.clone()).collect(),
            past: Seen::of(past.without(replica)),
            own: count - 1,
            lamport: clock
                .iter()
                .map(|(_, count)| count)
                .fold(0, u64::saturating_add)
                .min(MAX_COUNT),
            at: now,
            key: key.into(),
            value,
        });
        self.apply(&write);
        Some(write)
    }

    /// The next write of this replica, which is not applied yet, and what its client had seen.
    pub(super) fn draft(
        &self,
        now: Time,
        key: &str,
        value: Option<Value>,
        seen: Option<&Seen>,
    ) -> (Write, Seen) {
        let all = || Seen::of(self.context.clone());
        let mut seen = seen.cloned().unwrap_or_else(all);
        self.keep_short(&mut seen);
        let view = self.seals.view(&seen.clock);
        let is_seen = |dot: &Dot| view.contains(dot) || seen.extra.contains(dot);
        let replaced = self.get(key).iter().filter(|version| is_seen(&version.dot));
        let replaces: Vec<Dot> = replaced.map(|version| version.dot.clone()).collect();
        let own = view.count(&self.me);
        let past = Seen {
            clock: seen.clock.without(&self.me),
            extra: seen.extra.clone(),
            // A replica that has this write has all writes of this replica before it.
            floor: seen.floor.without(&self.me),
        };
        let count = self.count(&self.me) + 1;
        let write = Write {
            dot: Dot { replica: self.me.clone(), count },
            past,
            own,
            // Nobody would take a write with a greater time. Only the order of versions shown
            // suffers.
            lamport: self.lamport.saturating_add(1).min(MAX_COUNT),
            at: now,
            key: key.into(),
            replaces,
            value,
        };
        (write, seen)
    }

    /// Applies a draft, and returns with it what its client has seen now.
    pub(super) fn commit(&mut self, write: Write, mut seen: Seen) -> (Arc<Write>, Seen) {
        let write = Arc::new(write);
        self.apply(&write);
        // Whoever has this write has had those that it replaced, so they need no mention.
        seen.extra.retain(|single| !write.replaces.contains(single));
        seen.add([write.dot.clone()]);
        self.keep_few(&mut seen, |dot| *dot == write.dot);
        (write, seen)
    }

    /// Takes a write from another replica.
    ///
    /// # Errors
    ///
    /// If no replica can have made it, its value does not match its `cid`, or there is no room to
    /// count its replica.
    pub fn receive(&mut self, mut write: Arc<Write>) -> Result<Receipt, WriteError> {
        if let Some(write) = Arc::get_mut(&mut write) {
            self.context.intern(&mut write.dot.replica);
            write.past.intern(&self.context);
        }
        if write.key.chars().count() > MAX_KEY {
            return Err(WriteError::Key);
        }
        if !write.is_sane() {
            return Err(WriteError::Metadata);
        }
        if self.has(&write.dot) || self.held.contains_key(&write.dot) {
            return Ok(Receipt::Known);
        }
        // If a seal stood for this write, it would be known by now. So its replica needs an entry.
        if !self.context.has_room_for(&write.dot.replica) {
            return Err(WriteError::Replica);
        }
        if let Some(value) = &write.value {
            value.check()?;
        }
        if !self.is_next(&write) {
            let size = write.size();
            if self.held.len() >= MAX_HELD.0 || self.held_size + size > MAX_HELD.1 {
                return Ok(Receipt::Dropped);
            }
            self.held_size += size;
            self.held.insert(write.dot.clone(), write);
            return Ok(Receipt::Held);
        }
        if !self.is_honest(&write) {
            return Err(WriteError::Metadata);
        }
        self.apply(&write);
        let mut applied = vec![write];
        applied.extend(self.release());
        Ok(Receipt::Applied(applied))
    }

    /// Whether there is room for the replicas that a relayed write names beyond what has been seen.
    pub(super) fn has_room_for(&self, clock: &Clock) -> bool {
        let is_seen = |replica: &str, count| self.count(replica) >= count;
        clock.iter().all(|(name, count)| is_seen(name, count) || self.context.has_room_for(name))
    }

    /// Whether all that a write rests on is here.
    fn is_next(&self, write: &Write) -> bool {
        self.count(&write.dot.replica) + 1 == write.dot.count
            && self.is_as_far_as(&write.past)
            && (!write.is_seal() || write.replaces.iter().all(|last| self.has(last)))
    }

    /// Whether a write whose past is here replaces only what its writer had seen. A seal has to
    /// follow on the seals that it rests on.
    fn is_honest(&self, write: &Write) -> bool {
        if write.is_seal() {
            return self.seals.precede(write);
        }
        let past = self.seals.view(&write.past.clock);
        write.replaces.iter().all(|replaced| write.had_seen(|dot| past.contains(dot), replaced))
    }

    /// Applies the held writes whose past is here by now.
    pub(super) fn release(&mut self) -> Vec<Arc<Write>> {
        let mut applied = Vec::new();
        loop {
            let seen: Vec<Dot> = self
                .held
                .iter()
                .filter(|(dot, write)| self.has(dot) || self.is_next(write))
                .map(|(dot, _)| dot.clone())
                .collect();
            if seen.is_empty() {
                return applied;
            }
            for dot in seen {
                let Some(write) = self.held.remove(&dot) else { continue };
                self.held_size -= write.size();
                if self.is_next(&write) && self.is_honest(&write) {
                    self.apply(&write);
                    applied.push(write);
                }
            }
        }
    }

    pub(super) fn apply(&mut self, write: &Arc<Write>) {
        self.context.add(&write.dot);
        if write.is_seal() {
            self.apply_seal(write);
        } else {
            self.apply_to_key(write);
        }
        self.follow_lamport(write.lamport, 0);
        self.log.size += write.size();
        self.log.writes.push_back(write.clone());
        while (self.log.writes.len() > MAX_LOG.0 || self.log.size > MAX_LOG.1)
            && let Some(oldest) = self.log.writes.pop_front()
        {
            self.log.size -= oldest.size();
            self.log.from.add(&oldest.dot);
            if oldest.is_seal() {
                self.seals.shorten(&mut self.log.from);
            }
        }
    }

    fn apply_to_key(&mut self, write: &Write) {
        let past = self.seals.view(&write.past.clock);
        let versions = self.versions.entry(write.key.clone()).or_default();
        if versions.is_empty() {
            self.bytes += key_size(&write.key);
        }
        versions.retain(|version| {
            let stays = !write.had_seen(|dot| past.contains(dot), &version.dot);
            if !stays {
                self.live.remove(&version.dot);
                self.bytes -= version.size();
            }
            stays
        });
        if let Some(version) = write.version() {
            self.live.add(&version.dot);
            self.bytes += version.size();
            // Most keys have one version, but a vector that grows by itself begins with room for
            // four.
            versions.reserve_exact(1);
            versions.push(version);
            sort(versions);
        }
        if versions.is_empty() {
            self.versions.remove(&write.key);
            self.bytes -= key_size(&write.key);
        }
        if write.value.is_none() {
            self.deletes.add(&write.dot);
        }
    }

    /// The writes that a replica with this context lacks, in an order in which it can apply them.
    /// None if not all of them are kept, or if they are so many that a snapshot is less.
    pub fn since(&self, context: &Clock) -> Option<Vec<Arc<Write>>> {
        let theirs = self.seals.view(context);
        let reaches = theirs.covers(&self.log.from);
        let lacking = self.log.writes.iter().filter(|write| !theirs.contains(&write.dot));
        let lacking: Vec<Arc<Write>> = reaches.then(|| lacking.cloned().collect())?;
        (lacking.len() <= MANY.max(2 * self.versions.len())).then_some(lacking)
    }

    /// The latest logged writes that are not in a context, up to so many bytes, in an order in
    /// which they can be applied.
    pub(super) fn latest_beyond(&self, context: &Clock, bytes: usize) -> Vec<Arc<Write>> {
        let mut size = 0;
        let beyond = self.log.writes.iter().rev().filter(|write| !context.contains(&write.dot));
        let latest = beyond.take_while(|write| {
            size += write.size();
            size <= bytes
        });
        let mut latest: Vec<Arc<Write>> = latest.cloned().collect();
        latest.reverse();
        latest
    }

    /// Whether a write waits for others that have not come.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Forgets the log, because something other than single writes has changed the state: what
    /// others lack of it is not in the log.
    pub(super) fn forget_log(&mut self) {
        self.log.writes.clear();
        self.log.size = 0;
        self.log.from = self.context.clone();
    }

    /// Raises `deletes` to the context: a snapshot just taken over may have had deletes anywhere in
    /// it.
    pub(super) fn not_told_apart(&mut self) {
        self.deletes = self.context.clone();
    }

    /// Takes one more step in Lamport time. Nobody would take a write with a greater time than the
    /// greatest; where that was reached, only the order of versions shown suffers.
    pub(super) fn step_lamport(&mut self) {
        self.lamport = self.lamport.saturating_add(1).min(MAX_COUNT);
    }

    /// Follows to a later Lamport time, by a leap or to the time that so many writes account for.
    fn follow_lamport(&mut self, lamport: u64, writes: u64) {
        let limit = self.lamport.saturating_add(MAX_LEAP).max(writes);
        self.lamport = self.lamport.max(lamport.min(limit)).min(MAX_COUNT);
    }

    /// Follows to the Lamport time of a snapshot, if the writes seen by now account for it.
    pub(super) fn raise_lamport(&mut self, lamport: u64) {
        self.follow_lamport(lamport, total(&self.context, &self.seals));
    }
}

/// Number of writes that a clock names, and the seals in it: no Lamport time is greater, because
/// each write is at most one step beyond what its replica had seen.
fn total(context: &Clock, seals: &Seals) -> u64 {
    context.iter().map(|(_, count)| count).fold(seals.total(), u64::saturating_add)
}

#[cfg(test)]
mod tests;
