//! Dead-node cases: which members reported which other member dead. The first report opens a case.
//! When enough members have reported, this seed proposes the death, and each seed votes by its own
//! probe.
//!
//! What must stay true: only members count as reporters, nobody reports itself, and no peer can
//! fill the table by accusing everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ballot::Evidence;
use crate::proto::event::Severity;
use crate::proto::limits::Limit;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Change, Incarnation, ToPeer};
use crate::proto::registry::{Record, Registry, Status};
use crate::proto::repeats::Allowance;
use crate::proto::time::Time;
use crate::proto::timers::Timers;
use crate::proto::turn::SeedTurn;
use crate::proto::uncompared::Uncompared;

/// Open cases to which one peer may add its report. Further reports of that peer are dropped, so
/// that a peer that accuses everybody does not fill the table.
const MAX_REPORTS: usize = 256;
/// How long a case stays open after its last report if no commit settles it.
const CASE_LIFETIME: Duration = Duration::from_secs(60);
/// Open cases in all. Reports that would open more are dropped; the reporters send them again.
const MAX_CASES: usize = 8_192;

/// Refused reports that get a line of the log in one minute: anybody may send any number of them.
const REFUSALS_A_MINUTE: u32 = 600;

/// One life of a peer.
type Life = (Addr, Incarnation);

/// A report that a life is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// The connection that it came over.
    pub conn: Conn,
    pub reporter: Addr,
    pub dead: Addr,
    pub incarnation: Incarnation,
}

/// The open cases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Cases {
    reporters: BTreeMap<Life, BTreeSet<Addr>>,
    /// Number of open cases to which each peer has added its report.
    reports_by: BTreeMap<Addr, usize>,
    /// When each case runs out.
    timers: Timers<Life>,
    /// Lines of the log about reports that were refused.
    refusals: Uncompared<Allowance>,
}

/// Logs that a report was refused, so that nobody searches for what became of it.
fn refused(turn: &mut SeedTurn<'_>, refusals: &mut Allowance, report: &Report, reason: &str) {
    if !refusals.allows(turn.now, REFUSALS_A_MINUTE) {
        return;
    }
    let keys = vec![
        ("peer", report.dead.to_string()),
        ("from", report.reporter.to_string()),
        ("reason", reason.to_owned()),
    ];
    turn.note(Severity::Info, "dead-node report refused", keys);
}

/// Returns whether a report is of a member in its present life. If not, tells the reporter what
/// this seed knows instead.
fn concerns_a_member(
    turn: &mut SeedTurn<'_>,
    refusals: &mut Allowance,
    report: &Report,
    record: Option<&Record>,
) -> bool {
    let Report { conn, dead, incarnation, .. } = *report;
    match record {
        Some(record) if record.incarnation == incarnation && record.status == Status::Alive => true,
        // The peer is known in another life, or it is gone.
        Some(record) => {
            turn.send(conn, ToPeer::Update(vec![(dead, record.clone())]));
            if record.incarnation < incarnation {
                refused(turn, refusals, report, "that incarnation is not known here");
            }
            false
        }
        None => {
            turn.send(conn, ToPeer::NoMember { peer: dead });
            refused(turn, refusals, report, "it is no member");
            false
        }
    }
}

impl Cases {
    /// When the next case runs out.
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Closes a case that has run out, if there is one.
    pub fn expire(&mut self, now: Time) {
        if let Some((_, (peer, incarnation))) = self.timers.due(now) {
            self.close(peer, incarnation);
        }
    }

    /// Adds a report of a death to its case. Returns whether the case is to be looked at.
    pub fn hear(&mut self, turn: &mut SeedTurn<'_>, registry: &Registry, report: &Report) -> bool {
        let Report { reporter, dead, incarnation, .. } = *report;
        if !concerns_a_member(turn, &mut self.refusals, report, registry.get(&dead)) {
            return false;
        }
        let open = self.reporters.get(&(dead, incarnation));
        let objection = if reporter == dead {
            Some("it reports itself")
        } else if registry.alive(&reporter).is_none() {
            Some("who reports is no member")
        } else if open.is_none() && self.reporters.len() >= MAX_CASES {
            turn.over_limit(Limit::Cases, Some(reporter));
            Some("too many open cases")
        } else {
            None
        };
        if let Some(objection) = objection {
            refused(turn, &mut self.refusals, report, objection);
            return false;
        }
        if !open.is_some_and(|reporters| reporters.contains(&reporter))
            && !self.may_report(turn, reporter)
        {
            return false;
        }
        self.reporters.entry((dead, incarnation)).or_default().insert(reporter);
        self.timers.set((dead, incarnation), turn.now + CASE_LIFETIME);
        true
    }

    /// Open cases that the latest report may have made ready. An accused member does not count as
    /// one that could report another, so the other cases may now have all the reporters they can
    /// get. This matters only where few members are left.
    pub fn touched(&self, registry: &Registry) -> Vec<Life> {
        if registry.size() > self.reporters.len() + 2 {
            return Vec::new();
        }
        self.reporters.keys().copied().collect()
    }

