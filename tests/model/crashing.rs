//! Seeds that crash, with their disks and with one disk lost.

use rumormill::proto::planted::Flaw;

use super::council::{KEPT, LINEARIZABLE};
use super::scenario::{Deed, Fault, SEEDS, Scenario, faults, line};
use super::verdict::{breaks, holds};

fn registration() -> Scenario {
    Scenario {
        peers: [Some((7, false)), None],
        script: vec![line(Deed::Register { peer: 0, incarnation: 7, seed: 0 })],
        slow_probes: false,
        ..Scenario::default()
    }
}

/// The proposer crashes, or a voter; what of their writes was not synced is there afterwards, or
/// some of it, or nothing.
#[test]
fn what_was_granted_survives_a_crash() {
    let crash = faults(1, &[(Fault::Crash, 1)]);
    let crash = Scenario { faults: crash, slow_disks: true, ..registration() };
    holds(Scenario { name: "proposer crashes", frail: &[0], ..crash.clone() }, 10_000);
    holds(Scenario { name: "voter crashes", frail: &[1], ..crash }, 40_000);
}

/// Seeds 0 and 1 have granted a registration that seed 2, cut off, has not heard of.
fn granted_by_two() -> Scenario {
    Scenario {
        name: "lost disk of the proposer",
        before: |world, scenario| {
            world.break_link(scenario, (2, 0));
            world.break_link(scenario, (2, 1));
            world.perform(scenario, 0);
            for _ in 0..4 {
                world.deliver(scenario, (1, 0), 0);
                world.deliver(scenario, (0, 1), 0);
            }
        },
        lists: 1,
        frail: &[0],
        faults: faults(1, &[(Fault::DiskLost, 1)]),
        ..registration()
    }
}

#[test]
fn what_was_granted_survives_the_loss_of_a_disk() {
    holds(granted_by_two(), 100_000);
    holds(Scenario { name: "lost disk of a voter", frail: &[1], ..granted_by_two() }, 50_000);
}

/// A new network: no seed has a disk that was ever written, and they start in any order.
#[test]
#[ignore = "1.9 million states take minutes: cargo test --test model -- --ignored"]
fn a_network_that_is_founded_keeps_what_it_grants() {
    let founding = Scenario {
        name: "founding",
        before: |world, scenario| {
            for seed in 0..SEEDS {
                world.seat(seed).crash(0);
                world.seat(seed).lose_disk();
                world.end(scenario, seed);
            }
        },
        ..registration()
    };
    holds(founding, 1_500_000);
}

#[test]
fn a_seed_that_votes_with_an_empty_disk_is_seen() {
    breaks(granted_by_two().with(Flaw::EmptyVoter), &[KEPT, LINEARIZABLE]);
}
