//! A neighbour that is stuck: it slows nobody down, makes nobody grow, and catches up.

use std::fs;

use crate::harness::{Network, ask};

/// Messages that are published while the neighbour is stuck, and bytes of each: more than the buffers
/// of the system take.
const MESSAGES: usize = 160;
const BYTES: usize = 100_000;
/// Bytes by which the publisher may have grown beyond its message list, which holds all of them.
const GROWTH: u64 = 12 << 20;

#[test]
fn a_stuck_neighbour_slows_and_grows_nobody_and_has_everything_soon_after() {
    let options = [
        "--gossip-count",
        "0",
        "--suspect-timeout",
        "120s",
        "--ping-interval",
        "5s",
        "--sync-interval",
        "1s",
        "--http",
        "127.0.0.1:0",
    ];
    let (mut network, peers) = Network::with_peers(3, &options);
    network.wait_for_overlay(&peers);
    let (publisher, stuck) = (peers[0], peers[2]);
    let http = network.http_of(publisher);
    let before = network.resident(publisher);
    network.signal(stuck, "STOP");
    for number in 0..MESSAGES {
        let payload = format!("{number:05} {}", "x".repeat(BYTES));
        let (head, _) = ask(http, "POST /gossip", &format!("{{\"payload\":\"{payload}\"}}"));
        assert!(head.starts_with("HTTP/1.1 202"), "{head}");
    }
    network.wait_for("all messages at the other neighbour", |log| {
        let had = log.events("gossip received").filter(|line| line.addr == peers[1]);
        (had.count() == MESSAGES).then_some(())
    });
    let grown = network.resident(publisher).saturating_sub(before);
    let list = (MESSAGES * BYTES) as u64;
    println!("{} KiB grown, {} KiB of them messages", grown >> 10, list >> 10);
    assert!(grown < list + GROWTH, "grown by {grown}, of which {list} are messages");

    let (_, metrics) = ask(http, "GET /metrics", "");
    let withheld = metrics.lines().find_map(|line| {
        line.strip_prefix("rumormill_dropped_total{limit=\"eager_own\"} ")?.parse::<usize>().ok()
    });
    assert!(withheld.is_some_and(|times| times > 10), "{metrics}");
    let told = |log: &crate::log::Log| {
        let lines = log.events("over the limit").filter(|line| line.addr == publisher);
        lines.filter(|line| line.get("limit") == Some("eager_own")).count()
    };
    network.log.read_more();
    assert_eq!(told(&network.log), 1, "one line, however many were withheld");

    network.signal(stuck, "CONT");
    network.wait_for("all messages at the one that was stuck", |log| {
        let had = log.events("gossip received").filter(|line| line.addr == stuck);
        (had.count() == MESSAGES).then_some(())
    });
    for event in ["suspected", "link closed", "neighbour down"] {
        let lines: Vec<_> = network.log.events(event).map(|line| &line.raw).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
    assert!(!fs::read_to_string(network.path("outputfile.txt")).unwrap().contains("own_unfetched"));
}
