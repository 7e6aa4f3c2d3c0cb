//! One proposed change, from the request to the answer: which part is asked what, in which order.
//!
//! The seed that was asked sends the proposal to all seeds at once, counts their votes, makes the
//! change durable, commits it to the others, and answers once a quorum has it on disk (DESIGN.md,
//! section 3).
//!
//! What must stay true: a record names a quorum of distinct configured seeds that accepted it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::SeedMachine;
use super::ballot::{
    Accept, Asker, Ballot, ChangeKey, Count, Evidence, SeedNumber, Stage, Waiter, key,
};
use super::cases::Cases;
use super::durability::Pending;
use super::judge::{Begun, Judgement, Next, Probed, TOO_MANY_OPEN, Verdict, WAVE_PAUSE};
use super::message::MEMBERS_A_FRAME;
use crate::proto::event::Event;
use crate::proto::frames::frames;
use crate::proto::limits::Limit;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{
    Addr, Change, ChangeKind, Council, Incarnation, Purpose, ToPeer, Welcome,
};
use crate::proto::planted::Flaw;
use crate::proto::registry::Record;
use crate::proto::time::Time;
use crate::proto::turn::SeedTurn;

/// How long a ballot waits beyond the probe that each voter may need. It is shorter than a peer
/// waits for its seed, so that the peer hears a reason, not silence.
const VOTE_MARGIN: Duration = Duration::from_millis(400);
/// How long a ballot waits while too few seeds for a quorum can hear us: long enough for seeds that
/// start together, short enough for the asker to be told within a second.
const NO_QUORUM_PATIENCE: Duration = Duration::from_millis(600);

/// Tells connected peers of records.
pub(super) fn tell_of(
    turn: &mut SeedTurn<'_>,
    peers: &[Conn],
    records: impl IntoIterator<Item = (Addr, Record)>,
) {
    for records in frames(records, MEMBERS_A_FRAME, |_| 1) {
        turn.send_many(peers.to_vec(), ToPeer::Update(records));
    }
}

/// Lines about those that are no members that are told in one minute: as many as a thousand peers
/// make that register together.
const STRANGERS_A_MINUTE: u32 = 3_000;

impl SeedMachine {
    /// Whether a line of the log about a peer is worth being told. Whoever is no member may ask for
    /// anything as often as it likes.
    pub(super) fn is_told_of(&mut self, now: Time, peer: &Addr) -> bool {
        self.book.registry().get(peer).is_some()
            || self.shown.strangers.allows(now, STRANGERS_A_MINUTE)
    }

    /// The quorum of all configured seeds, reachable or not.
    pub(super) fn quorum(&self) -> usize {
        self.roster.quorum(self.colleagues.reachable())
    }

    /// Opens a ballot on a change and asks all seeds to vote, or joins the ballot that is open on
    /// it.
    pub(super) fn propose(
        &mut self,
        turn: &mut SeedTurn<'_>,
        change: Change,
        asker: Option<Asker>,
    ) {
        if self.polls.join(&key(&change), asker) {
            return;
        }
        if self.polls.is_full(change.kind) {
            turn.over_limit(Limit::Ballots, Some(change.peer));
            if let Some(Asker { conn, request }) = asker {
                let reason = "too many open proposals; try again".to_owned();
                turn.send(conn, ToPeer::Denied { request, votes: 0, reason, known: 0 });
            }
            return;
        }
        self.log_proposal(turn, &change);
        let mut ballot = Ballot::new(change.clone());
        ballot.askers.extend(asker);
        let ballot = self.open_ballot(turn, ballot);
        // Ask all at once: asked one after another, one dead seed would use up the asker's
        // patience.
        self.colleagues.tell_all(turn, Council::Propose { ballot, change: change.clone() });
        self.judge(turn, change, Waiter { proposer: self.roster.me(), ballot });
    }

