//! Death: reported to two seeds at once, falsely, and while the peer comes back.

use super::scenario::{Deed, Fault, Scenario, faults, line, then};
use super::verdict::holds;

const NETWORK: [(Fault, u8); 4] =
    [(Fault::Break, 1), (Fault::Twice, 1), (Fault::Overtaken, 1), (Fault::Tick, 1)];

const fn report(seed: usize) -> Deed {
    Deed::Report { accused: 0, incarnation: 7, seed }
}

#[test]
fn two_seeds_that_propose_a_death_agree() {
    let death = Scenario {
        name: "death, two proposers",
        peers: [Some((7, true)), Some((5, true))],
        script: vec![line(Deed::Dies { peer: 0 }), then(&[0], report(0)), then(&[0], report(1))],
        ..Scenario::default()
    };
    holds(Scenario { lists: 1, ..death.clone() }, 10);
    holds(Scenario { faults: faults(1, &NETWORK), ..death }, 10);
}

#[test]
fn a_peer_that_answers_is_not_voted_dead_by_one_blind_seed() {
    let accused = Scenario {
        name: "false accusation",
        peers: [Some((7, true)), Some((5, true))],
        script: vec![
            line(report(0)),
            line(report(1)),
            line(Deed::Register { peer: 0, incarnation: 8, seed: 2 }),
        ],
        ..Scenario::default()
    };
    holds(accused, 10);
}

#[test]
fn a_life_that_ends_and_the_next_one_do_not_mix() {
    let race = Scenario {
        name: "two lives and a death",
        peers: [Some((7, true)), Some((5, true))],
        script: vec![
            line(Deed::Dies { peer: 0 }),
            then(&[0], report(1)),
            then(&[0], Deed::Starts { peer: 0, incarnation: 8 }),
            then(&[2], Deed::Register { peer: 0, incarnation: 8, seed: 0 }),
        ],
        ..Scenario::default()
    };
    holds(Scenario { lists: 2, ..race.clone() }, 10);
    holds(Scenario { faults: faults(1, &NETWORK), ..race }, 10);
}
