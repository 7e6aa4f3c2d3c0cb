//! Death and leaving: told to two seeds at once, falsely, and while the peer comes back.

use super::scenario::{Deed, SHUFFLED, Scenario, faults, line, then};
use super::verdict::holds;

const fn report(seed: usize) -> Deed {
    Deed::Report { accused: 0, incarnation: 7, seed }
}

fn members() -> Scenario {
    Scenario {
        peers: [Some((7, true)), Some((5, true))],
        slow_probes: false,
        ..Scenario::default()
    }
}

#[test]
fn two_seeds_that_propose_a_death_agree() {
    let death = Scenario {
        name: "death, two proposers",
        script: vec![line(Deed::Dies { peer: 0 }), then(&[0], report(0)), then(&[0], report(1))],
        ..members()
    };
    holds(Scenario { lists: 1, ..death.clone() }, 20_000);
    holds(Scenario { faults: faults(1, &SHUFFLED), ..death }, 50_000);
}

/// The old life dies and is reported, the next one registers, each at a seed of its own.
pub fn two_lives() -> Scenario {
    Scenario {
        name: "two lives and a death",
        script: vec![
            line(Deed::Dies { peer: 0 }),
            then(&[0], report(1)),
            then(&[0], Deed::Starts { peer: 0, incarnation: 8 }),
            then(&[2], Deed::Register { peer: 0, incarnation: 8, seed: 0 }),
        ],
        ..members()
    }
}

#[test]
fn a_life_that_ends_and_the_next_one_do_not_mix() {
    holds(Scenario { lists: 1, ..two_lives() }, 50_000);
    holds(Scenario { slow_probes: true, ..two_lives() }, 50_000);
}

#[test]
fn who_left_stays_gone() {
    let leaving = Scenario {
        name: "leave",
        script: vec![
            line(Deed::Departs { peer: 0 }),
            then(&[0], Deed::Leave { peer: 0, incarnation: 7, seed: 0 }),
            then(&[0], Deed::Dies { peer: 0 }),
            then(&[2], report(1)),
        ],
        ..members()
    };
    holds(Scenario { lists: 1, ..leaving.clone() }, 50_000);
    holds(Scenario { slow_probes: true, ..leaving }, 50_000);
}
