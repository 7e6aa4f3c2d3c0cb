//! Who is dead: suspicion, witnesses, consensus.
//!
//! The shape is SWIM's (Das, Gupta, Motivala, "SWIM", DSN 2002: suspicion, indirect probes,
//! refutation by a higher incarnation), with two differences: a suspicion needs a second,
//! first-hand witness before it is reported, and the report decides nothing: the seeds look for
//! themselves.
//!
//! What must stay true: a peer suspects only what it has found itself; and it reports only what a
//! second peer has found as well, or what no other peer is left to find.

use std::time::Duration;

use super::common::sample;
use super::membership::BuriedBy;
use super::prober::{Found, Why};
use super::sessions::{Dial, Session};
use super::suspicions::{Decided, PRESS, Suspicion};
use super::{PeerMachine, Timer};
use crate::proto::config::Overlay;
use crate::proto::event::{Event, Severity};
use crate::proto::limits::Limit;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Detection, Incarnation, Message, Purpose, ToSeed, Welcome};
use crate::proto::registry::Record;
use crate::proto::roles::MemberEvent;
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// Random members asked to look for themselves. Neighbours of the suspect are rarely neighbours of
/// each other, so without these most deaths could never be confirmed.
const WITNESSES_ASKED: usize = 3;
/// Random members among whom those are looked for.
const WITNESSES_DRAWN: usize = 64;
/// After a sleep longer than this the peer gives up its links: a message that lay in a buffer
/// meanwhile would say that it is young, and the others dropped this peer long ago.
const STALE: Duration = Duration::from_secs(600);

/// The message that the assignment asks for: who is dead, when, and who says so.
fn dead_node_text(now: Time, peer: &Addr, me: &Addr) -> String {
    let bracketed = |addr: &Addr| match addr {
        Addr::V4(addr) => addr.ip().to_string(),
        Addr::V6(addr) => format!("[{}]", addr.ip()),
    };
    format!("Dead Node:{}:{}:{now}:{}", bracketed(peer), peer.port(), bracketed(me))
}

impl PeerMachine {
    /// This process slept, so no silence of others proves anything: every neighbour gets a fresh
    /// chance.
    pub(super) fn wake_up(&mut self, turn: &mut PeerTurn<'_>, late: Duration) {
        let keys = vec![("for", format!("{}ms", late.as_millis()))];
        turn.note(Severity::Warn, "was asleep", keys);
        self.prober.awake(turn.now);
        self.overlay.all_heard(turn.now);
        if late > STALE {
            // What still lies in the buffers of these links is older than it says. New links begin
            // with a comparison, which brings what is missing.
            for neighbour in self.neighbours() {
                self.unlink(turn, neighbour);
            }
        }
        self.ping_neighbours(turn);
        self.timers.set(Timer::Refresh, turn.now);
    }

    pub(super) fn ping_neighbours(&mut self, turn: &mut PeerTurn<'_>) {
        let links: Vec<Conn> = self.overlay.conns();
        self.ping(turn, links);
    }

    /// Pings the neighbours that have been silent for so long that two more intervals would make
    /// them suspects. Any traffic counts as life, and where each message counts it is the only sign
    /// that costs nothing. The older of two neighbours waits one interval longer than the younger,
    /// because one ping shows both that the other lives.
    pub(super) fn ping_the_silent(&mut self, turn: &mut PeerTurn<'_>) {
        let (interval, limit) =
            (self.life.config.detection.ping_interval, self.life.config.detection.suspect_timeout);
        let me = self.age(&self.life.config.me);
        let silent = |peer: &Addr, heard| {
            let left = if me < self.age(peer) { interval } else { interval * 2 };
            turn.now.since(heard) >= limit.saturating_sub(left)
        };
        let links = self.overlay.iter().filter(|(peer, n)| silent(peer, n.heard));
        let links = links.map(|(_, n)| n.conn).collect();
        self.ping(turn, links);
    }

    pub(super) fn ping(&mut self, turn: &mut PeerTurn<'_>, links: Vec<Conn>) {
        turn.send_many(links, Message::Ping(turn.now.micros()));
    }

