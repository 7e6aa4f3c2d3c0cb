//! How a replica gets what it lacks from another one, when that is more than the log holds: part by
//! part, over one link at a time ([`super::snapshot`]).
//!
//! What must stay true: parts of two moments, or of two questions, are never put together; no part
//! is missing; what is fetched is taken over as a whole; and it is never more than it says that it
//! is, or than any replica holds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Replica};
use super::message::FRAME;
use super::seal::ENDED_BYTES;
use super::snapshot::Snapshot;
use super::store::{Store, Version};
use crate::proto::machine::Conn;
use crate::proto::message::{Runs, StoreSync};
use crate::proto::time::Time;

/// Bytes of a run of numbers in a frame, roughly.
const RUN_BYTES: usize = 8;
/// A snapshot of which no part was sent or asked for in so long is given up.
pub(super) const FETCH_PATIENCE: Duration = Duration::from_secs(10);
/// A snapshot is not begun twice over one link within this time: making one looks at all keys.
const BEGIN_AGAIN: Duration = Duration::from_millis(500);
/// Most snapshots served at the same time: each holds on to the state of its moment.
const MAX_SERVED: usize = 2;
/// Most bytes of one snapshot. A replica holds all of its store in memory, so none has more.
const MAX_FETCHED: u64 = 8 << 30;
/// Parts that may be small whatever they hold together, and parts beyond those for each frame of
/// bytes. Two parts that follow on each other hold more than one frame. Whoever sends crumbs, or
/// nothing at all, could otherwise keep a replica fetching for ever.
const PARTS: (u64, u64) = (16, 4);
/// After this long, what moves more slowly than so many bytes a second gives way to another
/// neighbour that offers or asks: one that is slow on purpose must not keep the others out.
const SLOW: (Duration, u64) = (Duration::from_secs(30), 64 << 10);

#[derive(Debug)]
struct Fetching {
    from: Conn,
    round: u64,
    parts: u64,
    snapshot: Snapshot,
    began: Time,
    /// What had been seen here when it began.
    seen: Clock,
    bytes: u64,
    versions: u64,
    /// Number of writes beyond `seen` that the snapshot names.
    writes: u64,
}

#[derive(Debug)]
struct Serving {
    round: u64,
    snapshot: Arc<Snapshot>,
    parts: u64,
    /// Seals that are still to be sent, by number.
    seals: VecDeque<u32>,
    /// What is still to be sent of versions that the other side holds and that stand.
    standing: VecDeque<(Replica, Runs)>,
    /// Places of the key and the version that come next.
    next: (usize, usize),
    began: Time,
    /// When the other side last asked for more.
    asked: Time,
}

/// The transfers under way.
#[derive(Debug)]
pub(super) struct Transfers {
    fetching: Option<Fetching>,
    /// Most bytes of one snapshot.
    pub limit: u64,
    rounds: u64,
    serving: BTreeMap<Conn, Serving>,
    /// When the last snapshot was begun over a link.
    begun: BTreeMap<Conn, Time>,
}

impl Default for Transfers {
    fn default() -> Self {
        let (serving, begun) = (BTreeMap::new(), BTreeMap::new());
        Self { fetching: None, limit: MAX_FETCHED, rounds: 0, serving, begun }
    }
}

impl Transfers {
    /// A link is gone; true if something was being fetched over it.
    pub fn link_down(&mut self, conn: Conn) -> bool {
        self.serving.remove(&conn);
        self.begun.remove(&conn);
        let fetched = self.fetching.as_ref().is_some_and(|fetching| fetching.from == conn);
        if fetched {
            self.fetching = None;
        }
        fetched
    }

    /// Gives up the snapshot being fetched.
    pub fn give_up(&mut self) {
        self.fetching = None;
    }

    /// Whether one more snapshot may be served. A replica that has not asked for more in a while
    /// has given up, and one that has just begun does not begin again.
    fn has_room(&mut self, now: Time, conn: Conn) -> bool {
        self.serving.retain(|_, serving| now.since(serving.asked) < FETCH_PATIENCE);
        self.begun.retain(|_, at| now.since(*at) < BEGIN_AGAIN);
        if self.serving.len() >= MAX_SERVED {
            self.serving.retain(|_, serving| !serving.is_slow(now));
        }
        let has_room = self.serving.len() < MAX_SERVED || self.serving.contains_key(&conn);
        has_room && !self.begun.contains_key(&conn)
    }
}

