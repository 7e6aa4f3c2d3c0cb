//! What others say of suspects, and of this peer when they suspect it.
//!
//! What must stay true: nobody joins a suspicion on hearsay: a peer that is told of one probes
//! first (`probe`). Of all who say that a suspect lives, only the suspect itself, over a connection
//! that was opened to its own address, ends the suspicion.

use super::PeerMachine;
use super::membership::BuriedBy;
use super::prober::Why;
use super::sessions::Session;
use crate::proto::event::Event;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Detection, Incarnation};
use crate::proto::registry::Status;
use crate::proto::turn::PeerTurn;

/// Suspect notices that get a line of the log in one minute. It is far more than a wave of deaths
/// brings to one peer that is not in a large network, where most are lines for debugging.
const NOTICES_A_MINUTE: u32 = 1_000;

impl PeerMachine {
    /// Takes in what somebody says of a suspect.
    pub(super) fn hear_of_suspect(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        from: Addr,
        message: Detection,
    ) {
        match message {
            Detection::SuspectNotice { peer, incarnation } => {
                self.noticed(turn, conn, from, peer, incarnation);
                return;
            }
            Detection::Witness { peer, incarnation } => {
                if self.is_peer(&from)
                    && let Some(suspicion) = self.suspicion.get_mut(&peer)
                    && suspicion.incarnation == incarnation
                    && from != peer
                {
                    suspicion.witnessed(from, &self.membership.members);
                    self.check_consensus(turn, peer);
                }
            }
            Detection::Refute { peer, incarnation } => {
                // Only over a connection that this peer opened to the suspect's own address is it
                // certain that the suspect speaks.
                let itself = matches!(
                    self.sessions.get(conn),
                    Some(Session::Errand { to, suspect }) if to == peer && suspect == peer
                );
                if itself && self.suspicion.contains(&peer) {
                    self.refuted(turn, peer, from, incarnation);
                } else if let Some(suspicion) = self.suspicion.get(&peer) {
                    // This is hearsay, so this peer looks again. A liar can neither accuse nor
                    // protect.
                    let incarnation = suspicion.incarnation;
                    self.look_at(turn, peer, incarnation, Why::Again);
                }
            }
        }
        if matches!(self.sessions.get(conn), Some(Session::Errand { .. })) {
            self.sessions.remove(conn);
            turn.close(conn);
        }
    }

    pub(super) fn noticed(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        from: Addr,
        peer: Addr,
        incarnation: Incarnation,
    ) {
        // Strangers could fill the disk with lines, and so could a peer that says nothing else.
        let is_heard = from != peer && self.is_peer(&from);
        if is_heard && self.told.notices.allows(turn.now, NOTICES_A_MINUTE) {
            let near = peer == self.life.config.me || !self.is_large();
            turn.log(Event::SuspectNotice { peer, from }.told_if(near));
        }
        if peer == self.life.config.me {
            self.refute(turn, conn, incarnation);
            return;
        }
        let known = self.membership.members.get(&peer);
        if self.membership.kind.buried_by() == BuriedBy::Peers
            && known.is_some_and(|r| r.status == Status::Dead && r.incarnation >= incarnation)
        {
            // This peer looked, found nobody, and has forgotten the suspicion since the death was
            // recorded.
            turn.send(conn, Detection::Witness { peer, incarnation });
            return;
        }
        let of_use = is_heard && self.membership.members.alive(&peer).is_some();
        if !of_use || self.life.leaving {
            return;
        }
        let present = known.map_or(0, |record| record.incarnation);
        if incarnation < present {
            // The notice is of an earlier life and says nothing of the present one.
            turn.send(conn, Detection::Refute { peer, incarnation: present });
            return;
        }
        match self.suspicion.get_mut(&peer) {
            Some(suspicion) if suspicion.incarnation == incarnation => {
                suspicion.witnessed(from, &self.membership.members);
                turn.send(conn, Detection::Witness { peer, incarnation });
                self.check_consensus(turn, peer);
            }
            // The member may be alive in a later life than the one suspected here.
            _ => self.look_at(turn, peer, incarnation, Why::Notice { conn, from, incarnation }),
        }
    }

    /// This peer is suspected and alive: it says so, and takes a higher incarnation, so that
    /// whatever is under way against the present one fails.
    pub(super) fn refute(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, incarnation: Incarnation) {
        if incarnation == self.life.incarnation && self.rise_again(turn) {
            let links: Vec<Conn> = self.overlay.conns();
            let (peer, incarnation) = (self.life.config.me, self.life.incarnation);
            turn.send_many(links, Detection::Refute { peer, incarnation });
        }
        let (peer, incarnation) = (self.life.config.me, self.life.incarnation);
        turn.send(conn, Detection::Refute { peer, incarnation });
    }
}
