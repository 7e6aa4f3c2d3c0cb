//! Networks without seeds: who is in the view, who is out, and what a new replica has.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::replicas::{Replicas, ask, get, put, until};

/// Settings under which a death of a hung process is a matter of seconds.
const BRISK: [&str; 7] = [
    "--ephemeral",
    "--ping-interval",
    "300ms",
    "--suspect-timeout",
    "1s",
    "--probe-timeout",
    "300ms",
];

#[test]
fn membership_spreads_from_whomever_one_names() {
    let mut replicas = Replicas::on_loopback(4);
    let addrs = replicas.addrs.clone();
    replicas.start(0, &addrs[..1], &BRISK);
    // A chain: each knows of one other.
    for place in 1..4 {
        replicas.start(place, &addrs[place - 1..place], &BRISK);
    }
    replicas.wait_for_view(&[0, 1, 2, 3]);
    replicas.kill(0);
    replicas.wait_for_view(&[1, 2, 3]);
    let log = replicas.log();
    for what in ["peer-level consensus", &format!("Dead Node:{}:", addrs[0].ip()), "seed=none"] {
        assert!(log.contains(what), "{what} is not in:\n{log}");
    }
    replicas.signal(2, "STOP");
    replicas.wait_for_view(&[1, 3]);
    replicas.signal(2, "CONT");
    replicas.wait_for_view(&[1, 2, 3]);
    assert_eq!(replicas.stop(3, "TERM"), Some(0));
    replicas.wait_for_view(&[1, 2]);
    let left = format!("member left peer={}", addrs[3]);
    assert!(replicas.log().contains(&left), "{left} is not in:\n{}", replicas.log());
    // The first one names nobody but itself: those who dropped it call it.
    replicas.start(0, &addrs[..1], &BRISK);
    replicas.wait_for_view(&[0, 1, 2]);
}

#[test]
fn the_environment_is_enough_and_one_port_serves_links_and_http() {
    let mut replicas = Replicas::on_loopback(3);
    let addrs: Vec<String> = replicas.addrs.iter().map(ToString::to_string).collect();
    let view = addrs.join(",");
    for place in 0..2 {
        replicas.start_by_environment(place, &view);
    }
    // One that is named and has not started yet is in the view all the same.
    until("the two see each other", || {
        let (_, body) = get(replicas.addrs[0], "/view")?;
        (body["view"].as_array()?.len() == 3 && get(replicas.addrs[0], "/ready")?.0 == 200)
            .then_some(())
    });
    put(replicas.addrs[0], "early", json!("bird"));
    replicas.start_by_environment(2, &view);
    replicas.wait_for_view(&[0, 1, 2]);
    // It was not ready before it had what the others had.
    assert_eq!(get(replicas.addrs[2], "/kvs/early").unwrap().1["value"], "bird");
    assert!(!replicas.path("data").exists(), "it keeps nothing on disk");
    assert!(!replicas.log().contains("gossip sent"), "it generates no messages");
}

#[test]
fn a_new_replica_has_everything_before_it_is_ready() {
    let mut replicas = Replicas::on_loopback(3);
    let addrs = replicas.addrs.clone();
    replicas.start(0, &addrs[..1], &BRISK);
    replicas.start(1, &addrs[..1], &BRISK);
    replicas.wait_for_view(&[0, 1]);
    for number in 0..500 {
        put(addrs[number % 2], &format!("key{number}"), json!([number, "x".repeat(2_000)]));
    }
    replicas.start(2, &addrs[1..2], &BRISK);
    until("it is ready", || (get(addrs[2], "/ready")?.0 == 200).then_some(()));
    // In the very moment in which it says so.
    let (_, body) = get(addrs[2], "/kvs").unwrap();
    assert_eq!(body["keys"].as_array().unwrap().len(), 500);
    let stores: Vec<_> = addrs.iter().map(|addr| get(*addr, "/kvs/sync").unwrap().1).collect();
    assert_eq!(stores[2]["versions"], stores[0]["versions"]);
}

#[test]
fn a_replica_that_is_killed_in_its_first_moments_starts_again() {
    for delay in 0..20_u64 {
        let mut replicas = Replicas::on_loopback(1);
        let addrs = replicas.addrs.clone();
        let dir = replicas.path(&format!("data/peer-{}-{}", addrs[0].ip(), addrs[0].port()));
        replicas.start(0, &addrs, &[]);
        let begun = || dir.read_dir().ok()?.next().map(drop);
        until("it begins to make its file", begun);
        // Not a wait for anything: each time it is somewhere else in its work.
        std::thread::sleep(Duration::from_micros(500 * delay));
        replicas.kill(0);
        replicas.start(0, &addrs, &[]);
        until("it runs", || (get(addrs[0], "/health")?.0 == 200).then_some(()));
    }
}

