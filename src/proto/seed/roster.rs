//! The seeds of CONFIG: which there are, which of them this one is, and how many are a quorum.
//!
//! What must stay true: a quorum is of all configured seeds, reachable or not, and a record counts
//! only if it names that many distinct ones.

use std::time::Duration;

use super::ballot::SeedNumber;
use crate::proto::config::{Network, SeedConfig};
use crate::proto::message::{Addr, Hello, Purpose, Role};
use crate::proto::planted::Flaw;
use crate::proto::registry::Record;

/// The configured seeds, and this seed's place among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Roster {
    config: SeedConfig,
    me: SeedNumber,
}

impl Roster {
    pub fn new(config: SeedConfig) -> Self {
        let place = config.network.seeds().iter().position(|seed| *seed == config.me);
        let me = place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX);
        Self { config, me }
    }

    /// Address at which the other seeds and the peers know this one.
    pub fn me(&self) -> Addr {
        self.config.me
    }

    /// This seed's place in the seed list.
    pub fn number(&self) -> SeedNumber {
        self.me
    }

    pub fn network(&self) -> &Network {
        &self.config.network
    }

    /// The configured seeds, in order of their numbers.
    pub fn seeds(&self) -> &[Addr] {
        self.config.network.seeds()
    }

    /// Number of configured seeds.
    pub fn count(&self) -> usize {
        self.seeds().len()
    }

    pub fn is_seed(&self, addr: &Addr) -> bool {
        self.seeds().contains(addr)
    }

    pub fn number_of(&self, seed: &Addr) -> Option<SeedNumber> {
        let place = self.seeds().binary_search(seed).ok()?;
        u16::try_from(place).ok()
    }

    /// The quorum of all configured seeds. `reachable` counts only in a test that plants that
    /// defect.
    pub fn quorum(&self, reachable: usize) -> usize {
        match self.config.flaw() {
            Flaw::ReachableQuorum => reachable / 2 + 1,
            _ => self.config.network.quorum(),
        }
    }

    /// Whether a record names a quorum of distinct configured seeds, in ascending order.
    pub fn is_authorised(&self, record: &Record, quorum: usize) -> bool {
        let ascending = record.voters.windows(2).all(|pair| pair[0] < pair[1]);
        let configured = record.voters.last().is_some_and(|last| usize::from(*last) < self.count());
        ascending && configured && record.voters.len() >= quorum
    }

    pub fn hello(&self, purpose: Purpose) -> Hello {
        self.config.network.hello(Role::Seed, self.config.me, 0, purpose)
    }

    pub fn probe_timeout(&self) -> Duration {
        self.config.probe_timeout
    }

    pub fn suspect_timeout(&self) -> Duration {
        self.config.suspect_timeout
    }

    pub fn flaw(&self) -> Flaw {
        self.config.flaw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::Status;

    #[test]
    fn a_record_has_to_name_a_quorum_of_distinct_configured_seeds_in_order() {
        let seeds: Vec<Addr> = (0..5).map(|port| ([127, 0, 0, 1], 5000 + port).into()).collect();
        let config = SeedConfig::new(seeds[2], Network::new("test", seeds.clone()));
        let roster = Roster::new(config);
        assert_eq!(
            (roster.number(), roster.number_of(&seeds[4]), roster.quorum(2)),
            (2, Some(4), 3)
        );
        let table: &[(&[u16], bool)] = &[
            (&[0, 1, 2], true),
            (&[0, 2, 4], true),
            (&[0, 1, 2, 3, 4], true),
            (&[0, 1], false),
            (&[0, 0, 1], false),
            (&[2, 1, 0], false),
            (&[0, 1, 5], false),
            (&[], false),
        ];
        for (voters, expected) in table {
            let voters = voters.to_vec();
            let record =
                Record { incarnation: 1, status: Status::Alive, at: 1, voters, identity: None };
            let is = roster.is_authorised(&record, roster.quorum(2));
            assert_eq!(is, *expected, "{:?}", record.voters);
        }
    }
}
