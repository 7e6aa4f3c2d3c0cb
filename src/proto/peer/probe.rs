//! Probes: looking at a member, for whatever reason (`answers` says what follows from what is
//! seen).
//!
//! A probe is a handshake with the peer's process, because the kernel answers a TCP connect for a
//! hung process, and the host answers a ping for a dead one.
//!
//! What must stay true: a probe that found nothing proves something only if this process was awake
//! meanwhile, and silence proves something only after the suspect timeout.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;

use super::membership::BuriedBy;
use super::prober::{Joined, Probe, Why};
use super::sessions::Dial;
use super::{PeerMachine, Timer};
use crate::proto::limits::Limit;
use crate::proto::message::{Addr, Incarnation, Purpose};
use crate::proto::registry::Status;
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// In a larger network the neighbours of a dead peer look one after another, each at a random
/// moment within this time per member, so that most of them hear of the death from the seeds before
/// they have to report it.
const TURN_A_MEMBER: Duration = Duration::from_micros(200);
const LAST_TURN: Duration = Duration::from_millis(40);

impl PeerMachine {
    /// Probes one random member that is no neighbour. Otherwise nobody would find a peer that died
    /// before it had links, or together with all its neighbours.
    pub(super) fn probe_somebody(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving {
            return;
        }
        let others: Vec<(Addr, Incarnation)> = self
            .membership
            .members
            .members()
            .filter(|(peer, _)| {
                **peer != self.life.config.me
                    && !self.overlay.contains(peer)
                    && !self.suspicion.contains(peer)
            })
            .map(|(peer, record)| (*peer, record.incarnation))
            .collect();
        let place = self.life.rng.random_range(0..others.len().max(1));
        if let Some((peer, incarnation)) = others.get(place) {
            self.look_at(turn, *peer, *incarnation, Why::Turn);
        }
    }

    /// Probes one random suspect. A suspicion also probes by itself, but ever more rarely, and
    /// after a long cut the first suspect that answers brings the two sides together.
    pub(super) fn probe_a_suspect(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving || self.suspicion.is_empty() {
            return;
        }
        let place = self.life.rng.random_range(0..self.suspicion.len());
        let suspects = self.suspicion.lives();
        if let Some((peer, incarnation)) = suspects.get(place) {
            self.look_at(turn, *peer, *incarnation, Why::Again);
        }
    }

    /// The link to a member was lost: this peer looks at once, or when it is its turn.
    pub(super) fn look_when_lost(
        &mut self,
        turn: &mut PeerTurn<'_>,
        peer: Addr,
        incarnation: Incarnation,
    ) {
        if self.membership.kind.buried_by() == BuriedBy::Peers || !self.is_large() {
            self.look_at(turn, peer, incarnation, Why::LinkLost);
            return;
        }
        let members = u32::try_from(self.membership.members.size()).unwrap_or(u32::MAX);
        let last = TURN_A_MEMBER.saturating_mul(members).min(LAST_TURN);
        self.prober.lose(peer, incarnation);
        let pause = self.life.rng.random_range(Duration::ZERO..last);
        self.timers.set(Timer::Lost(peer), turn.now + pause);
    }

    /// It is this peer's turn to look at a member whose link was lost, unless that is settled by
    /// now.
    pub(super) fn look_at_lost(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        let Some(incarnation) = self.prober.take_lost(&peer) else { return };
        let gone = self.membership.members.get(&peer).is_some_and(|record| {
            record.status != Status::Alive && record.incarnation >= incarnation
        });
        if !gone && !self.overlay.contains(&peer) && !self.life.leaving {
            self.look_at(turn, peer, incarnation, Why::LinkLost);
        }
    }

    /// Looks at all suspects.
    pub(super) fn probe_all_suspects(&mut self, turn: &mut PeerTurn<'_>) {
        for (peer, incarnation) in self.suspicion.lives() {
            self.look_at(turn, peer, incarnation, Why::Again);
        }
    }

    /// Probes a member. If a probe of it is under way, this reason is added to it.
    pub(super) fn look_at(
        &mut self,
        turn: &mut PeerTurn<'_>,
        peer: Addr,
        incarnation: Incarnation,
        why: Why,
    ) {
        match self.prober.join(peer, why) {
            Joined::UnderWay => {}
            Joined::Dropped => turn.over_limit(Limit::Notices, Some(peer)),
            Joined::Begin => self.probe(turn, peer, incarnation, BTreeSet::from([why]), false),
        }
    }

    pub(super) fn probe(
        &mut self,
        turn: &mut PeerTurn<'_>,
        peer: Addr,
        incarnation: Incarnation,
        why: BTreeSet<Why>,
        second: bool,
    ) {
        let conn = self.dial(turn, peer, Purpose::Probe, Dial::Probe(peer));
        let began = turn.now;
        self.prober.insert(conn, Probe { peer, incarnation, why, began, second });
    }

    /// Looks once more at a member that did not answer.
    pub(super) fn look_again(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        match self.membership.members.alive(&peer).map(|record| record.incarnation) {
            Some(incarnation) => self.look_at(turn, peer, incarnation, Why::Turn),
            None => {
                self.prober.settle(&peer);
            }
        }
    }

    /// Has a member that is awaited looked at again when the time that it has to start is over.
    pub(super) fn look_when_due(&mut self, peer: Addr, due: Time) {
        self.timers.set_if_unset(Timer::Doubt(peer), due);
    }
}
