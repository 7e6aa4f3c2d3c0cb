//! How a replica gets what it lacks from another one, when that is more than the log holds: part by
//! part, over one link at a time ([`super::snapshot`]).
//!
//! What must stay true: parts of two moments, or of two questions, are never
//! put together, and none is missing; what is fetched is taken over as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Replica};
use super::message::FRAME;
use super::snapshot::Snapshot;
use super::store::{Store, Version};
use crate::proto::machine::Conn;
use crate::proto::message::{Runs, StoreSync};
use crate::proto::time::Time;
/// Bytes of a run of numbers in a frame, roughly.
const RUN_BYTES: usize = 8;
/// A snapshot that does not go on for so long is given up.
pub(super) const FETCH_PATIENCE: Duration = Duration::from_secs(10);
/// A snapshot is not begun twice over one link within this time: making one takes a look at all keys.
const BEGIN_AGAIN: Duration = Duration::from_millis(500);
/// Snapshots served at the same time: each holds on to the state of its moment.
const MAX_SERVED: usize = 2;

#[derive(Debug)]
struct Fetching {
    from: Conn,
    round: u64,
    parts: u64,
    snapshot: Snapshot,
}

#[derive(Debug)]
struct Serving {
    round: u64,
    snapshot: Arc<Snapshot>,
    parts: u64,
    /// Seals that are still to be sent, by number.
    seals: VecDeque<u32>,
    /// What is still to be said of versions that the other side holds.
    standing: VecDeque<(Replica, Runs)>,
    /// The key and the version that come next.
    next: (usize, usize),
    /// When the other side last asked for more.
    asked: Time,
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    fetching: Option<Fetching>,
    rounds: u64,
    serving: BTreeMap<Conn, Serving>,
    /// When the last snapshot was begun over a link.
    begun: BTreeMap<Conn, Time>,
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

    /// What is being fetched does not come on.
    pub fn give_up(&mut self) {
        self.fetching = None;
    }

    /// Whether one more may be served; who has not asked for more in a while has given up, and who has
    /// just begun does not begin again.
    fn has_room(&mut self, now: Time, conn: Conn) -> bool {
        self.serving.retain(|_, serving| now.since(serving.asked) < FETCH_PATIENCE);
        self.begun.retain(|_, at| now.since(*at) < BEGIN_AGAIN);
        let has_room = self.serving.len() < MAX_SERVED || self.serving.contains_key(&conn);
        has_room && !self.begun.contains_key(&conn)
    }
}

/// What became of a part.
#[derive(Debug)]
pub(super) enum Heard {
    /// It is of nothing that is being fetched.
    Nothing,
    /// Nothing is being fetched any more: all of it is here, or a part before this one is missing and
    /// it will be offered again.
    Ended,
    /// The next part is to be asked for.
    More(StoreSync),
    /// It was the last one.
    Whole(Snapshot),
}

impl Transfers {
    /// Another replica offers all that it has: asks for what a replica that has seen this lacks, unless
    /// something is being fetched.
    pub fn fetch(&mut self, conn: Conn, seen: &Clock) -> Option<StoreSync> {
        if self.fetching.is_some() {
            return None;
        }
        self.rounds += 1;
        let (round, snapshot) = (self.rounds, Snapshot::default());
        self.fetching = Some(Fetching { from: conn, round, parts: 0, snapshot });
        Some(StoreSync::SnapshotAsk { round, seen: Some(seen.clone()) })
    }

    /// The first part of what a replica that has seen this lacks, or with none the next one; none if
    /// nothing of that number is being served, or no more can be: it asks again with the next comparison.
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
            let (parts, next, asked) = (0, (0, 0), now);
            let serving = Serving { round, snapshot, parts, seals, standing, next, asked };
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

    /// Whether that is of what is being fetched.
    pub fn is_fetching(&self, conn: Conn, round: u64) -> bool {
        let fetching = self.fetching.as_ref();
        fetching.is_some_and(|fetching| (fetching.from, fetching.round) == (conn, round))
    }

    /// A part of what is being fetched: its number, what it holds, and whether more follow. `covered` if
    /// all that it tells of is here: the other side could not tell, as it did not know a seal, or it has
    /// come in between.
    pub fn hear_part(&mut self, number: u64, part: Snapshot, more: bool, covered: bool) -> Heard {
        let Some(fetching) = self.fetching.as_mut() else { return Heard::Nothing };
        if covered || number != fetching.parts {
            // Without the one before it would be half of a moment.
            self.fetching = None;
            return Heard::Ended;
        }
        fetching.parts += 1;
        fetching.snapshot.context = part.context;
        fetching.snapshot.lamport = part.lamport;
        fetching.snapshot.seals.extend(part.seals);
        for (replica, runs) in part.standing {
            // Those of one replica may come in several parts, in order.
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

impl Serving {
    /// Whether all parts have been made.
    fn is_over(&self) -> bool {
        self.snapshot.version(self.next).is_none()
            && self.standing.is_empty()
            && self.seals.is_empty()
    }

    /// The next part, and moves on.
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
        // Version by version: those of one key may be more than a frame holds.
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

/// Adds versions of a key, which may have some already at the end.
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

/// Parts that fit a frame, in order.
fn split_runs(standing: Vec<(Replica, Runs)>) -> VecDeque<(Replica, Runs)> {
    let parts = standing.into_iter().flat_map(|(replica, runs)| {
        let parts = runs.chunks(FRAME / RUN_BYTES).map(<[_]>::to_vec).collect::<Vec<Runs>>();
        parts.into_iter().map(move |part| (replica.clone(), part))
    });
    parts.collect()
}
