//! What the seeds answer a peer, and what they tell it of its network.
//!
//! What must stay true: the peer counts as registered once a quorum of distinct seeds has answered
//! that it holds this incarnation; the peer acts on what a quorum says of a member (`membership`),
//! and never on what one seed says.

use std::time::Duration;

use super::common::may_rise_above;
use super::membership::Kind;
use super::membership::voted::{Belief, Heard, Said};
use super::registration::{Framed, Wish};
use super::{LAST_WORDS, Membership, PeerMachine, Timer};
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Breach, Incarnation, Records, ToPeer};
use crate::proto::registry::{Record, Status};
use crate::proto::roles::MemberEvent;
use crate::proto::turn::PeerTurn;

/// A registered peer has heard only from a quorum of the seeds. It asks all of them this soon, so
/// that losing one seed leaves no gap in what it has heard.
const FIRST_REFRESH: Duration = Duration::from_secs(2);

impl PeerMachine {
    /// Takes in what a seed says. A breach if it makes no sense.
    pub(super) fn hear_seed(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        message: ToPeer,
    ) -> Result<(), Breach> {
        match message {
            ToPeer::Granted { request, .. } => self.granted(turn, seed, request),
            ToPeer::Denied { request, reason, known, .. } => {
                self.denied(turn, seed, request, reason, known);
            }
            ToPeer::List { request, records, more } => {
                return self.list_received(turn, seed, request, records, more);
            }
            ToPeer::Unchanged { request } => self.unchanged(turn, seed, request),
            ToPeer::NoMember { peer } => self.learn(turn, seed, Said::Absence(peer)),
            ToPeer::Update(records) => self.learn(turn, seed, Said::Records(records)),
        }
        Ok(())
    }

    /// A seed answers that its list is the one whose digest the peer sent.
    fn unchanged(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, id: u64) {
        let Some(request) = self.registration.request_to(seed, id) else { return };
        if request.wish != Wish::Refresh {
            return;
        }
        let version = request.version;
        self.registration.end(id);
        self.timers.cancel(&Timer::SeedRequest(id));
        self.registration.refresh_answered();
        // The seed compared the list as it was then. If that has changed since, the next refresh
        // compares.
        if matches!(&self.membership.kind, Kind::Voted(voted) if voted.version() == version) {
            self.learn(turn, seed, Said::Agreement);
        }
    }

    fn granted(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, id: u64) {
        let Some(request) = self.registration.request_to(seed, id) else { return };
        let leaving = self.life.leaving;
        match request.wish {
            Wish::Register(incarnation) if incarnation == self.life.incarnation && !leaving => {
                let Some(count) = self.registration.accept(seed) else { return };
                let quorum = self.quorum();
                turn.log(Event::Registered { seed, count, quorum });
                if count >= quorum {
                    self.registration.complete();
                    self.timers.cancel(&Timer::Hedge);
                    turn.member(MemberEvent::Registered);
                    let pause = self.jitter(FIRST_REFRESH);
                    self.timers.set(Timer::Refresh, turn.now + pause);
                }
            }
            Wish::Leave if leaving => {
                self.timers.set(Timer::Leave, turn.now + LAST_WORDS);
            }
            _ => {}
        }
    }

    pub(super) fn denied(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        id: u64,
        reason: String,
        known: Incarnation,
    ) {
        let Some(request) = self.registration.request_to(seed, id) else { return };
        let wish = request.wish;
        let (severity, what) = match wish {
            Wish::Register(_) => (Severity::Warn, "registration denied"),
            Wish::Leave => (Severity::Warn, "leave denied"),
            Wish::Refresh => (Severity::Debug, "refresh denied"),
        };
        let news = self.told.repeats.is_news(turn.now, what, seed, &reason);
        let severity = if news { severity } else { Severity::Debug };
        if matches!(wish, Wish::Register(_)) {
            self.registration.refuse(&seed, reason.clone());
        }
        turn.note(severity, what, vec![("seed", seed.to_string()), ("reason", reason)]);
        // The seed knows this life of the address already, or a later one: come back above it.
        let later = known >= self.life.incarnation && may_rise_above(known, turn.now);
        if wish == Wish::Register(self.life.incarnation) && later {
            self.registration.end(id);
            self.timers.cancel(&Timer::SeedRequest(id));
            self.rise_above(turn, known);
        } else {
            self.request_failed(turn, id);
        }
    }

