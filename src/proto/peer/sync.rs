//! With whom a peer compares its messages, and when.
//!
//! Each round goes to neighbours, and now and then to a random member instead, over a connection
//! for that alone: two halves of a network that have lost all links between them would never
//! compare otherwise (DESIGN.md, section 4).
//!
//! What must stay true: a peer that is let in for a comparison takes part in nothing else, and
//! there is a bounded number of places for such peers.

use std::time::Duration;

use rand::RngExt;

use super::common::sample;
use super::members::Lives;
use super::sessions::{Dial, Session};
use super::{PeerMachine, Timer};
use crate::proto::config::Overlay;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, AntiEntropy, Breach, Gossip, Hello, Purpose, Refused, Welcome};
use crate::proto::registry::Status;
use crate::proto::turn::PeerTurn;

/// How often one of the partners of a round is a random member. With the usual interval a peer
/// calls one every 40 s, and in a network of a hundred some peer does every half a second.
const STRANGER: f64 = 0.25;
/// A peer without links that found nobody to compare with tries again this soon.
const AGAIN: Duration = Duration::from_secs(1);
/// Connections for a comparison that others have opened, at once. Each peer calls a few in a round; who
/// is refused calls another in the next.
const MAX_GUESTS: usize = 16;

impl PeerMachine {
    /// Begins a round. Returns with how many peers it compares.
    pub(super) fn begin_sync_round(&mut self, turn: &mut PeerTurn<'_>) -> usize {
        let calm = self.is_calm();
        let pauses = self.broadcast.calm.next_pause(calm);
        let pause = self.jitter(self.life.config.sync.sync_interval * pauses);
        self.timers.set(Timer::Sync, turn.now + pause);
        self.end_own_comparisons(turn);
        if self.life.leaving {
            return 0;
        }
        let links: Vec<Conn> = self.overlay.conns();
        let mut many = self.life.config.sync.fanout;
        // Where all are linked with the same peer, or with everybody, a random member adds nothing
        // while all is well.
        let is_quiet =
            self.life.config.topology.overlay != Overlay::ScaleFree && self.suspicion.is_empty();
        let curious = links.is_empty() || (!is_quiet && self.life.rng.random_bool(STRANGER));
        let called = curious && self.compare_with_stranger(turn);
        if called {
            many = many.saturating_sub(1);
        }
        let places = sample(&mut self.life.rng, links.len(), many);
        let partners: Vec<Conn> =
            places.into_iter().filter_map(|place| links.get(place).copied()).collect();
        for conn in &partners {
            self.broadcast.rumors.begin_sync(turn, *conn, false);
            self.replica.begin_sync(turn, *conn);
        }
        let contacted = partners.len() + usize::from(called);
        self.compare_members(turn, partners);
        contacted
    }

    /// Whether another round so soon would find nothing: nothing has come since the last one,
    /// nobody is suspected, and no question is open (its answer may have been lost). Always false
    /// in a scale-free overlay: a longer pause is worth while only where each message counts.
    fn is_calm(&mut self) -> bool {
        let held = self.broadcast.rumors.list().next_place();
        let same = self.broadcast.calm.is_same(held);
        let answered = self.overlay.iter().all(|(_, n)| !self.broadcast.rumors.is_asking(n.conn));
        same && answered
            && self.life.config.topology.overlay != Overlay::ScaleFree
            && self.suspicion.is_empty()
    }

    /// Calls a random member that is no neighbour; false if there is none. A suspect may be called
    /// as well: a member that was cut off is found again that way.
    fn compare_with_stranger(&mut self, turn: &mut PeerTurn<'_>) -> bool {
        let calling = |peer: &Addr| self.sessions.is_dialling(Dial::Sync(*peer));
        let others: Vec<Addr> = self
            .membership
            .members
            .members()
            .map(|(peer, _)| *peer)
            .filter(|peer| {
                *peer != self.life.config.me
                    && !self.overlay.contains(peer)
                    && !self.suspicion.has_said_farewell(turn.now, peer)
                    && !calling(peer)
            })
            .collect();
        let place = self.life.rng.random_range(0..others.len().max(1));
        let Some(peer) = others.get(place).copied() else { return false };
        self.dial(turn, peer, Purpose::Sync, Dial::Sync(peer));
        true
    }

