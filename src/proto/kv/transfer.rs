//! How a replica gets what it lacks from another one, when that is more than the log holds: part by
//! part, over one link at a time ([`super::snapshot`]).
//!
//! What must stay true: parts of two moments, or of two questions, are never
//! put together, and none is missing; what is fetched is taken over as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Replica};
use super::replica::{FRAME, Later, Paths, Replication, Timer};
use super::request::StoreChange;
use super::snapshot::{Merged, Snapshot};
use super::store::{Version, WriteError};
use crate::proto::event::Severity;
use crate::proto::machine::Conn;
use crate::proto::message::{Message, Runs};
use crate::proto::time::Time;
use crate::proto::turn::Turn;

/// Bytes of a run of numbers in a frame, roughly.
const RUN_BYTES: usize = 8;
/// A snapshot that does not go on for so long is given up.
const FETCH_PATIENCE: Duration = Duration::from_secs(10);
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

    /// Whether that is the next part of what is being fetched.
    fn is_fetching(&self, conn: Conn, round: u64) -> bool {
        let fetching = self.fetching.as_ref();
        fetching.is_some_and(|fetching| (fetching.from, fetching.round) == (conn, round))
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

impl Replication {
    /// Something about a snapshot came over a link. False if it makes no sense.
    pub(super) fn hear_of_snapshot(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        message: Message,
        paths: &Paths,
    ) -> bool {
        match message {
            Message::SnapshotOffer => {
                self.fetch_from(turn, conn);
                true
            }
            Message::SnapshotAsk { round, seen } => {
                let sane = seen.as_ref().is_none_or(Clock::is_sane);
                if sane {
                    self.serve_snapshot(turn, conn, round, seen);
                }
                sane
            }
            Message::SnapshotPart {
                round,
                part,
                context,
                lamport,
                seals,
                standing,
                entries,
                more,
            } => {
                let snapshot = Snapshot { context, lamport, seals, standing, versions: entries };
                !self.transfers.is_fetching(conn, round)
                    || self.hear_part(turn, conn, (part, snapshot, more), paths)
            }
            _ => false,
        }
    }

    fn fetch_from(&mut self, turn: &mut Turn<'_>, conn: Conn) {
        if self.transfers.fetching.is_some() {
            return;
        }
        self.transfers.rounds += 1;
        let (round, snapshot) = (self.transfers.rounds, Snapshot::default());
        self.transfers.fetching = Some(Fetching { from: conn, round, parts: 0, snapshot });
        self.timers.set(Timer::Fetch, turn.now + FETCH_PATIENCE);
        // What it says here need not be durable: it decides about nothing there.
        let seen = Some(self.store.context().clone());
        turn.send(conn, Message::SnapshotAsk { round, seen });
    }

    /// Sends the first part of what a replica that has seen this lacks, or the next one.
    fn serve_snapshot(&mut self, turn: &mut Turn<'_>, conn: Conn, round: u64, seen: Option<Clock>) {
        if let Some(seen) = seen {
            if !self.transfers.has_room(turn.now, conn) {
                return; // it asks again with the next comparison
            }
            let mut snapshot = self.store.snapshot_without_seals(&seen);
            let seals = self.store.seals().beyond(&seen).into();
            let standing = split_runs(std::mem::take(&mut snapshot.standing));
            let snapshot = Arc::new(snapshot);
            let (parts, next, asked) = (0, (0, 0), turn.now);
            let serving = Serving { round, snapshot, parts, seals, standing, next, asked };
            self.transfers.serving.insert(conn, serving);
            self.transfers.begun.insert(conn, turn.now);
        }
        let serving = self.transfers.serving.get_mut(&conn);
        let Some(serving) = serving.filter(|serving| serving.round == round) else { return };
        serving.asked = turn.now;
        let snapshot = serving.snapshot.clone();
        let (mut seals, mut standing, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut size = 0;
        while size < FRAME
            && let Some(seal) = serving.seals.pop_front()
        {
            size += self.store.seals().size(seal);
            seals.push(seal);
        }
        let seals = self.store.seals().writes(&seals);
        while size < FRAME
            && let Some((replica, runs)) = serving.standing.pop_front()
        {
            size += RUN_BYTES * (runs.len() + replica.len());
            standing.push((replica, runs));
        }
        // Version by version: those of one key may be more than a frame holds.
        while size < FRAME
            && let Some((key, version)) = snapshot.version(serving.next)
        {
            let bytes = key.len() + version.size();
            // A frame holds one value of any length, or many small ones.
            if size > 0 && size + bytes > FRAME {
                break;
            }
            size += bytes;
            push(&mut entries, key.clone(), [version.clone()]);
            serving.next = snapshot.after(serving.next);
        }
        let more = snapshot.version(serving.next).is_some()
            || !serving.standing.is_empty()
            || !serving.seals.is_empty();
        let part = serving.parts;
        serving.parts += 1;
        if !more {
            self.transfers.serving.remove(&conn);
        }
        let (context, lamport) = (snapshot.context.clone(), snapshot.lamport);
        let message =
            Message::SnapshotPart { round, part, context, lamport, seals, standing, entries, more };
        self.when_durable(turn, Later::Say(conn, message), &Paths::default());
    }

    /// A part of what is being fetched: its number, what it holds, and whether more follow.
    fn hear_part(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        (number, part, more): (u64, Snapshot, bool),
        paths: &Paths,
    ) -> bool {
        if !part.is_sane() {
            return false;
        }
        self.rename_if_behind(turn, &part.context);
        part.seals.iter().for_each(|seal| self.rename_if_ended(turn, seal));
        if self.store.covers(&part.context) {
            // The other side could not tell, as it did not know a seal, or it has come in between.
            self.transfers.fetching = None;
            self.timers.cancel(&Timer::Fetch);
            return true;
        }
        let Some(fetching) = self.transfers.fetching.as_mut() else { return true };
        if number != fetching.parts {
            // Without the one before it would be half of a moment; it is offered again.
            self.transfers.fetching = None;
            self.timers.cancel(&Timer::Fetch);
            return true;
        }
        fetching.parts += 1;
        let round = fetching.round;
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
            self.timers.set(Timer::Fetch, turn.now + FETCH_PATIENCE);
            turn.send(conn, Message::SnapshotAsk { round, seen: None });
            return true;
        }
        self.timers.cancel(&Timer::Fetch);
        let Some(Fetching { snapshot, .. }) = self.transfers.fetching.take() else { return true };
        let replicas = snapshot.context.len().to_string();
        let Merged { changed, seals } = match self.store.merge(snapshot) {
            Ok(merged) => merged,
            Err(error) => {
                let keys = vec![("replicas", replicas), ("reason", error.to_string())];
                turn.note(Severity::Warn, "snapshot refused", keys);
                // With more than fits nobody would take what this replica says any more, not even what
                // it has seen; the other side may well have it.
                return error == WriteError::Replica;
            }
        };
        self.counters.snapshots += 1;
        let mut changes: Vec<StoreChange> = seals.into_iter().map(StoreChange::Write).collect();
        changes.extend(self.versions_of(changed));
        let (context, lamport) = (self.store.context().clone(), self.store.lamport());
        changes.push(StoreChange::Seen(context, lamport));
        self.persist(turn, changes);
        self.look_for_ended(turn);
        self.serve_waiting(turn, paths);
        // Others behind us may lack it as well.
        for other in paths.all.iter().filter(|other| **other != conn) {
            self.begin_sync(turn, *other);
        }
        true
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
