//! Anti-entropy: what gossip lost is found by comparing what has been seen.
//!
//! A round starts with a digest (count and XOR of the SHA-256 held); equal
//! digests end it. Otherwise the answer is a summary of the numbers seen of
//! each origin, in runs, so that the cost follows the number of origins and of
//! gaps and not of messages, and only what is missing moves.
//!
//! What must stay true: a message crosses a link once. A link delivers in
//! order, so a summary that answers our digest tells of everything that we had
//! sent before that: what is then still missing was lost, and may be sent
//! again. What was sent since then is left alone, and a summary that answers
//! anything but the last question is not looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use super::runs::{is_sane, wire_contains};
use super::spread::{Link, Rumors};
use super::window::Window;
use crate::proto::machine::Conn;
use crate::proto::message::{Message, Runs, Tag};
use crate::proto::turn::Turn;

/// A message that came so recently is still on its way by gossip: sending it again would only
/// double it.
const SETTLE: Duration = Duration::from_secs(3);
/// Runs in one frame of a summary, so that it fits a frame whatever the numbers are.
const RUNS_A_FRAME: usize = 8_192;
/// Runs in a whole summary, the most that one link may make us hold: some megabytes.
const MAX_RUNS: usize = 65_536;

impl Rumors {
    /// Begins a round with a neighbour.
    pub(crate) fn begin_sync(&mut self, turn: &mut Turn<'_>, conn: Conn) {
        let start = self.list.first_place();
        let Some(link) = self.links.get_mut(&conn) else { return };
        let round = link.ask(start);
        self.counters.sync_rounds += 1;
        let (count, digest) = (self.list.len() as u64, self.list.digest());
        turn.send(conn, Message::SyncDigest { round, count, digest });
    }

    pub(crate) fn on_sync_digest(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        round: u64,
        count: u64,
        digest: [u8; 32],
    ) {
        if count == self.list.len() as u64 && digest == self.list.digest() {
            self.counters.sync_matched += 1;
        } else {
            self.send_summary(turn, conn, round, true);
        }
    }

    /// Sends what has been seen, in answer to the other side's round `to`; with `answer` the other
    /// side is asked for the same.
    fn send_summary(&mut self, turn: &mut Turn<'_>, conn: Conn, to: u64, answer: bool) {
        let start = self.list.first_place();
        let Some(link) = self.links.get_mut(&conn) else { return };
        let answer = if answer { Some(link.ask(start)) } else { None };
        let mut seen: Vec<(Tag, Runs)> = Vec::new();
        let mut runs = 0;
        for (_, origin) in self.list.origins() {
            if runs >= RUNS_A_FRAME {
                let seen = std::mem::take(&mut seen);
                turn.send(conn, Message::SyncSummary { to, seen, more: true, answer });
                runs = 0;
            }
            let wire = origin.seen.to_wire();
            runs += 1 + wire.len();
            seen.push((origin.tag, wire));
        }
        turn.send(conn, Message::SyncSummary { to, seen, more: false, answer });
    }

    /// The other side tells what it has seen. False if that makes no sense.
    pub(crate) fn on_sync_summary(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        to: u64,
        seen: Vec<(Tag, Runs)>,
        more: bool,
        answer: Option<u64>,
    ) -> bool {
        let Some(link) = self.links.get_mut(&conn) else { return true };
        if to != link.round {
            // The answer to an older question, or to none: the newer one's is on its way.
            link.forget_summary();
            return true;
        }
        link.summary_runs += seen.iter().map(|(_, runs)| 1 + runs.len()).sum::<usize>();
        if link.summary_runs > MAX_RUNS || !seen.iter().all(|(_, runs)| is_sane(runs)) {
            return false;
        }
        link.summary.extend(seen);
        if more {
            return true;
        }
        let summary = std::mem::take(&mut link.summary);
        link.forget_summary();
        let lacking = self.lacking(turn, conn, &summary);
        if let Some(round) = answer {
            self.send_summary(turn, conn, round, false);
        }
        let sent = self.send_places(turn, conn, &lacking, true);
        self.counters.sync_sent += sent as u64;
        if sent > 0 && sent < lacking.len() {
            // More than one answer may carry: the next round goes on where this one ended.
            self.begin_sync(turn, conn);
        }
        true
    }

    /// Places of the messages that the other side lacks, in order of arrival here.
    fn lacking(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        summary: &BTreeMap<Tag, Runs>,
    ) -> Vec<u64> {
        let Some(link) = self.links.get(&conn) else { return Vec::new() };
        let mut lacking = Vec::new();
        let mut resent = 0;
        for (_, origin) in self.list.origins() {
            let theirs = summary.get(&origin.tag);
            for (number, places) in origin.held() {
                if theirs.is_some_and(|runs| wire_contains(runs, number)) {
                    continue;
                }
                for place in places {
                    if !link.sent.get(place) {
                        lacking.push(place);
                        continue;
                    }
                    let settled = self
                        .list
                        .entry(place)
                        .is_some_and(|entry| turn.now.since(entry.received) > SETTLE);
                    if settled && !link.unsettled.get(place) {
                        lacking.push(place);
                        resent += 1;
                    }
                }
            }
        }
        self.counters.resent += resent;
        lacking.sort_unstable();
        lacking
    }
}

impl Link {
    /// Begins to remember what is sent after a question to the other side; returns its number.
    fn ask(&mut self, start: u64) -> u64 {
        self.round += 1;
        self.unsettled = Window::starting(start);
        self.round
    }

    fn forget_summary(&mut self) {
        self.summary.clear();
        self.summary_runs = 0;
    }
}
