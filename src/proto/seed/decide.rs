//! One proposed change, from the asking to the answer.
//!
//! The seed that was asked sends the proposal to all seeds at once, counts
//! their votes, makes the change durable, commits it to the others, and answers
//! once a quorum has it on disk (DESIGN.md, section 3). What must stay true: a
//! record names a quorum of distinct configured seeds that accepted it.

use std::time::Duration;

use super::SeedMachine;
use super::Timer;
use super::ballot::{Asker, Ballot, ChangeKey, Count, SeedNumber, Stage, key};
use super::judge::{Verdict, WAVE_PAUSE, Waiter};
use super::keep::Pending;
use crate::proto::event::Event;
use crate::proto::message::{
    Addr, CastVote, Change, ChangeKind, Council, Decision, Incarnation, ToPeer,
};
use crate::proto::planted::Flaw;
use crate::proto::registry::Record;
use crate::proto::turn::SeedTurn;

/// How long a ballot waits beyond the probe that each voter may need. Shorter than what a peer
/// waits for its seed, so that the peer hears a reason and not silence.
const VOTE_MARGIN: Duration = Duration::from_millis(400);
/// How long a ballot waits when a quorum of the seeds is not even connected: long enough for seeds
/// that start together, short enough to be told within a second.
const NO_QUORUM_PATIENCE: Duration = Duration::from_millis(600);
/// Ballots that may be open at the same time; requests beyond are denied.
const MAX_BALLOTS: usize = 8_192;

impl SeedMachine {
    pub(super) fn seeds(&self) -> usize {
        self.config.network.seeds().len()
    }

    /// The quorum: of all configured seeds, reachable or not.
    pub(super) fn quorum(&self) -> usize {
        match self.config.flaw() {
            Flaw::ReachableQuorum => self.reachable() / 2 + 1,
            _ => self.config.network.quorum(),
        }
    }

    /// This seed and those that are connected to it.
    fn reachable(&self) -> usize {
        1 + self.colleagues.values().filter(|colleague| colleague.hears_us()).count()
    }

    pub(super) fn number_of(&self, seed: &Addr) -> Option<SeedNumber> {
        let place = self.config.network.seeds().binary_search(seed).ok()?;
        u16::try_from(place).ok()
    }

    /// Proposes a change, or joins the ballot on it that is open.
    pub(super) fn propose(
        &mut self,
        turn: &mut SeedTurn<'_>,
        change: Change,
        asker: Option<Asker>,
    ) {
        let key = key(&change);
        if let Some(ballot) =
            self.ballot_of.get(&key).and_then(|number| self.ballots.get_mut(number))
        {
            ballot.askers.extend(asker);
            return;
        }
        if self.ballots.len() >= MAX_BALLOTS {
            if let Some(Asker { conn, request }) = asker {
                let reason = "too many open proposals; try again".to_owned();
                turn.send(conn, ToPeer::Denied { request, votes: 0, reason, known: 0 });
            }
            return;
        }
        let life = change.incarnation.to_string();
        match change.kind {
            ChangeKind::Join => {
                let (peer, incarnation) = (change.peer, change.incarnation);
                let news = self.repeats.is_news(turn.now, "registration proposed", peer, &life);
                turn.log(Event::RegistrationProposed { peer, incarnation }.told_if(news));
            }
            ChangeKind::Dead => {
                let (peer, incarnation) = (change.peer, change.incarnation);
                let news = self.repeats.is_news(turn.now, "dead-node proposed", peer, &life);
                let reporters = change.reporters.clone();
                let event = Event::DeadNodeProposed { peer, reporters, incarnation };
                turn.log(event.told_if(news));
            }
            ChangeKind::Leave => {}
        }
        let mut ballot = Ballot::new(change.clone());
        ballot.askers.extend(asker);
        let number = self.open_ballot(turn, ballot);
        // To all at once: asked one after another, a single dead seed uses up the asker's patience.
        let proposal = Council::Propose { ballot: number, change: change.clone() };
        self.tell_all(turn, proposal);
        self.judge(turn, change, Waiter { proposer: self.config.me, ballot: number });
    }

    /// Opens a ballot and sets its deadline; returns its number.
    pub(super) fn open_ballot(&mut self, turn: &SeedTurn<'_>, ballot: Ballot) -> u64 {
        self.ballots_used += 1;
        let number = self.ballots_used;
        let patience = if self.reachable() < self.quorum() {
            NO_QUORUM_PATIENCE
        } else {
            let (kind, probe) = (ballot.change.kind, self.config.probe_timeout);
            VOTE_MARGIN + if kind == ChangeKind::Dead { probe * 2 + WAVE_PAUSE } else { probe }
        };
        self.timers.set(Timer::Ballot(number), turn.now + patience);
        self.ballot_of.insert(key(&ballot.change), number);
        self.ballots.insert(number, ballot);
        number
    }

    /// Gives a verdict to whoever waits for it.
    pub(super) fn cast(&mut self, turn: &mut SeedTurn<'_>, waiter: Waiter, verdict: &Verdict) {
        let Verdict { accept, reason, known } = verdict.clone();
        if waiter.proposer == self.config.me {
            self.count_vote(turn, waiter.ballot, self.me, accept, reason, known);
        } else {
            let vote = Council::Vote { ballot: waiter.ballot, accept, reason, known };
            self.tell(turn, &waiter.proposer, vote);
        }
    }

