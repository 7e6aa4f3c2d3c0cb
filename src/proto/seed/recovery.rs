//! A seed comes back with what it had on disk.
//!
//! Members that it recovered may have died while nobody watched: it looks at
//! each of them, and proposes the death of those that do not answer twice, on
//! the seeds' own evidence (DESIGN.md, section 3). Each seed still votes by its
//! own probe, so this needs no reporter.

use std::time::Duration;

use super::{SeedMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{
    Addr, Change, ChangeKind, Council, Incarnation, Purpose, Role, Standing, Welcome,
};
use crate::proto::registry::Record;
use crate::proto::turn::SeedTurn;

/// Members looked at in one go; the next ones follow at once. A hundred thousand connections at
/// the same moment would be too many for any process.
const LOOKS: usize = 128;
/// Between two looks at a member that did not answer: long enough for a process that is starting.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Looks without an answer after which a member is proposed dead.
const MAX_LOOKS: u32 = 3;

/// A recovered member that is being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Look {
    peer: Addr,
    incarnation: Incarnation,
    failed: u32,
}

impl SeedMachine {
    /// A seed that had these records on disk, which go back to that founding, and stood like that.
    /// They are no news: nothing is logged of them.
    #[must_use]
    pub fn recovered(
        mut self,
        standing: Standing,
        founders: impl IntoIterator<Item = u64>,
        records: impl IntoIterator<Item = (Addr, Record)>,
    ) -> Self {
        for (peer, record) in records {
            self.registry.merge(peer, record);
            self.tree.touch(&peer);
        }
        self.unsettled.recovered = !self.registry.is_empty();
        self.founders.extend(founders);
        self.standing = standing;
        self.wants_standing = standing;
        self
    }

    /// Begins to look at the members recovered.
    pub(super) fn look_at_members(&mut self, turn: &mut SeedTurn<'_>) {
        self.to_look = self
            .registry
            .members()
            .map(|(peer, record)| Look { peer: *peer, incarnation: record.incarnation, failed: 0 })
            .collect();
        if !self.registry.is_empty() {
            let keys = vec![
                ("records", self.registry.len().to_string()),
                ("members", self.registry.size().to_string()),
            ];
            turn.note(Severity::Info, "registry recovered", keys);
        }
        self.look_on(turn);
    }

    pub(super) fn look_on(&mut self, turn: &mut SeedTurn<'_>) {
        while self.looks.len() < LOOKS {
            let Some(look) = self.to_look.pop() else { return };
            let conn = self.next_conn();
            let hello = self.hello(Purpose::Probe);
            turn.open(conn, look.peer, hello, self.config.probe_timeout);
            self.looks.insert(conn, look);
        }
    }

    /// A look has ended.
    pub(super) fn looked(
        &mut self,
        turn: &mut SeedTurn<'_>,
        conn: Conn,
        result: Result<Welcome, OpenError>,
    ) {
        let Some(mut look) = self.looks.remove(&conn) else { return };
        let answered =
            result.is_ok_and(|welcome| welcome.role == Role::Peer && welcome.from == look.peer);
        let member = self
            .registry
            .alive(&look.peer)
            .is_some_and(|record| record.incarnation == look.incarnation);
        if !answered && member {
            look.failed += 1;
            if look.failed < MAX_LOOKS {
                self.unanswered.push(look);
                self.timers.set_if_unset(Timer::Look, turn.now + LOOK_AGAIN);
            } else {
                let (peer, incarnation) = (look.peer, look.incarnation);
                let kind = ChangeKind::Dead;
                // The reporter is this seed itself.
                let reporters = vec![self.config.me];
                let at = turn.now.millis();
                self.propose(turn, Change { kind, peer, incarnation, at, reporters }, None);
            }
        }
        self.look_on(turn);
    }

    /// It is time to look again at those that did not answer.
    pub(super) fn look_again(&mut self, turn: &mut SeedTurn<'_>) {
        self.to_look.append(&mut self.unanswered);
        self.look_on(turn);
    }

    /// Whether a dead-node proposal rests on a seed's own evidence.
    pub(super) fn is_own_evidence(&self, change: &Change) -> bool {
        change.reporters.iter().any(|reporter| self.config.network.seeds().contains(reporter))
    }

    /// Tells another seed of a record that is committed already.
    pub(super) fn pass_on(&self, turn: &mut SeedTurn<'_>, seed: &Addr, peer: Addr, record: Record) {
        let records = vec![(peer, record)];
        self.tell(turn, seed, Council::Records { records, wanted: Vec::new(), done: None });
    }
}