/// More than a replica keeps of single writes, so that others get what differs instead.
fn fill(addr: SocketAddr) {
    let writers = (0..4).map(|writer| {
        std::thread::spawn(move || {
            for number in (writer..1_800).step_by(4) {
                put(addr, &format!("key{number}"), json!("x".repeat(10_000)));
            }
        })
    });
    writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn newcomers_do_not_take_each_other_for_replicas_that_have_everything() {
    let mut replicas = Replicas::on_loopback(5);
    let addrs = replicas.addrs.clone();
    replicas.start(0, &addrs[..1], &BRISK);
    until("it runs", || (get(addrs[0], "/ready")?.0 == 200).then_some(()));
    fill(addrs[0]);
    (1..3).for_each(|place| replicas.start(place, &addrs[..3], &BRISK));
    for addr in addrs[1..3].iter().copied() {
        until("it is ready", || (get(addr, "/ready")?.0 == 200).then_some(()));
        let (_, body) = get(addr, "/kvs").unwrap();
        assert_eq!(body["keys"].as_array().unwrap().len(), 1_800, "in that very moment");
    }
    // While those that have everything say nothing, nobody can know that there is nothing.
    (0..3).for_each(|place| replicas.signal(place, "STOP"));
    let slow = [&BRISK[..], &["--suspect-timeout", "60s"]].concat();
    let named = [addrs[0], addrs[3], addrs[4]];
    (3..5).for_each(|place| replicas.start(place, &named, &slow));
    until("they see each other", || {
        let sees = |addr| Some(get(addr, "/metrics")?.1.as_str()?.contains("neighbours 1\n"));
        (sees(addrs[3])? && sees(addrs[4])?).then_some(())
    });
    for addr in addrs[3..].iter().copied() {
        assert_eq!(get(addr, "/ready").unwrap().0, 503, "it cannot be ready");
    }
    (0..3).for_each(|place| replicas.signal(place, "CONT"));
    for addr in addrs[3..].iter().copied() {
        until("it is ready", || (get(addr, "/ready")?.0 == 200).then_some(()));
        let (_, body) = get(addr, "/kvs").unwrap();
        assert_eq!(body["keys"].as_array().unwrap().len(), 1_800);
    }
}

#[test]
fn replicas_that_are_all_new_wait_for_the_oldest_alone() {
    let mut replicas = Replicas::on_loopback(6);
    let named = replicas.addrs.clone();
    // At the same time, each naming all, and one of them never there.
    (0..5).for_each(|place| replicas.start(place, &named, &BRISK));
    for addr in named[..5].iter().copied() {
        until("it is ready", || (get(addr, "/ready")?.0 == 200).then_some(()));
    }
}

#[test]
fn a_client_may_be_faster_than_the_news_of_a_replica() {
    let mut replicas = Replicas::on_loopback(2);
    let addrs = replicas.addrs.clone();
    replicas.start(0, &addrs[..1], &[&BRISK[..], &["--causal-wait", "20s"]].concat());
    until("the first runs", || get(addrs[0], "/ready"));
    put(addrs[0], "key", json!(1));
    // Metadata of one that nobody has heard of, and that joins while its client waits.
    let seen = json!({"causal-metadata": { format!("{}@5", addrs[1]): 0 }});
    let first = addrs[0];
    let asking = std::thread::spawn(move || ask(first, "GET", "/kvs/key", &seen).unwrap());
    replicas.start(1, &addrs[..1], &BRISK);
    let (status, body) = asking.join().unwrap();
    assert_eq!((status, &body["value"]), (200, &json!(1)), "{body}");
    // What no replica can be called is refused at once.
    let asked = Instant::now();
    let seen = json!({"causal-metadata": {"nobody@5": 1}});
    assert_eq!(ask(addrs[0], "GET", "/kvs/key", &seen).unwrap().0, 400);
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_view_answers_as_the_contract_says() {
    let mut replicas = Replicas::on_loopback(4);
    let addrs = replicas.addrs.clone();
    let named = addrs[..3].to_vec();
    (0..3).for_each(|place| replicas.start(place, &named, &BRISK));
    replicas.wait_for_view(&[0, 1, 2]);
    let view = |at: usize, method: &str, address: &str| {
        let (status, body) =
            ask(addrs[at], method, "/view", &json!({ "socket-address": address })).unwrap();
        let said = body.get("result").or(body.get("error")).cloned().unwrap_or_default();
        (status, said.as_str().unwrap_or_default().to_owned())
    };
    let said = |status: u16, what: &str| (status, what.to_owned());
    assert_eq!(view(0, "PUT", &addrs[1].to_string()), said(200, "already present"));
    assert_eq!(view(0, "PUT", &addrs[0].to_string()), said(200, "already present"));
    // One that runs and is taken out stays out, everywhere, until it is let in again.
    assert_eq!(view(0, "DELETE", &addrs[2].to_string()), said(200, "deleted"));
    assert_eq!(view(0, "DELETE", &addrs[2].to_string()), said(404, "View has no such replica"));
    replicas.wait_for_view(&[0, 1]);
    until("it knows that it is out", || (get(addrs[2], "/ready")?.0 == 503).then_some(()));
    assert_eq!(get(addrs[2], "/health").unwrap().0, 200, "and still runs");
    put(addrs[1], "meanwhile", json!(1));
    assert_eq!(view(1, "PUT", &addrs[2].to_string()), said(201, "added"));
    replicas.wait_for_view(&[0, 1, 2]);
    until("it has what was written meanwhile", || {
        (get(addrs[2], "/kvs/meanwhile")?.0 == 200).then_some(())
    });
    // One that does not run yet may be added before it is started.
    assert_eq!(view(2, "PUT", &addrs[3].to_string()), said(201, "added"));
    until("all see it", || {
        let sees = |addr| Some(get(addr, "/view")?.1["view"].as_array()?.len() == 4);
        (sees(addrs[0])? && sees(addrs[1])? && sees(addrs[2])?).then_some(())
    });
    replicas.start(3, &addrs[3..], &BRISK);
    replicas.wait_for_view(&[0, 1, 2, 3]);
    for nothing in ["", "here", "127.0.0.1", "127.0.0.1:0", "0.0.0.0:5000"] {
        assert_eq!(view(0, "PUT", nothing), said(400, "socket-address has to be an IP:PORT"));
        assert_eq!(view(0, "DELETE", nothing).0, 400);
    }
    assert_eq!(ask(addrs[0], "PUT", "/view", &json!(null)).unwrap().0, 400);
    assert_eq!(ask(addrs[0], "POST", "/view", &json!(null)).unwrap().0, 405);
}