    pub(super) fn count_vote(
        &mut self,
        turn: &mut SeedTurn<'_>,
        number: u64,
        voter: SeedNumber,
        accept: bool,
        reason: String,
        known: Incarnation,
    ) {
        let (seeds, quorum) = (self.seeds(), self.quorum());
        let Some(ballot) = self.ballots.get_mut(&number) else { return };
        let vote = if accept { Ok(reason) } else { Err(reason) };
        match ballot.count(voter, vote, known, seeds, quorum) {
            Count::Open => {}
            Count::Lost => self.reject(turn, number),
            Count::Accepted(record) => {
                let peer = ballot.change.peer;
                let decision = self.decision(turn, number, true).map(Box::new);
                let deadline = turn.now + self.config.probe_timeout + VOTE_MARGIN;
                self.timers.set(Timer::Ballot(number), deadline);
                let tell = Some(Waiter { proposer: self.config.me, ballot: number });
                self.persist(turn, vec![Pending::Record { peer, record, tell, decision }]);
            }
        }
    }

    /// What is remembered of a ballot.
    fn decision(&self, turn: &SeedTurn<'_>, number: u64, committed: bool) -> Option<Decision> {
        let ballot = self.ballots.get(&number)?;
        let vote = |(voter, accept, reason): (SeedNumber, bool, &String)| {
            let seed = *self.config.network.seeds().get(usize::from(voter))?;
            Some(CastVote { seed, accept, reason: reason.clone() })
        };
        Some(Decision {
            change: ballot.change.clone(),
            proposer: self.config.me,
            decided: turn.now.millis(),
            votes: ballot.votes().filter_map(vote).collect(),
            committed,
        })
    }

    /// Ends a ballot without a commit, and tells those who asked for it.
    pub(super) fn reject(&mut self, turn: &mut SeedTurn<'_>, number: u64) {
        if let Some(decision) = self.decision(turn, number, false) {
            self.history.add(decision);
        }
        let Some(ballot) = self.close_ballot(number) else { return };
        let (peer, votes, of) = (ballot.change.peer, ballot.accepts.len(), self.seeds());
        let reason = match ballot.stage {
            Stage::Voting => ballot.reason(self.config.network.seeds(), self.quorum()),
            Stage::Committing { durable, .. } => {
                format!("accepted, but only {} of {of} seeds have it on disk", durable.len())
            }
        };
        let event = |reason| match ballot.change.kind {
            ChangeKind::Join => Event::RegistrationRejected { peer, votes, of, reason },
            ChangeKind::Leave => Event::LeaveRejected { peer, votes, of, reason },
            ChangeKind::Dead => Event::DeadNodeRejected { peer, votes, of, reason },
        };
        let what = match ballot.change.kind {
            ChangeKind::Join => "registration rejected",
            ChangeKind::Leave => "leave rejected",
            ChangeKind::Dead => "dead-node rejected",
        };
        let news = self.repeats.is_news(turn.now, what, peer, &reason);
        turn.log(event(reason.clone()).told_if(news));
        if ballot.change.kind == ChangeKind::Dead {
            // Only fresh reports open the case again.
            self.close_case(peer, ballot.change.incarnation);
        }
        for Asker { conn, request } in &ballot.askers {
            let (conn, request, known) = (*conn, *request, ballot.known);
            let votes = u32::try_from(votes).unwrap_or(u32::MAX);
            turn.send(conn, ToPeer::Denied { request, votes, reason: reason.clone(), known });
        }
        if ballot.untold {
            let askers: Vec<_> = ballot.askers.iter().map(|asker| asker.conn).collect();
            self.tell_of_all(turn, &askers);
        }
    }

    fn close_ballot(&mut self, number: u64) -> Option<Ballot> {
        let ballot = self.ballots.remove(&number)?;
        self.ballot_of.remove(&key(&ballot.change));
        self.timers.cancel(&Timer::Ballot(number));
        Some(ballot)
    }

    /// A seed has a ballot's record on disk; with a quorum of those the askers are answered.
    pub(super) fn count_durable(&mut self, turn: &mut SeedTurn<'_>, number: u64, seed: SeedNumber) {
        let quorum = self.quorum();
        let Some(ballot) = self.ballots.get_mut(&number) else { return };
        let Stage::Committing { durable, .. } = &mut ballot.stage else { return };
        durable.insert(seed);
        if durable.len() < quorum {
            return;
        }
        let Some(ballot) = self.close_ballot(number) else { return };
        self.unsettled.peers.remove(&ballot.change.peer);
        for Asker { conn, request } in &ballot.askers {
            self.grant(turn, *conn, *request, ballot.change.kind, ballot.accepts.len());
        }
    }

    /// A change was committed: if there is a ballot on it here that is still voting, another
    /// proposer was faster, and those who wait for it are answered by that.
    pub(super) fn settle(&mut self, turn: &mut SeedTurn<'_>, key: ChangeKey) {
        let Some(number) = self.ballot_of.get(&key).copied() else { return };
        if self.ballots.get(&number).is_none_or(|ballot| ballot.stage != Stage::Voting) {
            return;
        }
        let Some(ballot) = self.close_ballot(number) else { return };
        let Some(record) = self.registry.get(&key.1).cloned() else { return };
        for asker in ballot.askers {
            self.answer_for(turn, asker, key.0, key.1, &record);
        }
    }

    /// Whether a record names a quorum of distinct configured seeds.
    pub(super) fn is_authorised(&self, record: &Record) -> bool {
        let ascending = record.voters.windows(2).all(|pair| pair[0] < pair[1]);
        let configured = record.voters.last().is_some_and(|last| usize::from(*last) < self.seeds());
        ascending && configured && record.voters.len() >= self.quorum()
    }
}
