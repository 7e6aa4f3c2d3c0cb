//! The workloads that keep something else than a set, with real processes under cuts.

use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::{Value, json};

use crate::processes::Driver;

/// Whom each cut leaves together.
const CUTS: [[usize; 5]; 2] = [[0, 1, 0, 1, 1], [0, 1, 2, 3, 4]];
/// How long after the last cut all nodes have to agree: Maelstrom's last reads come after ten seconds.
const AGREED: Duration = Duration::from_secs(10);

/// Makes requests, one each twenty milliseconds, for a second and under each cut for six.
fn under_cuts(driver: &mut Driver, mut request: impl FnMut(&mut Driver) -> Value) {
    let mut load = |driver: &mut Driver, time: u64| {
        let end = Instant::now() + Duration::from_secs(time);
        while Instant::now() < end {
            let body = request(driver);
            let place = driver.rng.random_range(0..5);
            driver.ask(place, body, None);
            driver.play_until(Instant::now() + Duration::from_millis(20));
        }
    };
    load(driver, 1);
    for cut in CUTS {
        driver.groups = Some(cut.to_vec());
        load(driver, 6);
        driver.groups = None;
        load(driver, 1);
    }
    driver.settle();
}

fn counts(workload: &str, least: i64) {
    let mut driver = Driver::start(5, &["--workload", workload]);
    let mut sum = 0;
    under_cuts(&mut driver, |driver| {
        let delta = driver.rng.random_range(least..5);
        sum += delta;
        json!({"type": "add", "delta": delta})
    });
    let start = Instant::now();
    loop {
        (0..5).for_each(|place| driver.ask(place, json!({"type": "read"}), None));
        driver.settle();
        if driver.values.iter().all(|value| *value == sum) {
            break;
        }
        let values = &driver.values;
        assert!(start.elapsed() < AGREED, "{workload}: {values:?} instead of {sum}");
        driver.play_until(Instant::now() + Duration::from_millis(100));
    }
    println!("{workload}: {sum} at all nodes {:?} after the last cut", start.elapsed());
    driver.end();
}

#[test]
fn a_g_counter_sums_every_addition_once_under_cuts() {
    counts("g-counter", 0);
}

#[test]
fn a_pn_counter_sums_every_addition_once_under_cuts() {
    counts("pn-counter", -5);
}

#[test]
fn identifiers_are_unique_and_there_under_cuts() {
    let mut driver = Driver::start(5, &["--workload", "unique-ids"]);
    let mut asked = 0;
    under_cuts(&mut driver, |_| {
        asked += 1;
        json!({"type": "generate"})
    });
    let mut ids: Vec<String> = driver.ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), asked, "each request gets an identifier of its own");
    driver.end();
}
