//! What the seeds tell a peer of its network (DESIGN.md, section 4, registration).
//!
//! What must stay true: nothing is believed of a member before a quorum of the seeds has told it
//! (`testimony`), and what no quorum can know any more is dropped.

use std::cmp::Ordering;

use super::PeerMachine;
use super::testimony::Verdict;
use crate::proto::event::Severity;
use crate::proto::message::{Addr, Records};
use crate::proto::registry::{Record, Status};
use crate::proto::roles::MemberEvent;
use crate::proto::turn::PeerTurn;

impl PeerMachine {
    /// A seed tells records.
    pub(super) fn learn(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        records: Vec<(Addr, Record)>,
    ) {
        let (mut told, mut changed) = (Vec::with_capacity(records.len()), false);
        for (peer, record) in records {
            changed |= self.learn_detail(peer, &record);
            self.membership.testimony.tell(&self.membership.members, seed, peer, Some(record));
            told.push(peer);
        }
        self.settle(turn, seed, told, changed);
    }

    /// A seed tells all that it knows.
    pub(super) fn learn_list(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, frames: &[Records]) {
        let records = frames.iter().flat_map(|frame| frame.iter());
        let (touched, better) =
            self.membership.testimony.tell_all(&self.membership.members, seed, records);
        for (peer, record) in &better {
            self.membership.members.replace(*peer, record.clone());
        }
        self.settle(turn, seed, touched, !better.is_empty());
    }

    /// A seed says that its list is the one that this peer has.
    pub(super) fn learn_agreement(&mut self, turn: &mut PeerTurn<'_>, seed: Addr) {
        let touched = self.membership.testimony.agree(seed);
        self.settle(turn, seed, touched, false);
    }

    /// A seed says that it knows nobody at an address.
    pub(super) fn learn_absence(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, peer: Addr) {
        self.membership.testimony.tell(&self.membership.members, seed, peer, None);
        self.settle(turn, seed, [peer], false);
    }

    /// The same transition with other voters or another time says nothing of who belongs to the
    /// network, only of the order of joining: any seed's word serves. Whether something changed.
    fn learn_detail(&mut self, peer: Addr, record: &Record) -> bool {
        let better = self.membership.members.get(&peer).is_some_and(|known| {
            known.same_transition(record) && record.precedence(known) == Ordering::Greater
        });
        if better {
            self.membership.members.replace(peer, record.clone());
        }
        better
    }

    /// Acts on what a quorum says now of members of whom a seed has spoken.
    pub(super) fn settle(
        &mut self,
        turn: &mut PeerTurn<'_>,
        seed: Addr,
        touched: impl IntoIterator<Item = Addr>,
        mut changed: bool,
    ) {
        for peer in touched {
            let before = self.membership.members.get(&peer).cloned();
            match self.membership.testimony.verdict(&self.membership.members, &peer) {
                Verdict::Keep => continue,
                Verdict::Believe(record) => {
                    self.membership.members.replace(peer, record.clone());
                    self.membership.testimony.believed_changed(
                        &self.membership.members,
                        peer,
                        before.as_ref(),
                    );
                    self.now_believed(turn, seed, peer, &record);
                }
                Verdict::Drop => {
                    self.membership.members.remove(&peer);
                    self.membership.testimony.believed_changed(
                        &self.membership.members,
                        peer,
                        before.as_ref(),
                    );
                    if let Some(record) = before {
                        self.no_longer_known(turn, peer, &record);
                    }
                }
            }
            self.membership.members_version += 1;
            changed = true;
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

    /// The seeds have lost a record, or dropped it as long over.
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
            // It may be registering again at this moment: it has the time that a newcomer has.
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
