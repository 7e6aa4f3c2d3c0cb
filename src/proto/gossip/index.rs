//! The index behind anti-entropy: identities in order, with a hash of every range of identities
//! that begin with the same nibbles.
//!
//! A 16-ary Merkle trie over SHA-256 identities. What must stay true: its shape, and so every hash,
//! follows from the set alone and not from the order of changes, because two peers compare hashes
//! of sets that they gathered differently. Hashes are kept, and computed anew only along the paths
//! that have changed, so a digest of a million identities costs only what has changed since the
//! last one (range-based set reconciliation: Meyer, "Range-Based Set Reconciliation", SRDS 2023;
//! DESIGN.md, section 4).

use sha2::{Digest, Sha256};

use super::MessageId;
use crate::proto::message::{FANOUT, Prefix, Print, Salt};

/// Most identities in one leaf. A smaller leaf makes more nodes, a larger one more to hash for a
/// change. With this one a million identities take 30 % more than their own bytes, and a leaf is
/// hashed in a microsecond or two.
const LEAF: usize = 64;
/// A leaf that is full grows by room for this many: doubling would leave a third of the memory
/// empty.
const GROWTH: usize = 4;

/// Hash of a range that holds nothing.
const EMPTY: [u8; 32] = [0; 32];

type Item = (MessageId, u64);

/// A set of identities, each with a number of the caller's own.
#[derive(Clone, Debug, Default)]
pub struct IdIndex {
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Hash of the range below; none if something has changed since it was computed.
    hash: Option<[u8; 32]>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// The identities, in order.
    Leaf(Vec<Item>),
    /// Number of identities below, and the sixteen parts.
    Inner(usize, Box<[Node; FANOUT]>),
}

impl Default for Body {
    fn default() -> Self {
        Body::Leaf(Vec::new())
    }
}

/// What lies under a prefix: the parts of a node, or items of a leaf.
enum Found<'a> {
    Inner(&'a mut [Node; FANOUT]),
    Part(&'a [Item]),
}

impl IdIndex {
    /// Puts an identity in; false if it is there already.
    pub fn insert(&mut self, id: MessageId, number: u64) -> bool {
        self.root.insert(0, id, number)
    }

    /// Takes an identity out; false if it is not there.
    pub fn remove(&mut self, id: &MessageId) -> bool {
        self.root.remove(0, id)
    }

    /// Number of identities.
    pub fn len(&self) -> usize {
        self.root.len()
    }

    /// Whether there is no identity.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Digest of the set. Up to 64 identities: SHA-256 over the sorted identities. More: SHA-256
    /// over a byte 1 and the digests of the sixteen parts, each of identities that begin alike.
    /// None: all zeros.
    pub fn digest(&mut self) -> [u8; 32] {
        self.root.hash()
    }

    /// Number of identities that begin with `prefix`.
    pub fn count(&self, prefix: Prefix) -> usize {
        let mut node = &self.root;
        for depth in 0..prefix.depth() {
            match &node.body {
                Body::Leaf(items) => return part(items, prefix).len(),
                Body::Inner(_, parts) => match parts.get(prefix.nibble(depth)) {
                    Some(below) => node = below,
                    None => return 0,
                },
            }
        }
        node.len()
    }

    /// Fingerprints of the sixteen parts of a range, under a salt.
    pub fn prints(&mut self, prefix: Prefix, salt: Salt) -> [Print; FANOUT] {
        let mut prints = [Print::default(); FANOUT];
        match self.find(prefix) {
            Found::Inner(parts) => {
                for (print, part) in prints.iter_mut().zip(parts) {
                    *print = range_print(salt, part.hash());
                }
            }
            Found::Part(items) => {
                let nibble = |item: &Item| nibble(&item.0, prefix.depth());
                for alike in items.chunk_by(|one, other| nibble(one) == nibble(other)) {
                    let place = alike.first().map_or(0, nibble);
                    if let Some(print) = prints.get_mut(place) {
                        *print = range_print(salt, leaf_hash(alike));
                    }
                }
            }
        }
        prints
    }

    /// Visits the identities that begin with `prefix`, in order, until `visit` says false.
    pub fn visit(&self, prefix: Prefix, mut visit: impl FnMut(&MessageId, u64) -> bool) {
        let mut node = &self.root;
        for depth in 0..prefix.depth() {
            match &node.body {
                Body::Leaf(items) => {
                    let _ = part(items, prefix).iter().all(|(id, number)| visit(id, *number));
                    return;
                }
                Body::Inner(_, parts) => match parts.get(prefix.nibble(depth)) {
                    Some(below) => node = below,
                    None => return,
                },
            }
        }
        node.visit(&mut visit);
    }

    fn find(&mut self, prefix: Prefix) -> Found<'_> {
        let mut node = &mut self.root;
        for depth in 0..prefix.depth() {
            match &mut node.body {
                Body::Leaf(items) => return Found::Part(part(items, prefix)),
                Body::Inner(_, parts) => match parts.get_mut(prefix.nibble(depth)) {
                    Some(below) => node = below,
                    None => return Found::Part(&[]),
                },
            }
        }
        match &mut node.body {
            Body::Leaf(items) => Found::Part(items),
            Body::Inner(_, parts) => Found::Inner(parts),
        }
    }
}

