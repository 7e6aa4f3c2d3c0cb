//! How replicas keep each other up to date, and serve their clients.
//!
//! A write goes out, as soon as it is durable, along the links over which gossip is pushed, and is
//! forwarded from there. A replica that misses something finds out by comparing contexts, and gets
//! just the writes that it lacks, or the whole store. What must stay true: nothing leaves this
//! replica before it is on its disk, neither a write of its own nor the answer to a read, so no dot
//! is ever used twice; and no answer is older than what its client has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Dot, Replica, Seen};
pub use super::durable::Paths;
use super::durable::{Durability, Later};
use super::message::FRAME;
pub use super::request::{
    Done, KeyError, Reply, Request, StoreChange, StoreCounters, StoreError, check_key, seen_of,
};
use super::seal;
use super::snapshot::Snapshot;
use super::store::{Receipt, Store, Version, Write, WriteError};
use super::talk::{Announced, Limits, Talks};
use super::transfer::Transfers;
use super::value::Value;
use crate::proto::config::StoreConfig;
use crate::proto::event::Severity;
use crate::proto::frames::{frames, with_more};
use crate::proto::limits::Limit;
use crate::proto::machine::Conn;
use crate::proto::message::{Breach, Inspection, StoreSync};
use crate::proto::order::{Holding, Outcome};
use crate::proto::time::Time;
use crate::proto::timers::Timers;
use crate::proto::turn::PeerTurn;

mod ends;
mod fetch;
mod renaming;

/// So long after a write all neighbours are told what has been seen. A neighbour then asks for a
/// push that was lost because the tree changed under it.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(100);
/// Bytes of the latest writes that a replica hands over when it leaves.
const HANDED_OVER: usize = 4 << 20;
/// Characters of a key that the log shows of a refused write.
const KEY_SHOWN: usize = 50;
/// Most requests that may wait for writes at the same time: as many as there may be HTTP connections.
const MAX_WAITING: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A request has waited long enough.
    Waiting(u64),
    /// The snapshot being fetched does not go on.
    Fetch,
    /// Tell all neighbours what has been seen.
    Announce,
    /// Send a neighbour what it lacks by the context that it told last.
    Repair(Conn),
    /// Look for lives that are over.
    Seal,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    seen: Seen,
}

/// A replica among others.
#[derive(Debug)]
pub struct Replication {
    pub(super) store: Store,
    config: StoreConfig,
    durability: Durability,
    waiting: BTreeMap<u64, Waiting>,
    talks: Talks,
    /// Lives that were over at the last look, with their last writes.
    over: Clock,
    announced: Announced,
    pub(super) transfers: Transfers,
    pub(super) counters: StoreCounters,
    limits: Limits,
    pub(super) timers: Timers<Timer>,
}

/// What came of receiving the writes of one message.
struct Received {
    applied: Vec<Arc<Write>>,
    /// Whether a write waits for others that have not come.
    gap: bool,
    /// Whether all writes made sense.
    sane: bool,
}

