//! One signal is a clean stop, and so are two that come together.

use std::time::{Duration, Instant};

use crate::programs::{Place, free_address};

#[test]
fn two_signals_at_once_are_one_leave() {
    let place = Place::new();
    let seed = place.start_seed("--ephemeral");
    for signals in [["TERM", "INT"], ["INT", "TERM"], ["TERM", "TERM"]] {
        for _ in 0..4 {
            let at = free_address();
            let mut peer = place.start_peer(at, "--ephemeral");
            peer.signal(&signals);
            let (code, said, took) = peer.end();
            assert_eq!((code, said.as_str()), (Some(0), ""), "{signals:?}");
            assert!(took < Duration::from_millis(2_500), "{took:?}");
            let left = format!("leave committed peer={at} ");
            seed.until("the seed has committed the leave", || {
                place.log().contains(&left).then_some(())
            });
        }
    }
    assert!(!place.log().contains("dead-node"), "and nobody was suspected");
    let mut seed = seed;
    seed.signal(&["TERM", "INT"]);
    assert_eq!(seed.end().0, Some(0));
}

#[test]
fn a_second_signal_a_second_later_ends_a_leave_that_nobody_answers() {
    let place = Place::new();
    let seed = place.start_seed("--ephemeral");
    let (first, second) = (free_address(), free_address());
    let mut patient = place.start_peer(first, "--ephemeral");
    let mut hasty = place.start_peer(second, "--ephemeral");
    seed.signal(&["STOP"]);
    let start = Instant::now();
    patient.signal(&["TERM"]);
    hasty.signal(&["TERM", "INT"]);
    // What is tried is the time between two signals.
    std::thread::sleep(Duration::from_millis(1_050));
    assert!(hasty.0.try_wait().unwrap().is_none(), "a leave waits longer than that");
    hasty.signal(&["TERM"]);
    let (code, said, took) = hasty.end();
    assert!(took < Duration::from_millis(200), "at once, not {took:?}");
    assert_eq!(code, Some(1));
    assert!(said.contains("second signal") && said.lines().count() == 1, "{said:?}");
    let (code, said, _) = patient.end();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let took = start.elapsed();
    assert!(took < Duration::from_millis(2_500), "2 s and the process around it, not {took:?}");
}
