//! The connections of a peer: what each is for, who may open one, and who may say what over which.
//!
//! What must stay true: whoever answers under an address must be the one that was meant; and a
//! message that does not belong on a connection ends that connection, and costs nothing else.

use super::sessions::{Dial, Session};
use super::{PeerMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::limits::Limit;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{
    Addr, Breach, Broadcast, Hello, Identity, Message, Parting, Purpose, Refused, Role, Welcome,
};
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

impl PeerMachine {
    pub(super) fn incoming(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, hello: &Hello) {
        let refused = match (hello.purpose, hello.role) {
            _ if hello.from == self.life.config.me => Some((Refused::Myself, Vec::new())),
            (Purpose::Probe, _) => None,
            (_, Role::Peer) if !self.can_be(&hello.from, hello.identity) => {
                Some((Refused::WrongIdentity, Vec::new()))
            }
            (Purpose::Errand, Role::Peer) => None,
            (Purpose::Link, Role::Peer) => self.objection_to_link(turn, hello),
            (Purpose::Sync, Role::Peer) => {
                self.objection_to_guest(hello).map(|reason| (reason, Vec::new()))
            }
            (Purpose::Ask, Role::Peer) => {
                self.objection_to_inquirer().map(|reason| (reason, Vec::new()))
            }
            _ => Some((Refused::WrongRole, Vec::new())),
        };
        if let Some((reason, others)) = refused {
            self.tell_of_refusal(turn, hello, reason);
            turn.refuse(conn, reason, others);
            return;
        }
        self.told.clocks.met(turn, hello.from, hello.clock);
        let me = self.life.config.me;
        let (incarnation, leaving) = (self.life.incarnation, self.life.leaving);
        turn.welcome(
            conn,
            Welcome { role: Role::Peer, from: me, incarnation, leaving, clock: 0, identity: None },
        );
        match hello.purpose {
            Purpose::Link => self.link_up(turn, conn, hello.from, hello.incarnation, false),
            Purpose::Errand => {
                self.sessions.insert(conn, Session::Caller { from: hello.from, since: turn.now });
                self.expect_end(turn);
            }
            Purpose::Sync => self.guest_up(turn, conn, hello.from, false),
            Purpose::Ask => {
                self.sessions.insert(conn, Session::Inquirer { since: turn.now });
                self.expect_end(turn);
            }
            _ => turn.close(conn),
        }
        self.sessions.prove(conn, hello.identity);
    }

    fn tell_of_refusal(&mut self, turn: &mut PeerTurn<'_>, hello: &Hello, reason: Refused) {
        if matches!(reason, Refused::Myself | Refused::WrongRole | Refused::WrongIdentity) {
            let keys =
                vec![("from", hello.from.to_string()), ("reason", reason.words().to_owned())];
            let told = self.is_told_of(turn.now, &hello.from);
            let severity = if told { Severity::Warn } else { Severity::Debug };
            turn.note(severity, "link refused", keys);
        }
        match (reason, hello.purpose) {
            (Refused::Full, Purpose::Sync) => turn.over_limit(Limit::Guests, Some(hello.from)),
            (Refused::Full, Purpose::Ask) => turn.over_limit(Limit::Inquirers, Some(hello.from)),
            _ => {}
        }
    }

    /// Whether a process that has proven this identity, or none, can be the member at that address.
    /// The seeds have bound the address to the member that registered it. A neighbour of which no
    /// seed has told yet is known by its link.
    fn can_be(&self, member: &Addr, identity: Option<Identity>) -> bool {
        let neighbour = self.overlay.get(member);
        let linked = neighbour.and_then(|neighbour| self.sessions.proven(neighbour.conn));
        linked.is_none_or(|linked| Some(linked) == identity)
            && self.membership.members.alive(member).is_none_or(|record| record.can_be(identity))
    }

    /// Closes the connections of callers that came for one question, notice or comparison and have
    /// stayed too long.
    pub(super) fn dismiss_callers(&mut self, turn: &mut PeerTurn<'_>) {
        let (overdue, next) = self.sessions.overdue(turn.now);
        for conn in overdue {
            turn.close(conn);
            self.line_down(turn, conn, false);
        }
        if let Some(next) = next {
            self.timers.set_earlier(Timer::Dismiss, next);
        }
    }

    pub(super) fn open_result(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        result: Result<Welcome, OpenError>,
    ) {
        let Some(dial) = self.sessions.end_dial(conn) else {
            if result.is_ok() {
                turn.close(conn);
            }
            return;
        };
        let (to, role) = dial.to();
        // The peer or seed that answers must be the one that was meant, and not another process
        // that listens there now.
        let identity = result.as_ref().ok().and_then(|welcome| welcome.identity);
        let result = match result {
            Ok(welcome) if welcome.is_of(role, to) && self.can_be(&to, welcome.identity) => {
                self.told.clocks.met(turn, to, welcome.clock);
                Ok(welcome)
            }
            Ok(_) => {
                turn.close(conn);
                Err(OpenError::Garbage)
            }
            Err(error) => Err(error),
        };
        match dial {
            Dial::Seed(seed) => self.seed_answers(turn, conn, seed, result),
            Dial::Link(peer) => self.link_answers(turn, conn, peer, result),
            Dial::Probe(peer) => {
                if result.is_ok() {
                    turn.close(conn);
                }
                self.probe_answers(turn, conn, peer, result);
            }
            Dial::Errand { to, suspect } => self.errand_answers(turn, conn, to, suspect, result),
            Dial::Sync(peer) => self.stranger_answers(turn, conn, peer, result),
            Dial::Ask { to, token } => self.asked_answers(turn, conn, (to, token), result),
        }
        self.sessions.prove(conn, identity);
    }

    pub(super) fn received(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, message: Message) {
        let Some(session) = self.sessions.get(conn) else { return };
        let heard = match (session, message) {
            (Session::Neighbour(peer), message) => self.hear_neighbour(turn, conn, peer, message),
            (Session::Seed(seed), Message::ToPeer(said)) => self.hear_seed(turn, seed, said),
            (Session::Seed(seed), Message::Ping(number)) => {
                self.say(turn, seed, Message::Pong(number));
                Ok(())
            }
            (
                Session::Errand { to: from, .. } | Session::Caller { from, .. },
                Message::Detection(said),
            ) => {
                self.hear_of_suspect(turn, conn, from, said);
                Ok(())
            }
            (Session::Guest { .. }, Message::Broadcast(Broadcast::Gossip(gossip))) => {
                self.hear_gossip(turn, conn, gossip)
            }
            (Session::Guest { .. }, Message::AntiEntropy(said)) => self.hear_sync(turn, conn, said),
            (Session::Asking { token, .. }, Message::Inspection(said)) => {
                self.hear_answer(turn, token, said)
            }
            (Session::Inquirer { .. }, Message::Inspection(said)) => {
                self.hear_inquirer(turn, conn, said)
            }
            _ => Err(Breach),
        };
        if heard.is_err() {
            turn.close_for_breach(conn, session.with());
            self.line_down(turn, conn, false);
        }
    }

    /// Takes in what a neighbour says. A breach if it is not for neighbours to say.
    fn hear_neighbour(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        peer: Addr,
        message: Message,
    ) -> Result<(), Breach> {
        if let Some(neighbour) = self.overlay.get_mut(&peer) {
            neighbour.heard = turn.now;
        }
        match message {
            Message::Broadcast(said) => return self.hear_broadcast(turn, conn, said),
            Message::AntiEntropy(said) => return self.hear_sync(turn, conn, said),
            Message::StoreSync(said) => {
                let heard = self.replica.hear(turn, conn, said, &self.broadcast.rumors.paths());
                self.check_caught_up(turn);
                return heard;
            }
            Message::Members(said) => return self.hear_of_members(turn, conn, peer, said),
            Message::Detection(said) => self.hear_of_suspect(turn, conn, peer, said),
            Message::Parting(said) => {
                match said {
                    Parting::Leaving => {
                        let incarnation = self.overlay.get(&peer).map_or(0, |n| n.incarnation);
                        let members = &self.membership.members;
                        self.suspicion.departs(turn.now, members, peer, incarnation);
                    }
                    Parting::Unlink => {}
                }
                turn.close(conn);
                self.line_down(turn, conn, false);
            }
            Message::Ping(number) => turn.send(conn, Message::Pong(number)),
            Message::Pong(number) => {
                let sent = Time::from_micros(number);
                if sent <= turn.now {
                    self.broadcast.rumors.round_trip(conn, turn.now.since(sent));
                }
            }
            Message::ToSeed(_)
            | Message::ToPeer(_)
            | Message::Council(_)
            | Message::Inspection(_) => return Err(Breach),
        }
        Ok(())
    }

    fn hear_broadcast(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        said: Broadcast,
    ) -> Result<(), Breach> {
        match said {
            Broadcast::Gossip(gossip) => return self.hear_gossip(turn, conn, gossip),
            Broadcast::Have(have) => return self.broadcast.rumors.on_have(turn, conn, have),
            Broadcast::Want(want) => return self.broadcast.rumors.on_want(turn, conn, &want),
            Broadcast::Prune => self.broadcast.rumors.set_eager(conn, false),
            Broadcast::Graft => self.broadcast.rumors.set_eager(conn, true),
        }
        Ok(())
    }

    /// A connection is gone. `unexpected` if this peer did not close it, and the other side did not
    /// say that it would.
    pub(super) fn line_down(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, unexpected: bool) {
        match self.sessions.remove(conn) {
            Some(Session::Neighbour(peer)) => self.link_down(turn, conn, peer, unexpected),
            Some(Session::Seed(seed)) => self.seed_lost(turn, conn, seed),
            Some(Session::Guest { .. }) => self.broadcast.rumors.link_down(conn),
            Some(Session::Asking { token, .. }) => {
                self.question_failed(turn, token, "it hung up without an answer");
            }
            Some(Session::Errand { .. } | Session::Caller { .. } | Session::Inquirer { .. })
            | None => {}
        }
    }
}
