//! Registration: once, at two seeds at once, and once more at the same seed.

use super::scenario::{ANY_ORDER, Deed, Fault, SHUFFLED, Scenario, faults, line, then};
use super::verdict::holds;

fn register(seed: usize) -> Deed {
    Deed::Register { peer: 0, incarnation: 7, seed }
}

fn registration() -> Scenario {
    Scenario {
        name: "registration",
        peers: [Some((7, false)), None],
        script: vec![line(register(0))],
        ..Scenario::default()
    }
}

#[test]
fn a_registration_that_was_granted_is_known_to_every_quorum() {
    holds(Scenario { lists: 2, slow_lists: true, slow_disks: true, ..registration() }, 40_000);
    let all = [ANY_ORDER.as_slice(), &[(Fault::Cut, 1), (Fault::Tick, 1)]].concat();
    holds(Scenario { faults: faults(1, &all), ..registration() }, 30_000);
    let twice = ANY_ORDER.map(|(kind, _)| (kind, 2));
    let fast = Scenario { slow_probes: false, ..registration() };
    holds(Scenario { slow_disks: true, faults: faults(2, &twice), ..fast }, 20_000);
}

#[test]
fn two_seeds_asked_at_once_agree() {
    let twice = Scenario {
        name: "registration at two seeds",
        script: vec![line(register(0)), line(register(1))],
        slow_probes: false,
        ..registration()
    };
    holds(Scenario { lists: 1, ..twice.clone() }, 50_000);
    holds(Scenario { faults: faults(1, &SHUFFLED), ..twice }, 50_000);
}

#[test]
fn who_asks_the_same_seed_again_is_told_no_more_than_is_true() {
    let again = Scenario {
        name: "registration, asked again",
        script: vec![line(register(0)), then(&[0], register(0))],
        lists: 1,
        slow_disks: true,
        slow_probes: false,
        ..registration()
    };
    holds(again, 1_000);
}