/// What came of a part.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing is being fetched.
    Nothing,
    /// The fetch has ended: all of the snapshot is here already, or a part before this one is
    /// missing. In that case it will be offered again.
    Ended,
    /// It is no part of a snapshot that any replica can have, for this reason.
    Nonsense(&'static str),
    /// The next part has to be asked for, with this.
    More(StoreSync),
    /// It was the last part; this is the whole snapshot.
    Whole(Snapshot),
}

impl Transfers {
    /// Another replica offers all that it has. Returns a question for what a replica that has seen
    /// `seen` lacks, unless something is being fetched.
    pub fn fetch(&mut self, now: Time, conn: Conn, seen: &Clock) -> Option<StoreSync> {
        let gives_way = |fetching: &Fetching| fetching.from != conn && fetching.is_slow(now);
        if !self.fetching.as_ref().is_none_or(gives_way) {
            return None;
        }
        self.rounds += 1;
        let (round, snapshot) = (self.rounds, Snapshot::default());
        self.fetching = Some(Fetching {
            from: conn,
            round,
            parts: 0,
            snapshot,
            began: now,
            seen: seen.clone(),
            bytes: 0,
            versions: 0,
            writes: 0,
        });
        Some(StoreSync::SnapshotAsk { round, seen: Some(seen.clone()) })
    }

    /// The first part of what a replica that has seen `seen` lacks; without `seen`, the next part.
    /// None if nothing of this round is being served, or no more can be: the replica asks again
    /// after the next comparison.
    pub fn serve(
        &mut self,
        store: &Store,
        now: Time,
        (conn, round): (Conn, u64),
        seen: Option<Clock>,
    ) -> Option<StoreSync> {
        if let Some(seen) = seen {
            if !self.has_room(now, conn) {
                return None;
            }
            let mut snapshot = store.snapshot_without_seals(&seen);
            let seals = store.seals().beyond(&seen).into();
            let standing = split_runs(std::mem::take(&mut snapshot.standing));
            let snapshot = Arc::new(snapshot);
            let (parts, next, began, asked) = (0, (0, 0), now, now);
            let serving = Serving { round, snapshot, parts, seals, standing, next, began, asked };
            self.serving.insert(conn, serving);
            self.begun.insert(conn, now);
        }
        let serving = self.serving.get_mut(&conn).filter(|serving| serving.round == round)?;
        serving.asked = now;
        let message = serving.next_part(store);
        if serving.is_over() {
            self.serving.remove(&conn);
        }
        Some(message)
    }

    /// Whether a part of this round over this link belongs to the snapshot being fetched.
    pub fn is_fetching(&self, conn: Conn, round: u64) -> bool {
        let fetching = self.fetching.as_ref();
        fetching.is_some_and(|fetching| (fetching.from, fetching.round) == (conn, round))
    }

    /// Takes in a part: its number, what it holds, and whether more follow.
    pub fn hear_part(&mut self, store: &Store, number: u64, part: Snapshot, more: bool) -> Heard {
        let Some(fetching) = self.fetching.as_mut() else { return Heard::Nothing };
        // All of it may have been seen here: the other side did not know a seal and so could not
        // tell, or the writes came meanwhile. And without the part before it, the snapshot would be
        // half of a moment.
        if store.covers(&part.context) || number != fetching.parts {
            self.fetching = None;
            return Heard::Ended;
        }
        if let Some(reason) = fetching.objection(&part, self.limit) {
            return Heard::Nonsense(reason);
        }
        fetching.snapshot.context = part.context;
        fetching.snapshot.lamport = part.lamport;
        fetching.snapshot.seals.extend(part.seals);
        for (replica, runs) in part.standing {
            // Runs of one replica may come in several parts, in order.
            match fetching.snapshot.standing.last_mut() {
                Some((last, before)) if *last == replica => before.extend(runs),
                _ => fetching.snapshot.standing.push((replica, runs)),
            }
        }
        for (key, versions) in part.versions {
            push(&mut fetching.snapshot.versions, key, versions);
        }
        if more {
            return Heard::More(StoreSync::SnapshotAsk { round: fetching.round, seen: None });
        }
        let whole = self.fetching.take();
        whole.map_or(Heard::Nothing, |fetching| Heard::Whole(fetching.snapshot))
    }
}

impl Fetching {
    /// Whether it has come so slowly that another neighbour may have its turn.
    fn is_slow(&self, now: Time) -> bool {
        is_slow(now.since(self.began), self.bytes)
    }

