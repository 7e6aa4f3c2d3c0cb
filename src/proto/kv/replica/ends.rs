//! When a replica looks for lives that are over, and ends them ([`crate::proto::kv::seal`]).

use std::net::SocketAddr;
use std::time::Duration;

use super::{ANNOUNCE_AFTER, Clock, Later, Paths, PeerTurn, Replication, Timer};

/// Between two looks for lives that are over: those are ended that were so at both.
const LOOK_FOR_ENDED: Duration = Duration::from_secs(10);
/// The look of whoever has others before it is so much later for each: they have ended what they see
/// by then, and told it.
const ANOTHERS_TURN: Duration = Duration::from_secs(1);
/// Whoever has so many before it waits no longer than these.
const LAST_PLACE: u8 = 7;

impl Replication {
    /// Lives may be over once so many are named.
    pub(super) fn look_for_ended(&mut self, turn: &mut PeerTurn<'_>) {
        if self.store.context().len() >= self.seal_from && !self.timers.is_set(&Timer::Seal) {
            // Two that have the same before them, as neither has said anything yet, look at different
            // times.
            let spread = self
                .store
                .name()
                .bytes()
                .fold(0_u32, |all, byte| all.wrapping_mul(31).wrapping_add(byte.into()));
            let after = LOOK_FOR_ENDED
                + ANOTHERS_TURN * u32::from(self.place())
                + ANOTHERS_TURN * (spread % 64) / 16;
            self.timers.set(Timer::Seal, turn.now + after);
        }
    }

    /// How many live longer than this replica, of those that write.
    fn place(&self) -> u8 {
        let is_over = |name: &str| self.over.get(name) > 0;
        let older = self.store.older().filter(|name| !is_over(name)).take(LAST_PLACE.into());
        older.map(|_| 1).sum()
    }

    /// Ends lives that were over at the last look and are now, if they are many. The replica that lives
    /// longest does it for all; the others wait for more, in case that it does not.
    pub(super) fn seal(
        &mut self,
        turn: &mut PeerTurn<'_>,
        paths: &Paths,
        is_member: &impl Fn(SocketAddr) -> bool,
    ) {
        let over = self.store.over(is_member);
        let before = std::mem::replace(&mut self.over, over);
        let last = self.over.iter().filter(|(name, count)| before.get(name) == *count);
        let last: Clock = last.map(|(name, count)| (name.clone(), count)).collect();
        let enough = self.seal_from.saturating_mul(1 + usize::from(self.place()));
        if last.len() >= enough
            && let Some(write) = self.store.seal(turn.now, &last)
        {
            self.counters.seals += 1;
            let changes = self.changes(std::slice::from_ref(&write));
            self.durability.persist(turn, changes);
            self.timers.set_if_unset(Timer::Announce, turn.now + ANNOUNCE_AFTER);
            self.durability.when_durable(turn, Later::Spread(write), paths);
        }
        self.look_for_ended(turn);
    }
}
