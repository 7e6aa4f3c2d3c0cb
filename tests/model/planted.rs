//! Bugs planted on purpose: each has a counterexample, and without the bug the same model has none.

use rumormill::proto::config::Flaw;

use super::council::{HEALED, KEPT, LINEARIZABLE, LIVING, SAME, VOTED};
use super::scenario::{Deed, Fault, Scenario, faults, line, then};
use super::verdict::{breaks, holds};

#[test]
fn a_seed_that_always_says_yes_is_seen() {
    let accused = Scenario {
        name: "false accusation",
        peers: [Some((7, true)), Some((5, true))],
        script: vec![
            line(Deed::Report { accused: 0, incarnation: 7, seed: 0 }),
            line(Deed::Register { peer: 1, incarnation: 6, seed: 1 }),
        ],
        ..Scenario::default()
    };
    breaks(accused.with(Flaw::AlwaysYes), &[VOTED, LIVING]);
}

#[test]
fn a_quorum_of_reachable_seeds_only_is_seen() {
    let cut = Scenario {
        name: "cut off",
        peers: [Some((7, false)), None],
        script: vec![line(Deed::Register { peer: 0, incarnation: 7, seed: 0 })],
        faults: faults(2, &[(Fault::Break, 2)]),
        ..Scenario::default()
    };
    breaks(cut.clone().with(Flaw::ReachableQuorum), &[VOTED, KEPT]);
    holds(cut, 10);
}

#[test]
fn a_registry_without_versions_is_seen() {
    let race = Scenario {
        name: "two lives and a death",
        peers: [Some((7, true)), Some((5, true))],
        script: vec![
            line(Deed::Dies { peer: 0 }),
            then(&[0], Deed::Report { accused: 0, incarnation: 7, seed: 1 }),
            then(&[0], Deed::Starts { peer: 0, incarnation: 8 }),
            then(&[2], Deed::Register { peer: 0, incarnation: 8, seed: 0 }),
        ],
        ..Scenario::default()
    };
    breaks(race.with(Flaw::UnversionedRegistry), &[SAME, HEALED, LINEARIZABLE]);
}
