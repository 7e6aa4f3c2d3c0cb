//! Anti-entropy over a link: two peers compare the messages that they hold and so find what gossip
//! lost.
//!
//! A round starts with a digest; equal digests end it. Otherwise the two take the steps of
//! `reconcile` in turn, and each sends the messages that it finds the other to lack. They compare
//! the messages stored, so that nothing can count as seen without being held.
//!
//! What must stay true: a message crosses a link once. A link delivers in order, so a step that
//! answers our question takes account of everything that we sent before the question. A message
//! that is still missing then was lost, and may be sent again. A message sent since then is left
//! alone, and a step that answers no open question is ignored.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::list::MAX_MESSAGES;
use super::reconcile::{self, Findings};
use super::rumors::{Rumors, Timer};
use crate::proto::event::Severity;
use crate::proto::machine::Conn;
use crate::proto::message::{AntiEntropy, Breach, Parts, Print, Ranges};
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// A message that came so recently is still on its way by gossip; sending it would only double it.
/// Longer than any peer leaves fresh messages out of its comparisons.
const SETTLE: Duration = Duration::from_secs(3);
/// After this long another digest follows a question without an answer, or messages sent. So a
/// round ends only when the digests match or another digest would not help. Some round trips, and
/// longer than a busy peer takes to answer.
const CONFIRM: Duration = Duration::from_secs(1);
/// Most digests that follow one round: a peer that does not take what it lacks is left alone.
const MAX_CONFIRMED: u8 = 6;
/// Bytes of a digest as sent, and of the answer if it matches.
const DIGEST_BYTES: u64 = 40;
/// Bytes of a step besides its parts: numbers, salt, floor, three lengths.
const STEP_BYTES: u64 = 16;
/// Bytes of one identity in a list of all.
const ID_BYTES: u64 = 32;

impl Rumors {
    /// Whether the other side still owes an answer.
    pub(crate) fn is_asking(&self, conn: Conn) -> bool {
        self.links.get(&conn).is_some_and(|link| link.exchange.is_asking())
    }