    fn log_proposal(&mut self, turn: &mut SeedTurn<'_>, change: &Change) {
        let (peer, incarnation) = (change.peer, change.incarnation);
        let (what, event) = match change.kind {
            ChangeKind::Join => {
                ("registration proposed", Event::RegistrationProposed { peer, incarnation })
            }
            ChangeKind::Dead => {
                let reporters = change.reporters.clone();
                ("dead-node proposed", Event::DeadNodeProposed { peer, reporters, incarnation })
            }
            ChangeKind::Leave => return,
        };
        let life = incarnation.to_string();
        let news = self.shown.repeats.is_news(turn.now, what, peer, &life);
        let told = news && self.is_told_of(turn.now, &peer);
        turn.log(event.told_if(told));
    }

    /// Opens a ballot and sets its deadline; returns its number.
    fn open_ballot(&mut self, turn: &SeedTurn<'_>, ballot: Ballot) -> u64 {
        let patience = if self.colleagues.reachable() < self.quorum() {
            NO_QUORUM_PATIENCE
        } else {
            let (kind, probe) = (ballot.change.kind, self.roster.probe_timeout());
            VOTE_MARGIN + if kind == ChangeKind::Dead { probe * 2 + WAVE_PAUSE } else { probe }
        };
        self.polls.open(turn.now, ballot, patience)
    }

    /// Judges a change for `waiter`: at once if the registry decides it, else by a probe. Proposals
    /// of the same change share one probe.
    pub(super) fn judge(&mut self, turn: &mut SeedTurn<'_>, change: Change, waiter: Waiter) {
        if self.judge.join(&change, waiter) {
            return;
        }
        if let Some(record) = self.book.committed(&change)
            && waiter.proposer != self.roster.me()
        {
            // Another proposer was faster, so the change needs no vote: pass its record on.
            let record = record.clone();
            self.pass_on(turn, &waiter.proposer, change.peer, record);
            return;
        }
        if !self.foothold.votes() {
            if !self.foothold.hold(turn.now, change, waiter) {
                self.decline(turn, waiter);
            }
            return;
        }
        if let Some((limit, _)) = self.crowding(&change) {
            turn.over_limit(limit, Some(change.peer));
        }
        let objection = self.objection(turn, &change);
        let rubber_stamp = self.roster.flaw() == Flaw::AlwaysYes;
        match self.judge.begin(turn.now, &change, objection, rubber_stamp) {
            Begun::Again(verdict) => self.cast(turn, waiter, &change, &verdict),
            Begun::Decided(outcome) => {
                self.conclude(turn, &change, BTreeSet::from([waiter]), outcome);
            }
            Begun::Full => {
                turn.over_limit(Limit::Judgements, Some(change.peer));
                let no = Err(TOO_MANY_OPEN.to_owned());
                self.conclude(turn, &change, BTreeSet::from([waiter]), no);
            }
            Begun::Probe => {
                let key = key(&change);
                if self.judge.wait(turn.now, change, waiter) {
                    self.probe_for(turn, key);
                }
            }
        }
    }

    /// Says what this seed has against a change before any probe.
    fn objection(&self, turn: &SeedTurn<'_>, change: &Change) -> Option<String> {
        if self.roster.is_seed(&change.peer) {
            return Some("that address is a seed's".to_owned());
        }
        // A seed may propose a death on its own evidence; that needs no reporters.
        let is_own = change.reporters.iter().any(|reporter| self.roster.is_seed(reporter));
        let by_members = change.kind == ChangeKind::Dead && !is_own;
        let evidence: Option<Evidence> =
            by_members.then(|| Cases::evidence(&self.cases, self.book.registry(), change));
        let objection = self.book.objection(turn.now, self.roster.me(), change, evidence);
        objection.or_else(|| self.crowding(change).map(|(_, why)| why))
    }

    /// Why there is no room for one who joins.
    fn crowding(&self, change: &Change) -> Option<(Limit, String)> {
        let joins = change.kind == ChangeKind::Join;
        joins.then(|| self.book.crowding(&change.peer, self.roster.max_members())).flatten()
    }

    pub(super) fn probe_for(&mut self, turn: &mut SeedTurn<'_>, key: ChangeKey) {
        let conn = self.sessions.next_conn();
        let hello = self.roster.hello(Purpose::Probe);
        turn.open(conn, key.1, hello, self.roster.probe_timeout());
        self.judge.probe(turn.now, conn, key);
    }

