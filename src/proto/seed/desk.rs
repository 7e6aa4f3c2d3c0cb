//! The desk: hears what peers ask of a seed, and hands it to the part that answers. Peers register,
//! leave, ask for the list, and report links and deaths.

use super::SeedMachine;
use super::ballot::Asker;
use super::cases::Report;
use super::links::MAX_NEIGHBOURS;
use super::sessions::Caller;
use super::voting::tell_of;
use crate::proto::limits::Limit;
use crate::proto::machine::Conn;
use crate::proto::message::{
    Addr, Breach, Change, ChangeKind, Identity, Incarnation, Standing, ToPeer, ToSeed,
};
use crate::proto::registry::{Record, Status};
use crate::proto::turn::SeedTurn;

fn change(
    turn: &SeedTurn<'_>,
    kind: ChangeKind,
    (peer, identity): (Addr, Option<Identity>),
    incarnation: Incarnation,
) -> Change {
    let (at, reporters) = (turn.now.millis(), Vec::new());
    Change { kind, peer, incarnation, at, reporters, identity }
}

impl SeedMachine {
    /// Hears what a peer says, and answers it or has it answered.
    ///
    /// # Errors
    ///
    /// If the caller speaks in the name of another member.
    pub(super) fn hear_peer(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        caller: &Caller,
        message: ToSeed,
    ) -> Result<(), Breach> {
        let peer = caller.peer;
        // Anybody may ask to be registered, since it has to answer at that address then. Everything
        // else is for the one to whom the address belongs.
        let registry = self.book.registry();
        let owns = registry.alive(&peer).is_none_or(|record| record.can_be(caller.identity));
        match message {
            ToSeed::Register { request, .. } | ToSeed::Leave { request, .. }
                if self.polls.is_crowded_by(conn) =>
            {
                turn.over_limit(Limit::Requests, Some(peer));
                let reason = "too many requests of this connection are open".to_owned();
                turn.send(conn, ToPeer::Denied { request, votes: 0, reason, known: 0 });
            }
            ToSeed::Register { request, incarnation } => {
                self.asked_to_register(turn, Asker { conn, request }, caller, incarnation);
            }
            _ if !owns => return Err(Breach),
            ToSeed::Leave { request, incarnation } => {
                self.asked_to_leave(turn, Asker { conn, request }, caller, incarnation);
            }
            ToSeed::Links { number, neighbours } => {
                if neighbours.len() > MAX_NEIGHBOURS {
                    turn.over_limit(Limit::Neighbours, Some(peer));
                }
                self.shown.links.hear(self.book.registry(), peer, number, neighbours);
            }
            ToSeed::Refresh { request, digest } => {
                self.asked_for_news(turn, Asker { conn, request }, digest);
            }
            ToSeed::DeadNode { peer: dead, incarnation, .. } => {
                let report = Report { conn, reporter: peer, dead, incarnation };
                if self.cases.hear(turn, self.book.registry(), &report) {
                    self.review(turn, (dead, incarnation));
                    for life in self.cases.touched(self.book.registry()) {
                        self.review(turn, life);
                    }
                }
            }
        }
        Ok(())
    }

    fn asked_for_news(&mut self, turn: &mut SeedTurn<'_>, asker: Asker, digest: [u8; 32]) {
        let Asker { conn, request } = asker;
        let reason = if self.foothold.standing() != Standing::Voting {
            // This registry may lack changes that were answered for, so it must not pass for the
            // list.
            "this seed has no registry yet; ask another"
        } else if digest == self.book.status_digest() {
            turn.send(conn, ToPeer::Unchanged { request });
            return;
        } else if self.send_list(turn, asker) {
            return;
        } else {
            "the list was sent a moment ago"
        };
        let reason = reason.to_owned();
        turn.send(conn, ToPeer::Denied { request, votes: 0, reason, known: 0 });
    }

    fn asked_to_register(
        &mut self,
        turn: &mut SeedTurn<'_>,
        asker: Asker,
        &Caller { peer, identity, .. }: &Caller,
        incarnation: Incarnation,
    ) {
        let Asker { conn, request } = asker;
        match self.book.registry().get(&peer) {
            Some(known)
                if known.incarnation == incarnation
                    && known.status == Status::Alive
                    && known.identity == identity
                    && self.foothold.standing() == Standing::Voting =>
            {
                let known = known.clone();
                self.answer_for(turn, asker, ChangeKind::Join, peer, &known);
            }
            Some(known) if (known.incarnation, known.status) > (incarnation, Status::Alive) => {
                let reason = format!("known in incarnation {}", known.incarnation);
                let known = known.incarnation;
                turn.send(conn, ToPeer::Denied { request, votes: 0, reason, known });
            }
            known => {
                // A life that replaces another without a death keeps the time of joining, because
                // peers choose their neighbours by the order of joining.
                let joined = known.filter(|k| k.status == Status::Alive).map(|k| k.at);
                let mut change = change(turn, ChangeKind::Join, (peer, identity), incarnation);
                change.at = joined.unwrap_or(change.at);
                self.propose(turn, change, Some(asker));
            }
        }
    }

    fn asked_to_leave(
        &mut self,
        turn: &mut SeedTurn<'_>,
        asker: Asker,
        &Caller { peer, identity, .. }: &Caller,
        incarnation: Incarnation,
    ) {
        match self.book.registry().get(&peer) {
            Some(known) if known.incarnation >= incarnation && known.status != Status::Alive => {
                let known = known.clone();
                self.answer_for(turn, asker, ChangeKind::Leave, peer, &known);
            }
            known => {
                // The same as in the record, which has none if it was made over a plain link.
                let same = known.filter(|known| known.incarnation == incarnation);
                let identity = same.map_or(identity, |known| known.identity);
                let change = change(turn, ChangeKind::Leave, (peer, identity), incarnation);
                self.propose(turn, change, Some(asker));
            }
        }
    }

    /// Proposes the death in an open case, if enough members reported it and no vote on it is under
    /// way here.
    fn review(&mut self, turn: &mut SeedTurn<'_>, (peer, incarnation): (Addr, Incarnation)) {
        let registry = self.book.registry();
        let identity = registry.alive(&peer).and_then(|record| record.identity);
        let key = (ChangeKind::Dead, peer, incarnation, identity);
        if self.polls.is_open(&key) || self.judge.is_judging(&key) {
            return;
        }
        if let Some(reporters) = self.cases.proposable(registry, (peer, incarnation)) {
            let mut change = change(turn, ChangeKind::Dead, (peer, identity), incarnation);
            change.reporters = reporters;
            self.propose(turn, change, None);
        }
    }

    /// Tells connected peers of changed records, except those that wait to be registered. These
    /// will get the whole list; while a thousand peers register, telling each of every change would
    /// be most of the traffic. If one is denied and gets no list, `reject` tells it all records.
    pub(super) fn push(&mut self, turn: &mut SeedTurn<'_>) {
        let registry = self.book.registry();
        let changed = self.pushes.take().into_iter();
        let records: Vec<(Addr, Record)> =
            changed.filter_map(|peer| Some((peer, registry.get(&peer)?.unsigned()))).collect();
        let waiting = self.polls.waiting_to_join(!records.is_empty());
        let peers: Vec<Conn> =
            self.sessions.peers().filter(|conn| !waiting.contains(conn)).collect();
        tell_of(turn, &peers, records);
    }
}
