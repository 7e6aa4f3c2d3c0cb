//! One ballot: counts the votes on one proposed change.
//!
//! What must stay true: a change is accepted by a quorum of *all* configured seeds, reachable or
//! not, each of which counts once. If unreachable seeds lowered the quorum, two halves of a cut
//! network could each decide. A rejection for want of votes names the seeds that did not answer
//! (DESIGN.md, section 3).

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::machine::Conn;
use crate::proto::message::{
    Addr, CastVote, Change, ChangeKind, Decision, Identity, Incarnation, Standing,
};
use crate::proto::registry::Record;
use crate::proto::signature::Signature;
use crate::proto::time::Time;

/// A seed's place in the sorted seed list.
pub type SeedNumber = u16;

/// Two proposals with this in common propose the same change.
pub type ChangeKey = (ChangeKind, Addr, Incarnation, Option<Identity>);

/// The key of a change.
pub fn key(change: &Change) -> ChangeKey {
    (change.kind, change.peer, change.incarnation, change.identity)
}

/// A peer's request that waits for a ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker {
    pub conn: Conn,
    pub request: u64,
}

/// A ballot, of this seed or another, whose proposer waits for this seed's judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter {
    pub proposer: Addr,
    pub ballot: u64,
}

/// Number of members that report a death, and number that must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub reporters: usize,
    pub needed: usize,
}

/// What this seed knows of the standing of another seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Other {
    /// Standing that it last told us, if it can be heard.
    pub told: Option<Standing>,
    /// Standing that it had when this seed had taken in all that it held.
    pub compared: Option<Standing>,
    /// Marks of the founding that its registry goes back to, as it last said.
    pub founders: Vec<u64>,
}

/// An accept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accept {
    pub reason: String,
    /// The voter's signature; none over plain links.
    pub signature: Option<Signature>,
}

/// How far a ballot has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Seeds are voting.
    Voting,
    /// A quorum has accepted; `durable` are the seeds that have the record on disk.
    Committing { record: Record, durable: BTreeSet<SeedNumber> },
}

/// The votes on one change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ballot {
    pub change: Change,
    pub accepts: BTreeMap<SeedNumber, Accept>,
    pub rejects: BTreeMap<SeedNumber, String>,
    /// Greatest incarnation of the peer that any counted voter knows.
    pub known: Incarnation,
    pub askers: BTreeSet<Asker>,
    /// A record has changed of which the askers were not told, because the list that they wait for
    /// will hold it. If they get no list, they must be told then.
    pub untold: bool,
    pub stage: Stage,
}

/// Effect of a vote on a ballot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Count {
    /// The vote decides nothing. Either more votes are needed, or it was not counted: it came too
    /// late, was its seed's second, or came from nobody who may vote.
    Nothing,
    /// This vote made the quorum.
    Accepted(Record),
    /// A quorum of accepts can no longer be reached.
    Lost,
}

impl Ballot {
    pub fn new(change: Change) -> Self {
        Self {
            change,
            accepts: BTreeMap::new(),
            rejects: BTreeMap::new(),
            known: 0,
            askers: BTreeSet::new(),
            untold: false,
            stage: Stage::Voting,
        }
    }

    /// Counts the vote of one of `seeds` seeds. Only a seed's first vote counts.
    pub fn count(
        &mut self,
        voter: SeedNumber,
        vote: Result<Accept, String>,
        known: Incarnation,
        seeds: usize,
        quorum: usize,
    ) -> Count {
        let voted = self.accepts.contains_key(&voter) || self.rejects.contains_key(&voter);
        if self.stage != Stage::Voting || voted || usize::from(voter) >= seeds {
            return Count::Nothing;
        }
        self.known = self.known.max(known);
        match vote {
            Ok(accept) => {
                self.accepts.insert(voter, accept);
            }
            Err(reason) => {
                self.rejects.insert(voter, reason);
            }
        }
        if self.accepts.len() >= quorum {
            let record = self.record();
            self.stage = Stage::Committing { record: record.clone(), durable: BTreeSet::new() };
            return Count::Accepted(record);
        }
        if seeds - self.rejects.len() < quorum {
            return Count::Lost;
        }
        Count::Nothing
    }

    fn record(&self) -> Record {
        Record {
            incarnation: self.change.incarnation,
            status: self.change.kind.status(),
            at: self.change.at,
            voters: self.accepts.keys().copied().collect(),
            identity: self.change.identity,
            signatures: self.accepts.values().filter_map(|accept| accept.signature).collect(),
        }
    }

