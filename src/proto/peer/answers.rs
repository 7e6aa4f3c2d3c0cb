//! What follows when a member that was probed, or called for a link, answers or does not.
//!
//! What must stay true: an attempt that this process could not even make says nothing of the
//! member.

use rand::RngExt;

use super::overlay::OTHERS;
use super::prober::{Failed, Probe, Why};
use super::sessions::Dial;
use super::{PeerMachine, Timer};
use crate::proto::limits::Limit;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Detection, Incarnation, Parting, Purpose, Refused, Welcome};
use crate::proto::turn::PeerTurn;

impl PeerMachine {
    pub(super) fn probe_answers(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        peer: Addr,
        result: Result<Welcome, OpenError>,
    ) {
        let Some(probe) = self.prober.remove(conn) else { return };
        if self.life.leaving {
            return;
        }
        match result {
            Ok(welcome) => {
                if welcome.leaving {
                    self.departs(turn.now, peer);
                }
                self.found_alive(turn, &probe, welcome.incarnation);
            }
            // The attempt was not even made, so it counts as not asked for.
            Err(OpenError::Local) => {}
            Err(error) => {
                let detection = &self.life.config.detection;
                let times = (detection.ping_interval, detection.suspect_timeout);
                match self.prober.failed(turn.now, &probe, &error, times) {
                    Failed::Again => self.probe(turn, peer, probe.incarnation, probe.why, true),
                    Failed::Doubt(next) => self.timers.set(Timer::Doubt(peer), next),
                    Failed::Nothing => turn.over_limit(Limit::Doubts, Some(peer)),
                    Failed::NotFound { hard } => self.not_found(turn, &probe, hard),
                }
            }
        }
    }

    fn found_alive(&mut self, turn: &mut PeerTurn<'_>, probe: &Probe, incarnation: Incarnation) {
        let peer = probe.peer;
        self.overlay.forgive(&peer);
        self.prober.settle(&peer);
        self.link_if_back(turn, peer, incarnation);
        if self.suspicion.contains(&peer) {
            self.refuted(turn, peer, peer, incarnation);
        }
        for why in &probe.why {
            if let Why::Notice { conn, .. } = why {
                if self.sessions.get(*conn).is_some() {
                    turn.send(*conn, Detection::Refute { peer, incarnation });
                }
                // The member is told that it is suspected, so that it refutes by itself and
                // everybody hears of it.
                self.tell_suspect(turn, peer, incarnation);
            }
        }
        self.fill(turn);
    }

    fn not_found(&mut self, turn: &mut PeerTurn<'_>, probe: &Probe, hard: bool) {
        let peer = probe.peer;
        let found = probe.found(hard);
        if self.suspect(turn, peer, probe.incarnation, found) && !found.asked {
            self.spread_notice(turn, peer);
        }
        for why in &probe.why {
            let Why::Notice { conn, from, incarnation } = why else { continue };
            // A peer that speaks of another life is no witness of the end of this one.
            if let Some(suspicion) = self.suspicion.get_mut(&peer)
                && suspicion.incarnation == *incarnation
            {
                suspicion.witnessed(*from, &self.membership.members);
                if self.sessions.get(*conn).is_some() {
                    turn.send(*conn, Detection::Witness { peer, incarnation: *incarnation });
                }
            }
        }
        self.check_consensus(turn, peer);
    }

    /// An attempt to link has ended.
    pub(super) fn link_answers(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        peer: Addr,
        result: Result<Welcome, OpenError>,
    ) {
        match result {
            Ok(welcome) if self.life.leaving || welcome.leaving => {
                if welcome.leaving {
                    self.departs(turn.now, peer);
                }
                turn.send(conn, Parting::Unlink);
                turn.close(conn);
            }
            // Other links came up sooner and took the place that was meant for this one.
            Ok(_) if self.overlay.is_full() => {
                turn.send(conn, Parting::Unlink);
                turn.close(conn);
            }
            Ok(welcome) => self.link_up(turn, conn, peer, welcome.incarnation, true),
            Err(error) => {
                if !self.overlay.contains(&peer) {
                    self.overlay.avoid(turn.now, peer);
                }
                self.contact_failed(turn, peer, &error);
                self.not_linked(turn, peer, error);
            }
        }
        self.fill(turn);
    }

    /// A member could not be linked: acts on the reason.
    fn not_linked(&mut self, turn: &mut PeerTurn<'_>, peer: Addr, error: OpenError) {
        match error {
            OpenError::Refused(refusal) => {
                match refusal.reason {
                    Refused::Leaving => self.departs(turn.now, peer),
                    // The member has heard that this incarnation is dead, from a seed that then
                    // lost its memory: only a later incarnation stands above that for everybody.
                    Refused::NotMember => self.is_taken_for_gone(turn, peer),
                    _ => {}
                }
                let named: Vec<Addr> = refusal
                    .others
                    .into_iter()
                    .take(OTHERS)
                    .filter(|other| self.may_link(turn.now, other))
                    .collect();
                let place = self.life.rng.random_range(0..named.len().max(1));
                if let Some(other) = named.get(place)
                    && self.links_wanted() > 0
                {
                    self.dial(turn, *other, Purpose::Link, Dial::Link(*other));
                }
            }
            OpenError::Local => {}
            OpenError::Unreachable | OpenError::TimedOut | OpenError::Garbage => {
                let known = self.membership.members.alive(&peer).map(|record| record.incarnation);
                if let Some(incarnation) = known {
                    self.look_at(turn, peer, incarnation, Why::NotLinked);
                }
            }
        }
    }
}
