//! Registration, links, gossip: what a network does when nothing goes wrong.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::harness::Network;
use crate::log::Log;

/// Every seed's log shows the registration of each of these peers once, each with a quorum.
pub fn assert_each_committed_once(log: &Log, seeds: &[SocketAddr], peers: &[SocketAddr]) {
    let quorum = seeds.len() / 2 + 1;
    for seed in seeds {
        for peer in peers {
            let lines: Vec<_> =
                log.about(*peer, "registration committed").filter(|l| l.addr == *seed).collect();
            assert_eq!(lines.len(), 1, "commits of {peer} at {seed}: {lines:#?}");
            let (votes, of) = lines[0].fraction("votes");
            assert!(of == seeds.len() && (quorum..=of).contains(&votes), "{:?}", lines[0].raw);
            assert!(lines[0].number("incarnation") > 0);
        }
        let sizes: Vec<u64> =
            log.of_node(*seed, "peer list").map(|line| line.number("size")).collect();
        let expected: Vec<u64> = (1..=u64::try_from(peers.len()).unwrap()).collect();
        assert_eq!(sizes, expected, "the list grows by one with each commit at {seed}");
    }
}

#[test]
fn a_peer_is_registered_by_a_quorum_and_each_seed_commits_it_once() {
    let (mut network, peers) = Network::with_peers(5, &["--gossip-count", "0"]);
    let seeds = network.seeds();
    network.wait_for("two lists at each peer", |log| {
        let lists = |peer| log.of_node(peer, "peer list received").count();
        peers.iter().all(|peer| lists(*peer) >= 2).then_some(())
    });
    let log = &network.log;
    for seed in &seeds {
        let line = log.of_node(*seed, "listening").next().unwrap();
        assert_eq!((line.number("quorum"), line.number("of")), (2, 3));
    }
    for peer in &peers {
        let registered: Vec<_> = log.of_node(*peer, "registered").collect();
        let counts: Vec<_> = registered.iter().map(|line| line.fraction("count")).collect();
        assert_eq!(counts, [(1, 2), (2, 2)], "up to the quorum, at {peer}");
        let by: BTreeSet<&str> = registered.iter().map(|line| line.value("seed")).collect();
        assert_eq!(by.len(), 2, "by two seeds, at {peer}");
        assert!(log.about(*peer, "registration proposed").count() >= 1);
        let votes: Vec<_> =
            log.about(*peer, "vote").filter(|l| l.value("on") == "registration").collect();
        let accepts = votes.iter().filter(|line| line.value("accept") == "true").count();
        assert!(accepts >= 2, "each voter says so itself: {votes:#?}");
        for list in log.of_node(*peer, "peer list received") {
            let members = list.list("peers");
            assert_eq!(u64::try_from(members.len()).unwrap(), list.number("size"));
            assert!(members.contains(peer), "the list has the peer itself: {:?}", list.raw);
            assert!(members.iter().all(|member| peers.contains(member)), "{:?}", list.raw);
        }
    }
    assert_each_committed_once(log, &seeds, &peers);
    assert_eq!(log.events("registration rejected").count(), 0);
    network.wait_for_overlay(&peers);
}

#[test]
fn every_message_reaches_every_peer_once() {
    let options = ["--gossip-interval", "200ms", "--gossip-count", "5"];
    let (mut network, peers) = Network::with_peers(8, &options);
    let messages = network.wait_for_messages(&peers, 8 * 5);
    for message in &messages {
        // <timestamp>:<IP>:<Msg#>
        let parts: Vec<&str> = message.split(':').collect();
        let [timestamp, ip, number] = parts[..] else { panic!("not three parts: {message:?}") };
        let (seconds, fraction) = timestamp.split_once('.').unwrap();
        assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000, "{message:?}");
        assert!(fraction.len() == 6 && fraction.parse::<u32>().is_ok(), "{message:?}");
        assert_eq!(ip, "127.0.0.1");
        assert!((1..=5).contains(&number.parse::<u32>().unwrap()), "{message:?}");
    }
    for peer in &peers {
        let numbers: Vec<String> = network
            .log
            .of_node(*peer, "gossip sent")
            .map(|line| line.value("message").rsplit(':').next().unwrap().to_owned())
            .collect();
        assert_eq!(numbers, ["1", "2", "3", "4", "5"], "in order, at {peer}");
    }
    for line in network.log.events("gossip received") {
        let from: SocketAddr = line.value("from").parse().unwrap();
        assert!(peers.contains(&from) && from != line.addr, "{:?}", line.raw);
    }
    assert_eq!(network.log.events("suspected").count(), 0);
}

#[test]
fn one_seed_is_a_network_too() {
    let mut network = Network::of_seeds(1);
    let seed = network.seeds()[0];
    network.start_seed(seed);
    let peers = network.start_peers(3, &["--gossip-count", "1"]);
    network.wait_for_members(&peers);
    network.wait_for_messages(&peers, 3);
    assert_each_committed_once(&network.log, &[seed], &peers);
}