    /// A neighbour may have been silent for the suspect timeout: suspects it if so.
    pub(super) fn check_silence(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        let Some(neighbour) = self.overlay.get(&peer) else { return };
        let deadline = neighbour.heard + self.life.config.detection.suspect_timeout;
        let incarnation = neighbour.incarnation;
        if turn.now < deadline {
            self.timers.set(Timer::Silence(peer), deadline);
        } else if !self.life.leaving {
            let reason = "silent for the suspect timeout";
            let found = Found { hard: false, asked: false, reason };
            if self.suspect(turn, peer, incarnation, found) {
                self.spread_notice(turn, peer);
            }
            if self.life.config.topology.overlay != Overlay::ScaleFree {
                // These overlays spread no notices, so nobody is going to remove it; messages need
                // another path.
                self.unlink(turn, peer);
            }
        }
    }

    /// Takes in what this peer has found itself. True if it now suspects the member and did not
    /// before.
    pub(super) fn suspect(
        &mut self,
        turn: &mut PeerTurn<'_>,
        peer: Addr,
        incarnation: Incarnation,
        found: Found,
    ) -> bool {
        let Found { hard, asked, reason } = found;
        if self.suspicion.contains(&peer) {
            return false;
        }
        if self.suspicion.is_full() {
            turn.over_limit(Limit::Suspicions, Some(peer));
            return false;
        }
        let Some(record) = self.membership.members.alive(&peer) else {
            self.give_up_ghost(turn, peer);
            return false;
        };
        if self.is_departing(turn.now, &peer) {
            return false;
        }
        let patience = self.life.config.detection.suspect_timeout;
        let open = self.membership.kind.open();
        if let Some(until) = open.and_then(|o| o.awaited_until(turn.now, &peer, record, patience)) {
            self.look_when_due(peer, until);
            return false;
        }
        if record.incarnation > incarnation && hard {
            // The life that was found dead is an earlier one; the present life gets its own probe.
            let present = record.incarnation;
            self.look_at(turn, peer, present, Why::Turn);
            return false;
        }
        let suspicion = Suspicion::new(record.incarnation, hard, asked);
        self.suspicion.insert(peer, suspicion);
        turn.log(Event::Suspected { peer, reason }.told_if(!asked || !self.is_large()));
        turn.member(MemberEvent::Suspected(peer));
        self.timers.set(Timer::Suspicion(peer), turn.now + PRESS.0);
        // A suspect cannot be a witness, so the other suspicions may now have all the witnesses
        // they can get: check them again, unless others are left for certain. When thousands of
        // members vanish, that would be done thousands of times for thousands.
        if !self.has_witnesses_left() {
            self.check_all(turn);
        }
        true
    }

    /// Whether some member is left that could witness whatever suspicion, counted without a look at
    /// each. False if there may be none.
    fn has_witnesses_left(&self) -> bool {
        let cannot = 1 + self.suspicion.len() + self.suspicion.farewells();
        self.membership.members.size() > cannot
    }

    /// A peer that was found dead is no member, so there is nothing to vote on, only a link to give
    /// up. The news of its registration may still be on its way, so the finding is kept.
    fn give_up_ghost(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        self.suspicion.add_ghost(peer);
        self.unlink(turn, peer);
    }

    pub(super) fn check_all(&mut self, turn: &mut PeerTurn<'_>) {
        for suspect in self.suspicion.suspects() {
            self.check_consensus(turn, suspect);
        }
    }

    pub(super) fn spread_notice(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        if self.life.config.topology.overlay != Overlay::ScaleFree {
            return;
        }
        let Some(suspicion) = self.suspicion.get(&peer) else { return };
        if self.suspicion.is_decided(&peer) {
            return;
        }
        let (incarnation, hard) = (suspicion.incarnation, suspicion.hard);
        let (heard, mut asked) = (suspicion.witnesses.clone(), 0);
        let notice = Detection::SuspectNotice { peer, incarnation };
        let neighbours = self.overlay.iter().filter(|(other, _)| **other != peer);
        turn.send_many(neighbours.map(|(_, n)| n.conn).collect(), notice);
        if !hard {
            self.tell_suspect(turn, peer, incarnation);
        }
        for other in self.some_members() {
            if self.could_witness(turn.now, &other, &peer)
                && !self.overlay.contains(&other)
                && !heard.contains(&other)
            {
                asked += 1;
                let errand = Dial::Errand { to: other, suspect: peer };
                self.dial(turn, other, Purpose::Errand, errand);
            }
            if asked >= WITNESSES_ASKED {
                return;
            }
        }
    }

