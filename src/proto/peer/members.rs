//! What follows when a member has come, gone, or come back in a later life; and how this peer
//! itself comes back above a life that others take for over.
//!
//! What must stay true: whoever follows the list of members hears of each change; and a peer that
//! finds itself dead, gone or known in a later life comes back above that life, and never below it.

use super::common::may_rise_above;
use super::membership::Kind;
use super::prober::Why;
use super::suspicions::PRESS;
use super::{Membership, PeerMachine, Timer};
use crate::proto::config::Network;
use crate::proto::event::Severity;
use crate::proto::gossip::author::Census;
use crate::proto::message::{Addr, Identity, Incarnation};
use crate::proto::registry::{Record, Status};
use crate::proto::turn::PeerTurn;

/// The lives of members, as the list of members has them.
pub(super) struct Lives<'a> {
    membership: &'a Membership,
    /// Without seeds nobody says which lives of a member there were, so any life is taken.
    any: bool,
}

impl<'a> Lives<'a> {
    pub fn of(membership: &'a Membership, network: &Network) -> Self {
        Self { membership, any: !network.has_seeds() }
    }

    fn record(&self, peer: &Addr) -> Option<&Record> {
        self.membership.members.get(peer)
    }
}

impl Census for Lives<'_> {
    fn is_member(&self, peer: &Addr, life: Incarnation) -> bool {
        self.record(peer).is_some_and(|record| self.any || life <= record.incarnation)
    }

    fn identities(&self, peer: &Addr, life: Incarnation) -> Vec<Identity> {
        // The one to whom an address belongs may be in a life of which nobody has told yet.
        let known = self.record(peer).and_then(|record| record.identity);
        known.into_iter().chain(self.membership.former.of(peer, life)).collect()
    }

    fn may_be_news(&self, peer: &Addr, life: Incarnation) -> bool {
        self.record(peer).is_none_or(|record| life > record.incarnation)
    }
}

impl PeerMachine {
    /// Does what has to follow when the list of members has changed.
    pub(super) fn members_changed(&mut self, turn: &mut PeerTurn<'_>) {
        self.overlay.forget_ranking();
        self.arrange(turn);
        self.check_all(turn);
        self.fill(turn);
        self.check_caught_up(turn);
        self.hear_early_gossip(turn);
    }

    /// Members are known that were not before.
    fn hear_early_gossip(&mut self, turn: &mut PeerTurn<'_>) {
        let census = Lives::of(&self.membership, &self.life.config.network);
        self.broadcast.rumors.members_changed(turn, &census);
    }

    /// A member is gone. If it is dead, a link that is still there is closed. If it has left, the
    /// link may stay for a moment: the member's last words may still be on their way, and a write
    /// that it answered for may be among them.
    pub(super) fn member_gone(&mut self, turn: &mut PeerTurn<'_>, peer: Addr, record: &Record) {
        self.suspicion.forget_departure(&peer);
        self.prober.settle(&peer);
        self.suspicion.take_ghost(&peer);
        if self.suspicion.get(&peer).is_some_and(|s| s.incarnation <= record.incarnation) {
            self.drop_suspicion(peer);
        }
        if self.overlay.is_linked_up_to(&peer, record.incarnation) {
            match record.status {
                Status::Left => self.expect_farewell(turn, peer),
                Status::Alive | Status::Dead => self.unlink(turn, peer),
            }
        } else if let Some(neighbour) = self.overlay.get_mut(&peer) {
            // It says that it is there in a later life. It has as much time as a newcomer to become
            // a member in that, or any life that it names would keep its link for good.
            neighbour.stranger_since = turn.now;
        }
    }