impl Node {
    fn len(&self) -> usize {
        match &self.body {
            Body::Leaf(items) => items.len(),
            Body::Inner(count, _) => *count,
        }
    }

    fn insert(&mut self, depth: u8, id: MessageId, number: u64) -> bool {
        match &mut self.body {
            Body::Leaf(items) => {
                let Err(place) = items.binary_search_by(|item| item.0.cmp(&id)) else {
                    return false;
                };
                if items.len() == items.capacity() {
                    items.reserve_exact(GROWTH);
                }
                items.insert(place, (id, number));
                if items.len() > LEAF && depth < Prefix::DEEPEST {
                    let items = std::mem::take(items);
                    self.split(depth, items);
                }
            }
            Body::Inner(count, parts) => {
                let below = parts.get_mut(nibble(&id, depth));
                if !below.is_some_and(|below| below.insert(depth + 1, id, number)) {
                    return false;
                }
                *count += 1;
            }
        }
        self.hash = None;
        true
    }

    fn split(&mut self, depth: u8, items: Vec<Item>) {
        let mut parts: Box<[Node; FANOUT]> = Box::default();
        let count = items.len();
        for (id, number) in items {
            if let Some(below) = parts.get_mut(nibble(&id, depth)) {
                below.insert(depth + 1, id, number);
            }
        }
        self.body = Body::Inner(count, parts);
    }

    fn remove(&mut self, depth: u8, id: &MessageId) -> bool {
        let (removed, shrunk) = match &mut self.body {
            Body::Leaf(items) => {
                let found = items.binary_search_by(|item| item.0.cmp(id));
                (found.map(|place| items.remove(place)).is_ok(), false)
            }
            Body::Inner(count, parts) => {
                let below = parts.get_mut(nibble(id, depth));
                let removed = below.is_some_and(|below| below.remove(depth + 1, id));
                *count -= usize::from(removed);
                (removed, *count <= LEAF)
            }
        };
        if removed {
            self.hash = None;
        }
        if shrunk {
            // Become a leaf again, as if there had never been more: the shape must follow from the
            // set alone.
            let mut items = Vec::with_capacity(self.len());
            self.visit(&mut |id, number| {
                items.push((*id, number));
                true
            });
            self.body = Body::Leaf(items);
        }
        removed
    }

    fn hash(&mut self) -> [u8; 32] {
        if let Some(hash) = self.hash {
            return hash;
        }
        let hash = match &mut self.body {
            Body::Leaf(items) => leaf_hash(items),
            Body::Inner(_, parts) => {
                let mut hash = Sha256::new();
                // This byte keeps the hash apart from that of any leaf: a leaf hashes a multiple of
                // 32 bytes.
                hash.update([1]);
                for part in parts.iter_mut() {
                    hash.update(part.hash());
                }
                hash.finalize().into()
            }
        };
        self.hash = Some(hash);
        hash
    }

    fn visit(&self, visit: &mut impl FnMut(&MessageId, u64) -> bool) -> bool {
        match &self.body {
            Body::Leaf(items) => items.iter().all(|(id, number)| visit(id, *number)),
            Body::Inner(_, parts) => parts.iter().all(|part| part.visit(visit)),
        }
    }
}

/// The items of a leaf that begin with a prefix.
fn part(items: &[Item], prefix: Prefix) -> &[Item] {
    let start = items.partition_point(|item| beginning(&item.0, prefix) < prefix.nibbles());
    let items = items.get(start..).unwrap_or(&[]);
    let end = items.partition_point(|item| beginning(&item.0, prefix) == prefix.nibbles());
    items.get(..end).unwrap_or(&[])
}

/// The first nibbles of an identity, as many as the prefix has, as a number.
fn beginning(id: &MessageId, prefix: Prefix) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    let first = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    first.checked_shr(64 - 4 * u32::from(prefix.depth())).unwrap_or(0)
}

fn nibble(id: &MessageId, depth: u8) -> usize {
    let byte = id.0.get(usize::from(depth / 2)).copied().unwrap_or(0);
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 15 })
}

