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

use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::{Record, Registry};
use crate::proto::time::Time;

/// How often a seed looks for records to drop: it is a matter of days.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Records of one round.
const A_ROUND: usize = 1_024;

/// Records that this seed has asked the others about.
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
    /// When to look again.
    due: Option<Time>,
}

impl Expiry {
    /// When to look for records to drop.
    pub fn wake_at(&self) -> Option<Time> {
        self.due
    }

    /// The next look is an interval away.
    pub fn look_later(&mut self, now: Time) {
        self.due = Some(now + LOOK_INTERVAL);
    }

    /// Begins a round with all these seeds, if there are records that are old enough; its number, and
    /// the records.
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

    /// A seed has the records of a round on disk.
    pub fn agrees(&mut self, seed: &Addr, number: u64) {
        if let Some(round) = &mut self.round
            && round.number == number
        {
            round.waiting.remove(seed);
        }
    }

    /// The lives that all seeds agree to drop.
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
            registry.merge(addr(port), Record { incarnation: 1, status, at: 1, voters: vec![0] });
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