    /// A member is there in a new incarnation.
    pub(super) fn member_renewed(
        &mut self,
        turn: &mut PeerTurn<'_>,
        peer: Addr,
        incarnation: Incarnation,
    ) {
        self.overlay.forgive(&peer);
        if self.suspicion.take_ghost(&peer) {
            self.look_at(turn, peer, incarnation, Why::LinkLost);
        }
        self.suspicion.is_back(&peer, incarnation);
        if let Some(suspicion) = self.suspicion.get(&peer)
            && suspicion.incarnation < incarnation
        {
            match self.membership.kind {
                // The life suspected is over: a quorum of the seeds knows a later one.
                Kind::Voted(_) | Kind::Fixed => self.refuted(turn, peer, peer, incarnation),
                // One peer says so. It may be wrong, and only the suspect itself can show it.
                Kind::Open(_) => {
                    self.suspicion.renew(turn.now, &peer, incarnation);
                    self.timers.set(Timer::Suspicion(peer), turn.now + PRESS.0);
                    self.look_at(turn, peer, incarnation, Why::Again);
                }
            }
        }
    }

    /// Takes an incarnation above `known`, and says so to whoever decides who belongs to the
    /// network.
    pub(super) fn rise_above(&mut self, turn: &mut PeerTurn<'_>, known: Incarnation) {
        self.life.incarnation = self.life.incarnation.max(known.saturating_add(1));
        match self.membership.kind {
            Kind::Voted(_) => {
                self.registration.begin_anew();
                self.begin_registration(turn);
            }
            Kind::Fixed => {}
            Kind::Open(_) => self.tell_of_myself(turn),
        }
    }

    /// Takes a higher incarnation, because somebody takes the present one for dead. False if this
    /// peer may not now, or did so within a suspect timeout: once is enough, and a liar must not
    /// keep this peer busy registering.
    pub(super) fn rise_again(&mut self, turn: &mut PeerTurn<'_>) -> bool {
        let window = self.life.config.detection.suspect_timeout;
        let may = self.registration.is_registered() && !self.life.leaving;
        if self.suspicion.refuted_lately(turn.now, window, may) || !may {
            return false;
        }
        let incarnation = self.life.incarnation;
        let keys = vec![("incarnation", incarnation.saturating_add(1).to_string())];
        turn.note(Severity::Warn, "refuting suspicion", keys);
        self.rise_above(turn, incarnation);
        true
    }

    /// This peer is told its own record. If the record has it as dead or gone, or in a later life,
    /// this peer comes back above that.
    pub(super) fn learn_of_myself(&mut self, turn: &mut PeerTurn<'_>, record: &Record) {
        let over = match record.status {
            Status::Alive => record.incarnation > self.life.incarnation,
            Status::Left | Status::Dead => record.incarnation >= self.life.incarnation,
        };
        if over && !self.life.leaving && may_rise_above(record.incarnation, turn.now) {
            let status = format!("{:?}", record.status).to_lowercase();
            turn.note(Severity::Warn, "rejoining", vec![("registry", status)]);
            self.rise_above(turn, record.incarnation);
        }
    }

    /// This peer's incarnation has risen: tells all neighbours.
    fn tell_of_myself(&mut self, turn: &mut PeerTurn<'_>) {
        let me = self.life.config.me;
        let at = self.membership.members.get(&me).map_or(turn.now.millis(), |record| record.at);
        let incarnation = self.life.incarnation;
        let record = Record::plain(incarnation, Status::Alive, at, Vec::new());
        self.membership.members.merge(me, record.clone());
        self.tell_others(turn, vec![(me, record)], None);
        self.members_changed(turn);
    }

    /// Somebody takes this peer for gone, and says no more than that.
    pub(super) fn is_taken_for_gone(&mut self, turn: &mut PeerTurn<'_>, by: Addr) {
        match &self.membership.kind {
            Kind::Voted(_) | Kind::Fixed => {
                self.rise_again(turn);
            }
            // This peer counts as dead or as removed; a handshake tells which, unless this peer
            // knows already. Whoever has just refused a link would only refuse it again.
            Kind::Open(open) if open.is_removed() => {}
            Kind::Open(_) if self.overlay.is_avoided(turn.now, &by) => {}
            Kind::Open(_) => self.call(turn, by),
        }
    }
}