    /// Counts one more part. Says why no replica can have sent it, if none can.
    fn objection(&mut self, part: &Snapshot, limit: u64) -> Option<&'static str> {
        if self.parts == 0 {
            let unseen = |(name, count): (&Replica, u64)| count.saturating_sub(self.seen.get(name));
            self.writes = part.context.iter().map(unseen).fold(0, u64::saturating_add);
        } else if part.context != self.snapshot.context {
            return Some("its parts are of two moments");
        }
        let ended = part.seals.iter().flat_map(|seal| &seal.replaces).map(|last| last.count);
        self.writes = ended.fold(self.writes, u64::saturating_add);
        let versions = part.versions.iter().map(|(_, of)| of.len() as u64);
        self.versions = versions.fold(self.versions, u64::saturating_add);
        self.bytes = self.bytes.saturating_add(size(part));
        self.parts += 1;
        let (few, a_frame) = PARTS;
        if self.versions > self.writes {
            Some("it has more versions than it names writes")
        } else if self.parts > few + a_frame * (self.bytes / FRAME as u64) {
            Some("its parts are crumbs")
        } else {
            (self.bytes > limit).then_some("it is larger than any store may be")
        }
    }
}

/// Bytes that a part takes, counted as its sender counts them.
fn size(part: &Snapshot) -> u64 {
    let seals = part.seals.iter().map(|seal| seal.replaces.len() * ENDED_BYTES);
    let standing = part.standing.iter();
    let standing = standing.map(|(replica, runs)| RUN_BYTES * (runs.len() + replica.len()));
    let versions = |(key, of): &(Arc<str>, Vec<Version>)| {
        of.iter().map(|version| key.len() + version.size()).sum()
    };
    let all = seals.chain(standing).chain(part.versions.iter().map(versions));
    all.fold(0, |sum: u64, size: usize| sum.saturating_add(size as u64))
}

/// Whether so many bytes in this time are too few.
fn is_slow(since: Duration, bytes: u64) -> bool {
    let (from, pace) = SLOW;
    since >= from && bytes < since.as_secs().saturating_mul(pace)
}

impl Serving {
    /// Whether it is asked for so slowly that another replica may have its turn.
    fn is_slow(&self, now: Time) -> bool {
        is_slow(now.since(self.began), self.parts.saturating_mul(FRAME as u64))
    }

    /// Whether all parts have been made.
    fn is_over(&self) -> bool {
        self.snapshot.version(self.next).is_none()
            && self.standing.is_empty()
            && self.seals.is_empty()
    }

    /// Makes the next part and moves on.
    fn next_part(&mut self, store: &Store) -> StoreSync {
        let snapshot = self.snapshot.clone();
        let (mut seals, mut standing, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut size = 0;
        while size < FRAME
            && let Some(seal) = self.seals.pop_front()
        {
            size += store.seals().size(seal);
            seals.push(seal);
        }
        let seals = store.seals().writes(&seals);
        while size < FRAME
            && let Some((replica, runs)) = self.standing.pop_front()
        {
            size += RUN_BYTES * (runs.len() + replica.len());
            standing.push((replica, runs));
        }
        // Add version by version: the versions of one key may be more than a frame holds.
        while size < FRAME
            && let Some((key, version)) = snapshot.version(self.next)
        {
            let bytes = key.len() + version.size();
            // A frame holds one value of any length, or many small ones.
            if size > 0 && size + bytes > FRAME {
                break;
            }
            size += bytes;
            push(&mut entries, key.clone(), [version.clone()]);
            self.next = snapshot.after(self.next);
        }
        let (round, part, more) = (self.round, self.parts, !self.is_over());
        self.parts += 1;
        let (context, lamport) = (snapshot.context.clone(), snapshot.lamport);
        StoreSync::SnapshotPart { round, part, context, lamport, seals, standing, entries, more }
    }
}

/// Adds versions of a key, of which the last entry may hold some already.
fn push(
    entries: &mut Vec<(Arc<str>, Vec<Version>)>,
    key: Arc<str>,
    versions: impl IntoIterator<Item = Version>,
) {
    match entries.last_mut() {
        Some((last, before)) if *last == key => before.extend(versions),
        _ => entries.push((key, versions.into_iter().collect())),
    }
}

/// Cuts runs into pieces that fit a frame, in order.
fn split_runs(standing: Vec<(Replica, Runs)>) -> VecDeque<(Replica, Runs)> {
    let parts = standing.into_iter().flat_map(|(replica, runs)| {
        let parts = runs.chunks(FRAME / RUN_BYTES).map(<[_]>::to_vec).collect::<Vec<Runs>>();
        parts.into_iter().map(move |part| (replica.clone(), part))
    });
    parts.collect()
}
