//! How a replica gets what it lacks from another one, when that is more than the log holds: part by
//! part, over one link at a time ([`super::snapshot`]).
//!
//! What must stay true: parts of two moments, or of two questions, are never put together; no part
//! is missing; and what is fetched is taken over as a whole.

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
/// A snapshot of which no part was sent or asked for in so long is given up.
pub(super) const FETCH_PATIENCE: Duration = Duration::from_secs(10);
/// A snapshot is not begun twice over one link within this time: making one looks at all keys.
const BEGIN_AGAIN: Duration = Duration::from_millis(500);
/// Most snapshots served at the same time: each holds on to the state of its moment.
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
    /// What is still to be sent of versions that the other side holds and that stand.
    standing: VecDeque<(Replica, Runs)>,
    /// Places of the key and the version that come next.
    next: (usize, usize),
    /// When the other side last asked for more.
    asked: Time,
}

/// The transfers under way.
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

    /// Gives up the snapshot being fetched.
    pub fn give_up(&mut self) {
        self.fetching = None;
    }

    /// Whether one more snapshot may be served. A replica that has not asked for more in a while
    /// has given up, and one that has just begun does not begin again.
    fn has_room(&mut self, now: Time, conn: Conn) -> bool {
        self.serving.retain(|_, serving| now.since(serving.asked) < FETCH_PATIENCE);
        self.begun.retain(|_, at| now.since(*at) < BEGIN_AGAIN);
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
    /// The next part has to be asked for, with this.
    More(StoreSync),
    /// It was the last part; this is the whole snapshot.
    Whole(Snapshot),
}

impl Transfers {
    /// Another replica offers all that it has. Returns a question for what a replica that has seen
    /// `seen` lacks, unless something is being fetched.
    pub fn fetch(&mut self, conn: Conn, seen: &Clock) -> Option<StoreSync> {
        if self.fetching.is_some() {
            return None;
        }
        self.rounds += 1;
        let (round, snapshot) = (self.rounds, Snapshot::default());
        self.fetching = Some(Fetching { from: conn, round, parts: 0, snapshot });
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

    /// Whether a part of this round over this link belongs to the snapshot being fetched.
    pub fn is_fetching(&self, conn: Conn, round: u64) -> bool {
        let fetching = self.fetching.as_ref();
        fetching.is_some_and(|fetching| (fetching.from, fetching.round) == (conn, round))
    }

    /// Takes in a part: its number, what it holds, and whether more follow. `covered` if all of the
    /// snapshot has been seen here: the other side did not know a seal and so could not tell, or
    /// the writes came meanwhile.
    pub fn hear_part(&mut self, number: u64, part: Snapshot, more: bool, covered: bool) -> Heard {
        let Some(fetching) = self.fetching.as_mut() else { return Heard::Nothing };
        if covered || number != fetching.parts {
            // Without the part before it, the snapshot would be half of a moment.
            self.fetching = None;
            return Heard::Ended;
        }
        fetching.parts += 1;
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

impl Serving {
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
