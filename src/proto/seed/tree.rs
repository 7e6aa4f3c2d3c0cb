//! A hash tree over the registry, by which two seeds find the difference between their registries
//! at a cost that grows with the difference only (Merkle, CRYPTO '87).
//!
//! The SHA-256 of its address puts each member into one of 64 × 64 leaves. A leaf's fingerprint is
//! taken over its records, a branch's over its leaves, the root over the branches. Fingerprints are
//! computed when asked for, and kept until a record below them changes.
//!
//! What must stay true: two trees over equal records have equal roots, whatever happened before.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::proto::message::{Addr, Fingerprint};
use crate::proto::registry::{Record, Registry, hash_addr};

/// Number of branches, and of leaves in a branch. A hundred thousand records make leaves of about
/// 24. Ten records that differ cost ten branches, of 768 bytes each, and as many leaves, of 288
/// bytes each.
pub(super) const FAN: u16 = 64;
const LEAVES: u16 = FAN * FAN;
/// Fingerprint of a leaf or branch without records.
const EMPTY: Fingerprint = [0; 12];

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Leaf {
    /// Members in this leaf, in order of their addresses.
    peers: Vec<Addr>,
    fingerprint: Option<Fingerprint>,
}

/// The tree. It holds no records, only which members are in which leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tree {
    leaves: BTreeMap<u16, Leaf>,
    branches: BTreeMap<u16, Fingerprint>,
    root: Option<[u8; 32]>,
}

/// Number of the leaf that a peer belongs to.
fn leaf_of(peer: &Addr) -> u16 {
    let mut hash = Sha256::new();
    hash_addr(&mut hash, peer);
    let whole: [u8; 32] = hash.finalize().into();
    u16::from_le_bytes([whole[0], whole[1]]) % LEAVES
}

fn short(hash: Sha256) -> Fingerprint {
    let whole: [u8; 32] = hash.finalize().into();
    let mut fingerprint = EMPTY;
    fingerprint.copy_from_slice(&whole[..EMPTY.len()]);
    fingerprint
}

/// The fingerprint of one record.
fn fingerprint(peer: &Addr, record: &Record) -> Fingerprint {
    let mut hash = Sha256::new();
    record.hash_into(&mut hash, peer);
    short(hash)
}

impl Tree {
    /// Takes in that the record of this peer is new or has changed.
    pub fn touch(&mut self, peer: &Addr) {
        let place = leaf_of(peer);
        let leaf = self.leaves.entry(place).or_default();
        if let Err(at) = leaf.peers.binary_search(peer) {
            // In a small registry most leaves hold one peer, and a vector would make room for four.
            if leaf.peers.is_empty() {
                leaf.peers.reserve_exact(1);
            }
            leaf.peers.insert(at, *peer);
        }
        leaf.fingerprint = None;
        self.branches.remove(&(place / FAN));
        self.root = None;
    }

    /// Takes in that the record of this peer was dropped.
    pub fn drop(&mut self, peer: &Addr) {
        self.touch(peer);
        let place = leaf_of(peer);
        if let Some(leaf) = self.leaves.get_mut(&place) {
            leaf.peers.retain(|other| other != peer);
            if leaf.peers.is_empty() {
                self.leaves.remove(&place);
            }
        }
    }

    fn leaf(&mut self, registry: &Registry, place: u16) -> Fingerprint {
        let Some(leaf) = self.leaves.get_mut(&place) else { return EMPTY };
        *leaf.fingerprint.get_or_insert_with(|| {
            let mut hash = Sha256::new();
            for peer in &leaf.peers {
                if let Some(record) = registry.get(peer) {
                    record.hash_into(&mut hash, peer);
                }
            }
            short(hash)
        })
    }

    fn branch(&mut self, registry: &Registry, branch: u16) -> Fingerprint {
        if let Some(known) = self.branches.get(&branch) {
            return *known;
        }
        let leaves = self.leaves_of(registry, branch);
        let mut fingerprint = EMPTY;
        if leaves.iter().any(|leaf| *leaf != EMPTY) {
            let mut hash = Sha256::new();
            leaves.iter().for_each(|leaf| hash.update(leaf));
            fingerprint = short(hash);
        }
        self.branches.insert(branch, fingerprint);
        fingerprint
    }

