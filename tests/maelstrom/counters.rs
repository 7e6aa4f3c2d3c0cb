//! Counters in simulated time: each addition counts once at every node, whatever the network loses.

use std::time::Duration;

use rand::RngExt;
use rumormill::maelstrom::{DEFAULT_BATCH, Options, Workload};
use serde_json::{Value, json};

use crate::network::{Network, ms};

struct Counters {
    network: Network,
    workload: Workload,
    sum: i64,
}

impl Counters {
    fn new(workload: Workload, many: usize, batch: Duration, number: u64) -> Self {
        let options = Options { workload: Some(workload), ..Options::new(batch) };
        Self { network: Network::with(many, options, number), workload, sum: 0 }
    }

    fn read(&mut self, place: usize) -> i64 {
        let reply = self.network.ask(place, json!({"type": "read"}));
        assert_eq!(reply["messages"], Value::Null);
        reply["value"].as_i64().unwrap()
    }

    /// Twenty additions a second.
    fn load(&mut self, time: Duration) {
        let end = self.network.now + time;
        while self.network.now < end {
            let place = self.network.rng.random_range(0..self.network.nodes.len());
            let least = if self.workload == Workload::GCounter { 0 } else { -5 };
            let delta = self.network.rng.random_range(least..5);
            let reply = self.network.ask(place, json!({"type": "add", "delta": delta}));
            assert_eq!(reply["type"], "add_ok");
            self.sum += delta;
            self.network.run_for(ms(50));
        }
    }

    fn agree(&mut self) -> bool {
        let sum = self.sum;
        (0..self.network.nodes.len()).all(|place| self.read(place) == sum)
    }
}

#[test]
fn each_addition_counts_once_whatever_the_network_loses_and_cuts() {
    for workload in [Workload::GCounter, Workload::PnCounter] {
        for (number, batch, loss) in [
            (1, DEFAULT_BATCH, 0.0),
            (2, Duration::ZERO, 0.0),
            (3, DEFAULT_BATCH, 0.1),
            (4, Duration::ZERO, 0.1),
        ] {
            let what = format!("{workload:?}, number {number}, batch {batch:?}, loss {loss}");
            let mut counters = Counters::new(workload, 5, batch, number);
            counters.network.loss = loss;
            counters.load(ms(2_000));
            for groups in [vec![0, 1, 0, 1, 1], vec![0, 1, 2, 3, 4]] {
                counters.network.groups = Some(groups);
                counters.load(ms(10_000));
                assert!(!counters.agree(), "{what}: the cut cuts");
                counters.network.groups = None;
                counters.load(ms(3_000));
            }
            counters.network.loss = 0.0;
            counters.network.run_for(ms(10_000));
            let all: Vec<i64> = (0..5).map(|place| counters.read(place)).collect();
            assert!(counters.agree(), "{what}: {all:?} instead of {}", counters.sum);
        }
    }
}
