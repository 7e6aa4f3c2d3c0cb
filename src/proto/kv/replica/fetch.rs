//! Snapshots: a replica asks for what it lacks, serves what others lack, and takes a snapshot over
//! once all parts of it have come.

use super::{
    Clock, Conn, Paths, PeerTurn, Replication, Severity, Snapshot, StoreChange, Timer, WriteError,
};
use crate::proto::kv::snapshot::Merged;
use crate::proto::kv::transfer::{FETCH_PATIENCE, Heard};
use crate::proto::message::Breach;

impl Replication {
    /// Another replica offers a snapshot, because this one lacks more than it keeps as single
    /// writes. It is followed only if that one was told what is here: a snapshot can take away
    /// versions, so nobody may send one when it likes.
    pub(super) fn hear_offer(&mut self, turn: &mut PeerTurn<'_>, conn: Conn) {
        if !self.talks.takes_offer(turn.now, conn) {
            return;
        }
        // The question goes out before our context is on disk: the other side decides nothing by
        // it.
        if let Some(question) = self.transfers.fetch(turn.now, conn, self.store.context()) {
            self.timers.set(Timer::Fetch, turn.now + FETCH_PATIENCE);
            turn.send(conn, question);
        }
    }

    /// Another replica asks for what it lacks, or for the next part of it. A breach if its clock
    /// makes no sense.
    pub(super) fn hear_ask(
        &mut self,
        turn: &mut PeerTurn<'_>,
        question: (Conn, u64),
        seen: Option<Clock>,
    ) -> Result<(), Breach> {
        if !seen.as_ref().is_none_or(Clock::is_sane) {
            return Err(Breach);
        }
        if let Some(part) = self.transfers.serve(&self.store, turn.now, question, seen) {
            self.durability.say(turn, question.0, part);
        }
        Ok(())
    }

    /// A part of the snapshot being fetched: its number, what it holds, and whether more follow.
    pub(super) fn hear_part(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        (number, part, more): (u64, Snapshot, bool),
        paths: &Paths,
    ) -> Result<(), Breach> {
        if !part.is_sane() {
            return Err(Breach);
        }
        self.rename_if_behind(turn, &part.context);
        part.seals.iter().for_each(|seal| self.rename_if_ended(turn, seal));
        if self.is_behind(&part.context) {
            // Nobody can have seen what was never written. It has a name from just now.
            return self.refuse_snapshot(turn, "it names writes that this replica has not made");
        }
        match self.transfers.hear_part(&self.store, number, part, more) {
            Heard::Nothing => {}
            Heard::Ended => self.timers.cancel(&Timer::Fetch),
            Heard::Nonsense(reason) => return self.refuse_snapshot(turn, reason),
            Heard::More(question) => {
                self.timers.set(Timer::Fetch, turn.now + FETCH_PATIENCE);
                turn.send(conn, question);
            }
            Heard::Whole(snapshot) => {
                self.timers.cancel(&Timer::Fetch);
                return self.take_over(turn, conn, snapshot, paths);
            }
        }
        Ok(())
    }

    /// Gives up the snapshot being fetched, because no replica can have that.
    fn refuse_snapshot(&mut self, turn: &mut PeerTurn<'_>, reason: &str) -> Result<(), Breach> {
        self.transfers.give_up();
        self.timers.cancel(&Timer::Fetch);
        turn.note(Severity::Warn, "snapshot refused", vec![("reason", reason.to_owned())]);
        Err(Breach)
    }

    /// Takes over a snapshot of which all parts have come. A breach if it makes no sense.
    fn take_over(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        snapshot: Snapshot,
        paths: &Paths,
    ) -> Result<(), Breach> {
        let replicas = snapshot.context.len().to_string();
        let Merged { changed, seals } = match self.store.merge(snapshot) {
            Ok(merged) => merged,
            Err(error) => {
                let keys = vec![("replicas", replicas), ("reason", error.to_string())];
                turn.note(Severity::Warn, "snapshot refused", keys);
                // If more replicas were counted than fit a clock, nobody would take anything that
                // this replica says, not even what it has seen. But the other side may well have
                // that many.
                return if error == WriteError::Replica { Ok(()) } else { Err(Breach) };
            }
        };
        self.counters.snapshots += 1;
        let mut changes: Vec<StoreChange> = seals.into_iter().map(StoreChange::Write).collect();
        changes.extend(self.versions_of(changed));
        let (context, lamport) = (self.store.context().clone(), self.store.lamport());
        changes.push(StoreChange::Seen(context, lamport));
        self.durability.persist(turn, changes);
        self.look_for_ended(turn);
        self.serve_waiting(turn, paths);
        // Neighbours further down the tree may lack it as well.
        for other in paths.all.iter().filter(|other| **other != conn) {
            self.begin_sync(turn, *other);
        }
        Ok(())
    }
}