    fn list_received(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        id: u64,
        records: Records,
        more: bool,
    ) -> Result<(), Breach> {
        let Framed::Whole(request) = self.registration.frame(seed, id, records, more)? else {
            return Ok(());
        };
        self.timers.cancel(&Timer::SeedRequest(id));
        if matches!(request.wish, Wish::Register(_)) {
            request.log_answer(turn);
        }
        let missing = !request.names(&self.life.config.me);
        self.registration.refresh_answered();
        self.learn(turn, seed, Said::List(request.frames()));
        if missing && self.registration.is_registered() && request.wish == Wish::Refresh {
            // This seed lost what it knew, and perhaps all of them did.
            let incarnation = self.life.incarnation;
            self.request(turn, seed, Wish::Register(incarnation));
        }
        if !self.registration.is_registered() {
            self.ask_next_seed(turn);
        } else {
            self.fill(turn);
        }
        Ok(())
    }

    /// A seed has said something of the members: acts on what a quorum of the seeds says now.
    fn learn(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, said: Said<'_>) {
        let Membership { members, former, kind: Kind::Voted(voted) } = &mut self.membership else {
            return;
        };
        let heard = voted.hear(members, seed, said);
        heard.former.into_iter().for_each(|was| former.add(turn.now, was));
        let Heard { beliefs, changed, .. } = heard;
        for belief in beliefs {
            match belief {
                Belief::Believed(peer, record) => self.now_believed(turn, seed, peer, &record),
                Belief::Forgotten(peer, record) => self.no_longer_known(turn, peer, &record),
            }
        }
        if changed {
            self.members_changed(turn);
        }
    }

    fn now_believed(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, peer: Addr, record: &Record) {
        if peer == self.life.config.me {
            self.learn_of_myself(turn, record);
            return;
        }
        match record.status {
            Status::Alive => {
                self.member_renewed(turn, peer, record.incarnation);
                let event = MemberEvent::Joined(peer, record.incarnation);
                turn.member(event);
            }
            Status::Left => {
                self.member_gone(turn, peer, record);
                turn.member(MemberEvent::Left(peer));
            }
            Status::Dead => {
                self.confirm_dead(turn, seed, peer, record);
                self.member_gone(turn, peer, record);
                turn.member(MemberEvent::Dead(peer));
            }
        }
    }

    /// The seeds have lost a record, or have dropped it because it was long over.
    fn no_longer_known(&mut self, turn: &mut PeerTurn<'_>, peer: Addr, record: &Record) {
        if peer == self.life.config.me {
            if !self.life.leaving {
                turn.note(Severity::Warn, "rejoining", vec![("registry", "absent".to_owned())]);
                self.registration.begin_anew();
                self.begin_registration(turn);
            }
            return;
        }
        self.drop_suspicion(peer);
        self.prober.settle(&peer);
        self.suspicion.forget_departure(&peer);
        if let Some(neighbour) = self.overlay.get_mut(&peer) {
            // It may be registering again at this moment, so it gets as much time as a newcomer.
            neighbour.stranger_since = turn.now;
        }
        if record.status == Status::Alive {
            let keys = vec![
                ("peer", peer.to_string()),
                ("reason", "no quorum of seeds knows it".to_owned()),
            ];
            turn.note(Severity::Info, "member forgotten", keys);
            turn.member(MemberEvent::Forgotten(peer));
        }
    }
}
