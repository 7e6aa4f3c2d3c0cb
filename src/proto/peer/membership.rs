//! What the seeds tell a peer of its network, and of itself (DESIGN.md, section 4, registration).
//!
//! What must stay true: a peer that finds itself dead, gone or known in a later life comes back above
//! that, and never below.

use super::PeerMachine;
use crate::proto::machine::{Effect, MemberEvent};
use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::{Merge, Record, Status};
use crate::proto::turn::Turn;

impl PeerMachine {
    /// Takes records from a seed in, and acts on what is new.
    pub(super) fn learn(&mut self, turn: &mut Turn<'_>, seed: Addr, records: Vec<(Addr, Record)>) {
        let mut changed = false;
        for (peer, record) in records {
            let merge = self.members.merge(peer, record.clone());
            changed |= merge != Merge::Nothing;
            if merge != Merge::Transition {
                continue;
            }
            if peer == self.config.me {
                self.learn_of_myself(turn, &record);
                continue;
            }
            match record.status {
                Status::Alive => {
                    self.member_renewed(turn, peer, record.incarnation);
                    let event = MemberEvent::Joined(peer, record.incarnation);
                    turn.effects.push(Effect::Member(event));
                }
                Status::Left => {
                    self.member_gone(turn, peer, record.incarnation);
                    turn.effects.push(Effect::Member(MemberEvent::Left(peer)));
                }
                Status::Dead => {
                    self.confirm_dead(turn, seed, peer, &record);
                    self.member_gone(turn, peer, record.incarnation);
                    turn.effects.push(Effect::Member(MemberEvent::Dead(peer)));
                }
            }
        }
        if changed {
            self.members_changed(turn);
        }
    }

    /// What follows from a list that has changed.
    pub(super) fn members_changed(&mut self, turn: &mut Turn<'_>) {
        self.ranking = None;
        self.arrange(turn);
        self.check_all(turn);
        self.fill(turn);
        self.check_caught_up(turn);
    }

    /// Takes an incarnation above `known` and registers it.
    pub(super) fn rise_above(&mut self, turn: &mut Turn<'_>, known: Incarnation) {
        self.incarnation = self.incarnation.max(known.saturating_add(1));
        if self.config.network.has_seeds() {
            self.accepted.clear();
            self.registered = false;
            self.begin_registration(turn);
        } else if self.is_open() {
            self.tell_of_myself(turn);
        }
    }
}
