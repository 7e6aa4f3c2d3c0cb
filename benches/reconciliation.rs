//! What it costs to find the difference between two sets of message identities.
//!
//! `cargo bench --bench reconciliation`: the library's own steps, encoded as they
//! go over a link, beside the `negentropy` crate and beside lists of runs of
//! numbers by origin. Bytes are those of the comparison alone, both directions,
//! without the messages that it moves and without the four bytes of length that
//! a link puts before each frame; a list of all identities is 32 bytes each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, Instant};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use rumormill::net::codec;
use rumormill::proto::gossip::MessageId;
use rumormill::proto::gossip::index::IdIndex;
use rumormill::proto::gossip::reconcile::{answer, open};
use rumormill::proto::message::{AntiEntropy, Broadcast, Message, Parts, Ranges, Runs};
use sha2::{Digest, Sha256};

/// Peers that the messages come from, in turn.
const ORIGINS: u64 = 200;

fn id(number: u64) -> MessageId {
    MessageId(Sha256::digest(number.to_le_bytes()).into())
}

/// A message that both have, but for the first `differ`: of those the even ones are only here and
/// the odd ones only there.
fn here(number: u64, differ: u64) -> bool {
    number >= differ || number.is_multiple_of(2)
}

fn there(number: u64, differ: u64) -> bool {
    number >= differ || !number.is_multiple_of(2)
}

#[derive(Default)]
struct Cost {
    bytes: usize,
    /// Frames or messages of the comparison.
    frames: usize,
    took: Duration,
}

impl Cost {
    fn say(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes).unwrap();
        self.bytes += bytes.len() - 4;
        self.frames += 1;
    }
}

/// One round as two peers go through it, that both hold their indexes.
fn ours(one: &mut IdIndex, other: &mut IdIndex) -> (Cost, usize) {
    let start = Instant::now();
    let mut cost = Cost::default();
    let mut found = 0;
    let (count, digest) = (one.len() as u64, one.digest());
    cost.say(&Message::AntiEntropy(AntiEntropy::Digest { round: 1, count, digest, fresh: false }));
    if (count, digest) == (other.len() as u64, other.digest()) {
        cost.say(&Message::AntiEntropy(AntiEntropy::Matched(1)));
    } else {
        let salt = [7; 8];
        let step = |parts: &Parts| {
            let ranges = Ranges { to: 1, round: 1, salt, floor: 0, parts: parts.clone() };
            Message::AntiEntropy(AntiEntropy::Ranges(Box::new(ranges)))
        };
        let mut parts = open(other, salt);
        let (mut reads, mut next) = (one, other);
        while !parts.is_empty() {
            cost.say(&step(&parts));
            let findings = answer(reads, salt, &parts);
            found += findings.lacking.len();
            parts = findings.reply;
            (reads, next) = (next, reads);
        }
    }
    cost.took = start.elapsed();
    (cost, found)
}

/// The same with the `negentropy` crate, whose index has to be built for it: the time of that is
/// given apart.
fn negentropy(many: u64, differ: u64) -> (Cost, Duration, usize) {
    let start = Instant::now();
    let build = |has: fn(u64, u64) -> bool| {
        let mut storage = NegentropyStorageVector::with_capacity(many as usize);
        for number in (0..many).filter(|number| has(*number, differ)) {
            storage.insert(0, Id::from_byte_array(id(number).0)).unwrap();
        }
        storage.seal().unwrap();
        storage
    };
    let (one, other) = (build(here), build(there));
    let built = start.elapsed() / 2;
    let start = Instant::now();
    let mut asks = Negentropy::borrowed(&one, 0).unwrap();
    let mut answers = Negentropy::borrowed(&other, 0).unwrap();
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let mut cost = Cost::default();
    let mut query = Some(asks.initiate().unwrap());
    while let Some(said) = query.take() {
        let reply = answers.reconcile(&said).unwrap();
        cost.bytes += said.len() + reply.len();
        cost.frames += 2;
        query = asks.reconcile_with_ids(&reply, &mut have, &mut need).unwrap();
    }
    // What is needed has to be asked for, too.
    cost.bytes += need.len() * 32;
    cost.took = start.elapsed();
    (cost, built, have.len() + need.len())
}

/// Runs of numbers seen of each origin, which both send whole.
fn runs(many: u64, differ: u64) -> usize {
    let list = |has: fn(u64, u64) -> bool| {
        let of = |origin: u64| {
            let mut runs: Runs = Vec::new();
            for number in (origin..many).step_by(ORIGINS as usize).filter(|n| has(*n, differ)) {
                let place = number / ORIGINS + 1;
                match runs.last_mut() {
                    Some((first, count)) if *first + *count == place => *count += 1,
                    _ => runs.push((place, 1)),
                }
            }
            let mut tag = [0; 8];
            tag.copy_from_slice(&id(origin).0[..8]);
            (tag, runs)
        };
        let mut bytes = Vec::new();
        codec::encode(
            &Message::Broadcast(Broadcast::Want((0..ORIGINS).map(of).collect())),
            &mut bytes,
        )
        .unwrap();
        bytes.len() - 4
    };
    list(here) + list(there)
}

fn index(many: u64, has: impl Fn(u64) -> bool) -> IdIndex {
    let mut index = IdIndex::default();
    for number in (0..many).filter(|number| has(*number)) {
        index.insert(id(number), number);
    }
    index
}

/// Resident memory of this process, bytes.
fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}

fn compare(many: u64, differ: u64) {
    let before = memory();
    let mut one = index(many, |number| here(number, differ));
    let used = memory().saturating_sub(before);
    let mut other = index(many, |number| there(number, differ));
    let first = Instant::now();
    one.digest();
    let first = first.elapsed();
    other.digest();
    let mut best: Option<Cost> = None;
    for round in 0..20 {
        // Something has changed since the last round, as it does in life.
        for index in [&mut one, &mut other] {
            index.insert(id(many + round), many + round);
        }
        let (cost, found) = ours(&mut one, &mut other);
        assert_eq!(found, differ as usize, "the difference, all of it and nothing else");
        if best.as_ref().is_none_or(|best| cost.took < best.took) {
            best = Some(cost);
        }
    }
    let best = best.unwrap();
    let (theirs, built, found) = negentropy(many, differ);
    assert_eq!(found, differ as usize);
    println!("{many} identities on each side, {differ} differ; a list of all: {} bytes", many * 32);
    println!(
        "  rumormill   {:>9} bytes {:>3} frames {:>10.2?}   first digest {first:.2?}, index {:.1} MB",
        best.bytes,
        best.frames,
        best.took,
        used as f64 / 1e6,
    );
    println!(
        "  negentropy  {:>9} bytes {:>3} frames {:>10.2?}   and {built:.2?} to build the index anew",
        theirs.bytes, theirs.frames, theirs.took,
    );
    println!("  runs        {:>9} bytes, of {ORIGINS} origins", runs(many, differ));
}

fn main() {
    // `cargo test --benches` passes arguments of its own: then there is nothing to do.
    if std::env::args().skip(1).any(|arg| arg != "--bench") {
        return;
    }
    for (many, differ) in [
        (1_000_000, 1),
        (1_000_000, 0),
        (1_000_000, 1_000),
        (10_000, 1),
        (10_000, 100),
        (10_000, 0),
    ] {
        compare(many, differ);
    }
}
