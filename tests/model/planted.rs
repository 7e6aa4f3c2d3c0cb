//! Bugs planted on purpose: each has a counterexample, and without the bug the same model has none.

use rumormill::proto::planted::Flaw;

use super::council::{HEALED, KEPT, LINEARIZABLE, LIVING, SAME, VOTED};
use super::dying::two_lives;
use super::scenario::{Deed, Fault, Scenario, faults, line};
use super::verdict::{breaks, holds};

#[test]
fn a_seed_that_always_says_yes_is_seen() {
    let accused = Scenario {
        name: "false accusation",
        peers: [Some((7, true)), Some((5, true))],
        script: vec![
            line(Deed::Report { accused: 0, incarnation: 7, seed: 0 }),
            line(Deed::Register { peer: 1, incarnation: 6, seed: 1 }),
            line(Deed::Starts { peer: 1, incarnation: 6 }),
        ],
        slow_probes: false,
        ..Scenario::default()
    };
    breaks(accused.clone().with(Flaw::AlwaysYes), &[VOTED, LIVING]);
    holds(accused, 1_000);
}

#[test]
fn a_quorum_of_reachable_seeds_only_is_seen() {
    let cut = Scenario {
        name: "cut off",
        peers: [Some((7, false)), None],
        script: vec![line(Deed::Register { peer: 0, incarnation: 7, seed: 0 })],
        slow_probes: false,
        faults: faults(2, &[(Fault::Cut, 2)]),
        ..Scenario::default()
    };
    breaks(cut.clone().with(Flaw::ReachableQuorum), &[VOTED, KEPT]);
    holds(Scenario { faults: faults(1, &[(Fault::Cut, 1)]), ..cut }, 5_000);
}

#[test]
fn a_registry_without_versions_is_seen() {
    breaks(two_lives().with(Flaw::UnversionedRegistry), &[SAME, HEALED, LINEARIZABLE]);
    holds(two_lives(), 5_000);
}