    /// Begins a round with the peer at the other end. With `all`, it also compares messages so
    /// fresh that gossip is still spreading them.
    pub(crate) fn begin_sync(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, all: bool) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.exchange.confirmed = 0;
        }
        self.counters.sync.rounds += 1;
        self.ask_digest(turn, conn, all);
    }

    /// Asks once more, because a round may not have moved all that it found.
    pub(super) fn confirm_sync(&mut self, turn: &mut PeerTurn<'_>, conn: Conn) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if link.exchange.confirmed < MAX_CONFIRMED && !link.slow.congested {
            link.exchange.confirmed += 1;
            self.ask_digest(turn, conn, false);
        }
    }

    fn ask_digest(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, all: bool) {
        self.list.settle(turn.now, all);
        let start = self.list.first_place();
        let Some(link) = self.links.get_mut(&conn) else { return };
        let round = link.exchange.ask(turn.now, start);
        link.exchange.bytes += DIGEST_BYTES;
        self.counters.sync.bytes += DIGEST_BYTES;
        let index = self.list.index();
        let (count, digest) = (index.len() as u64, index.digest());
        turn.send(conn, AntiEntropy::Digest { round, count, digest, fresh: all });
        self.timers.set(Timer::Confirm(conn), turn.now + CONFIRM);
    }

    /// The other side holds the same messages, so the round is over.
    pub(crate) fn on_sync_matched(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, to: u64) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if link.exchange.answered(to).is_some() {
            self.timers.cancel(&Timer::Confirm(conn));
            self.agree(conn);
            self.close_books(turn, conn);
        }
    }

    /// The other side begins a round. A breach if the digest makes no sense.
    pub(crate) fn on_sync_digest(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        rng: &mut SmallRng,
        (round, count, digest): (u64, u64, [u8; 32]),
        fresh: bool,
    ) -> Result<(), Breach> {
        if count > MAX_MESSAGES as u64 {
            return Err(Breach);
        }
        self.list.settle(turn.now, fresh);
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        link.exchange.bytes += DIGEST_BYTES;
        self.counters.sync.bytes += DIGEST_BYTES;
        let index = self.list.index();
        if count == index.len() as u64 && digest == index.digest() {
            self.counters.sync.matched += 1;
            turn.send(conn, AntiEntropy::Matched(round));
            self.agree(conn);
            self.close_books(turn, conn);
            return Ok(());
        }
        let salt = rng.random();
        let parts = reconcile::open(index, salt);
        self.step(turn, conn, Ranges { to: round, round: 0, salt, floor: 0, parts });
        Ok(())
    }

    /// Sends a step, and counts it as a question if the other side has to answer with a step.
    fn step(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, mut ranges: Ranges) {
        let start = self.list.first_place();
        let Some(link) = self.links.get_mut(&conn) else { return };
        if ranges.parts.is_question() {
            ranges.round = link.exchange.ask(turn.now, start);
            self.timers.set(Timer::Confirm(conn), turn.now + CONFIRM);
        }
        let age = |floor| u64::try_from(turn.now.since(floor).as_millis()).unwrap_or(u64::MAX);
        ranges.floor = self.list.floor().map_or(0, |floor| age(floor).max(1));
        let bytes = bytes(&ranges.parts);
        link.exchange.bytes += bytes;
        self.counters.sync.bytes += bytes;
        turn.send(conn, AntiEntropy::Ranges(Box::new(ranges)));
    }

    /// The other side takes a step. A breach if the step makes no sense.
    pub(crate) fn on_sync_ranges(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        ranges: &Ranges,
    ) -> Result<(), Breach> {
        if !reconcile::is_sane(&ranges.parts) {
            return Err(Breach);
        }
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let Some(asked) = link.exchange.answered(ranges.to) else { return Ok(()) };
        self.timers.cancel(&Timer::Confirm(conn));
        let bytes = bytes(&ranges.parts);
        link.exchange.bytes += bytes;
        self.counters.sync.bytes += bytes;
        // Index the messages that came since the last step, or we would take them for lost and ask
        // for them.
        self.list.settle(turn.now, false);
        let Findings { lacking, common, compared, reply, cut } =
            reconcile::answer(self.list.index(), ranges.salt, &ranges.parts);
        link.exchange.compared += compared as u64;
        self.counters.sync.compared += compared as u64;
        // One that is only expected here has no place.
        let held = common.into_iter().filter(|place| self.list.entry(*place).is_some());
        held.for_each(|place| link.known.set(place));
        // Decide this before the reply goes out: a new question resets `unsettled`, which this
        // reads.
        let oldest = (ranges.floor > 0).then(|| Duration::from_millis(ranges.floor));
        let lacking = self.sendable(turn.now, conn, lacking, (asked, oldest));
        let is_over = !reply.is_question();
        if !reply.is_empty() {
            let (to, salt) = (ranges.round, ranges.salt);
            self.step(turn, conn, Ranges { to, round: 0, salt, floor: 0, parts: reply });
        }
        let sent = self.send_places(turn, conn, &lacking, true);
        self.counters.sync.sent += sent as u64;
        if let Some(link) = self.links.get_mut(&conn) {
            link.exchange.sent += sent as u64;
        }
        if is_over {
            self.close_books(turn, conn);
        }
        if sent > 0 && (cut || sent < lacking.len()) {
            // There is more than one answer may carry: go on at once with another round.
            self.begin_sync(turn, conn, true);
        } else if sent > 0 {
            self.timers.set(Timer::Confirm(conn), turn.now + CONFIRM);
        }
        Ok(())
    }

    /// The messages, of those that the other side lacks, that may be sent to it, in order of
    /// arrival here. We asked at `asked`, and the other side takes only messages younger than
    /// `oldest`.
    fn sendable(
        &mut self,
        now: Time,
        conn: Conn,
        mut lacking: Vec<u64>,
        (asked, oldest): (Time, Option<Duration>),
    ) -> Vec<u64> {
        let Some(link) = self.links.get(&conn) else { return Vec::new() };
        let mut resent = 0;
        lacking.retain(|place| {
            let Some(entry) = self.list.entry(*place) else { return false };
            let published = self.list.published_here(entry);
            let settled = |at: Time| at.since(entry.received.max(published)) > SETTLE;
            if oldest.is_some_and(|oldest| now.since(published) >= oldest) {
                false
            } else if link.sent.get(*place) {
                // It must have settled by the time of our question: the answer may have waited here
                // for long.
                let lost = settled(asked) && !link.exchange.unsettled.get(*place);
                resent += u64::from(lost);
                lost
            } else {
                // A message that came while this link was up was pushed or announced over it: leave
                // it to gossip at first.
                let settled = now.since(entry.received) > SETTLE;
                settled || link.guest || entry.received <= link.since
            }
        });
        lacking.sort_unstable();
        lacking.dedup();
        self.counters.resent += resent;
        lacking
    }

    /// A comparison is over: logs what it took.
    fn close_books(&mut self, turn: &mut PeerTurn<'_>, conn: Conn) {
        let all = self.list.index().len() as u64 * ID_BYTES;
        let Some(link) = self.links.get_mut(&conn) else { return };
        let exchange = &mut link.exchange;
        let bytes = std::mem::take(&mut exchange.bytes);
        let saved = all.saturating_sub(bytes);
        self.counters.sync.saved += saved;
        let keys = vec![
            ("with", link.peer.to_string()),
            ("compared", std::mem::take(&mut exchange.compared).to_string()),
            ("sent", std::mem::take(&mut exchange.sent).to_string()),
            ("bytes", bytes.to_string()),
            ("saved", saved.to_string()),
            ("rounds", self.counters.sync.rounds.to_string()),
            ("matched", self.counters.sync.matched.to_string()),
        ];
        turn.note(Severity::Debug, "anti-entropy", keys);
    }
}

/// Bytes of a step as sent.
fn bytes(parts: &Parts) -> u64 {
    let range = 3;
    let print = size_of::<Print>() as u64;
    let splits = parts.splits.len() as u64 * (range + 16 * print);
    let lists = parts.lists.iter().chain(&parts.wants);
    STEP_BYTES
        + splits
        + lists.map(|(_, names)| range + 1 + names.len() as u64 * print).sum::<u64>()
}
