//! What other seeds say, and which part of this seed is told: comparisons of registries, standings,
//! commits, and agreements to drop members long gone.
//!
//! How two seeds find and move the difference between their registries: each tells the other the
//! root of its hash tree; if the roots are equal, they are done. Else the seed with the lower
//! address walks: it sends its branches, hears the other's leaves below the branches that differ,
//! sends the fingerprints of its records in the leaves that differ, and gets the records that it
//! lacks and the fingerprints of those that the other lacks. Neither seed remembers anything
//! between the steps, so a lost step costs only the wait for the next comparison. What must stay
//! true: a frame of records with `done` goes out after all others, because it says that its sender
//! has told all that it held when the walk began.

use super::SeedMachine;
use super::ballot::{Accept, Waiter};
use super::book::Leaves;
use super::colleagues::Answered;
use super::durability::Pending;
use super::roster::Authority;
use super::sessions::Session;
use super::standing::{MAX_FOUNDERS, Step};
use crate::proto::event::Severity;
use crate::proto::frames::{frames, with_more};
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{
    Addr, Breach, Council, Decision, Incarnation, Purpose, Standing, Welcome,
};
use crate::proto::registry::{Record, Status};
use crate::proto::turn::SeedTurn;

/// Most records in one frame.
const RECORDS_A_FRAME: usize = 4_096;
/// Most fingerprints in one frame: some 400 kB.
const FINGERPRINTS_A_FRAME: usize = 32_768;

impl SeedMachine {
    pub(super) fn call_colleagues(&mut self, turn: &mut SeedTurn<'_>) {
        let seeds: Vec<Addr> = self.colleagues.all().collect();
        for seed in seeds {
            self.dial(turn, seed);
        }
        self.colleagues.compare_later(turn.now);
    }

    pub(super) fn dial(&mut self, turn: &mut SeedTurn<'_>, seed: Addr) {
        let conn = self.sessions.next_conn();
        let hello = self.roster.hello(Purpose::Council);
        self.colleagues.dial(turn, conn, seed, hello, self.roster.probe_timeout());
    }

    /// Takes in a connection that a seed, or somebody who claims to be it, has opened to us.
    pub(super) fn colleague_calls(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, seed: Addr) {
        if let Some(closed) = self.colleagues.called(turn, conn, seed) {
            self.sessions.remove(closed);
        }
        self.sessions.insert(conn, Session::FromSeed(seed));
        // The seed is up, so dial it now instead of at the next attempt.
        self.dial(turn, seed);
        let compare = self.digest();
        turn.send(conn, compare);
        for frame in self.shown.links.all() {
            // To this caller alone: whoever calls in the seed's name must not have the seed told so
            // much again.
            turn.send(conn, Council::LinkReports(frame));
        }
        for (ballot, change) in self.polls.proposals() {
            turn.send(conn, Council::Propose { ballot, change: change.clone() });
        }
    }

    /// Handles the result of our own attempt to reach a seed.
    pub(super) fn colleague_answers(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        result: Result<Welcome, OpenError>,
    ) {
        let repeats = &mut self.shown.repeats;
        let Answered::Connected { seed, clock, identity } =
            self.colleagues.answered(turn, conn, result, repeats)
        else {
            return;
        };
        self.roster.learn(&seed, identity);
        self.sessions.insert(conn, Session::ToSeed(seed));
        self.shown.clocks.met(turn, seed, clock);
        turn.note(Severity::Info, "seed connected", vec![("seed", seed.to_string())]);
    }

    /// Sends our digest and news of links to all seeds, and closes connections that have gone
    /// quiet, so that those to seeds are dialled anew.
    pub(super) fn compare(&mut self, turn: &mut SeedTurn<'_>) {
        self.colleagues.compare_later(turn.now);
        let compare = self.short_digest();
        self.colleagues.tell_all(turn, compare);
        for frame in self.shown.links.take_news() {
            self.colleagues.tell_all(turn, Council::LinkReports(frame));
        }
        self.sessions.hang_up(turn);
        for (seed, conn) in self.colleagues.quiet(turn.now) {
            turn.close(conn);
            self.sessions.remove(conn);
            self.colleagues.lost(turn, conn, seed);
        }
    }

