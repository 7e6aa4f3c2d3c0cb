//! How quickly a network is whole again after a cut, in simulated time.

use std::time::Duration;

use rand::RngExt;
use rumormill::maelstrom::{DEFAULT_BATCH, Options, Workload};
use serde_json::json;

use crate::network::{Network, ms};

/// The time after a cut until every node has everything, with nothing more said after it: five nodes,
/// as Maelstrom has them by default, and some additions a second.
fn healing(workload: Workload, batch: Duration, many: usize, number: u64) -> Duration {
    let options = Options { workload: Some(workload), ..Options::new(batch) };
    let mut network = Network::with(many, options, number);
    let mut said = 0;
    let mut load = |network: &mut Network, time: Duration| {
        let end = network.now + time;
        while network.now < end {
            let place = network.rng.random_range(0..many);
            let body = match workload {
                Workload::Broadcast => json!({"type": "broadcast", "message": said}),
                _ => json!({"type": "add", "element": said}),
            };
            network.ask(place, body);
            said += 1;
            network.run_for(ms(200));
        }
        said
    };
    load(&mut network, ms(5_000));
    let sides = 2;
    let mut groups: Vec<usize> = (0..many).map(|_| network.rng.random_range(0..sides)).collect();
    groups[0] = 0;
    groups[1] = 1;
    network.groups = Some(groups);
    let all = load(&mut network, ms(8_000 + 1_000 * number));
    network.groups = None;
    let healed = network.now;
    while network.nodes.iter().any(|node| node.known() < all) {
        network.run_for(ms(20));
        assert!(network.now.since(healed) < ms(20_000), "never whole");
    }
    network.now.since(healed)
}

#[test]
fn after_a_cut_a_set_is_whole_as_soon_as_a_broadcast_is() {
    let mut late = Vec::new();
    for workload in [Workload::Broadcast, Workload::GSet] {
        for batch in [DEFAULT_BATCH, Duration::ZERO, ms(500)] {
            for many in [5, 25] {
                let took = (0..6).map(|number| healing(workload, batch, many, number));
                let mut took: Vec<Duration> = took.collect();
                took.sort();
                println!("{workload:?}, batch {batch:?}, {many} nodes: whole after {took:?}");
                let most = took[took.len() - 1];
                if most > ms(2_500) {
                    late.push(format!("{workload:?}, batch {batch:?}, {many} nodes: {most:?}"));
                }
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}
