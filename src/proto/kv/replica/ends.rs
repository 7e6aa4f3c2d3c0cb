//! When a replica looks for lives that are over, and ends them ([`crate::proto::kv::seal`]). One
//! replica does this for all; the others wait longer, in case that it does not.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ANNOUNCE_AFTER, Clock, Later, Paths, PeerTurn, Replication, Timer};

/// Time between two looks for lives that are over. A life is ended if it was over at both.
const LOOK_FOR_ENDED: Duration = Duration::from_secs(10);
/// A replica looks this much later for each that has lived longer: that one has ended the lives
/// that it sees by then, and told of it.
const ANOTHERS_TURN: Duration = Duration::from_secs(1);
/// However many replicas have lived longer, the wait is for no more than this many.
const LAST_PLACE: u8 = 7;

impl Replication {
    /// Sets the time of the next look, if so many replicas are named that some may be over.
    pub(super) fn look_for_ended(&mut self, turn: &mut PeerTurn<'_>) {
        if self.store.context().len() >= self.config.seal_from && !self.timers.is_set(&Timer::Seal)
        {
            // Two replicas may see the same others before them while neither has written. Their
            // names make them look at different times.
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

    /// Number of replicas that write and have lived longer than this one, up to [`LAST_PLACE`].
    fn place(&self) -> u8 {
        let is_over = |name: &str| self.over.get(name) > 0;
        let older = self.store.older().filter(|name| !is_over(name)).take(LAST_PLACE.into());
        older.map(|_| 1).sum()
    }

    /// Ends the lives that were over at the last look and are over now, if they are many. The
    /// replica that has lived longest does it for all; the others wait for more, in case that it
    /// does not.
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
        let enough = self.config.seal_from.saturating_mul(1 + usize::from(self.place()));
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