    /// Hears a message that came over a connection that we opened to a seed. A message that makes
    /// no sense is a breach.
    pub(super) fn hear_seed(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        message: Council,
    ) -> Result<(), Breach> {
        let Some(number) = self.roster.number_of(&seed) else { return Err(Breach) };
        let by = |ballot| Waiter { proposer: seed, ballot };
        match message {
            Council::Propose { ballot, change } => self.judge(turn, change, by(ballot)),
            Council::Vote { ballot, accept, reason, known, signature } => {
                let vote = if accept { Ok(Accept { reason, signature }) } else { Err(reason) };
                self.hear_vote(turn, ballot, number, vote, known);
            }
            Council::Commit { ballot, peer, record, decision } => {
                self.hear_commit(turn, by(ballot), (peer, record), decision);
            }
            Council::Committed { ballot } => self.count_durable(turn, ballot, number),
            Council::Compare { founders, .. } if founders.len() > MAX_FOUNDERS => {
                return Err(Breach);
            }
            Council::Compare { count, digest, standing, founders } => {
                self.hear_founders(turn, seed, standing, count, &founders);
                self.hear_digest(turn, seed, (count, digest), standing);
            }
            Council::Branches(branches) => {
                let leaves = self.book.leaves_below(&branches)?;
                self.colleagues.tell(turn, &seed, Council::Leaves(leaves));
            }
            Council::Leaves(leaves) => self.hear_leaves(turn, &seed, &leaves)?,
            Council::Holdings { leaves, more } => self.hear_holdings(turn, &seed, leaves, more),
            Council::Records { records, wanted, done } => {
                self.hear_records(turn, seed, records, &wanted, done);
            }
            Council::Expire { round, records } => self.hear_expire(turn, seed, round, records),
            Council::Expired { round } => {
                self.upkeep.expiry.agrees(&seed, round);
                self.drop_if_agreed(turn);
            }
            Council::Forget(gone) => self.hear_forget(turn, gone),
            Council::LinkReports(reports) => {
                let registry = self.book.registry();
                reports.into_iter().for_each(|report| {
                    self.shown.links.keep(registry, report);
                });
            }
        }
        Ok(())
    }

    /// Hears that another seed has committed a record, and makes it durable if a quorum voted for
    /// it.
    fn hear_commit(
        &mut self,
        turn: &mut SeedTurn<'_>,
        waiter: Waiter,
        (peer, record): (Addr, Record),
        decision: Box<Decision>,
    ) {
        let is_its_own = decision.change.peer == peer && decision.proposer == waiter.proposer;
        let decision = is_its_own.then_some(decision);
        if self.book.registry().get(&peer) == Some(&record) {
            self.hear_old_commit(turn, waiter, peer, &record);
            return;
        }
        let (records, _) = self.authorised(turn, waiter.proposer, vec![(peer, record)]);
        for (peer, record) in records {
            if !self.hear_old_commit(turn, waiter, peer, &record) {
                let (tell, decision) = (Some(waiter), decision.clone());
                let pending = Pending::Record { peer, record, tell, decision };
                self.durability.persist(turn, vec![pending]);
            }
        }
    }

    /// Answers a commit of a record that is here already or that a later one has replaced: the
    /// proposer need not wait for the disk then. Returns false if the record is news.
    fn hear_old_commit(
        &mut self,
        turn: &mut SeedTurn<'_>,
        waiter: Waiter,
        peer: Addr,
        record: &Record,
    ) -> bool {
        let Some(known) = self.book.registry().get(&peer) else { return false };
        let later = (known.incarnation, known.status) > (record.incarnation, record.status);
        if known != record && !later {
            return false;
        }
        let Waiter { proposer, ballot } = waiter;
        if later && record.status == Status::Alive {
            // A later record says that this life is over, so the proposer must not grant its
            // registration: send it the later record.
            let known = known.clone();
            self.pass_on(turn, &proposer, peer, known);
        } else {
            self.colleagues.tell(turn, &proposer, Council::Committed { ballot });
        }
        true
    }

    /// Hears the digest of another seed, and begins to look for the difference if it is not ours.
    fn hear_digest(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        digest: (u64, [u8; 32]),
        standing: Standing,
    ) {
        let ours = self.book.root();
        self.colleagues.says_standing(&seed, standing);
        if digest == ours {
            self.durability.agrees(seed, self.quorum());
            self.compared(turn, seed, standing);
            return;
        }
        // Only one of the two walks, since two walks would move every record twice. The other tells
        // its digest now, so that the walk need not wait for the next comparison.
        if self.roster.me() < seed {
            if self.colleagues.begin_walk(turn.now, &seed) {
                let branches = self.book.branches();
                self.colleagues.tell(turn, &seed, Council::Branches(branches));
            }
        } else {
            let compare = self.short_digest();
            self.colleagues.tell(turn, &seed, compare);
        }
        self.reconsider(turn);
    }

    /// Hears the other seed's leaves below the branches that differ. A breach if there can be no
    /// such leaves.
    fn hear_leaves(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: &Addr,
        branches: &Leaves,
    ) -> Result<(), Breach> {
        for (leaves, more) in self.book.held_below(branches, FINGERPRINTS_A_FRAME)? {
            self.colleagues.tell(turn, seed, Council::Holdings { leaves, more });
        }
        Ok(())
    }

