//! Runs the checker over a scenario, and says what it found.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::council::{Council, DECIDED};
use super::scenario::Scenario;

/// Threads of one checker: the tests of this file run beside each other.
const THREADS: usize = 2;

/// Looks at every state of a scenario: none may break a property, and there have to be so many.
pub fn holds(scenario: Scenario, states: usize) {
    let scenario = scenario.deepened();
    let (name, bounds) = (scenario.name, scenario.faults);
    let begin = Instant::now();
    let checker = Council::new(scenario).checker().threads(THREADS).spawn_dfs().join();
    println!(
        "{name}: {} states ({} steps), up to {} steps deep, in {:.1?}; {bounds}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begin.elapsed(),
    );
    for (property, path) in checker.discoveries() {
        if property != DECIDED {
            panic!("{name}: not true: {property}\n{}", story(path.into_actions()));
        }
    }
    assert!(checker.discovery(DECIDED).is_some(), "{name}: the seeds never agree on anything new");
    let found = checker.unique_state_count();
    assert!(found >= states, "{name}: {found} states, where there should be {states}");
}

/// Looks for the shortest way to break one of these properties; there has to be one.
pub fn breaks(scenario: Scenario, properties: &[&str]) {
    let (name, flaw, bounds) = (scenario.name, scenario.flaw, scenario.faults);
    let begin = Instant::now();
    let checker = Council::new(scenario)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut found = checker.discoveries();
    found.remove(DECIDED);
    println!(
        "{name}, {flaw:?}: {} states in {:.1?}; {bounds}",
        checker.unique_state_count(),
        begin.elapsed()
    );
    for (property, path) in found {
        println!("{name}, {flaw:?}: not true: {property}\n{}", story(path.into_actions()));
        if properties.contains(&property) {
            return;
        }
    }
    panic!("{name}, {flaw:?}: none of {properties:?} is broken");
}

fn story<A: std::fmt::Debug>(actions: Vec<A>) -> String {
    let lines =
        actions.iter().enumerate().map(|(at, action)| format!("{:>4}  {action:?}\n", at + 1));
    lines.collect()
}