    /// Gives those who wait to join or to leave their turn.
    pub(super) fn probe_next(&mut self, turn: &mut SeedTurn<'_>) {
        while let Some(next) = self.judge.next(turn.now) {
            match next {
                Next::Probe(key) => self.probe_for(turn, key),
                Next::Decided(Judgement { change, waiters, .. }, reason, probe) => {
                    turn.over_limit(Limit::Judgements, Some(change.peer));
                    probe.into_iter().for_each(|conn| turn.close(conn));
                    self.conclude(turn, &change, waiters, Err(reason.to_owned()));
                }
            }
        }
    }

    /// Handles the end of a probe for a judgement.
    pub(super) fn probed(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        result: &Result<Welcome, OpenError>,
    ) {
        let Some(judgement) = self.judge.take(conn) else { return };
        let change = &judgement.change;
        if let Some(record) = self.book.committed(change).cloned() {
            // Another proposer was faster, and its commit came during the probe.
            for Waiter { proposer, .. } in judgement.waiters {
                self.pass_on(turn, &proposer, change.peer, record.clone());
            }
            return;
        }
        if let Ok(welcome) = result {
            self.shown.clocks.met(turn, change.peer, welcome.clock);
        }
        // The registry may have changed during the probe.
        let objection = self.objection(turn, change);
        let context = (self.roster.suspect_timeout(), self.book.registry());
        match self.judge.probed(turn.now, judgement, result, objection, context) {
            Probed::Decided(judgement, outcome) => {
                self.conclude(turn, &judgement.change, judgement.waiters, outcome);
            }
            Probed::Again(key) => self.probe_for(turn, key),
            Probed::Later => {}
        }
    }

    /// Logs and remembers a judgement, and gives it to those who wait for it.
    fn conclude(
        &mut self,
        turn: &mut SeedTurn<'_>,
        change: &Change,
        waiters: BTreeSet<Waiter>,
        outcome: Result<String, String>,
    ) {
        let registry = self.book.registry();
        let known = registry.get(&change.peer).map_or(0, |record| record.incarnation);
        let accept = outcome.is_ok();
        let reason = outcome.unwrap_or_else(|reason| reason);
        let (on, peer, incarnation) = (change.kind, change.peer, change.incarnation);
        let words = format!("{incarnation} {accept} {reason}");
        let news = self.shown.repeats.is_news(turn.now, on.words(), peer, &words)
            && (accept || self.is_told_of(turn.now, &peer));
        let reason_told = reason.clone();
        let vote = Event::Vote { on, peer, accept, reason: reason_told, incarnation };
        turn.log(vote.told_if(news));
        let verdict = Verdict { accept, reason, known };
        self.judge.remember(turn.now, change, &verdict);
        for waiter in waiters {
            self.cast(turn, waiter, change, &verdict);
        }
    }

    /// Votes no because this seed has no registry that can be relied on.
    pub(super) fn decline(&mut self, turn: &mut SeedTurn<'_>, waiter: Waiter) {
        let heard = self.colleagues.others().iter().filter(|other| other.told.is_some()).count();
        let reason = format!(
            "has no registry on disk and has to hear other seeds before it votes; it hears {heard} of {}",
            self.roster.count().saturating_sub(1)
        );
        self.give(turn, waiter, Err(reason), 0);
    }

    /// Gives a verdict on a change to the ballot that waits for it.
    fn cast(
        &mut self,
        turn: &mut SeedTurn<'_>,
        waiter: Waiter,
        change: &Change,
        verdict: &Verdict,
    ) {
        let Verdict { accept, reason, known } = verdict.clone();
        let vote = if accept {
            let signature = self.roster.sign(change);
            Ok(Accept { reason, signature })
        } else {
            Err(reason)
        };
        self.give(turn, waiter, vote, known);
    }

