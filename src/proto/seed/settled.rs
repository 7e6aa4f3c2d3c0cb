//! Which records are known to be on disk at a quorum of seeds.
//!
//! A seed may hold a record before that: it proposed it, or was among the first
//! to be told. What must stay true: nothing is answered for that a minority of
//! lost disks could undo, whoever is asked, and however often. So a record that
//! is not known to be settled is committed once more, and answered for when a
//! quorum has said that it is on disk.

use std::collections::BTreeSet;

use super::SeedMachine;
use super::ballot::{Asker, Ballot, Stage, key};
use super::judge::Waiter;
use crate::proto::message::{Addr, CastVote, Change, ChangeKind, Council, Decision};
use crate::proto::registry::{Record, Status};
use crate::proto::turn::SeedTurn;

/// What is not known to be on disk at a quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Unsettled {
    /// Nothing is known of what was here when this life began.
    pub recovered: bool,
    /// These came since.
    pub peers: BTreeSet<Addr>,
    /// Seeds whose registry was equal to this one since it last changed.
    pub agreed: BTreeSet<Addr>,
}

impl SeedMachine {
    fn is_settled(&self, peer: &Addr) -> bool {
        self.quorum() <= 1 || !self.unsettled.recovered && !self.unsettled.peers.contains(peer)
    }

    /// A record was taken in, and so many seeds are known to have it on disk, this one included.
    pub(super) fn record_is_at(&mut self, peer: Addr, seeds: usize) {
        self.unsettled.agreed.clear();
        if seeds < self.quorum() {
            self.unsettled.peers.insert(peer);
        } else {
            self.unsettled.peers.remove(&peer);
        }
    }

    /// Another seed holds what this one holds.
    pub(super) fn agrees(&mut self, seed: Addr) {
        self.unsettled.agreed.insert(seed);
        if self.unsettled.agreed.len() + 1 >= self.quorum() {
            self.unsettled.recovered = false;
            self.unsettled.peers.clear();
        }
    }

    /// Answers for a record that is here: at once if it is settled, else once it is.
    pub(super) fn answer_for(
        &mut self,
        turn: &mut SeedTurn<'_>,
        asker: Asker,
        kind: ChangeKind,
        peer: Addr,
        record: &Record,
    ) {
        if self.is_settled(&peer) {
            self.grant(turn, asker.conn, asker.request, kind, record.voters.len());
            return;
        }
        let change = Change {
            kind: match record.status {
                Status::Alive => ChangeKind::Join,
                Status::Left => ChangeKind::Leave,
                Status::Dead => ChangeKind::Dead,
            },
            peer,
            incarnation: record.incarnation,
            at: record.at,
            reporters: Vec::new(),
        };
        let open = self.ballot_of.get(&key(&change)).copied();
        if let Some(ballot) = open.and_then(|number| self.ballots.get_mut(&number)) {
            ballot.askers.insert(asker);
            return;
        }
        let mut ballot = Ballot::new(change.clone());
        ballot.askers.insert(asker);
        ballot.accepts = record.voters.iter().map(|voter| (*voter, String::new())).collect();
        let durable = BTreeSet::from([self.me]);
        ballot.stage = Stage::Committing { record: record.clone(), durable };
        let number = self.open_ballot(turn, ballot);
        let seeds = self.config.network.seeds();
        let vote = |voter: &u16| {
            let seed = *seeds.get(usize::from(*voter))?;
            Some(CastVote { seed, accept: true, reason: "voted before".to_owned() })
        };
        let decision = Decision {
            change,
            proposer: self.config.me,
            decided: turn.now.millis(),
            votes: record.voters.iter().filter_map(vote).collect(),
            committed: true,
        };
        let record = record.clone();
        self.tell_all(turn, Council::Commit { ballot: number, peer, record, decision });
    }

    /// Another seed commits what is here already, or what something later has replaced: that needs
    /// no disk. False if it is news.
    pub(super) fn hear_old_commit(
        &mut self,
        turn: &mut SeedTurn<'_>,
        waiter: Waiter,
        peer: Addr,
        record: &Record,
    ) -> bool {
        let Some(known) = self.registry.get(&peer) else { return false };
        let later = (known.incarnation, known.status) > (record.incarnation, record.status);
        if known != record && !later {
            return false;
        }
        let Waiter { proposer, ballot } = waiter;
        if later && record.status == Status::Alive {
            // Nobody is to be told that it is in when it is known to be out.
            let known = known.clone();
            self.pass_on(turn, &proposer, peer, known);
        } else {
            self.tell(turn, &proposer, Council::Committed { ballot });
        }
        true
    }
}