    /// Hears what the walker holds in the leaves that differ. Sends it the records that it lacks,
    /// and asks for those that we lack.
    fn hear_holdings(&mut self, turn: &mut SeedTurn<'_>, seed: &Addr, leaves: Leaves, more: bool) {
        let (lacking, wanted) = self.book.difference(leaves);
        let done = (!more).then_some(self.foothold.standing());
        self.send_records(turn, seed, lacking, wanted, done);
    }

    /// Sends records in frames. The last one carries `wanted` and `done`, too.
    fn send_records(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: &Addr,
        records: Vec<(Addr, Record)>,
        mut wanted: Leaves,
        done: Option<Standing>,
    ) {
        let frames = frames::<_, Vec<_>>(records, RECORDS_A_FRAME, |_| 1);
        for (records, more) in with_more(frames) {
            let last = !more;
            let wanted = if last { std::mem::take(&mut wanted) } else { Vec::new() };
            let done = done.filter(|_| last);
            if !records.is_empty() || !wanted.is_empty() || done.is_some() {
                self.colleagues.tell(turn, seed, Council::Records { records, wanted, done });
            }
        }
    }

    /// Hears records that we lack, and which records the other seed lacks.
    fn hear_records(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        records: Vec<(Addr, Record)>,
        wanted: &Leaves,
        done: Option<Standing>,
    ) {
        let mut records = records;
        // A record that is here already is on our disk already.
        records.retain(|(peer, record)| self.book.registry().get(peer) != Some(record));
        let (records, is_all) = self.authorised(turn, seed, records);
        // What is not proven yet is not here yet: the next comparison begins again.
        let compared = done.filter(|_| is_all);
        let mut pending: Vec<Pending> = records.into_iter().map(Pending::record).collect();
        pending.extend(compared.map(|standing| Pending::Compared { seed, standing }));
        if !pending.is_empty() {
            // Earlier frames may still wait for the disk. Batches become durable in order, so
            // `Compared` in this one comes after their records.
            self.durability.persist(turn, pending);
        }
        // The walker gets records first, and answers with those that the other seed lacks.
        let walker = self.roster.me() < seed;
        if walker && (done.is_some() || !wanted.is_empty()) {
            let sent = self.book.by_fingerprint(wanted);
            let done = done.map(|_| self.foothold.standing());
            self.send_records(turn, &seed, sent, Vec::new(), done);
        }
    }

    /// How many seeds have to stand for a record whose signatures cannot be checked: a quorum. But one
    /// that has no disk any more, and hears all others, takes over what all of those tell that still
    /// have theirs: if a majority of disks is lost, what is left is all that there is.
    fn tellers_needed(&self, quorum: usize) -> usize {
        let told: Option<Vec<Standing>> =
            self.colleagues.others().iter().map(|other| other.told).collect();
        match told.filter(|_| self.foothold.standing() != Standing::Voting) {
            Some(told) => {
                let with_disks = told.iter().filter(|told| **told == Standing::Voting).count();
                with_disks.clamp(1, quorum)
            }
            None => quorum,
        }
    }

    /// Keeps the records for which a quorum of seeds is known to stand; logs the others. Also returns
    /// whether all are kept that name a quorum: each that is not may yet be told by other seeds.
    fn authorised(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        mut records: Vec<(Addr, Record)>,
    ) -> (Vec<(Addr, Record)>, bool) {
        let (quorum, mut is_all) = (self.quorum(), true);
        let enough = self.tellers_needed(quorum);
        records.retain(|(peer, record)| {
            let reason = match self.roster.told(&seed, (peer, record), (quorum, enough)) {
                Authority::Quorum => return true,
                Authority::Claimed => {
                    is_all = false;
                    "not enough of its voters can be checked; other seeds have to tell it, too"
                }
                Authority::Nobody => "it does not name a quorum of distinct seeds",
            };
            let news = self.shown.repeats.is_news(turn.now, "commit refused", seed, reason);
            let keys = vec![
                ("from", seed.to_string()),
                ("peer", peer.to_string()),
                ("reason", reason.to_owned()),
            ];
            turn.note(if news { Severity::Warn } else { Severity::Debug }, "commit refused", keys);
            false
        });
        (records, is_all)
    }

    /// Hears a question about records that are old enough to drop, and makes them durable here.
    /// They are refused if any of them is alive or lacks a quorum.
    fn hear_expire(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        round: u64,
        records: Vec<(Addr, Record)>,
    ) {
        let all = records.len();
        let (records, _) = self.authorised(turn, seed, records);
        if records.len() != all || records.iter().any(|(_, r)| r.status == Status::Alive) {
            return;
        }
        let mut pending: Vec<Pending> = records.into_iter().map(Pending::record).collect();
        pending.push(Pending::Expired { seed, round });
        self.durability.persist(turn, pending);
    }

