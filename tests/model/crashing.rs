//! Seeds that crash: with their disks, all at once, and with one disk lost.

use super::scenario::{Deed, Fault, Scenario, faults, line, then};
use super::verdict::holds;

fn registering() -> Scenario {
    Scenario {
        name: "crash",
        peers: [Some((7, false)), None],
        script: vec![line(Deed::Register { peer: 0, incarnation: 7, seed: 0 })],
        slow_disks: true,
        slow_probes: false,
        ..Scenario::default()
    }
}

#[test]
fn what_was_granted_survives_the_crash_of_every_seed() {
    holds(Scenario { faults: faults(3, &[(Fault::Crash, 3)]), ..registering() }, 10);
}

#[test]
fn a_crash_and_a_break() {
    holds(
        Scenario {
            faults: faults(2, &[(Fault::Crash, 1), (Fault::Break, 1), (Fault::Tick, 1)]),
            ..registering()
        },
        10,
    );
}

#[test]
fn lost_disk() {
    holds(
        Scenario {
            name: "lost disk",
            lists: 2,
            faults: faults(1, &[(Fault::DiskLost, 1)]),
            ..registering()
        },
        10,
    );
}
#[test]
fn lost_disk2() {
    holds(
        Scenario {
            name: "lost disk, two",
            faults: faults(2, &[(Fault::DiskLost, 2), (Fault::Tick, 1)]),
            ..registering()
        },
        10,
    );
}