    /// Gives a vote to the ballot that waits for it, here or at another seed.
    fn give(
        &mut self,
        turn: &mut SeedTurn<'_>,
        Waiter { proposer, ballot }: Waiter,
        vote: Result<Accept, String>,
        known: Incarnation,
    ) {
        if proposer == self.roster.me() {
            self.count_vote(turn, ballot, self.roster.number(), vote, known);
            return;
        }
        let accept = vote.is_ok();
        let (reason, signature) = vote.map_or_else(
            |reason| (reason, None),
            |Accept { reason, signature }| (reason, signature),
        );
        let vote = Council::Vote { ballot, accept, reason, known, signature };
        self.colleagues.tell(turn, &proposer, vote);
    }

    /// Hears the vote of another seed. An accept that it has not signed could be shown to nobody, so
    /// it does not count as one.
    pub(super) fn hear_vote(
        &mut self,
        turn: &mut SeedTurn<'_>,
        number: u64,
        voter: SeedNumber,
        vote: Result<Accept, String>,
        known: Incarnation,
    ) {
        let Some(ballot) = self.polls.get(number) else { return };
        let vote = vote.and_then(|accept| {
            let signature = accept.signature.as_ref();
            let is_signed = self.roster.is_signed(&ballot.change, voter, signature);
            if is_signed { Ok(accept) } else { Err("accepts, but has not signed it".to_owned()) }
        });
        self.count_vote(turn, number, voter, vote, known);
    }

    fn count_vote(
        &mut self,
        turn: &mut SeedTurn<'_>,
        number: u64,
        voter: SeedNumber,
        vote: Result<Accept, String>,
        known: Incarnation,
    ) {
        let all = (self.roster.count(), self.quorum());
        match self.polls.count(number, voter, vote, known, all) {
            Count::Nothing => {}
            Count::Lost => self.reject(turn, number),
            Count::Accepted(record) => {
                let Some(ballot) = self.polls.get(number) else { return };
                let (peer, me) = (ballot.change.peer, self.roster.me());
                let decision = ballot.decision(turn.now, me, self.roster.seeds(), true);
                let deadline = turn.now + self.roster.probe_timeout() + VOTE_MARGIN;
                self.polls.extend(number, deadline);
                let tell = Some(Waiter { proposer: me, ballot: number });
                let decision = Some(Box::new(decision));
                let pending = Pending::Record { peer, record, tell, decision };
                self.durability.persist(turn, vec![pending]);
            }
        }
    }

    /// Ends a ballot without a commit, and denies the requests that waited for it.
    pub(super) fn reject(&mut self, turn: &mut SeedTurn<'_>, number: u64) {
        let Some(ballot) = self.polls.close(number) else { return };
        let seeds = self.roster.seeds();
        self.shown.history.add(ballot.decision(turn.now, self.roster.me(), seeds, false));
        let (peer, votes, of) = (ballot.change.peer, ballot.accepts.len(), seeds.len());
        let reason = match &ballot.stage {
            Stage::Voting => ballot.reason(seeds, self.quorum()),
            Stage::Committing { durable, .. } => {
                format!("accepted, but only {} of {of} seeds have it on disk", durable.len())
            }
        };
        let told = reason.clone();
        let (what, event) = match ballot.change.kind {
            ChangeKind::Join => (
                "registration rejected",
                Event::RegistrationRejected { peer, votes, of, reason: told },
            ),
            ChangeKind::Leave => {
                ("leave rejected", Event::LeaveRejected { peer, votes, of, reason: told })
            }
            ChangeKind::Dead => {
                ("dead-node rejected", Event::DeadNodeRejected { peer, votes, of, reason: told })
            }
        };
        let news = self.shown.repeats.is_news(turn.now, what, peer, &reason);
        let told = news && self.is_told_of(turn.now, &peer);
        turn.log(event.told_if(told));
        if ballot.change.kind == ChangeKind::Dead {
            // The case of this death is over; only new reports open another one.
            self.cases.close(peer, ballot.change.incarnation);
        }
        for Asker { conn, request } in &ballot.askers {
            let (conn, request, known) = (*conn, *request, ballot.known);
            let votes = u32::try_from(votes).unwrap_or(u32::MAX);
            turn.send(conn, ToPeer::Denied { request, votes, reason: reason.clone(), known });
        }
        if ballot.untold {
            let askers: Vec<Conn> = ballot.askers.iter().map(|asker| asker.conn).collect();
            tell_of(turn, &askers, self.book.for_peers());
        }
    }

