//! Registration: once, at two seeds at once, and once more at the same seed.

use super::council::{KEPT, LINEARIZABLE};
use super::scenario::{Deed, Fault, Scenario, faults, line, then};
use super::verdict::{breaks, holds};

const NETWORK: [(Fault, u8); 4] =
    [(Fault::Break, 1), (Fault::Twice, 1), (Fault::Overtaken, 1), (Fault::Tick, 1)];

fn register(seed: usize) -> Deed {
    Deed::Register { peer: 0, incarnation: 7, seed }
}

fn asked_once() -> Scenario {
    Scenario {
        name: "registration",
        peers: [Some((7, false)), None],
        script: vec![line(register(0))],
        slow_disks: true,
        ..Scenario::default()
    }
}

#[test]
fn a_registration_that_was_granted_is_known_to_every_quorum() {
    holds(Scenario { lists: 2, ..asked_once() }, 10);
    holds(Scenario { faults: faults(1, &NETWORK), ..asked_once() }, 10);
}

#[test]
fn two_seeds_asked_at_once_agree() {
    let asked_twice = Scenario {
        name: "registration at two seeds",
        peers: [Some((7, false)), None],
        script: vec![line(register(0)), line(register(1))],
        ..Scenario::default()
    };
    holds(Scenario { lists: 1, ..asked_twice.clone() }, 10);
    holds(Scenario { faults: faults(1, &NETWORK), ..asked_twice }, 10);
}

#[test]
fn again() {
    breaks(
        Scenario {
            name: "registration, asked again",
            peers: [Some((7, false)), None],
            script: vec![line(register(0)), then(&[0], register(0))],
            lists: 1,
            slow_disks: true,
            ..Scenario::default()
        },
        &[KEPT, LINEARIZABLE],
    );
}
