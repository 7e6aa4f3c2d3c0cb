//! The seeds of CONFIG: which there are, which of them this one is, how many are a quorum, and what
//! they have signed.
//!
//! What must stay true: a quorum is of all configured seeds, reachable or not, and a record counts
//! only if it names that many distinct ones, and over encrypted links is proven.

use std::sync::Arc;
use std::time::Duration;

use super::ballot::SeedNumber;
use super::proofs::{Proof, Proofs};
use crate::proto::config::{Network, SeedConfig};
use crate::proto::message::{Addr, Change, Hello, Identity, Purpose, Role};
use crate::proto::planted::Flaw;
use crate::proto::registry::Record;
use crate::proto::signature::{Signature, Signer};

/// The configured seeds, and this seed's place among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Roster {
    config: SeedConfig,
    me: SeedNumber,
    proofs: Proofs,
}

/// What is to be done with a record that a seed tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authority {
    /// It names a quorum of voters, who are known to stand for it.
    Quorum,
    /// It names a quorum, and not enough of them are known to stand for it.
    Claimed,
    /// It names no quorum.
    Nobody,
}

impl Roster {
    pub fn new(config: SeedConfig) -> Self {
        let place = config.network.seeds().iter().position(|seed| *seed == config.me);
        let me = place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX);
        Self { config, me, proofs: Proofs::default() }
    }

    /// Has this seed sign its votes. `known` says who other seeds are.
    pub fn sign_with(
        &mut self,
        signer: Arc<dyn Signer>,
        known: impl IntoIterator<Item = (Addr, Identity)>,
    ) {
        self.proofs.sign_with(Some(signer), self.me);
        known.into_iter().for_each(|(seed, identity)| self.learn(&seed, Some(identity)));
    }

    /// Whether votes are signed.
    pub fn signs(&self) -> bool {
        self.proofs.are_signed()
    }

    /// Learns who a seed is.
    pub fn learn(&mut self, seed: &Addr, identity: Option<Identity>) {
        if let Some(number) = self.number_of(seed) {
            self.proofs.learn(number, identity);
        }
    }

    /// This seed's signature under its accept of a change; none over plain links.
    pub fn sign(&self, change: &Change) -> Option<Signature> {
        self.proofs.sign(self.network(), change)
    }

    /// Whether an accept that has come from a seed can be shown to others.
    pub fn is_signed(
        &self,
        change: &Change,
        voter: SeedNumber,
        signature: Option<&Signature>,
    ) -> bool {
        self.proofs.is_signed(self.network(), change, voter, signature)
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

    /// Takes in that a seed tells a record, for which so many seeds are `enough`: who is known to
    /// stand for it.
    pub fn told(
        &mut self,
        teller: &Addr,
        (peer, record): (&Addr, &Record),
        (quorum, enough): (usize, usize),
    ) -> Authority {
        let Some(number) = self.number_of(teller) else { return Authority::Nobody };
        if !self.names_a_quorum(record, quorum) {
            return Authority::Nobody;
        }
        match self.proofs.told(&self.config.network, number, (peer, record), enough) {
            Proof::Complete => Authority::Quorum,
            Proof::Lacking => Authority::Claimed,
        }
    }

    /// Whether a record names a quorum of distinct configured seeds, in ascending order, and has a
    /// signature of each of them or of none.
    fn names_a_quorum(&self, record: &Record, quorum: usize) -> bool {
        let ascending = record.voters.windows(2).all(|pair| pair[0] < pair[1]);
        let configured = record.voters.last().is_some_and(|last| usize::from(*last) < self.count());
        let signed = [0, record.voters.len()].contains(&record.signatures.len());
        ascending && configured && signed && record.voters.len() >= quorum
    }

    pub fn hello(&self, purpose: Purpose) -> Hello {
        self.config.network.hello(Role::Seed, self.config.me, 0, purpose)
    }

    pub fn probe_timeout(&self) -> Duration {
        self.config.probe_timeout
    }

    /// Members in all, and of one source, from which on there is no room for more.
    pub fn max_members(&self) -> (usize, usize) {
        (self.config.max_members, self.config.max_members_per_source)
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
            let record = Record::plain(1, Status::Alive, 1, voters);
            let is = roster.names_a_quorum(&record, roster.quorum(2));
            assert_eq!(is, *expected, "{:?}", record.voters);
        }
    }
}