    /// Counts a seed that has a ballot's record on disk. With a quorum of such seeds the askers are
    /// answered.
    pub(super) fn count_durable(&mut self, turn: &mut SeedTurn<'_>, number: u64, seed: SeedNumber) {
        let quorum = self.quorum();
        let Some(ballot) = self.polls.count_durable(number, seed, quorum) else { return };
        self.durability.settled(&ballot.change.peer);
        for asker in &ballot.askers {
            self.grant(turn, *asker, ballot.change.kind, ballot.accepts.len());
        }
    }

    /// Ends a ballot on which seeds still vote although the change is committed: another proposer
    /// was faster. Its askers are answered with that record.
    pub(super) fn settle(&mut self, turn: &mut SeedTurn<'_>, key: ChangeKey) {
        let Some(ballot) = self.polls.close_voting(&key) else { return };
        let Some(record) = self.book.registry().get(&key.1).cloned() else { return };
        for asker in ballot.askers {
            self.answer_for(turn, asker, key.0, key.1, &record);
        }
    }

    /// Answers a request for a record that is here: at once if the record is settled, else once it
    /// is.
    pub(super) fn answer_for(
        &mut self,
        turn: &mut SeedTurn<'_>,
        asker: Asker,
        kind: ChangeKind,
        peer: Addr,
        record: &Record,
    ) {
        if self.durability.is_settled(&peer, self.quorum()) {
            self.grant(turn, asker, kind, record.voters.len());
            return;
        }
        let change = Change {
            kind: ChangeKind::to(record.status),
            peer,
            incarnation: record.incarnation,
            at: record.at,
            reporters: Vec::new(),
            identity: record.identity,
        };
        if self.polls.join(&key(&change), Some(asker)) {
            return;
        }
        let me = (self.roster.number(), self.roster.me());
        let mut ballot = Ballot::new(change);
        ballot.askers.insert(asker);
        let voted = |voter: &SeedNumber| {
            (*voter, Accept { reason: "voted before".to_owned(), signature: None })
        };
        ballot.accepts = record.voters.iter().map(voted).collect();
        let decision = Box::new(ballot.decision(turn.now, me.1, self.roster.seeds(), true));
        let durable = BTreeSet::from([me.0]);
        ballot.stage = Stage::Committing { record: record.clone(), durable };
        let ballot = self.open_ballot(turn, ballot);
        let record = record.clone();
        self.colleagues.tell_all(turn, Council::Commit { ballot, peer, record, decision });
    }

    /// Grants a request whose change is committed, and sends the list if it was a registration.
    fn grant(&mut self, turn: &mut SeedTurn<'_>, asker: Asker, kind: ChangeKind, votes: usize) {
        let Asker { conn, request } = asker;
        let votes = u32::try_from(votes).unwrap_or(u32::MAX);
        turn.send(conn, ToPeer::Granted { request, votes });
        if kind == ChangeKind::Join {
            self.send_list(turn, asker);
        }
    }

    /// Sends a caller the list. False if the caller has had it just now and it is still the same: a
    /// few bytes must not cost thousands each time.
    pub(super) fn send_list(&mut self, turn: &mut SeedTurn<'_>, asker: Asker) -> bool {
        let Asker { conn, request } = asker;
        if !self.sessions.takes_list(turn.now, conn) {
            return false;
        }
        for (records, more) in self.book.list() {
            turn.send(conn, ToPeer::List { request, records, more });
        }
        true
    }

    /// Tells another seed of a record that is committed already.
    pub(super) fn pass_on(&self, turn: &mut SeedTurn<'_>, seed: &Addr, peer: Addr, record: Record) {
        let records = vec![(peer, record)];
        let records = Council::Records { records, wanted: Vec::new(), done: None };
        self.colleagues.tell(turn, seed, records);
    }
}
