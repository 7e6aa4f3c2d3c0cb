//! What seals stand for, and what is left of a clock without that.

use super::*;
use crate::proto::kv::write::is_sane_seal as is_sane;

fn dot(replica: &str, count: u64) -> Dot {
    Dot { replica: replica.into(), count }
}

fn seal(sealer: &str, count: u64, past: &[(&str, u64)], ends: &[(&str, u64)]) -> Write {
    let clock = past.iter().map(|(name, count)| ((*name).into(), *count)).collect();
    Write {
        dot: dot(sealer, count),
        past: Seen::of(clock),
        own: count - 1,
        lamport: count,
        at: Time::from_millis(1),
        key: "".into(),
        replaces: ends.iter().map(|(name, count)| dot(name, *count)).collect(),
        value: None,
    }
}

fn clock(entries: &[(&str, u64)]) -> Clock {
    entries.iter().map(|(name, count)| ((*name).into(), *count)).collect()
}

const A: &str = "127.0.0.1:1@7";
const B: &str = "127.0.0.1:2@7";
const C: &str = "[::1]:3@7";
const BY_A: &str = "127.0.0.1:1@7!";
const BY_B: &str = "127.0.0.1:2@7!";

/// One seal by A, one by B beside it, and one by A that rests on both.
fn three() -> Seals {
    let mut seals = Seals::default();
    assert!(seals.keep(&seal(BY_A, 1, &[], &[(C, 5)])));
    assert!(seals.keep(&seal(BY_B, 1, &[], &[(C, 4), ("127.0.0.1:4@7", 1)])));
    assert!(seals.keep(&seal(BY_A, 2, &[(BY_B, 1)], &[(B, 9)])));
    seals
}

#[test]
fn a_clock_stands_for_what_its_seals_end_and_for_nothing_else() {
    let seals = three();
    let counts = |entries: &[(&str, u64)]| {
        let clock = clock(entries);
        let view = seals.view(&clock);
        [C, "127.0.0.1:4@7", B, BY_A, BY_B, A].map(|name| view.count(name))
    };
    assert_eq!(counts(&[]), [0; 6]);
    assert_eq!(counts(&[(BY_A, 1)]), [5, 0, 0, 1, 0, 0]);
    assert_eq!(counts(&[(BY_B, 1)]), [4, 1, 0, 0, 1, 0]);
    assert_eq!(counts(&[(BY_A, 1), (BY_B, 1)]), [5, 1, 0, 1, 1, 0]);
    assert_eq!(counts(&[(BY_A, 2)]), [5, 1, 9, 2, 1, 0]);
    assert_eq!(counts(&[(BY_A, 2), (C, 6), (A, 1)]), [6, 1, 9, 2, 1, 1]);
    assert_eq!(counts(&[(BY_A, 8)]), [5, 1, 9, 8, 1, 0], "one that is not known here");
    assert_eq!(seals.view(&clock(&[(BY_A, 1)])).count("127.0.0.1:3@7"), 0);
}

#[test]
fn a_clock_is_shortened_to_what_is_not_said_otherwise() {
    let seals = three();
    let short = |entries: &[(&str, u64)]| {
        let mut clock = clock(entries);
        seals.shorten(&mut clock);
        clock
    };
    let all = [(A, 1), (BY_A, 2), (B, 9), (BY_B, 1), ("127.0.0.1:4@7", 1), (C, 6)];
    assert_eq!(short(&all), clock(&[(A, 1), (BY_A, 2), (C, 6)]), "C wrote once more");
    assert_eq!(short(&[(BY_A, 1), (C, 5), (B, 9)]), clock(&[(BY_A, 1), (B, 9)]));
    assert_eq!(short(&[(C, 5), (B, 9)]), clock(&[(C, 5), (B, 9)]), "it has no seal");
    assert_eq!(short(&[(BY_A, 3), (BY_B, 2)]), clock(&[(BY_A, 3), (BY_B, 2)]));
}

#[test]
fn seals_come_out_as_they_went_in_and_go_in_after_what_they_rest_on() {
    let seals = three();
    let all = seals.writes(&seals.beyond(&Clock::new()));
    let names: Vec<(&str, u64)> =
        all.iter().map(|write| (&*write.dot.replica, write.dot.count)).collect();
    assert_eq!(names, [(BY_A, 1), (BY_B, 1), (BY_A, 2)]);
    assert_eq!(*all[2], seal(BY_A, 2, &[(BY_B, 1)], &[(B, 9)]));
    assert!(all.iter().all(|write| is_sane(write)));
    assert_eq!(seals.beyond(&clock(&[(BY_A, 1)])).len(), 2);
    assert!(seals.beyond(&clock(&[(BY_A, 2)])).is_empty());
    assert_eq!((seals.len(), seals.lives()), (3, 4));
    let mut other = Seals::default();
    assert!(!other.keep(&all[2]), "before those that it rests on");
    assert!(other.keep(&all[1]) && !other.keep(&all[1]), "twice");
}

#[test]
fn what_is_no_seal_is_known_for_none() {
    let good = seal(BY_A, 2, &[(BY_B, 1)], &[(B, 9), (C, 1)]);
    assert!(is_sane(&good));
    let bad = |change: &dyn Fn(&mut Write)| {
        let mut bad = good.clone();
        change(&mut bad);
        !is_sane(&bad)
    };
    assert!(bad(&|write| write.dot.replica = A.into()));
    assert!(bad(&|write| write.dot.replica = "elsewhere!".into()));
    assert!(bad(&|write| write.key = "k".into()));
    assert!(bad(&|write| write.own = 0));
    assert!(bad(&|write| write.replaces.clear()));
    assert!(bad(&|write| write.replaces.reverse()));
    assert!(bad(&|write| write.replaces.push(dot(C, 2))));
    assert!(bad(&|write| write.replaces = vec![dot(BY_B, 1)]));
    assert!(bad(&|write| write.past.clock.raise(&B.into(), 1)));
    assert!(bad(&|write| write.past.floor.raise(&BY_B.into(), 1)));
    assert!(bad(&|write| write.past.extra.push(dot(B, 1))));
}