impl Replication {
    /// Makes a replica that begins with this store.
    pub fn new(store: Store, config: StoreConfig) -> Self {
        Self {
            store,
            config,
            durability: Durability::default(),
            waiting: BTreeMap::new(),
            talks: Talks::default(),
            over: Clock::new(),
            announced: Announced::default(),
            transfers: Transfers::default(),
            counters: StoreCounters::default(),
            limits: Limits::default(),
            timers: Timers::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The counts so far.
    pub fn counters(&self) -> &StoreCounters {
        &self.counters
    }

    /// When the next timer is due.
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Begins a life, under a fresh name unless the disk holds one under which it has written or
    /// sealed.
    pub(crate) fn start(&mut self, turn: &mut PeerTurn<'_>, fresh_name: Replica) {
        let name = self.store.name();
        // A name without writes can be given up, and it has to be: if the disk is an old copy,
        // there are writes under this name, and others may no longer name it.
        if self.store.count(name) == 0 && self.store.count(&seal::sealer(name)) == 0 {
            self.store.rename(fresh_name);
            let name = self.store.name().clone();
            self.durability.persist(turn, vec![StoreChange::Named(name)]);
        }
        self.look_for_ended(turn);
    }

    /// All batches up to this one are on disk.
    pub(crate) fn persisted(&mut self, turn: &mut PeerTurn<'_>, batch: u64, paths: &Paths) {
        self.durability.persisted(turn, batch, paths);
    }

    /// A client that has seen `seen` asks for something.
    pub(crate) fn ask(
        &mut self,
        turn: &mut PeerTurn<'_>,
        token: u64,
        request: Request,
        seen: Option<Seen>,
        paths: &Paths,
    ) {
        if let Request::Put(key, _) | Request::Relayed(key, ..) = &request
            && let Err(error) = check_key(key, self.config.max_key)
        {
            let refused = Later::Answer(token, Err(error.into()));
            return self.durability.when_durable(turn, refused, paths);
        }
        let seen = match &request {
            // All that it names, except the write itself, has to be here.
            Request::Relayed(_, _, clock) => {
                let past = self.store.past_of(clock).unwrap_or_else(|| clock.clone());
                Some(Seen::of(past))
            }
            _ => seen,
        };
        match seen {
            Some(seen) if !self.store.is_as_far_as(&seen) => {
                if self.config.causal_wait.is_zero() || self.waiting.len() >= MAX_WAITING {
                    self.counters.behind += 1;
                    if self.waiting.len() >= MAX_WAITING {
                        turn.over_limit(Limit::Waiting, None);
                    }
                    self.durability.when_durable(
                        turn,
                        Later::Answer(token, Err(StoreError::Behind)),
                        paths,
                    );
                    return;
                }
                self.waiting.insert(token, Waiting { request, seen });
                self.timers.set(Timer::Waiting(token), turn.now + self.config.causal_wait);
                for conn in paths.all.clone() {
                    self.compare(turn, conn);
                }
            }
            seen => self.serve(turn, token, request, seen.as_ref(), paths),
        }
    }

    fn serve(
        &mut self,
        turn: &mut PeerTurn<'_>,
        token: u64,
        request: Request,
        seen: Option<&Seen>,
        paths: &Paths,
    ) {
        let short = seen.map(|seen| self.store.short(seen));
        let seen = short.as_ref();
        let reply = match request {
            Request::Get(key) => match self.shown(&key, seen) {
                (versions, seen) if versions.is_empty() => Err(StoreError::NotFound(seen)),
                (versions, seen) => Ok(Done { created: false, versions, seen }),
            },
            Request::Relayed(key, value, clock) => self.relay(turn, (key, value), &clock, paths),
            Request::Put(..) | Request::Delete(_) if !self.store.has_room_to_write() => {
                Err(StoreError::TooManyReplicas)
            }
            Request::Put(key, _) if !self.store.has_room_for_sibling(&key, seen) => {
                Err(StoreError::TooManySiblings)
            }
            Request::Put(key, value) => {
                let (created, most) = (self.store.get(&key).is_empty(), self.config.max_bytes);
                match self.store.put_within(most, turn.now, &key, value, seen) {
                    None => {
                        turn.over_limit(Limit::StoreBytes, None);
                        Err(StoreError::Full)
                    }
                    Some((write, seen)) => {
                        self.written(turn, write, paths);
                        Ok(Done { created, versions: Vec::new(), seen })
                    }
                }
            }
            Request::Delete(key) => match self.store.delete(turn.now, &key, seen) {
                None => Err(match self.shown(&key, seen) {
                    (versions, seen) if versions.is_empty() => StoreError::NotFound(seen),
                    (versions, seen) => StoreError::Unseen { versions, seen },
                }),
                Some((write, seen)) => {
                    self.written(turn, write, paths);
                    Ok(Done { created: false, versions: Vec::new(), seen })
                }
            },
        };
        self.durability.when_durable(turn, Later::Answer(token, reply), paths);
    }

    /// Takes a write that a replica of another make relays. Like any write from another replica it
    /// is taken however full the store is, because replicas have to hold the same.
    fn relay(
        &mut self,
        turn: &mut PeerTurn<'_>,
        (key, value): (Arc<str>, Option<Value>),
        clock: &Clock,
        paths: &Paths,
    ) -> Reply {
        if !self.store.has_room_for(clock) {
            return Err(StoreError::TooManyReplicas);
        }
        if let Some(write) = self.store.relayed(turn.now, &key, value, clock) {
            self.written(turn, write, paths);
        }
        Ok(Done::default())
    }

    /// The changes to keep on disk for writes that were just applied.
    fn changes(&self, applied: &[Arc<Write>]) -> Vec<StoreChange> {
        let keys = applied.iter().filter(|write| !write.is_seal()).map(|write| write.key.clone());
        let keys: BTreeSet<Arc<str>> = keys.collect();
        let writes = applied.iter().cloned().map(StoreChange::Write);
        writes.chain(self.versions_of(keys)).collect()
    }

    pub(super) fn versions_of(
        &self,
        keys: impl IntoIterator<Item = Arc<str>>,
    ) -> impl Iterator<Item = StoreChange> {
        let versions = |key: Arc<str>| {
            let of = self.store.get(&key).to_vec();
            StoreChange::Versions(key, of)
        };
        keys.into_iter().map(versions)
    }

    /// The versions of a key, and what a client has seen once it is shown them, or that there are
    /// none.
    fn shown(&self, key: &str, seen: Option<&Seen>) -> (Vec<Version>, Seen) {
        (self.store.get(key).to_vec(), self.store.seen_with(key, seen))
    }

    fn written(&mut self, turn: &mut PeerTurn<'_>, write: Arc<Write>, paths: &Paths) {
        self.counters.written += 1;
        self.timers.set_if_unset(Timer::Announce, turn.now + ANNOUNCE_AFTER);
        let changes = self.changes(std::slice::from_ref(&write));
        self.durability.persist(turn, changes);
        self.look_for_ended(turn);
        self.durability.when_durable(turn, Later::Spread(write), paths);
    }

    /// Asks a neighbour what it has seen, unless it was asked just now.
    fn compare(&mut self, turn: &mut PeerTurn<'_>, conn: Conn) {
        if self.talks.has_just_asked(turn.now, conn) {
            return;
        }
        self.talks.asks(turn.now, conn);
        self.tell_context(turn, conn, true);
    }

    /// Tells a neighbour the context once that is durable: it may name writes of this replica that
    /// are not on disk yet.
    fn tell_context(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, answer: bool) {
        if self.store.name().is_empty() {
            return; // this peer holds no replica
        }
        self.talks.tells_context(turn.now, conn);
        let context = self.store.context_with_own();
        let message = StoreSync::Context { context, answer };
        self.durability.say(turn, conn, message);
    }

    /// The versions held under a key or, without one, the keys.
    pub(crate) fn holding(&self, key: Option<&str>) -> Holding {
        match key {
            Some(key) => Holding::Versions(self.store.get(key).to_vec()),
            None => Holding::Keys(self.store.keys().cloned().collect()),
        }
    }

    /// Sends somebody who asked what is held, and closes the connection.
    pub(crate) fn tell_holding(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, key: Option<&str>) {
        let messages: Vec<Inspection> = match self.holding(key) {
            Holding::Versions(versions) => with_more(frames(versions, FRAME, Version::size))
                .map(|(versions, more)| Inspection::Versions { versions, more })
                .collect(),
            Holding::Keys(keys) => with_more(frames(keys, FRAME, |key: &Arc<str>| key.len()))
                .map(|(keys, more)| Inspection::Keys { keys, more })
                .collect(),
        };
        for message in messages {
            self.durability.say(turn, conn, message);
        }
        self.durability.when_durable(turn, Later::Close(conn), &Paths::default());
    }

    /// Answers an operator once what the answer rests on is durable.
    pub(crate) fn operated(&mut self, turn: &mut PeerTurn<'_>, token: u64, outcome: Outcome) {
        self.durability.when_durable(turn, Later::Operated(token, outcome), &Paths::default());
    }

    /// Begins a round of comparison with a neighbour.
    pub(crate) fn begin_sync(&mut self, turn: &mut PeerTurn<'_>, conn: Conn) {
        self.talks.asks(turn.now, conn);
        self.tell_context(turn, conn, true);
    }

    /// This peer leaves: its latest writes go to all neighbours. A push of these may not have
    /// reached any neighbour that lacks them, and later nobody can ask for them.
    pub(crate) fn hand_over(&mut self, turn: &mut PeerTurn<'_>, paths: &Paths) {
        let settled = self.announced.settled(turn.now);
        let latest = self.store.latest_beyond(settled, HANDED_OVER);
        for frame in frames(latest, FRAME, |write| write.size()) {
            let later = Later::SayAll(paths.all.clone(), StoreSync::Writes(frame));
            self.durability.when_durable(turn, later, paths);
        }
    }

    /// A link is gone.
    pub(crate) fn link_down(&mut self, conn: Conn) {
        self.talks.link_down(conn);
        self.timers.cancel(&Timer::Repair(conn));
        if self.transfers.link_down(conn) {
            self.timers.cancel(&Timer::Fetch);
        }
    }

    /// A message about the store came over a link. A breach if it makes no sense.
    pub(crate) fn hear(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        message: StoreSync,
        paths: &Paths,
    ) -> Result<(), Breach> {
        match message {
            StoreSync::Write(write) => self.hear_writes(turn, conn, vec![write], paths),
            StoreSync::Writes(writes) => self.hear_writes(turn, conn, writes, paths),
            StoreSync::Context { context, answer } => {
                if !context.is_sane() {
                    return Err(Breach);
                }
                self.hear_context(turn, conn, &context, answer);
                Ok(())
            }
            StoreSync::SnapshotOffer => {
                self.hear_offer(turn, conn);
                Ok(())
            }
            StoreSync::SnapshotAsk { round, seen } => self.hear_ask(turn, (conn, round), seen),
            StoreSync::SnapshotPart {
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
                if !self.transfers.is_fetching(conn, round) {
                    return Ok(());
                }
                self.hear_part(turn, conn, (part, snapshot, more), paths)
            }
        }
    }

    fn hear_writes(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        writes: Vec<Arc<Write>>,
        paths: &Paths,
    ) -> Result<(), Breach> {
        let Received { applied, gap, sane } = self.receive_all(turn, writes);
        if !applied.is_empty() {
            self.pass_on(turn, conn, applied, paths);
            self.serve_waiting(turn, paths);
        }
        if gap && sane {
            self.compare(turn, conn);
        }
        if sane { Ok(()) } else { Err(Breach) }
    }

    /// Takes in writes from another replica, up to the first that makes no sense.
    fn receive_all(&mut self, turn: &mut PeerTurn<'_>, writes: Vec<Arc<Write>>) -> Received {
        let mut received = Received { applied: Vec::new(), gap: false, sane: true };
        for write in writes {
            let (dot, key) = (write.dot.clone(), write.key.clone());
            if write.is_sane() {
                self.rename_if_ended(turn, &write);
            }
            match self.store.receive(write) {
                Ok(Receipt::Applied(writes)) => received.applied.extend(writes),
                Ok(Receipt::Known) => self.counters.duplicates += 1,
                Ok(Receipt::Held) => received.gap = true,
                Ok(Receipt::Dropped) => {
                    turn.over_limit(Limit::Held, None);
                    received.gap = true;
                }
                // A replica that counts other names than this one is honest all the same, and its
                // other writes may fit.
                Err(WriteError::Replica) => {
                    self.counters.refused += 1;
                    turn.over_limit(Limit::Replicas, None);
                }
                Err(error) => {
                    self.counters.refused += 1;
                    let Dot { replica, count } = dot;
                    let keys = vec![
                        ("replica", replica.to_string()),
                        ("number", count.to_string()),
                        ("key", key.chars().take(KEY_SHOWN).collect()),
                        ("reason", error.to_string()),
                    ];
                    turn.note(Severity::Warn, "write refused", keys);
                    // Stop here, but do not return: the writes before it were applied, and have to
                    // be kept.
                    received.sane = false;
                    break;
                }
            }
        }
        received
    }

    /// Keeps writes that came over a link and were applied, and forwards them.
    fn pass_on(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        applied: Vec<Arc<Write>>,
        paths: &Paths,
    ) {
        self.counters.received += applied.len() as u64;
        self.timers.set_if_unset(Timer::Announce, turn.now + ANNOUNCE_AFTER);
        let changes = self.changes(&applied);
        self.durability.persist(turn, changes);
        self.look_for_ended(turn);
        // Their writer has them on disk, so forward them at once. Forward repaired writes as well:
        // neighbours further down the tree may lack them. A neighbour that has them drops them.
        let onward: Vec<Conn> =
            paths.eager.iter().copied().filter(|eager| *eager != conn).collect();
        if let [write] = applied.as_slice() {
            turn.send_many(onward, StoreSync::Write(write.clone()));
        } else {
            for frame in frames(applied, FRAME, |write| write.size()) {
                turn.send_many(onward.clone(), StoreSync::Writes(frame));
            }
        }
    }

    pub(super) fn serve_waiting(&mut self, turn: &mut PeerTurn<'_>, paths: &Paths) {
        let ready: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| self.store.is_as_far_as(&waiting.seen))
            .map(|(token, _)| *token)
            .collect();
        for token in ready {
            if let Some(Waiting { request, seen }) = self.waiting.remove(&token) {
                self.timers.cancel(&Timer::Waiting(token));
                self.serve(turn, token, request, Some(&seen), paths);
            }
        }
    }

    /// Sends a neighbour what it lacks, but not more often than it may ask: else a few bytes from
    /// it would fill this process with messages that wait for it.
    fn repair(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, theirs: &Clock) {
        match self.talks.repair_later(turn.now, conn, theirs, self.store.context()) {
            Some(at) => self.timers.set(Timer::Repair(conn), at),
            None => self.repair_now(turn, conn, theirs, None),
        }
    }

    /// Sends a neighbour what it lacks; with `had`, only writes that had been seen here at that
    /// context.
    fn repair_now(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        theirs: &Clock,
        had: Option<&Clock>,
    ) {
        self.talks.repairs(turn.now, conn, 0);
        // The neighbour may name lives that are ended here, and lack some of just their writes.
        let context = self.store.context_for(theirs);
        if context != *self.store.context() && self.talks.tells_of_ended(turn.now, conn) {
            let message = StoreSync::Context { context, answer: false };
            self.durability.say(turn, conn, message);
        }
        match self.store.since(theirs) {
            Some(mut writes) => {
                if let Some(had) = had {
                    writes.retain(|write| self.store.is_known_with(had, &write.dot));
                }
                self.counters.repaired += writes.len() as u64;
                let bytes = writes.iter().map(|write| write.size()).sum();
                self.talks.repairs(turn.now, conn, bytes);
                for frame in frames(writes, FRAME, |write| write.size()) {
                    let message = StoreSync::Writes(frame);
                    self.durability.say(turn, conn, message);
                }
            }
            None => turn.send(conn, StoreSync::SnapshotOffer),
        }
    }

    fn hear_context(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, theirs: &Clock, answer: bool) {
        self.rename_if_behind(turn, theirs);
        if !self.store.is_covered_by(theirs) {
            self.repair(turn, conn, theirs);
        }
        let asked_just_now = self.talks.has_just_asked(turn.now, conn);
        if !self.store.covers(theirs) && (answer || !asked_just_now) {
            self.talks.asks(turn.now, conn);
            self.tell_context(turn, conn, false);
        }
    }

    /// Acts on all timers that are due.
    pub(crate) fn tick(
        &mut self,
        turn: &mut PeerTurn<'_>,
        paths: &Paths,
        is_member: impl Fn(SocketAddr) -> bool,
    ) {
        while let Some((_, timer)) = self.timers.due(turn.now) {
            match timer {
                Timer::Waiting(token) => {
                    if self.waiting.remove(&token).is_some() {
                        self.counters.behind += 1;
                        self.durability.when_durable(
                            turn,
                            Later::Answer(token, Err(StoreError::Behind)),
                            paths,
                        );
                    }
                }
                Timer::Fetch => self.transfers.give_up(),
                Timer::Repair(conn) => {
                    // Leave out what was seen here since then: it was sent on when it came.
                    if let Some((theirs, had)) = self.talks.take_owed(conn)
                        && !self.store.is_as_far(&theirs, &had)
                    {
                        self.repair_now(turn, conn, &theirs, Some(&had));
                    }
                }
                Timer::Seal => self.seal(turn, paths, &is_member),
                Timer::Announce => {
                    self.announced.tell(turn.now, self.store.context());
                    for conn in paths.all.clone() {
                        self.tell_context(turn, conn, false);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
