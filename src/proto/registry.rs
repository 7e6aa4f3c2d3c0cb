//! The registry: one record per peer address, and the order that makes all copies of it equal.
//!
//! Records are ordered by incarnation, then alive < left < dead, and the greater one wins
//! (DESIGN.md, section 3). A merge therefore commutes, is associative and idempotent: seeds that
//! have heard the same commits, in any order and any number of times, hold the same registry. A
//! majority is needed to authorise a change, not to order changes.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::address::{Addr, Incarnation};
use super::identity::Identity;
use super::signature::Signature;
use super::time::Time;

/// How far ahead of the clock an incarnation may be above which a peer rises, milliseconds: ten
/// years. Clocks need not agree, and a peer comes back above whatever is known of it; but an
/// incarnation close to the greatest number would keep its address from ever registering again.
pub const MAX_RISE_MILLIS: u64 = 10 * 365 * 86_400_000;

/// How far ahead of the clock an incarnation may be that is taken from others, milliseconds. It is
/// more than what a peer rises above: else a liar that names the last incarnation of all that are
/// believed would have a peer take one that others, with clocks a little behind, do not believe.
pub const MAX_AHEAD_MILLIS: u64 = 2 * MAX_RISE_MILLIS;

/// How long the record of a member that died or left is kept.
pub const RETENTION: Duration = Duration::from_secs(86_400);

/// What became of a peer in one incarnation. The order of the values is the order in which they
/// win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is a member.
    Alive,
    /// It left by its own will or, without seeds, was removed by an operator.
    Left,
    /// The seeds voted it dead or, without seeds, peers found it dead.
    Dead,
}

/// The newest that is known of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Which life of the peer.
    pub incarnation: Incarnation,
    /// What became of it.
    pub status: Status,
    /// When this change was asked for, Unix milliseconds; in an alive record this is the time of
    /// joining.
    pub at: u64,
    /// The seeds that accepted the change, by their place in the sorted seed list, ascending.
    pub voters: Vec<u16>,
    /// Who the member is or was, if links are encrypted. Its address belongs to it for as long as it
    /// is alive; what it has published is its own for as long as anybody holds it.
    pub identity: Option<Identity>,
    /// The signatures of the voters, in their order. None where links are plain, and none in what
    /// peers are told: a peer believes what a quorum of the seeds tells it.
    pub signatures: Vec<Signature>,
}

impl Record {
    /// A record of votes that nobody has signed, of a member that has no identity: over plain links,
    /// or without seeds.
    pub fn plain(incarnation: Incarnation, status: Status, at: u64, voters: Vec<u16>) -> Self {
        let (identity, signatures) = (None, Vec::new());
        Self { incarnation, status, at, voters, identity, signatures }
    }

    /// Which of two records of one peer wins: the later incarnation, then the later status. Two
    /// seeds may commit one and the same change with different voters or times; the rest of the
    /// record breaks the tie, so that all seeds still end up with the same record.
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        (self.incarnation, self.status)
            .cmp(&(other.incarnation, other.status))
            .then_with(|| other.at.cmp(&self.at))
            .then_with(|| self.voters.cmp(&other.voters))
            .then_with(|| self.identity.cmp(&other.identity))
    }

    /// Feeds the record, as that of `peer`, into a hash.
    pub(crate) fn hash_into(&self, hash: &mut Sha256, peer: &Addr) {
        self.hash_status(hash, peer);
        hash.update(self.at.to_le_bytes());
        hash.update((self.voters.len() as u64).to_le_bytes());
        for voter in &self.voters {
            hash.update(voter.to_le_bytes());
        }
    }

    /// The record without the proof that a quorum has voted for it.
    pub fn unsigned(&self) -> Self {
        let voters = self.voters.clone();
        Self { voters, signatures: Vec::new(), ..*self }
    }

    /// Whether a process that has proven this identity, or none, can be the one of this record. A
    /// record without an identity was made while links were plain, and binds nobody.
    pub fn can_be(&self, identity: Option<Identity>) -> bool {
        self.identity.is_none() || self.identity == identity
    }

    fn hash_status(&self, hash: &mut Sha256, peer: &Addr) {
        hash_addr(hash, peer);
        hash.update(self.incarnation.to_le_bytes());
        hash.update([self.status as u8]);
        if let Some(identity) = &self.identity {
            hash.update(identity.0);
        }
    }

    /// Whether the member has been gone for so long that its record need not be kept.
    pub(crate) fn is_expired(&self, now: Time) -> bool {
        self.status != Status::Alive && now.since(Time::from_millis(self.at)) > RETENTION
    }

    /// Whether both records are about the same transition, whoever voted for it.
    pub fn same_transition(&self, other: &Self) -> bool {
        (self.incarnation, self.status) == (other.incarnation, other.status)
    }
}

/// All records of a seed, or those that a peer knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registry {
    records: BTreeMap<Addr, Record>,
    alive: usize,
}

