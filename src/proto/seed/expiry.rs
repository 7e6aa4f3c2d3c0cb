//! Drops the records of members that are long gone.
//!
//! The record of a death keeps a seed that missed the death from bringing the member back. So what
//! must stay true: a record goes only once no seed holds that member alive and none can come to.
//! The asking seed sends the records to all seeds; each makes them durable and says so. When *all*
//! configured seeds have, every seed that holds anything of these members holds that they are gone,
//! and may drop it. A seed that is down keeps the others from dropping anything, because until it
//! has heard it could still bring somebody back. A seed that has dropped a record may get it again
//! from one that has not yet; that is no news, and the next round drops it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::{Record, Registry};
use crate::proto::time::Time;

/// How often a seed looks for records to drop. They are kept for a day, so seldom is enough.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Most records in one round.
const A_ROUND: usize = 1_024;

/// A question to all other seeds about records to drop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    number: u64,
    gone: Vec<(Addr, Incarnation)>,
    /// Seeds that have not answered.
    waiting: BTreeSet<Addr>,
}

/// The rounds in which seeds agree to drop records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Expiry {
    round: Option<Round>,
    rounds_used: u64,
    /// When to look for such records again.
    due: Option<Time>,
}

impl Expiry {
    /// When to look next for records to drop.
    pub fn wake_at(&self) -> Option<Time> {
        self.due
    }

    /// Sets the next look one interval away.
    pub fn look_later(&mut self, now: Time) {
        self.due = Some(now + LOOK_INTERVAL);
    }

    /// Begins a round with all these seeds, if some records are old enough. Returns the round's
    /// number and its records.
    pub fn begin(
        &mut self,
        now: Time,
        registry: &Registry,
        seeds: impl Iterator<Item = Addr>,
    ) -> Option<(u64, Vec<(Addr, Record)>)> {
        let expired = registry.iter().filter(|(_, record)| record.is_expired(now));
        let records: Vec<(Addr, Record)> =
            expired.take(A_ROUND).map(|(peer, record)| (*peer, record.clone())).collect();
        if records.is_empty() {
            return None;
        }
        self.rounds_used += 1;
        let number = self.rounds_used;
        let gone = records.iter().map(|(peer, record)| (*peer, record.incarnation)).collect();
        self.round = Some(Round { number, gone, waiting: seeds.collect() });
        Some((number, records))
    }

    /// Notes that a seed has the records of a round on disk.
    pub fn agrees(&mut self, seed: &Addr, number: u64) {
        if let Some(round) = &mut self.round
            && round.number == number
        {
            round.waiting.remove(seed);
        }
    }

    /// Takes the lives to drop, if all seeds have agreed to the round.
    pub fn agreed(&mut self) -> Option<Vec<(Addr, Incarnation)>> {
        let round = self.round.take_if(|round| round.waiting.is_empty())?;
        Some(round.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::{RETENTION, Status};

    #[test]
    fn what_is_long_gone_goes_once_every_seed_has_agreed_and_not_before() {
        let addr = |port: u16| Addr::from(([127, 0, 0, 1], port));
        let mut registry = Registry::new();
        for (port, status) in [(1, Status::Dead), (2, Status::Alive)] {
            registry.merge(addr(port), Record::plain(1, status, 1, vec![0]));
        }
        let (mut expiry, now) = (Expiry::default(), Time::from_millis(2) + RETENTION * 2);
        let seeds = [addr(5001), addr(5002)];
        assert!(expiry.begin(Time::from_millis(2), &registry, seeds.into_iter()).is_none());
        let (number, records) = expiry.begin(now, &registry, seeds.into_iter()).unwrap();
        assert_eq!(records.len(), 1);
        expiry.agrees(&addr(5001), number);
        expiry.agrees(&addr(5002), number + 1);
        assert_eq!(expiry.agreed(), None);
        expiry.agrees(&addr(5002), number);
        assert_eq!(expiry.agreed(), Some(vec![(addr(1), 1)]));
        assert_eq!(expiry.agreed(), None);
    }
}