    /// Fingerprints of all branches.
    pub fn branches(&mut self, registry: &Registry) -> Vec<Fingerprint> {
        (0..FAN).map(|branch| self.branch(registry, branch)).collect()
    }

    /// Fingerprints of the leaves of a branch.
    pub fn leaves_of(&mut self, registry: &Registry, branch: u16) -> Vec<Fingerprint> {
        let first = (branch % FAN) * FAN;
        (first..first + FAN).map(|place| self.leaf(registry, place)).collect()
    }

    /// Fingerprint of the whole tree.
    pub fn root(&mut self, registry: &Registry) -> [u8; 32] {
        if let Some(root) = self.root {
            return root;
        }
        let mut hash = Sha256::new();
        self.branches(registry).iter().for_each(|branch| hash.update(branch));
        let root = hash.finalize().into();
        self.root = Some(root);
        root
    }

    /// Numbers of the leaves of a branch whose fingerprints differ from the other seed's.
    pub fn differing(
        &mut self,
        registry: &Registry,
        branch: u16,
        theirs: &[Fingerprint],
    ) -> Vec<u16> {
        let ours = self.leaves_of(registry, branch);
        let first = (branch % FAN) * FAN;
        (first..)
            .zip(ours.iter().zip(theirs))
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(place, _)| place)
            .collect()
    }

    /// The records in a leaf, with their fingerprints.
    pub fn records<'a>(
        &'a self,
        registry: &'a Registry,
        place: u16,
    ) -> impl Iterator<Item = (Fingerprint, Addr, &'a Record)> {
        let peers = self.leaves.get(&place).map(|leaf| leaf.peers.iter());
        peers.into_iter().flatten().filter_map(|peer| {
            let record = registry.get(peer)?;
            Some((fingerprint(peer, record), *peer, record))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::Status;
    use proptest::prelude::*;

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    fn record(incarnation: u64) -> Record {
        Record::plain(incarnation, Status::Alive, 5, vec![0, 1])
    }

    fn tree_of(registry: &Registry) -> Tree {
        let mut tree = Tree::default();
        registry.iter().for_each(|(peer, _)| tree.touch(peer));
        tree
    }

    proptest! {
        /// The root depends on the records alone, not on the steps that led to them.
        #[test]
        fn equal_records_have_equal_roots(
            steps in proptest::collection::vec((1u16..40, 0u64..4, any::<bool>()), 0..60)
        ) {
            let (mut registry, mut tree) = (Registry::new(), Tree::default());
            for (port, incarnation, look) in steps {
                if incarnation == 0 {
                    registry.remove(&addr(port));
                    tree.drop(&addr(port));
                } else {
                    registry.replace(addr(port), record(incarnation));
                    tree.touch(&addr(port));
                }
                if look {
                    tree.root(&registry);
                }
            }
            prop_assert_eq!(tree.root(&registry), tree_of(&registry).root(&registry));
            prop_assert_eq!(tree, {
                let mut fresh = tree_of(&registry);
                fresh.root(&registry);
                fresh
            });
        }
    }

    #[test]
    fn the_way_down_leads_to_what_differs() {
        let mut one = Registry::new();
        (0..5_000).for_each(|port| one.replace(addr(port), record(1)));
        let mut other = one.clone();
        other.replace(addr(77), record(2));
        let (mut ours, mut theirs) = (tree_of(&one), tree_of(&other));
        assert_ne!(ours.root(&one), theirs.root(&other));
        let mut differing = Vec::new();
        for branch in 0..FAN {
            if ours.branch(&one, branch) != theirs.branch(&other, branch) {
                let theirs = theirs.leaves_of(&other, branch);
                differing.extend(ours.differing(&one, branch, &theirs));
            }
        }
        assert_eq!(differing, [leaf_of(&addr(77))]);
        let known: Vec<Fingerprint> =
            ours.records(&one, differing[0]).map(|(fingerprint, ..)| fingerprint).collect();
        let news: Vec<Addr> = theirs
            .records(&other, differing[0])
            .filter(|(fingerprint, ..)| !known.contains(fingerprint))
            .map(|(_, peer, _)| peer)
            .collect();
        assert_eq!(news, [addr(77)]);
    }
}