    /// Why a comparison that somebody asks for is refused.
    pub(super) fn objection_to_guest(&self, hello: &Hello) -> Option<Refused> {
        let record = self.membership.members.get(&hello.from);
        let gone = |status| status != Status::Alive;
        let guests =
            self.sessions.such(|session| matches!(session, Session::Guest { mine: false, .. }));
        if self.life.leaving {
            Some(Refused::Leaving)
        } else if record.is_none_or(|r| gone(r.status) && r.incarnation >= hello.incarnation) {
            Some(Refused::NotMember)
        } else if self.overlay.contains(&hello.from) {
            Some(Refused::AlreadyLinked)
        } else {
            (guests.len() >= MAX_GUESTS).then_some(Refused::Full)
        }
    }

    /// A connection for a comparison is open, whichever side opened it.
    pub(super) fn guest_up(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, peer: Addr, mine: bool) {
        self.sessions.insert(conn, Session::Guest { peer, since: turn.now, mine });
        self.expect_end(turn);
        self.broadcast.rumors.link_up(turn.now, conn, peer, true);
    }

    /// A member that was called for a comparison answers, or does not.
    pub(super) fn stranger_answers(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        peer: Addr,
        result: Result<Welcome, OpenError>,
    ) {
        match result {
            Ok(welcome) if self.life.leaving || welcome.leaving => turn.close(conn),
            Ok(welcome) => {
                if self.suspicion.contains(&peer) {
                    self.refuted(turn, peer, peer, welcome.incarnation);
                }
                self.guest_up(turn, conn, peer, true);
                self.broadcast.rumors.begin_sync(turn, conn, true);
                self.fill(turn);
            }
            Err(error) => {
                if let OpenError::Refused(refusal) = error
                    && refusal.reason == Refused::NotMember
                {
                    // The member has heard that this incarnation is dead: only a later one stands
                    // above that.
                    self.is_taken_for_gone(turn, peer);
                }
                if self.overlay.is_empty() {
                    // This peer has compared with nobody at all, so it does not wait for its next
                    // round.
                    let soon = self.jitter(AGAIN);
                    self.timers.set(Timer::Sync, turn.now + soon);
                }
            }
        }
    }

    /// Takes in what is said in a comparison. A breach if it makes no sense.
    pub(super) fn hear_sync(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        message: AntiEntropy,
    ) -> Result<(), Breach> {
        match message {
            AntiEntropy::Digest { round, count, digest, fresh } => {
                let question = (round, count, digest);
                self.broadcast.rumors.on_sync_digest(
                    turn,
                    conn,
                    &mut self.life.rng,
                    question,
                    fresh,
                )
            }
            AntiEntropy::Matched(to) => {
                self.broadcast.rumors.on_sync_matched(turn, conn, to);
                Ok(())
            }
            AntiEntropy::Ranges(ranges) => {
                self.broadcast.rumors.on_sync_ranges(turn, conn, &ranges)
            }
        }
    }

    pub(super) fn hear_gossip(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        gossip: Gossip,
    ) -> Result<(), Breach> {
        let (origin, life) = (gossip.origin, gossip.life);
        let census = Lives::of(&self.membership, &self.life.config.network);
        self.broadcast.rumors.on_gossip(turn, conn, gossip, &census)?;
        // Only a clock ahead is told: one that seems behind may be a message that was long on its
        // way, and handshakes tell of those.
        let ahead = self.broadcast.rumors.list().ahead(&origin, life);
        if ahead > 0 && self.membership.members.alive(&origin).is_some() {
            self.told.clocks.found(turn, origin, ahead / 1_000);
        }
        Ok(())
    }

    /// Closes the connections for comparisons that this peer opened in the last round.
    fn end_own_comparisons(&mut self, turn: &mut PeerTurn<'_>) {
        let guests =
            self.sessions.such(|session| matches!(session, Session::Guest { mine: true, .. }));
        for conn in guests {
            turn.close(conn);
            self.sessions.remove(conn);
            self.broadcast.rumors.link_down(conn);
        }
    }
}
