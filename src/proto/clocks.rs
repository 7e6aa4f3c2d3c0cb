//! Whose wall clock disagrees with ours, and by how much.
//!
//! Nothing depends on it (DESIGN.md, section 4, clocks): it is told so that an operator can set a
//! clock right before people are misled by times in a log. A process that opens or answers a
//! connection says what its clock says, and a message says when it was published and how long ago
//! that was.
//!
//! What must stay true: one line an origin and hour, and a bounded memory, whatever strangers say
//! of their clocks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::Event;
use super::message::Addr;
use super::time::Time;
use super::turn::Turn;

/// A difference below this is not told: it is no fault if a network delays, or if nobody keeps a
/// clock in step.
const TOLERATED: Duration = Duration::from_secs(10);
/// A difference is told again after this long.
const AGAIN: Duration = Duration::from_secs(3_600);
/// Most origins remembered. A further one takes the place of the one that was told longest ago,
/// once that may be told again.
const MAX_ORIGINS: usize = 1_024;

/// Clocks that disagree with ours.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    /// By how much each clock is ahead of ours, milliseconds, and when that was last told.
    offsets: BTreeMap<Addr, (i64, Time)>,
}

impl Clocks {
    /// A peer's clock says that it is `clock` milliseconds after the Unix epoch; 0 if it does not
    /// say.
    pub(crate) fn met<R, K>(&mut self, turn: &mut Turn<'_, R, K>, peer: Addr, clock: u64) {
        if clock > 0 {
            let (theirs, ours) = (i128::from(clock), i128::from(turn.now.millis()));
            let ahead = i64::try_from(theirs - ours).unwrap_or(i64::MAX);
            self.found(turn, peer, ahead);
        }
    }

    /// A peer's clock is found to be ahead of ours by `ahead` milliseconds; behind if that is
    /// negative.
    pub(crate) fn found<R, K>(&mut self, turn: &mut Turn<'_, R, K>, peer: Addr, ahead: i64) {
        let is_right = Duration::from_millis(ahead.unsigned_abs()) < TOLERATED;
        if let Some((offset, told)) = self.offsets.get_mut(&peer)
            && (is_right || turn.now.since(*told) < AGAIN)
        {
            // A clock that is right now is remembered: one that is right and wrong by turns gets no
            // more lines than one that stays wrong.
            *offset = if is_right { 0 } else { ahead };
            return;
        }
        if is_right {
            return;
        }
        if self.offsets.len() >= MAX_ORIGINS && !self.offsets.contains_key(&peer) {
            let oldest = self.offsets.iter().min_by_key(|(_, (_, told))| *told);
            let Some((oldest, told)) = oldest.map(|(peer, (_, told))| (*peer, *told)) else {
                return;
            };
            if turn.now.since(told) < AGAIN {
                // So many clocks were off within an hour that more lines would help nobody.
                return;
            }
            self.offsets.remove(&oldest);
        }
        self.offsets.insert(peer, (ahead, turn.now));
        turn.log(Event::ClockSkew { peer, ahead });
    }

    /// By how much the clock that differs most is ahead of ours, milliseconds; 0 if none differs.
    pub fn worst(&self) -> i64 {
        let offsets = self.offsets.values().map(|(offset, _)| *offset);
        offsets.max_by_key(|offset| offset.unsigned_abs()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_once_an_hour() {
        let peer: Addr = ([127, 0, 0, 1], 6000).into();
        let start = Time::from_millis(1_800_000_000_000);
        let mut clocks = Clocks::default();
        let mut lines: Vec<crate::proto::machine::Effect<(), ()>> = Vec::new();
        for minute in 0..=120_u64 {
            let now = start + Duration::from_secs(minute * 60);
            let turn = &mut Turn { now, effects: &mut lines };
            clocks.met(turn, peer, now.millis() - 600_000);
            clocks.met(turn, ([127, 0, 0, 1], 6001).into(), now.millis() + 3_000);
            clocks.met(turn, ([127, 0, 0, 1], 6002).into(), 0);
        }
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(clocks.worst(), -600_000);
    }

    #[test]
    fn a_clock_that_is_right_and_wrong_by_turns_is_told_no_more_often() {
        let peer: Addr = ([127, 0, 0, 1], 6000).into();
        let start = Time::from_millis(1_800_000_000_000);
        let mut clocks = Clocks::default();
        let mut lines: Vec<crate::proto::machine::Effect<(), ()>> = Vec::new();
        for minute in 0..120_u64 {
            let now = start + Duration::from_secs(minute * 60);
            let turn = &mut Turn { now, effects: &mut lines };
            let ahead = if minute % 2 == 0 { 600_000 } else { 0 };
            clocks.met(turn, peer, now.millis() + ahead);
            assert_eq!(clocks.worst(), ahead.cast_signed(), "minute {minute}");
        }
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn strangers_with_wrong_clocks_fill_neither_the_log_nor_memory() {
        let now = Time::from_millis(1_800_000_000_000);
        let mut clocks = Clocks::default();
        let mut lines: Vec<crate::proto::machine::Effect<(), ()>> = Vec::new();
        let turn = &mut Turn { now, effects: &mut lines };
        for port in 1..=u16::MAX {
            clocks.met(turn, ([127, 0, 0, 1], port).into(), u64::MAX);
        }
        assert_eq!((clocks.offsets.len(), lines.len()), (MAX_ORIGINS, MAX_ORIGINS));
    }
}
