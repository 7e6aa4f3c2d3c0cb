//! What others say of suspects, and of this peer when they suspect it.
//!
//! What must stay true: nobody joins a suspicion on hearsay; whoever is told of one probes first
//! (`probe`). Only the suspect itself, over a connection to its own address, ends a suspicion.

use super::PeerMachine;
use super::membership::BuriedBy;
use super::prober::Why;
use super::sessions::Line;
use crate::proto::event::Event;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Detection, Incarnation};
use crate::proto::registry::Status;
use crate::proto::turn::PeerTurn;

impl PeerMachine {
    /// Somebody says something of a suspect.
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
                    suspicion.witnesses.insert(from);
                    self.check_consensus(turn, peer);
                }
            }
            Detection::Refute { peer, incarnation } => {
                // Only over a connection that was opened to the suspect's own address is it the
                // suspect who speaks.
                let itself = matches!(
                    self.sessions.get(conn),
                    Some(Line::Errand { to, suspect }) if to == peer && suspect == peer
                );
                if itself && self.suspicion.contains(&peer) {
                    self.refuted(turn, peer, from, incarnation);
                } else if let Some(suspicion) = self.suspicion.get(&peer) {
                    // Hearsay: look again. A liar can neither accuse nor protect.
                    let incarnation = suspicion.incarnation;
                    self.look_at(turn, peer, incarnation, Why::Again);
                }
            }
        }
        if matches!(self.sessions.get(conn), Some(Line::Errand { .. })) {
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
        let near = peer == self.life.config.me || !self.is_large();
        turn.log(Event::SuspectNotice { peer, from }.told_if(near));
        if peer == self.life.config.me {
            self.refute(turn, conn, incarnation);
            return;
        }
        let known = self.membership.members.get(&peer);
        if self.membership.kind.buried_by() == BuriedBy::Peers
            && known.is_some_and(|r| r.status == Status::Dead && r.incarnation >= incarnation)
        {
            // This peer has looked, found nothing, and forgotten the suspicion since.
            turn.send(conn, Detection::Witness { peer, incarnation });
            return;
        }
        let of_use =
            from != peer && self.is_peer(&from) && self.membership.members.alive(&peer).is_some();
        if !of_use || self.life.leaving {
            return;
        }
        let present = known.map_or(0, |record| record.incarnation);
        if incarnation < present {
            // The word is of an earlier life: it says nothing of this one.
            turn.send(conn, Detection::Refute { peer, incarnation: present });
            return;
        }
        match self.suspicion.get_mut(&peer) {
            Some(suspicion) if suspicion.incarnation == incarnation => {
                suspicion.witnesses.insert(from);
                turn.send(conn, Detection::Witness { peer, incarnation });
                self.check_consensus(turn, peer);
            }
            // In a later life than the one suspected here it may live.
            _ => self.look_at(turn, peer, incarnation, Why::Notice { conn, from, incarnation }),
        }
    }

    /// This peer is suspected and alive: it says so, and takes a higher incarnation, so that
    /// whatever is under way against the present one comes to nothing.
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
