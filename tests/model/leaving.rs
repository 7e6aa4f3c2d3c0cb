//! Leaving, told to two seeds, while the peer is also taken for dead.

use super::scenario::{Deed, Fault, Scenario, faults, line, then};
use super::verdict::holds;

const NETWORK: [(Fault, u8); 4] =
    [(Fault::Break, 1), (Fault::Twice, 1), (Fault::Overtaken, 1), (Fault::Tick, 1)];

#[test]
fn who_left_stays_gone() {
    let leave = |seed| Deed::Leave { peer: 0, incarnation: 7, seed };
    let leaving = Scenario {
        name: "leave",
        peers: [Some((7, true)), Some((5, true))],
        script: vec![
            line(Deed::Departs { peer: 0 }),
            then(&[0], leave(0)),
            then(&[0], Deed::Dies { peer: 0 }),
            then(&[2], Deed::Report { accused: 0, incarnation: 7, seed: 1 }),
        ],
        ..Scenario::default()
    };
    holds(Scenario { lists: 1, ..leaving.clone() }, 10);
    holds(Scenario { faults: faults(1, &NETWORK), ..leaving }, 10);
}
