//! How the replica of a peer without seeds catches up: what it is told by neighbours that have
//! caught up, and for whom it still waits.
//!
//! What must stay true: a replica says that it has caught up only when it has all that one existing
//! replica had, or when it is the first of a network in which all are new.

use super::membership::Kind;
use super::membership::openness::{Openness, Progress};
use super::{Membership, PeerMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Members, Refused};
use crate::proto::registry::Record;
use crate::proto::roles::MemberEvent;
use crate::proto::turn::PeerTurn;

impl PeerMachine {
    /// A link is up. The side that opened it says whom it knows; the other side says so too, and
    /// asks for writes, if it has not caught up.
    pub(super) fn greet(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, picked: bool) {
        let Some(open) = self.membership.kind.open() else { return };
        if picked || !open.has_caught_up() {
            turn.send(conn, Members::Handshake(self.all_records()));
            if !picked {
                self.replica.begin_sync(turn, conn);
            }
        }
    }

    pub(super) fn peers_message(&self, records: Vec<(Addr, Record)>) -> Members {
        let context = self.replica.store().context().clone();
        let caught_up = self.membership.kind.open().is_some_and(Openness::has_caught_up);
        Members::Peers { records, context, caught_up }
    }

    pub(super) fn all_records(&self) -> Vec<(Addr, Record)> {
        self.membership.members.iter().map(|(peer, record)| (*peer, record.clone())).collect()
    }

    /// Asks neighbours whether they know the same members.
    pub(super) fn compare_members(&self, turn: &mut PeerTurn<'_>, conns: Vec<Conn>) {
        if self.membership.kind.open().is_some() {
            turn.send_many(conns, Members::Digest(self.membership.members.status_digest()));
        }
    }

    /// A contact could not be linked. If nobody is there, there is nothing to wait for; if it is
    /// slow or has no free link, it may still have something.
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
        let open = self.membership.kind.open_mut().filter(|_| !is_there);
        if open.is_some_and(|open| open.tried(&peer)) {
            self.check_caught_up(turn);
        }
    }

    /// A link is gone, and with it what this replica was to fetch over it.
    pub(super) fn lost_sight_of(&mut self, turn: &mut PeerTurn<'_>, conn: Conn) {
        if self.membership.kind.open_mut().is_some_and(|open| open.lost(conn)) {
            self.check_caught_up(turn);
        }
    }

    /// Looks whether this replica has had all that an existing one had, or is the first of a
    /// network in which all are new; if so, tells everybody.
    pub(super) fn check_caught_up(&mut self, turn: &mut PeerTurn<'_>) {
        let (me, now) = (self.life.config.me, turn.now);
        let Membership { members, kind: Kind::Open(open), .. } = &mut self.membership else {
            return;
        };
        if open.has_caught_up() {
            return;
        }
        let alone = self.overlay.is_empty();
        let silent = open.whom_to_call(me, members);
        let progress = open.progress(now, me, members, self.replica.store(), alone);
        for peer in silent {
            // One that has just refused, or could not be reached, is called when that is over.
            if !self.overlay.is_avoided(now, &peer) {
                self.call(turn, peer);
            }
        }
        match progress {
            Progress::Waits => return,
            Progress::LooksUntil(then) => {
                self.timers.set(Timer::Alone, then);
                return;
            }
            Progress::CaughtUp => {}
        }
        let keys = vec![("keys", self.replica.store().keys().count().to_string())];
        turn.note(Severity::Info, "caught up", keys);
        turn.member(MemberEvent::Registered);
        // Others may be waiting for a neighbour that has caught up.
        let mine = self.membership.members.get(&me).map(|record| (me, record.clone()));
        let links = self.overlay.conns();
        turn.send_many(links, self.peers_message(mine.into_iter().collect()));
    }
}
