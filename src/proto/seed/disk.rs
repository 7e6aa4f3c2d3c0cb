//! What a seed does once a batch is on its disk: it counts, answers or passes on what waited for
//! that.
//!
//! What must stay true: nothing is answered, committed to others or counted before it is on disk,
//! because a crash would undo it; and every committed transition is logged once.

use super::SeedMachine;
use super::ballot::{ChangeKey, Waiter};
use super::durability::Pending;
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, ChangeKind, Council, Decision, Incarnation, Standing};
use crate::proto::registry::{Merge, Record, Status};
use crate::proto::turn::SeedTurn;

impl SeedMachine {
    /// Does whatever waited for this batch to be on disk.
    pub(super) fn persisted(&mut self, turn: &mut SeedTurn<'_>, batch: u64) {
        for pending in self.durability.persisted(batch) {
            match pending {
                Pending::Record { peer, record, tell, decision } => {
                    self.record_is_durable(turn, (peer, record), tell, decision);
                }
                Pending::Standing(standing) => self.standing_is_durable(turn, standing),
                Pending::Founders(_) | Pending::SetAside(_) => {}
                Pending::Compared { seed, standing } => self.compared(turn, seed, standing),
                Pending::Expired { seed, round } => {
                    self.colleagues.tell(turn, &seed, Council::Expired { round });
                }
                Pending::Forget { peer, incarnation } => self.forget(peer, incarnation),
            }
        }
    }

    fn record_is_durable(
        &mut self,
        turn: &mut SeedTurn<'_>,
        (peer, record): (Addr, Record),
        tell: Option<Waiter>,
        decision: Option<Box<Decision>>,
    ) {
        let me = self.roster.me();
        if let Some(decision) = &decision {
            self.shown.history.add(Decision::clone(decision));
        }
        // Another seed that tells of a record has it on disk, and now this seed does, too.
        let own = tell.is_some_and(|waiter| waiter.proposer == me);
        self.take_in(turn, peer, record.clone(), if own { 1 } else { 2 });
        match (tell, decision) {
            (Some(Waiter { proposer, ballot }), Some(decision)) if proposer == me => {
                // The commit goes out only now that the record is durable here.
                let commit = Council::Commit { ballot, peer, record, decision };
                self.colleagues.tell_all(turn, commit);
                self.count_durable(turn, ballot, self.roster.number());
            }
            (Some(Waiter { proposer, ballot }), _) => {
                self.colleagues.tell(turn, &proposer, Council::Committed { ballot });
            }
            (None, _) => {}
        }
    }

    /// Takes a durable record into the registry. Logs it if it is a transition, and tells the parts
    /// that wait for one.
    fn take_in(&mut self, turn: &mut SeedTurn<'_>, peer: Addr, record: Record, at_seeds: usize) {
        let (votes, of) = (record.voters.len(), self.roster.count());
        let (incarnation, status, identity) = (record.incarnation, record.status, record.identity);
        let taken = self.book.take_in(turn.now, peer, record, self.roster.flaw());
        if taken.merge != Merge::Nothing {
            self.durability.record_is_at(peer, at_seeds, self.quorum());
            self.sessions.list_changed();
        }
        if taken.merge != Merge::Transition || taken.stale {
            return;
        }
        turn.log(match status {
            Status::Alive => Event::RegistrationCommitted { peer, incarnation, votes, of },
            Status::Left => Event::LeaveCommitted { peer, votes, of, incarnation },
            Status::Dead => Event::DeadNodeCommitted { peer, votes, of, incarnation },
        });
        turn.log(Event::PeerList { size: self.book.registry().size() });
        self.cases.settle(peer, incarnation, status);
        if status != Status::Alive {
            self.shown.links.remove(&peer);
        }
        self.pushes.add(turn.now, peer, status == Status::Left, self.sessions.len());
        let key: ChangeKey = (ChangeKind::to(status), peer, incarnation, identity);
        self.settle(turn, key);
    }

    fn forget(&mut self, peer: Addr, incarnation: Incarnation) {
        if self.book.forget(peer, incarnation) {
            self.shown.history.forget(&peer);
            self.sessions.list_changed();
        }
    }

    fn standing_is_durable(&mut self, turn: &mut SeedTurn<'_>, standing: Standing) {
        let before = self.foothold.is_durable(standing);
        let what = match standing {
            Standing::Fresh => "waiting for other seeds",
            Standing::Founding => "founding a new network",
            Standing::Voting => "voting from now on",
        };
        let keys = vec![
            ("before", before.words().to_owned()),
            ("records", self.book.registry().len().to_string()),
        ];
        turn.note(Severity::Info, what, keys);
        let compare = self.digest();
        self.colleagues.tell_all(turn, compare);
        if standing == Standing::Voting {
            self.may_vote(turn);
        } else {
            self.reconsider(turn);
        }
    }
}
