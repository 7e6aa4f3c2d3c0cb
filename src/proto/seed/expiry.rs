//! Members that are long gone are dropped from the registry.
//!
//! The record of a death is what keeps a seed that missed it from bringing the
//! member back, so it may go only once no seed holds the member alive and none
//! can come to. The asking seed therefore sends the records to all seeds; each
//! makes them durable and says so; when *all* configured seeds have, whoever
//! holds anything of these members holds that they are gone, and may drop it.
//! A seed that is down keeps the others from dropping anything: until it has
//! heard, it could still bring somebody back. One that dropped a record may be
//! sent it again by one that has not dropped it yet; that is no news, and goes
//! with the next round.

use std::collections::BTreeSet;
use std::time::Duration;

use super::keep::Pending;
use super::{SeedMachine, Timer};
use crate::proto::event::Severity;
use crate::proto::message::{Addr, Council, Incarnation, Standing};
use crate::proto::registry::{Record, Status};
use crate::proto::turn::SeedTurn;

/// How often a seed looks for records to drop: it is a matter of days.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Records of one round.
const A_ROUND: usize = 1_024;

/// Records that this seed has asked the others about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Round {
    number: u64,
    gone: Vec<(Addr, Incarnation)>,
    /// Seeds that have not answered.
    waiting: BTreeSet<Addr>,
}

impl SeedMachine {
    /// Asks about records that are old enough, if all seeds can be asked.
    pub(super) fn look_for_expired(&mut self, turn: &mut SeedTurn<'_>) {
        self.timers.set(Timer::Expire, turn.now + LOOK_INTERVAL);
        let all_here = self
            .colleagues
            .values()
            .all(|colleague| colleague.hears_us() && colleague.told() == Some(Standing::Voting));
        if !all_here || !self.votes {
            return;
        }
        let expired = self.registry.iter().filter(|(_, record)| record.is_expired(turn.now));
        let records: Vec<(Addr, Record)> =
            expired.take(A_ROUND).map(|(peer, record)| (*peer, record.clone())).collect();
        if records.is_empty() {
            return;
        }
        self.rounds_used += 1;
        let number = self.rounds_used;
        let gone = records.iter().map(|(peer, record)| (*peer, record.incarnation)).collect();
        let waiting: BTreeSet<Addr> = self.colleagues.keys().copied().collect();
        self.expiring = Some(Round { number, gone, waiting });
        self.tell_all(turn, Council::Expire { round: number, records });
        self.drop_if_agreed(turn);
    }

    /// Another seed asks about records that are old enough to drop.
    pub(super) fn hear_expire(
        &mut self,
        turn: &mut SeedTurn<'_>,
        seed: Addr,
        round: u64,
        records: Vec<(Addr, Record)>,
    ) {
        let all = records.len();
        let records = self.authorised(turn, seed, records);
        if records.len() != all || records.iter().any(|(_, r)| r.status == Status::Alive) {
            return;
        }
        let mut pending: Vec<Pending> = records
            .into_iter()
            .map(|(peer, record)| Pending::Record { peer, record, tell: None, decision: None })
            .collect();
        pending.push(Pending::Expired { seed, round });
        self.persist(turn, pending);
    }

    pub(super) fn hear_expired(&mut self, turn: &mut SeedTurn<'_>, seed: &Addr, round: u64) {
        if let Some(expiring) = &mut self.expiring
            && expiring.number == round
        {
            expiring.waiting.remove(seed);
            self.drop_if_agreed(turn);
        }
    }

    fn drop_if_agreed(&mut self, turn: &mut SeedTurn<'_>) {
        if self.expiring.as_ref().is_some_and(|round| round.waiting.is_empty())
            && let Some(Round { gone, .. }) = self.expiring.take()
        {
            let keys = vec![("records", gone.len().to_string())];
            turn.note(Severity::Info, "long gone members dropped", keys);
            self.tell_all(turn, Council::Forget(gone.clone()));
            self.hear_forget(turn, gone);
        }
    }

    /// All seeds have had these on disk.
    pub(super) fn hear_forget(&mut self, turn: &mut SeedTurn<'_>, gone: Vec<(Addr, Incarnation)>) {
        let pending =
            gone.into_iter().map(|(peer, incarnation)| Pending::Forget { peer, incarnation });
        self.persist(turn, pending.collect());
    }
}