    /// Counts one more report of a peer, unless it has made too many.
    fn may_report(&mut self, turn: &mut SeedTurn<'_>, reporter: Addr) -> bool {
        let reports = self.reports_by.entry(reporter).or_default();
        if *reports >= MAX_REPORTS {
            turn.over_limit(Limit::Reports, Some(reporter));
            return false;
        }
        *reports += 1;
        true
    }

    /// Closes a case.
    pub fn close(&mut self, peer: Addr, incarnation: Incarnation) {
        self.timers.cancel(&(peer, incarnation));
        for reporter in self.reporters.remove(&(peer, incarnation)).unwrap_or_default() {
            if let Some(reports) = self.reports_by.get_mut(&reporter) {
                *reports -= 1;
                if *reports == 0 {
                    self.reports_by.remove(&reporter);
                }
            }
        }
    }

    /// Closes the cases that a committed record has settled.
    pub fn settle(&mut self, peer: Addr, incarnation: Incarnation, status: Status) {
        let settled: Vec<Life> = self
            .reporters
            .range((peer, 0)..=(peer, incarnation))
            .map(|(life, _)| *life)
            .filter(|(_, accused)| *accused < incarnation || status != Status::Alive)
            .collect();
        for (peer, incarnation) in settled {
            self.close(peer, incarnation);
        }
    }

    /// The members that reported the end of a life, if they are enough to propose it.
    pub fn proposable(&self, registry: &Registry, life: Life) -> Option<Vec<Addr>> {
        let reporters = self.reporters.get(&life)?.iter().copied();
        let reporters: Vec<Addr> = reporters.filter(|r| registry.alive(r).is_some()).collect();
        (reporters.len() >= self.needed(registry, &life.0)).then_some(reporters)
    }

    /// Counts the distinct members behind a proposal, together with those that reported to this
    /// seed, and says how many are needed.
    pub fn evidence(&self, registry: &Registry, change: &Change) -> Evidence {
        let mut reporters: BTreeSet<Addr> = change.reporters.iter().copied().collect();
        if let Some(here) = self.reporters.get(&(change.peer, change.incarnation)) {
            reporters.extend(here.iter());
        }
        let counts =
            |reporter: &&Addr| **reporter != change.peer && registry.alive(reporter).is_some();
        let reporters = reporters.iter().filter(counts).count();
        Evidence { reporters, needed: self.needed(registry, &change.peer) }
    }

    /// Number of reporters needed: two, or as many as there can be. A member that is itself accused
    /// is not counted on to report, since it may be dead.
    fn needed(&self, registry: &Registry, peer: &Addr) -> usize {
        let accused =
            |member: &Addr, incarnation| self.reporters.contains_key(&(*member, incarnation));
        registry
            .members()
            .filter(|(member, record)| *member != peer && !accused(member, record.incarnation))
            .take(2)
            .count()
            .max(1)
    }

    /// Number of open cases, and number of peers that have reported.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        (self.reporters.len(), self.reports_by.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    fn registry(members: u16) -> Registry {
        let mut registry = Registry::new();
        for port in 0..members {
            let record = Record::plain(1, Status::Alive, 1, vec![0]);
            registry.merge(addr(port), record);
        }
        registry
    }

    #[test]
    fn reports_make_a_proposal_when_two_members_or_all_there_can_be_stand_behind_it() {
        /// Number of members, reports as (reporter, dead), and whether peer 0 may then be proposed
        /// dead.
        type Row<'a> = (u16, &'a [(u16, u16)], bool);
        let table: &[Row<'_>] = &[
            (4, &[(1, 0)], false),
            (4, &[(1, 0), (1, 0)], false),
            (4, &[(1, 0), (2, 0)], true),
            (4, &[(1, 0), (9, 0)], false),
            (4, &[(1, 0), (0, 0)], false),
            (2, &[(1, 0)], true),
            (3, &[(2, 0)], false),
            (3, &[(2, 1), (2, 0)], true),
        ];
        for (members, reports, expected) in table {
            let (registry, mut cases, mut effects) =
                (registry(*members), Cases::default(), Vec::new());
            let turn = &mut SeedTurn { now: Time::from_millis(9), effects: &mut effects };
            for (reporter, dead) in *reports {
                let (reporter, dead) = (addr(*reporter), addr(*dead));
                cases.hear(turn, &registry, &Report { conn: 1, reporter, dead, incarnation: 1 });
            }
            let proposable = cases.proposable(&registry, (addr(0), 1)).is_some();
            assert_eq!(proposable, *expected, "{members} members, {reports:?}");
        }
    }

    #[test]
    fn a_case_that_runs_out_gives_the_reporter_its_place_back() {
        let (registry, mut cases, mut effects) = (registry(3), Cases::default(), Vec::new());
        let turn = &mut SeedTurn { now: Time::from_millis(9), effects: &mut effects };
        let report = Report { conn: 1, reporter: addr(1), dead: addr(0), incarnation: 1 };
        assert!(cases.hear(turn, &registry, &report));
        assert_eq!(cases.counts(), (1, 1));
        let end = cases.wake_at().unwrap();
        cases.expire(end);
        assert_eq!((cases.counts(), cases.wake_at()), ((0, 0), None));
    }
}