    /// Begins a round about records that are old enough to drop, if all seeds can be asked and
    /// vote.
    pub(super) fn look_for_expired(&mut self, turn: &mut SeedTurn<'_>) {
        self.upkeep.expiry.look_later(turn.now);
        if !self.colleagues.are_all_voting() || !self.foothold.votes() {
            return;
        }
        let (registry, seeds) = (self.book.registry(), self.colleagues.all());
        let Some((round, records)) = self.upkeep.expiry.begin(turn.now, registry, seeds) else {
            return;
        };
        self.colleagues.tell_all(turn, Council::Expire { round, records });
        self.drop_if_agreed(turn);
    }

    fn drop_if_agreed(&mut self, turn: &mut SeedTurn<'_>) {
        if let Some(gone) = self.upkeep.expiry.agreed() {
            let keys = vec![("records", gone.len().to_string())];
            turn.note(Severity::Info, "long gone members dropped", keys);
            self.colleagues.tell_all(turn, Council::Forget(gone.clone()));
            self.hear_forget(turn, gone);
        }
    }

    /// Drops records that all seeds have had on disk, so that none can bring their members back.
    fn hear_forget(&mut self, turn: &mut SeedTurn<'_>, gone: Vec<(Addr, Incarnation)>) {
        let forget = |(peer, incarnation)| Pending::Forget { peer, incarnation };
        self.durability.persist(turn, gone.into_iter().map(forget).collect());
    }

    /// Takes this seed's next step, after another seed has told its standing or has been compared
    /// with.
    pub(super) fn reconsider(&mut self, turn: &mut SeedTurn<'_>) {
        if self.foothold.votes() {
            return;
        }
        let quorum = self.roster.network().quorum();
        let others = self.colleagues.others();
        let waits = self.foothold.waits_for_all(turn.now)
            && others.iter().any(|other| other.told.is_none());
        match self.foothold.next_step(&others, quorum) {
            Step::Stay => {}
            Step::Rise(Standing::Founding) if waits => {}
            Step::Vote => self.may_vote(turn),
            Step::Rise(standing) => self.rise(turn, standing),
        }
    }

    /// Writes down a better standing, which counts once it is durable.
    pub(super) fn rise(&mut self, turn: &mut SeedTurn<'_>, standing: Standing) {
        let (me, others) = (self.roster.number(), self.colleagues.others());
        let marks = self.foothold.rise(turn.now, me, standing, &others);
        let new = self.foothold.take_founders(&marks);
        if !new.is_empty() {
            self.durability.persist(turn, vec![Pending::Founders(new)]);
        }
        self.durability.persist(turn, vec![Pending::Standing(standing)]);
    }

    /// Hears which founding the registry of another seed goes back to. If it is not ours, keeps a
    /// copy of our registry if ours is the earlier one, and takes the marks of the other founding.
    fn hear_founders(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        standing: Standing,
        count: u64,
        theirs: &[u64],
    ) {
        self.colleagues.says_founders(&seed, theirs);
        let records = (count, self.book.registry().len());
        let Some(meeting) = self.foothold.meet(turn, seed, standing, theirs, records) else {
            return;
        };
        if let Some(number) = meeting.set_aside {
            self.durability.persist(turn, vec![Pending::SetAside(number)]);
        }
        let new = self.foothold.take_founders(&meeting.marks);
        if !new.is_empty() {
            self.durability.persist(turn, vec![Pending::Founders(new)]);
        }
    }

    /// Lets this seed vote from here on, and judges the proposals that waited.
    pub(super) fn may_vote(&mut self, turn: &mut SeedTurn<'_>) {
        for (change, waiter) in self.foothold.may_vote() {
            self.judge(turn, change, waiter);
        }
    }

    /// Notes that all that a seed of that standing held is here, and durable.
    pub(super) fn compared(&mut self, turn: &mut SeedTurn<'_>, seed: Addr, standing: Standing) {
        self.colleagues.compared(&seed, standing);
        self.reconsider(turn);
    }

    /// The message of a periodic comparison. It omits the founding once this seed votes, since that
    /// is told whenever a connection is new or our standing has changed.
    fn short_digest(&mut self) -> Council {
        match self.digest() {
            Council::Compare { count, digest, standing: Standing::Voting, .. } => {
                let founders = Vec::new();
                Council::Compare { count, digest, standing: Standing::Voting, founders }
            }
            other => other,
        }
    }

    /// The root of our hash tree, our standing and our founding, as told to other seeds.
    pub(super) fn digest(&mut self) -> Council {
        let (count, digest) = self.book.root();
        let (standing, founders) = (self.foothold.standing(), self.foothold.founders());
        Council::Compare { count, digest, standing, founders }
    }
}
