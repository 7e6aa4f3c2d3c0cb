//! How the replica of a peer without seeds catches up: what neighbours that have all tell it, and whom it
//! still waits for.
//!
//! What must stay true: a replica says that it has caught up only when it has all that one existing
//! replica had, or when it is the first of a network in which all are new.

use super::openness::Openness;
use super::{PeerMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Members, Refused};
use crate::proto::registry::Record;
use crate::proto::roles::MemberEvent;
use crate::proto::turn::PeerTurn;

impl PeerMachine {
    /// Whether this replica has all that an existing one had.
    pub(super) fn has_caught_up(&self) -> bool {
        self.membership.open.caught_up && !self.membership.open.removed
    }

    /// What is said when a link is up.
    pub(super) fn greet(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, picked: bool) {
        if self.is_open() && (picked || !self.membership.open.caught_up) {
            turn.send(conn, Members::Handshake(self.all_records()));
            if !picked {
                self.replica.begin_sync(turn, conn);
            }
        }
    }

    pub(super) fn peers_message(&self, records: Vec<(Addr, Record)>) -> Members {
        let context = self.replica.store().context().clone();
        Members::Peers { records, context, caught_up: self.membership.open.caught_up }
    }

    pub(super) fn all_records(&self) -> Vec<(Addr, Record)> {
        self.membership.members.iter().map(|(peer, record)| (*peer, record.clone())).collect()
    }

    /// Whether a neighbour knows the same.
    pub(super) fn compare_members(&self, turn: &mut PeerTurn<'_>, conns: Vec<Conn>) {
        if self.is_open() {
            turn.send_many(conns, Members::Digest(self.membership.members.status_digest()));
        }
    }

    /// A contact could not be linked. One that is not there has nothing; one that is slow, or has no
    /// free link, may.
    pub(super) fn contact_failed(
        &mut self,
        turn: &mut PeerTurn<'_>,
        peer: Addr,
        error: &OpenError,
    ) {
        let is_there = match error {
            OpenError::Unreachable | OpenError::Garbage => false,
            OpenError::TimedOut | OpenError::Local => true,
            OpenError::Refused(refusal) => {
                matches!(refusal.reason, Refused::AlreadyLinked | Refused::Full)
            }
        };
        if !is_there && self.membership.open.untried.remove(&peer) {
            self.check_caught_up(turn);
        }
    }

    /// A link is gone, and with it what was to be had over it.
    pub(super) fn lost_sight_of(&mut self, turn: &mut PeerTurn<'_>, conn: Conn) {
        if self.membership.open.ahead.remove(&conn).is_some() {
            self.check_caught_up(turn);
        }
    }

    /// Whether this replica has had what an existing one had, or is the first of a network in which
    /// all are new.
    pub(super) fn check_caught_up(&mut self, turn: &mut PeerTurn<'_>) {
        if self.membership.open.caught_up || !self.is_open() {
            return;
        }
        // Who has been dropped meanwhile is not waited for.
        let Openness { untried, ahead, .. } = &mut self.membership.open;
        untried.retain(|peer| self.membership.members.alive(peer).is_some());
        let waits_for_none = ahead.is_empty() && self.is_first();
        let is_first = waits_for_none && self.membership.open.untried.is_empty();
        if waits_for_none && !is_first {
            // The others wait for this one, and those of them that it has no link with and has not
            // asked yet would not ask by themselves.
            let runs = |peer: &&Addr| {
                self.membership.members.alive(peer).is_some_and(|r| r.incarnation > 0)
            };
            let silent: Vec<Addr> =
                self.membership.open.untried.iter().filter(runs).copied().collect();
            silent.into_iter().for_each(|peer| self.call(turn, peer));
        }
        let store = self.replica.store();
        let has_nothing = store.context().is_empty();
        if is_first
            && has_nothing
            && self.overlay.is_empty()
            && turn.now < self.membership.open.look_until
        {
            self.timers.set(Timer::Alone, self.membership.open.look_until);
            return;
        }
        if !is_first && !self.membership.open.ahead.values().any(|theirs| store.covers(theirs)) {
            return;
        }
        let keys = vec![("keys", self.replica.store().keys().count().to_string())];
        turn.note(Severity::Info, "caught up", keys);
        turn.member(MemberEvent::Registered);
        self.membership.open.caught_up = true;
        self.membership.open.ahead.clear();
        self.membership.open.untried.clear();
        // Others may be waiting for somebody who has.
        let me = self.life.config.me;
        let mine = self.membership.members.get(&me).map(|record| (me, record.clone()));
        let links = self.overlay.conns();
        turn.send_many(links, self.peers_message(mine.into_iter().collect()));
    }

    /// Whether this peer is the oldest of those that are known to run. Where all are new, it is the one
    /// that the others wait for, so that they do not wait for each other.
    pub(super) fn is_first(&self) -> bool {
        let running =
            self.membership.members.members().filter(|(_, record)| record.incarnation > 0);
        let oldest = running.map(|(peer, record)| (record.at, *peer)).min();
        oldest.is_none_or(|(_, peer)| peer == self.life.config.me)
    }
}
