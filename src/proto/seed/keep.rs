//! What a seed keeps, and what follows once it is durable.
//!
//! What must stay true: nothing is answered, committed to others or counted
//! before it is on disk, and every committed transition is logged once.

use super::ballot::ChangeKey;
use super::desk::SentList;
use super::judge::Waiter;
use super::{SeedMachine, Timer};
use crate::proto::event::Event;
use crate::proto::message::{Addr, ChangeKind, Council, Decision, Incarnation, Standing};
use crate::proto::planted::Flaw;
use crate::proto::registry::{Merge, Record, Status};
use crate::proto::roles::Keep;
use crate::proto::turn::SeedTurn;

/// One change that waits for the disk, and what is done then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pending {
    /// A committed record; a ballot, here or at another seed, waits for the word.
    Record { peer: Addr, record: Record, tell: Option<Waiter>, decision: Option<Box<Decision>> },
    /// This seed's own standing.
    Standing(Standing),
    /// Marks of a founding.
    Founders(Vec<u64>),
    /// A copy of what is on disk.
    SetAside(u64),
    /// All that a seed of that standing held is here.
    Compared { seed: Addr, standing: Standing },
    /// The records that another seed asked about are here.
    Expired { seed: Addr, round: u64 },
    /// The member is not spoken of any more.
    Forget { peer: Addr, incarnation: Incarnation },
}

impl SeedMachine {
    /// Asks the host to make changes durable; what follows from them waits until it has.
    pub(super) fn persist(&mut self, turn: &mut SeedTurn<'_>, pending: Vec<Pending>) {
        self.batches_used += 1;
        let batch = self.batches_used;
        let changes = pending.iter().filter_map(|pending| match pending {
            Pending::Record { peer, record, .. } => Some(Keep::Record(*peer, record.clone())),
            Pending::Standing(standing) => Some(Keep::Standing(*standing)),
            Pending::Founders(marks) => Some(Keep::Founders(marks.clone())),
            Pending::SetAside(number) => Some(Keep::SetAside(*number)),
            Pending::Forget { peer, incarnation } => Some(Keep::Forget(*peer, *incarnation)),
            Pending::Compared { .. } | Pending::Expired { .. } => None,
        });
        turn.persist(batch, changes.collect());
        self.pending.insert(batch, pending);
    }

    pub(super) fn persisted(&mut self, turn: &mut SeedTurn<'_>, batch: u64) {
        for pending in self.pending.remove(&batch).unwrap_or_default() {
            match pending {
                Pending::Record { peer, record, tell, decision } => {
                    self.record_is_durable(turn, peer, record, tell, decision);
                }
                Pending::Standing(standing) => self.standing_is_durable(turn, standing),
                Pending::Founders(_) | Pending::SetAside(_) => {}
                Pending::Compared { seed, standing } => self.compared(turn, seed, standing),
                Pending::Expired { seed, round } => {
                    self.tell(turn, &seed, Council::Expired { round });
                }
                Pending::Forget { peer, incarnation } => self.forget(peer, incarnation),
            }
        }
    }

    fn record_is_durable(
        &mut self,
        turn: &mut SeedTurn<'_>,
        peer: Addr,
        record: Record,
        tell: Option<Waiter>,
        decision: Option<Box<Decision>>,
    ) {
        if let Some(decision) = &decision {
            self.history.add(Decision::clone(decision));
        }
        // Whoever tells of a record has it on disk, and now this seed does.
        let own = tell.is_some_and(|waiter| waiter.proposer == self.config.me);
        self.take_in(turn, peer, record.clone(), if own { 1 } else { 2 });
        match (tell, decision) {
            (Some(Waiter { proposer, ballot }), Some(decision)) if proposer == self.config.me => {
                // Only now: nothing is committed to others before it is durable here.
                let decision = *decision;
                self.tell_all(turn, Council::Commit { ballot, peer, record, decision });
                self.count_durable(turn, ballot, self.me);
            }
            (Some(Waiter { proposer, ballot }), _) => {
                self.tell(turn, &proposer, Council::Committed { ballot });
            }
            (None, _) => {}
        }
    }

    /// Takes a durable record into the registry, and logs the transition that it is.
    fn take_in(&mut self, turn: &mut SeedTurn<'_>, peer: Addr, record: Record, at_seeds: usize) {
        let (votes, of) = (record.voters.len(), self.seeds());
        let (incarnation, status) = (record.incarnation, record.status);
        // What was dropped as long gone, and comes once more from a seed that had not dropped it
        // yet, is no news.
        let stale = record.is_expired(turn.now) && self.registry.get(&peer).is_none();
        let merge = if self.config.flaw() == Flaw::UnversionedRegistry {
            let known = self.registry.get(&peer);
            let same = known.is_some_and(|known| known.same_transition(&record));
            self.registry.replace(peer, record);
            if same { Merge::Detail } else { Merge::Transition }
        } else {
            self.registry.merge(peer, record)
        };
        if merge != Merge::Nothing {
            self.status_digest = None;
            self.list = SentList::default();
            self.tree.touch(&peer);
            self.record_is_at(peer, at_seeds);
        }
        if merge != Merge::Transition || stale {
            return;
        }
        turn.log(match status {
            Status::Alive => Event::RegistrationCommitted { peer, incarnation, votes, of },
            Status::Left => Event::LeaveCommitted { peer, votes, of, incarnation },
            Status::Dead => Event::DeadNodeCommitted { peer, votes, of, incarnation },
        });
        turn.log(Event::PeerList { size: self.registry.size() });
        let settled: Vec<_> = self
            .cases
            .range((peer, 0)..=(peer, incarnation))
            .map(|(case, _)| *case)
            .filter(|(_, accused)| *accused < incarnation || status != Status::Alive)
            .collect();
        for (peer, incarnation) in settled {
            self.close_case(peer, incarnation);
        }
        if status != Status::Alive {
            self.links.remove(&peer);
        }
        self.changed.insert(peer);
        if status == Status::Left {
            // Nobody is to look for it in vain.
            self.timers.set(Timer::Push, turn.now);
        } else {
            self.timers.set_if_unset(Timer::Push, turn.now + self.push_delay());
        }
        let kind = match status {
            Status::Alive => ChangeKind::Join,
            Status::Left => ChangeKind::Leave,
            Status::Dead => ChangeKind::Dead,
        };
        let key: ChangeKey = (kind, peer, incarnation);
        self.settle(turn, key);
    }

    fn forget(&mut self, peer: Addr, incarnation: Incarnation) {
        let gone = self.registry.get(&peer).is_some_and(|record| {
            record.incarnation == incarnation && record.status != Status::Alive
        });
        if gone {
            self.registry.remove(&peer);
            self.tree.drop(&peer);
            self.history.forget(&peer);
            self.status_digest = None;
            self.list = SentList::default();
        }
    }
}
