//! What a seed does for peers: registrations, leaves, lists, reports.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::ballot::Asker;
use super::{Line, SeedMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::machine::Conn;
use crate::proto::message::{
    Addr, Change, ChangeKind, Incarnation, Records, Standing, ToPeer, ToSeed,
};
use crate::proto::registry::{Record, Status};
use crate::proto::turn::SeedTurn;

/// Changes are told to connected peers together, at most this much later: a thousand peers that
/// join at once must not cost a million frames.
const PUSH_DELAY: Duration = Duration::from_millis(20);
/// And so much later for each of them: to tell a thousand takes some milliseconds, and is to take
/// a small part of the time.
const PUSH_DELAY_A_PEER: Duration = Duration::from_micros(300);
/// A peer asks some seed what is new every ten seconds; with seven seeds this one hears of it about
/// once a minute.
const IDLE: Duration = Duration::from_secs(180);
/// Open cases to which one peer may have added its report; further ones of it are dropped, so that a
/// peer that accuses everybody does not fill the table.
const MAX_REPORTS: usize = 256;
/// How long a dead-node case stays open without becoming a commit.
const CASE_LIFETIME: Duration = Duration::from_secs(60);
/// Open dead-node cases; reports beyond are dropped and come again.
const MAX_CASES: usize = 8_192;
/// Members in one frame of a list.
const MEMBERS_A_FRAME: usize = 4_096;

/// The list as it was last sent, until a record changes: of peers that register together many are
/// answered with the same one. Kept only if it is one frame; a longer one would be a second registry
/// in memory. It says nothing that the registry does not, so seeds that differ in it are equal.
#[derive(Clone, Debug, Default)]
pub(super) struct SentList(pub Option<Records>);

impl PartialEq for SentList {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SentList {}

impl Hash for SentList {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Cuts a list into frames, as they are asked for, each with whether more follow; an empty list is one
/// empty frame.
pub(super) fn frames<T, F: FromIterator<T>>(
    all: impl IntoIterator<Item = T>,
    size: usize,
) -> impl Iterator<Item = (F, bool)> {
    let mut rest = all.into_iter().peekable();
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let frame = rest.by_ref().take(size).collect();
        done = rest.peek().is_none();
        Some((frame, !done))
    })
}

/// A report that opens no case is told, so that nobody looks for what became of it.
fn report_refused(turn: &mut SeedTurn<'_>, from: Addr, peer: Addr, reason: &str) {
    let keys =
        vec![("peer", peer.to_string()), ("from", from.to_string()), ("reason", reason.to_owned())];
    turn.note(Severity::Info, "dead-node report refused", keys);
}

/// Tells peers of records.
fn update(
    turn: &mut SeedTurn<'_>,
    peers: &[Conn],
    records: impl IntoIterator<Item = (Addr, Record)>,
) {
    for (records, _) in frames(records, MEMBERS_A_FRAME) {
        turn.send_many(peers.to_vec(), ToPeer::Update(records));
    }
}

impl SeedMachine {
    /// A peer says something.
    pub(super) fn hear_peer(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        peer: Addr,
        message: ToSeed,
    ) {
        match message {
            ToSeed::Register { request, incarnation } => {
                self.asked_to_register(turn, Asker { conn, request }, peer, incarnation);
            }
            ToSeed::Leave { request, incarnation } => {
                self.asked_to_leave(turn, Asker { conn, request }, peer, incarnation);
            }
            ToSeed::Refresh { request, .. } if self.standing != Standing::Voting => {
                // What it lacks may have been answered for.
                let reason = "this seed has no registry yet; ask another".to_owned();
                turn.send(conn, ToPeer::Denied { request, votes: 0, reason, known: 0 });
            }
            ToSeed::Links { number, neighbours } => self.hear_links(peer, number, neighbours),
            ToSeed::Refresh { request, digest } => {
                if digest == self.status_digest() {
                    turn.send(conn, ToPeer::Unchanged { request });
                } else {
                    self.send_list(turn, conn, request);
                }
            }
            ToSeed::DeadNode { peer: dead, incarnation, .. } => {
                self.hear_report(turn, conn, peer, dead, incarnation);
            }
        }
    }

    fn status_digest(&mut self) -> [u8; 32] {
        *self.status_digest.get_or_insert_with(|| self.registry.status_digest())
    }

    fn asked_to_register(
        &mut self,
        turn: &mut SeedTurn<'_>,
        asker: Asker,
        peer: Addr,
        incarnation: Incarnation,
    ) {
        let Asker { conn, request } = asker;
        match self.registry.get(&peer) {
            Some(known)
                if known.incarnation == incarnation
                    && known.status == Status::Alive
                    && self.standing == Standing::Voting =>
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
                // A life that replaces another without a death keeps its place in the order of
                // joining, on which the choice of neighbours rests.
                let joined = known.filter(|k| k.status == Status::Alive).map(|k| k.at);
                let mut change = self.change(turn, ChangeKind::Join, peer, incarnation);
                change.at = joined.unwrap_or(change.at);
                self.propose(turn, change, Some(asker));
            }
        }
    }

    fn asked_to_leave(
        &mut self,
        turn: &mut SeedTurn<'_>,
        asker: Asker,
        peer: Addr,
        incarnation: Incarnation,
    ) {
        match self.registry.get(&peer) {
            Some(known) if known.incarnation >= incarnation && known.status != Status::Alive => {
                let known = known.clone();
                self.answer_for(turn, asker, ChangeKind::Leave, peer, &known);
            }
            _ => {
                let change = self.change(turn, ChangeKind::Leave, peer, incarnation);
                self.propose(turn, change, Some(asker));
            }
        }
    }

    fn change(
        &self,
        turn: &SeedTurn<'_>,
        kind: ChangeKind,
        peer: Addr,
        incarnation: Incarnation,
    ) -> Change {
        let at = turn.now.millis();
        Change { kind, peer, incarnation, at, reporters: Vec::new() }
    }

    /// Answers a request that is committed.
    pub(super) fn grant(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        request: u64,
        kind: ChangeKind,
        votes: usize,
    ) {
        let votes = u32::try_from(votes).unwrap_or(u32::MAX);
        turn.send(conn, ToPeer::Granted { request, votes });
        if kind == ChangeKind::Join {
            self.send_list(turn, conn, request);
        }
    }

    fn all_records(&self) -> impl Iterator<Item = (Addr, Record)> {
        self.registry.iter().map(|(peer, record)| (*peer, record.clone()))
    }

    /// Tells peers of all records.
    pub(super) fn tell_of_all(&self, turn: &mut SeedTurn<'_>, peers: &[Conn]) {
        update(turn, peers, self.all_records());
    }

    fn send_list(&mut self, turn: &mut SeedTurn<'_>, conn: Conn, request: u64) {
        if let Some(records) = &self.list.0 {
            let records = Arc::clone(records);
            turn.send(conn, ToPeer::List { request, records, more: false });
            return;
        }
        let mut last = None;
        for (records, more) in frames::<_, Records>(self.all_records(), MEMBERS_A_FRAME) {
            last = Some(Arc::clone(&records));
            turn.send(conn, ToPeer::List { request, records, more });
        }
        if self.registry.len() <= MEMBERS_A_FRAME {
            self.list.0 = last;
        }
    }

    /// A peer reports another one dead. One report opens a case; enough reporters make a proposal,
    /// on which this seed votes like any other: by its own probe.
    fn hear_report(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        reporter: Addr,
        dead: Addr,
        incarnation: Incarnation,
    ) {
        match self.registry.get(&dead) {
            Some(record) if record.incarnation == incarnation && record.status == Status::Alive => {
            }
            // Known in another life, or gone: the reporter is told what stands here.
            Some(record) => {
                turn.send(conn, ToPeer::Update(vec![(dead, record.clone())]));
                if record.incarnation < incarnation {
                    report_refused(turn, reporter, dead, "that incarnation is not known here");
                }
                return;
            }
            None => {
                turn.send(conn, ToPeer::NoMember { peer: dead });
                report_refused(turn, reporter, dead, "it is no member");
                return;
            }
        }
        let open = self.cases.get(&(dead, incarnation));
        let full = open.is_none() && self.cases.len() >= MAX_CASES;
        let objection = if reporter == dead {
            Some("it reports itself")
        } else if self.registry.alive(&reporter).is_none() {
            Some("who reports is no member")
        } else if full {
            Some("too many open cases")
        } else {
            None
        };
        if let Some(objection) = objection {
            report_refused(turn, reporter, dead, objection);
            return;
        }
        if !open.is_some_and(|case| case.reporters.contains(&reporter)) {
            let reports = self.reports_by.entry(reporter).or_default();
            if *reports >= MAX_REPORTS {
                return;
            }
            *reports += 1;
            if *reports == MAX_REPORTS {
                let keys = vec![("from", reporter.to_string())];
                turn.note(Severity::Warn, "too many reports from one peer", keys);
            }
        }
        let case = self.cases.entry((dead, incarnation)).or_default();
        case.reporters.insert(reporter);
        self.timers.set(Timer::Case(dead, incarnation), turn.now + CASE_LIFETIME);
        self.review(turn, dead, incarnation);
        // This report may also be what another open case waited for: the one accused here is no
        // longer one of those who could report there. That matters only where few are left.
        if self.registry.size() <= self.cases.len() + 2 {
            let open: Vec<(Addr, Incarnation)> = self.cases.keys().copied().collect();
            for (peer, incarnation) in open {
                self.review(turn, peer, incarnation);
            }
        }
    }

    /// Ends a case.
    pub(super) fn close_case(&mut self, peer: Addr, incarnation: Incarnation) {
        self.timers.cancel(&Timer::Case(peer, incarnation));
        let Some(case) = self.cases.remove(&(peer, incarnation)) else { return };
        for reporter in case.reporters {
            if let Some(reports) = self.reports_by.get_mut(&reporter) {
                *reports -= 1;
                if *reports == 0 {
                    self.reports_by.remove(&reporter);
                }
            }
        }
    }

    /// Proposes an open case if it has reporters enough and no seed is at it.
    fn review(&mut self, turn: &mut SeedTurn<'_>, peer: Addr, incarnation: Incarnation) {
        let key = (ChangeKind::Dead, peer, incarnation);
        let Some(case) = self.cases.get(&(peer, incarnation)) else { return };
        if self.ballot_of.contains_key(&key) || self.is_judging(&key) {
            return;
        }
        let reporters: Vec<Addr> = case
            .reporters
            .iter()
            .copied()
            .filter(|reporter| self.registry.alive(reporter).is_some())
            .collect();
        if reporters.len() >= self.reporters_needed(&peer) {
            let mut change = self.change(turn, ChangeKind::Dead, peer, incarnation);
            change.reporters = reporters;
            self.propose(turn, change, None);
        }
    }

    /// Closes connections of peers that have said nothing for long. A peer that wants something
    /// opens a new one.
    pub(super) fn hang_up(&mut self, turn: &mut SeedTurn<'_>) {
        let quiet: Vec<Conn> = self
            .lines
            .iter()
            .filter(|(_, line)| {
                matches!(line, Line::FromPeer { heard, .. } if turn.now.since(*heard) > IDLE)
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in quiet {
            self.lines.remove(&conn);
            turn.close(conn);
        }
    }

    /// How long changes gather before they are told.
    pub(super) fn push_delay(&self) -> Duration {
        let peers = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
        PUSH_DELAY + PUSH_DELAY_A_PEER.saturating_mul(peers)
    }

    /// Tells connected peers of changed records, but for those that wait to be registered: they are
    /// about to be sent the whole list, and while a thousand register that would be most of what is
    /// said. If it comes to no list, they are told of all.
    pub(super) fn push(&mut self, turn: &mut SeedTurn<'_>) {
        let changed = std::mem::take(&mut self.changed);
        let records: Vec<(Addr, Record)> = changed
            .into_iter()
            .filter_map(|peer| self.registry.get(&peer).map(|record| (peer, record.clone())))
            .collect();
        let mut waiting: BTreeSet<Conn> = BTreeSet::new();
        for ballot in self.ballots.values_mut().filter(|b| b.change.kind == ChangeKind::Join) {
            ballot.untold |= !records.is_empty();
            waiting.extend(ballot.askers.iter().map(|asker| asker.conn));
        }
        let peers: Vec<Conn> = self
            .lines
            .iter()
            .filter(|(conn, line)| matches!(line, Line::FromPeer { .. }) && !waiting.contains(conn))
            .map(|(conn, _)| *conn)
            .collect();
        update(turn, &peers, records);
    }
}