    /// Some members in random order: all where there are few. When thousands of members vanish there
    /// is a notice of each, and to ask of all members whether they could be a witness would then be
    /// most of what a peer does.
    fn some_members(&mut self) -> Vec<Addr> {
        let members = &self.membership.members;
        let drawn = sample(&mut self.life.rng, members.size(), WITNESSES_DRAWN);
        let mut order: Vec<(usize, usize)> = drawn.into_iter().zip(0..).collect();
        order.sort_unstable();
        let mut all = members.members().map(|(member, _)| *member).zip(0..);
        let mut some: Vec<(usize, Addr)> = Vec::with_capacity(order.len());
        for (place, turn) in order {
            some.extend(all.find(|(_, at)| *at == place).map(|(member, _)| (turn, member)));
        }
        some.sort_unstable();
        some.into_iter().map(|(_, member)| member).collect()
    }

    fn could_witness(&self, now: Time, other: &Addr, suspect: &Addr) -> bool {
        other != suspect
            && *other != self.life.config.me
            && !self.suspicion.contains(other)
            && !self.suspicion.has_said_farewell(now, other)
    }

    /// Tells a suspect that it is suspected, also over a fresh connection, because the link is in
    /// doubt.
    pub(super) fn tell_suspect(
        &mut self,
        turn: &mut PeerTurn<'_>,
        peer: Addr,
        incarnation: Incarnation,
    ) {
        if let Some(neighbour) = self.overlay.get(&peer) {
            turn.send(neighbour.conn, Detection::SuspectNotice { peer, incarnation });
        }
        let errand = Dial::Errand { to: peer, suspect: peer };
        if !self.sessions.is_dialling(errand) {
            self.dial(turn, peer, Purpose::Errand, errand);
        }
    }

    pub(super) fn errand_answers(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        to: Addr,
        suspect: Addr,
        result: Result<Welcome, OpenError>,
    ) {
        match result {
            Ok(welcome) => {
                // A suspect that answers is told all the same, because others suspect it too and it
                // can refute.
                let incarnation = match self.suspicion.get(&suspect) {
                    Some(suspicion) => suspicion.incarnation,
                    None if to == suspect => welcome.incarnation,
                    None => {
                        turn.close(conn);
                        return;
                    }
                };
                self.sessions.insert(conn, Session::Errand { to, suspect });
                turn.send(conn, Detection::SuspectNotice { peer: suspect, incarnation });
                if to == suspect && self.suspicion.contains(&suspect) {
                    self.refuted(turn, suspect, suspect, welcome.incarnation);
                }
            }
            Err(_) if to == suspect => {}
            Err(_) => {
                if let Some(record) = self.membership.members.alive(&to) {
                    let incarnation = record.incarnation;
                    self.look_at(turn, to, incarnation, Why::NotLinked);
                }
            }
        }
    }

    /// A suspect is alive after all.
    pub(super) fn refuted(
        &mut self,
        turn: &mut PeerTurn<'_>,
        peer: Addr,
        by: Addr,
        incarnation: Incarnation,
    ) {
        let asked = self.suspicion.get(&peer).is_some_and(|suspicion| suspicion.asked);
        if !self.drop_suspicion(peer) {
            return;
        }
        turn.log(Event::SuspicionRefuted { peer, by }.told_if(!asked || !self.is_large()));
        turn.member(MemberEvent::Refuted(peer));
        self.overlay.raise(&peer, incarnation);
        if let Some(neighbour) = self.overlay.get(&peer) {
            if turn.now.since(neighbour.heard) >= self.life.config.detection.suspect_timeout {
                // The peer lives, but nothing came over this link for the whole timeout: the link
                // is dead.
                self.unlink(turn, peer);
            } else {
                let deadline = neighbour.heard + self.life.config.detection.suspect_timeout;
                self.timers.set(Timer::Silence(peer), deadline);
            }
        }
        if self.life.config.topology.overlay != Overlay::ScaleFree {
            // A cut that has healed towards one suspect has most likely healed towards all, and
            // each of them may hold what the others lack. Waiting for the next look at each of them
            // would lose seconds.
            self.probe_all_suspects(turn);
            self.fill(turn);
        }
    }

    /// Forgets a suspicion. Its errands stay open until they are answered or closed. Returns
    /// whether there was one.
    pub(super) fn drop_suspicion(&mut self, peer: Addr) -> bool {
        self.timers.cancel(&Timer::Suspicion(peer));
        self.suspicion.remove(&peer)
    }

