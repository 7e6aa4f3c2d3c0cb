//! Bugs planted on purpose: a checker that does not see them is worth nothing.
//!
//! For each: the right checker sees it, in random runs and in a scenario made
//! for it, and sees nothing in the same runs without the bug.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rumormill::proto::config::Network;
use rumormill::proto::planted::Flaw;

use super::chaos::{Outcome, Rule, brisk, examine, finish, for_all, peer_addr, with_seeds};
use super::forged::{Guise, slandered};
use super::node::{Kind, NodeId};
use super::wire::Weather;
use super::world::World;

/// Runs in which a bug must have been seen.
const WITHIN: u64 = 60;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs `scenario` for one number after another until a checker of one of these invariants sees the
/// bug; the same numbers must be clean without it.
fn caught(flaw: Flaw, invariants: &[u8], scenario: impl Fn(u64, Flaw) -> Outcome + Sync) {
    let mut others: Vec<String> = Vec::new();
    for first in (0..WITHIN).step_by(2) {
        let numbers = first..first + 2;
        let bugged = for_all(numbers.clone(), |number| scenario(number, flaw));
        for outcome in for_all(numbers, |number| scenario(number, Flaw::None)) {
            let number = outcome.number;
            let seen = &outcome.violations;
            assert!(seen.is_empty(), "{flaw:?}: number {number} is not clean without it: {seen:?}");
        }
        for outcome in &bugged {
            if let Some(seen) =
                outcome.violations.iter().find(|seen| invariants.contains(&seen.invariant))
            {
                println!("{flaw:?}: number {}: {seen}", outcome.number);
                return;
            }
            others.extend(outcome.violations.iter().map(ToString::to_string));
        }
    }
    panic!("{flaw:?} was not seen by {invariants:?} in {WITHIN} runs, only: {others:?}");
}

fn peers(world: &mut World, network: &Network, count: u8) -> Vec<NodeId> {
    let add = |place| {
        let id = world.add(peer_addr(place), Kind::Peer(brisk(peer_addr(place), network)));
        world.start(id);
        id
    };
    (0..count).map(add).collect()
}

/// One seed and a newcomer are cut off from all others: alone they decide nothing.
fn lonely_seed(number: u64, flaw: Flaw) -> Outcome {
    let (mut world, network, seeds) = with_seeds(number, 3, flaw);
    peers(&mut world, &network, 4);
    let newcomer = world.add(peer_addr(9), Kind::Peer(brisk(peer_addr(9), &network)));
    world.run_for(ms(4_000));
    world.cut((1 << seeds[0]) | (1 << newcomer));
    world.run_for(ms(14_000));
    world.start(newcomer);
    world.run_for(ms(8_000));
    world.heal();
    world.run_for(ms(20_000));
    finish(world, number, None)
}

/// Peers crash and are back before, while or after they are voted out, on a slow network, so that
/// the seeds hear of a peer's death and of its return in different orders.
fn quick_restarts(number: u64, flaw: Flaw) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(number);
    let (mut world, network, _) = with_seeds(number, 3, flaw);
    let peers = peers(&mut world, &network, 5);
    world.run_for(ms(4_000));
    world.weather.latency = (ms(1), ms(200));
    for _ in 0..20 {
        let id = peers[rng.random_range(0..peers.len())];
        world.crash(id);
        world.run_for(ms(rng.random_range(1..1_500)));
        world.start(id);
        world.run_for(ms(rng.random_range(1..500)));
    }
    world.weather = Weather::default();
    world.run_for(ms(30_000));
    finish(world, number, None)
}

#[test]
fn a_seed_that_always_says_yes_is_seen() {
    caught(Flaw::AlwaysYes, &[1], |number, flaw| examine(number, Rule::Seeds, flaw, false));
    let liars = [Guise::Member, Guise::Member];
    caught(Flaw::AlwaysYes, &[4], |number, flaw| slandered(number, flaw, &liars).0);
}

#[test]
fn a_quorum_of_reachable_seeds_only_is_seen() {
    caught(Flaw::ReachableQuorum, &[1], |number, flaw| examine(number, Rule::Seeds, flaw, false));
    caught(Flaw::ReachableQuorum, &[1], lonely_seed);
}

#[test]
fn a_registry_without_versions_is_seen() {
    caught(Flaw::UnversionedRegistry, &[3], |number, flaw| {
        examine(number, Rule::Seeds, flaw, false)
    });
    caught(Flaw::UnversionedRegistry, &[3], quick_restarts);
}

#[test]
fn a_seed_that_votes_with_an_empty_disk_is_seen() {
    caught(Flaw::EmptyVoter, &[2], |number, flaw| examine(number, Rule::Seeds, flaw, false));
}

#[test]
fn a_peer_that_forwards_twice_is_seen() {
    caught(Flaw::ForwardTwice, &[6], |number, flaw| examine(number, Rule::Seeds, flaw, false));
}