    /// The votes counted: the seed, whether it accepts, and its reason.
    fn votes(&self) -> impl Iterator<Item = (SeedNumber, bool, &String)> {
        let accepts = self.accepts.iter().map(|(voter, accept)| (*voter, true, &accept.reason));
        accepts.chain(self.rejects.iter().map(|(voter, reason)| (*voter, false, reason)))
    }

    /// The ballot as the history keeps it, with the votes of `seeds`.
    pub fn decision(&self, now: Time, proposer: Addr, seeds: &[Addr], committed: bool) -> Decision {
        let vote = |(voter, accept, reason): (SeedNumber, bool, &String)| {
            let seed = *seeds.get(usize::from(voter))?;
            Some(CastVote { seed, accept, reason: reason.clone() })
        };
        Decision {
            change: self.change.clone(),
            proposer,
            decided: now.millis(),
            votes: self.votes().filter_map(vote).collect(),
            committed,
        }
    }

    /// Says why the ballot was rejected: the voters' reasons and, if votes that are missing could
    /// have made a quorum, the seeds that did not answer.
    pub fn reason(&self, seeds: &[Addr], quorum: usize) -> String {
        let mut words: Vec<String> = Vec::new();
        for (voter, reason) in &self.rejects {
            if let Some(seed) = seeds.get(usize::from(*voter)) {
                words.push(format!("{seed}: {reason}"));
            }
        }
        let answered = self.accepts.len() + self.rejects.len();
        let silent: Vec<String> = (0..)
            .zip(seeds)
            .filter(|(number, _)| {
                !self.accepts.contains_key(number) && !self.rejects.contains_key(number)
            })
            .map(|(_, seed)| seed.to_string())
            .collect();
        if seeds.len() - self.rejects.len() >= quorum && !silent.is_empty() {
            words.push(format!(
                "no quorum: {answered} of {} seeds answered, {quorum} accepts needed, no answer from {}",
                seeds.len(),
                silent.join(",")
            ));
        }
        words.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot() -> Ballot {
        Ballot::new(Change {
            kind: ChangeKind::Join,
            peer: ([127, 0, 0, 1], 6000).into(),
            incarnation: 7,
            at: 1,
            reporters: Vec::new(),
            identity: None,
        })
    }

    fn yes() -> Result<Accept, String> {
        Ok(Accept { reason: "yes".to_owned(), signature: None })
    }

    #[test]
    fn a_quorum_of_all_configured_seeds_is_needed() {
        let mut ballot = ballot();
        assert_eq!(ballot.count(0, yes(), 0, 5, 3), Count::Nothing);
        assert_eq!(ballot.count(0, yes(), 0, 5, 3), Count::Nothing, "a seed counts once");
        assert_eq!(ballot.count(9, yes(), 0, 5, 3), Count::Nothing, "a stranger counts not at all");
        assert_eq!(ballot.count(1, yes(), 0, 5, 3), Count::Nothing);
        match ballot.count(4, yes(), 0, 5, 3) {
            Count::Accepted(record) => assert_eq!(record.voters, [0, 1, 4]),
            other => panic!("three of five accept, but {other:?}"),
        }
    }

    #[test]
    fn a_vote_that_comes_after_the_decision_is_not_counted() {
        let mut ballot = ballot();
        assert_eq!(ballot.count(0, yes(), 1, 3, 2), Count::Nothing);
        assert!(matches!(ballot.count(1, yes(), 2, 3, 2), Count::Accepted(_)));
        let decided = ballot.clone();
        for late in [yes(), Err("no".to_owned())] {
            assert_eq!(ballot.count(2, late, 9, 3, 2), Count::Nothing);
            assert_eq!(ballot, decided);
        }
    }

    #[test]
    fn a_ballot_is_lost_as_soon_as_no_quorum_can_be_reached() {
        let mut ballot = ballot();
        let no = || Err("no".to_owned());
        assert_eq!(ballot.count(2, no(), 9, 3, 2), Count::Nothing);
        assert_eq!(ballot.count(1, no(), 8, 3, 2), Count::Lost);
        assert_eq!(ballot.known, 9);
    }

    #[test]
    fn a_rejection_says_who_did_not_answer() {
        let mut ballot = ballot();
        let seeds: Vec<Addr> = (5000..5003).map(|port| ([127, 0, 0, 1], port).into()).collect();
        ballot.count(0, yes(), 0, 3, 2);
        let reason = ballot.reason(&seeds, 2);
        assert!(reason.contains("1 of 3 seeds answered"), "{reason}");
        assert!(reason.contains("127.0.0.1:5001,127.0.0.1:5002"), "{reason}");
    }
}