fn leaf_hash(items: &[Item]) -> [u8; 32] {
    if items.is_empty() {
        return EMPTY;
    }
    let mut hash = Sha256::new();
    for (id, _) in items {
        hash.update(id.0);
    }
    hash.finalize().into()
}

/// Fingerprint of a range with this hash. An empty range has all zeros, whatever the salt.
fn range_print(salt: Salt, hash: [u8; 32]) -> Print {
    if hash == EMPTY { Print::default() } else { print(salt, &hash) }
}

/// The short name of an identity, or the fingerprint of a range, in one exchange: some bytes of a
/// salted hash. Nobody knows the salt beforehand, so nobody can make two that look alike. Two that
/// look alike by chance look different in the next round.
pub fn print(salt: Salt, of: &[u8; 32]) -> Print {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(of);
    let whole: [u8; 32] = hash.finalize().into();
    let mut print = Print::default();
    print.copy_from_slice(&whole[..size_of::<Print>()]);
    print
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// An identity: spread over all ranges, or, if crowded, under one beginning, as a forger would
    /// do.
    fn id(number: u16, crowded: bool) -> MessageId {
        let mut id: [u8; 32] = Sha256::digest(number.to_le_bytes()).into();
        if crowded {
            id[..8].fill(0xab);
        }
        MessageId(id)
    }

    fn of(ids: impl IntoIterator<Item = MessageId>) -> IdIndex {
        let mut index = IdIndex::default();
        for id in ids {
            index.insert(id, 0);
        }
        index
    }

    proptest! {
        #[test]
        fn an_index_is_a_set_whose_hashes_follow_from_the_set_alone(
            changes in proptest::collection::vec((0u16..400, any::<bool>(), 0u8..3), 0..900),
            salt in any::<Salt>(),
        ) {
            let mut index = IdIndex::default();
            let mut set = BTreeMap::new();
            for (number, crowded, what) in changes {
                let id = id(number, crowded);
                if what == 0 {
                    prop_assert_eq!(index.remove(&id), set.remove(&id).is_some());
                } else {
                    let new = !set.contains_key(&id);
                    set.entry(id).or_insert(u64::from(number));
                    prop_assert_eq!(index.insert(id, u64::from(number)), new);
                }
                if number % 64 == 0 {
                    index.digest();
                }
            }
            let mut other = of(set.keys().rev().copied());
            prop_assert_eq!(index.len(), set.len());
            prop_assert_eq!(index.digest(), other.digest());
            for depth in [0, 1, 2, 5, Prefix::DEEPEST] {
                for nibbles in [0, 0xa, 0xab, 0xabc, 0x000a_baba, 0x0aba_baba_baba_baba] {
                    let Some(prefix) = Prefix::new(depth, nibbles) else { continue };
                    let mut seen = Vec::new();
                    index.visit(prefix, |id, number| {
                        seen.push((*id, number));
                        true
                    });
                    let expected: Vec<Item> = set
                        .iter()
                        .filter(|(id, _)| beginning(id, prefix) == nibbles)
                        .map(|(id, number)| (*id, *number))
                        .collect();
                    prop_assert_eq!(index.count(prefix), expected.len());
                    prop_assert_eq!(seen, expected);
                    prop_assert_eq!(index.prints(prefix, salt), other.prints(prefix, salt));
                }
            }
        }
    }

    #[test]
    fn a_part_of_a_leaf_has_the_same_print_as_a_leaf_of_its_own() {
        let few: Vec<MessageId> = (0..40).map(|number| id(number, false)).collect();
        let many: Vec<MessageId> = (0..400).map(|number| id(number, false)).collect();
        let mut one = of(few.iter().copied());
        let mut other = of(many);
        for number in 40..400 {
            other.remove(&id(number, false));
        }
        assert_eq!(one.prints(Prefix::ALL, [7; 8]), other.prints(Prefix::ALL, [7; 8]));
        let first = |index: &mut IdIndex| index.prints(Prefix::new(1, 3).unwrap(), [7; 8]);
        assert_eq!(first(&mut one), first(&mut other));
        assert_ne!(one.prints(Prefix::ALL, [7; 8]), one.prints(Prefix::ALL, [8; 8]));
    }

    #[test]
    fn of_few_identities_the_digest_is_the_hash_of_them_in_order() {
        let mut ids: Vec<MessageId> = (0..64).map(|number| id(number, false)).collect();
        let mut index = of(ids.iter().copied());
        ids.sort();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
        assert_eq!(index.digest(), <[u8; 32]>::from(Sha256::digest(&bytes)));
        assert_eq!(IdIndex::default().digest(), EMPTY);
    }
}