/// What a merge changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The record tells a transition that was not known: log it and pass it on.
    Transition,
    /// The same transition was known with other voters or another time.
    Detail,
    /// The record told nothing new.
    Nothing,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a record if it wins over what is known of the peer.
    pub fn merge(&mut self, peer: Addr, record: Record) -> Merge {
        let known = self.records.get(&peer);
        let outcome = match known {
            None => Merge::Transition,
            Some(known) if record.precedence(known) != Ordering::Greater => Merge::Nothing,
            Some(known) if record.same_transition(known) => Merge::Detail,
            Some(_) => Merge::Transition,
        };
        if outcome != Merge::Nothing {
            self.replace(peer, record);
        }
        outcome
    }

    /// Puts a record in place whatever is known of the peer: `merge` without its judgement.
    pub(crate) fn replace(&mut self, peer: Addr, record: Record) {
        self.alive += usize::from(record.status == Status::Alive);
        if let Some(old) = self.records.insert(peer, record) {
            self.alive -= usize::from(old.status == Status::Alive);
        }
    }

    /// Drops the record of a peer, and returns it.
    pub(crate) fn remove(&mut self, peer: &Addr) -> Option<Record> {
        let old = self.records.remove(peer)?;
        self.alive -= usize::from(old.status == Status::Alive);
        Some(old)
    }

    /// The record of a peer.
    pub fn get(&self, peer: &Addr) -> Option<&Record> {
        self.records.get(peer)
    }

    /// The record of a peer, if it is alive.
    pub fn alive(&self, peer: &Addr) -> Option<&Record> {
        self.get(peer).filter(|record| record.status == Status::Alive)
    }

    /// The records in order of address.
    pub fn iter(&self) -> impl Iterator<Item = (&Addr, &Record)> {
        self.records.iter()
    }

    /// The records of members in order of address.
    pub fn members(&self) -> impl Iterator<Item = (&Addr, &Record)> {
        self.records.iter().filter(|(_, record)| record.status == Status::Alive)
    }

    /// Number of members.
    pub fn size(&self) -> usize {
        self.alive
    }

    /// Number of records, those of the gone included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record at all.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// SHA-256 over addresses, incarnations and statuses, in order of address. Peers and seeds
    /// compare it to see whether they know the same members.
    pub fn status_digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.records.iter().for_each(|(addr, record)| record.hash_status(&mut hash, addr));
        hash.finalize().into()
    }
}

/// Feeds an address into a hash: family, address, port.
pub(crate) fn hash_addr(hash: &mut Sha256, addr: &Addr) {
    match addr.ip() {
        std::net::IpAddr::V4(ip) => {
            hash.update([4]);
            hash.update(ip.octets());
        }
        std::net::IpAddr::V6(ip) => {
            hash.update([6]);
            hash.update(ip.octets());
        }
    }
    hash.update(addr.port().to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = (Addr, Record)> {
        let status = prop_oneof![Just(Status::Alive), Just(Status::Left), Just(Status::Dead)];
        let voters = proptest::sample::subsequence(vec![0u16, 1, 2], 2..=3);
        (0u16..3, 1u64..4, status, 0u64..3, voters).prop_map(
            |(port, incarnation, status, at, voters)| {
                let addr = ([127, 0, 0, 1], 6000 + port).into();
                (addr, Record::plain(incarnation, status, at, voters))
            },
        )
    }

    fn merged(records: &[(Addr, Record)]) -> Registry {
        let mut registry = Registry::new();
        for (addr, record) in records {
            registry.merge(*addr, record.clone());
        }
        registry
    }

    proptest! {
        #[test]
        fn seeds_that_heard_the_same_hold_the_same(
            records in proptest::collection::vec(record(), 0..12),
            order in any::<prop::sample::Index>(),
            doubled in any::<bool>(),
        ) {
            let one = merged(&records);
            let mut other = records.clone();
            if !other.is_empty() {
                let turn = order.index(other.len());
                other.rotate_left(turn);
                other.reverse();
            }
            if doubled {
                other.extend(records.clone());
            }
            let other = merged(&other);
            prop_assert_eq!(&one, &other);
            prop_assert_eq!(one.status_digest(), other.status_digest());
            prop_assert_eq!(one.size(), one.members().count());
        }
    }

    #[test]
    fn a_later_life_wins_and_within_one_life_death_is_final() {
        let addr = ([127, 0, 0, 1], 6000).into();
        let record = |incarnation, status| Record::plain(incarnation, status, 0, vec![0, 1]);
        let mut registry = Registry::new();
        assert_eq!(registry.merge(addr, record(5, Status::Alive)), Merge::Transition);
        assert_eq!(registry.merge(addr, record(5, Status::Dead)), Merge::Transition);
        assert_eq!(registry.merge(addr, record(5, Status::Alive)), Merge::Nothing);
        assert_eq!(registry.merge(addr, record(5, Status::Left)), Merge::Nothing);
        assert_eq!(registry.merge(addr, record(6, Status::Alive)), Merge::Transition);
        assert_eq!(registry.merge(addr, record(5, Status::Dead)), Merge::Nothing);
        assert_eq!(registry.size(), 1);
        let other_voters = Record { voters: vec![1, 2], ..record(6, Status::Alive) };
        assert_eq!(registry.merge(addr, other_voters), Merge::Detail);
    }
}