    /// The witnesses of a suspicion, if they are enough: at least one, or none where nobody is left
    /// who could be one.
    fn witnesses_enough(&self, now: Time, peer: &Addr, suspicion: &Suspicion) -> Option<Vec<Addr>> {
        let witnesses: Vec<Addr> =
            suspicion.witnesses.iter().copied().filter(|other| self.is_peer(other)).collect();
        let others = || {
            let members = self.membership.members.members().map(|(other, _)| other);
            members.chain(self.overlay.peers()).any(|other| self.could_witness(now, other, peer))
        };
        if witnesses.is_empty() && others() { None } else { Some(witnesses) }
    }

    /// Reports a suspicion that somebody else has witnessed too, or that nobody else is left to
    /// witness.
    pub(super) fn check_consensus(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        let Some(suspicion) = self.suspicion.get(&peer) else { return };
        if suspicion.reported.is_some() {
            return;
        }
        let by = self.membership.kind.buried_by();
        if suspicion.asked && suspicion.presses == 0 && self.is_large() && by != BuriedBy::Peers {
            // Whoever asked this peer to look has its answer and reports the death. If the seeds
            // have not decided by the next press, this peer reports as well.
            return;
        }
        let Some(witnesses) = self.witnesses_enough(turn.now, &peer, suspicion) else { return };
        let (seen_by, incarnation) = (witnesses.len(), suspicion.incarnation);
        if self
            .membership
            .members
            .alive(&peer)
            .is_none_or(|record| record.incarnation > incarnation)
        {
            // The death is decided already, or the life suspected is not the present one.
            return;
        }
        if witnesses.is_empty() {
            let reason = "nobody else is left who could witness it".to_owned();
            let keys = vec![("peer", peer.to_string()), ("reason", reason)];
            turn.note(Severity::Info, "sole witness", keys);
        } else {
            turn.log(Event::PeerLevelConsensus { peer, witnesses });
        }
        let text = dead_node_text(turn.now, &peer, &self.life.config.me);
        turn.log(Event::DeadNodeMessage { text: text.clone() });
        if let Some(suspicion) = self.suspicion.get_mut(&peer) {
            suspicion.reported = Some(text);
        }
        match by {
            BuriedBy::Seeds => self.report(turn, peer),
            BuriedBy::Peers => {
                self.suspicion.decide(Decided { peer, incarnation, witnesses: seen_by });
            }
            BuriedBy::Nobody => {}
        }
    }

    fn report(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        let Some(suspicion) = self.suspicion.get(&peer) else { return };
        let Some(text) = suspicion.reported.clone() else { return };
        let incarnation = suspicion.incarnation;
        for seed in self.life.config.network.seeds().to_vec() {
            let text = text.clone();
            self.say(turn, seed, ToSeed::DeadNode { peer, incarnation, text });
        }
    }

    /// A suspicion is neither confirmed nor refuted yet: look again, ask again, report again.
    pub(super) fn press_on(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        let is_errand =
            |session| matches!(session, Session::Errand { suspect, .. } if suspect == peer);
        let errands = self.sessions.such(is_errand);
        for conn in errands {
            self.sessions.remove(conn);
            turn.close(conn);
        }
        let Some(suspicion) = self.suspicion.get_mut(&peer) else { return };
        let pause = suspicion.press();
        let (incarnation, reported) = (suspicion.incarnation, suspicion.reported.is_some());
        self.timers.set(Timer::Suspicion(peer), turn.now + pause);
        self.look_at(turn, peer, incarnation, Why::Again);
        if reported {
            self.report(turn, peer);
        } else {
            self.spread_notice(turn, peer);
        }
    }

    /// The seeds have committed a death: logs it, as a detail if other peers are nearer to it.
    pub(super) fn confirm_dead(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        peer: Addr,
        record: &Record,
    ) {
        let suspected = self.suspicion.get(&peer);
        let suspected = suspected.filter(|s| s.incarnation <= record.incarnation);
        let near = suspected.is_some_and(|s| !s.asked || s.reported.is_some() || !self.is_large())
            || self.overlay.contains(&peer);
        let of = self.life.config.network.seeds().len();
        let votes = record.voters.len();
        turn.log(Event::DeadNodeConfirmed { peer, seed: Some(seed), votes, of }.told_if(near));
    }
}
