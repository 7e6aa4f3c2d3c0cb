//! A peer dies, hangs, or comes back: suspicion, witnesses, the seeds' votes, the overlay healed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::Network;
use crate::log::{Log, between};
use crate::reserved::Reserved;

/// Waits until every seed has committed the death of a peer, and returns when the last one had.
fn wait_for_death(network: &mut Network, dead: SocketAddr) -> i64 {
    let seeds = network.seeds();
    network.wait_for("a committed death at every seed", |log| {
        let committed: Vec<_> = log.about(dead, "dead-node committed").collect();
        let at_all = seeds.iter().all(|seed| committed.iter().any(|line| line.addr == *seed));
        at_all.then(|| committed.iter().map(|line| line.time).max().unwrap_or_default())
    })
}

/// What the seeds last committed of a peer, each with the incarnation.
fn last_commits(log: &Log, seeds: &[SocketAddr], peer: SocketAddr) -> Vec<(String, u64)> {
    let last = |seed: &SocketAddr| {
        let mut commits = log.lines().iter().filter(|line| {
            line.addr == *seed && line.event.ends_with(" committed") && line.peer() == peer
        });
        let line = commits.next_back().unwrap_or_else(|| panic!("{seed} knows nothing of {peer}"));
        (line.event.clone(), line.number("incarnation"))
    };
    seeds.iter().map(last).collect()
}

/// Waits until a peer is alive at every seed in an incarnation above `former`, and it is so.
fn wait_for_return(network: &mut Network, peer: SocketAddr, former: u64) {
    let seeds = network.seeds();
    network.wait_for("a higher incarnation at every seed", |log| {
        let commits = last_commits(log, &seeds, peer);
        let back = |(event, incarnation): &(String, u64)| {
            event == "registration committed" && *incarnation > former
        };
        (commits.iter().all(back) && commits.iter().all(|c| *c == commits[0])).then_some(())
    });
}

#[test]
fn a_killed_peer_is_voted_out_within_a_second_and_its_links_are_replaced() {
    let (mut network, peers) = Network::with_peers(8, &["--gossip-count", "0"]);
    let overlay = network.wait_for_overlay(&peers);
    let (&victim, links) = overlay.iter().max_by_key(|(_, links)| links.len()).unwrap();
    let killed = network.kill(victim);
    let removed = wait_for_death(&mut network, victim);
    let took = between(killed, removed);
    assert!(took < Duration::from_secs(1), "removed at all seeds after {took:?}");

    let seeds = network.seeds();
    let left: Vec<SocketAddr> = peers.iter().copied().filter(|peer| *peer != victim).collect();
    network.wait_for("the confirmation at every reporter", |log| {
        let reporters: BTreeSet<_> =
            log.about(victim, "peer-level consensus").map(|line| line.addr).collect();
        let confirmed = |peer| log.of_node(peer, "dead node confirmed").count() == 1;
        (reporters.len() >= 2 && reporters.into_iter().all(confirmed)).then_some(())
    });
    network.wait_for_overlay(&left);

    let log = &network.log;
    for peer in links {
        let down = log.of_node(*peer, "neighbour down");
        let down = down.filter(|line| line.peer() == victim && line.time > killed);
        assert_eq!(down.count(), 1, "{peer} notices that its link is down");
    }
    let suspecting: Vec<_> = log.about(victim, "suspected").collect();
    assert!(suspecting.len() >= 2, "{suspecting:#?}");
    for line in suspecting {
        assert!(line.level == "WARN" && !line.value("reason").is_empty(), "{:?}", line.raw);
    }
    assert!(log.about(victim, "suspect notice").count() >= 1);
    for line in log.about(victim, "suspect notice") {
        let from: SocketAddr = line.value("from").parse().unwrap();
        assert!(left.contains(&from) && from != line.addr, "{:?}", line.raw);
    }
    for line in log.about(victim, "peer-level consensus") {
        let witnesses = line.list("witnesses");
        assert!(!witnesses.is_empty(), "{:?}", line.raw);
        let others = |witness: &SocketAddr| left.contains(witness) && *witness != line.addr;
        assert!(witnesses.iter().all(others), "{:?}", line.raw);
        // Dead Node:<DeadNode.IP>:<DeadNode.Port>:<self.timestamp>:<self.IP>
        let said = log.lines().iter().filter(|l| l.addr == line.addr);
        let said: Vec<_> = said.filter(|l| l.event.starts_with("Dead Node")).collect();
        assert_eq!(said.len(), 1, "one message from {}: {said:#?}", line.addr);
        let text = said[0].event.strip_prefix("Dead Node:").unwrap();
        let parts: Vec<&str> = text.split(':').collect();
        let [ip, port, timestamp, own] = parts[..] else { panic!("{text:?}") };
        assert_eq!((ip, port, own), ("127.0.0.1", &*victim.port().to_string(), "127.0.0.1"));
        let (seconds, micros) = timestamp.split_once('.').unwrap();
        let micros: i64 = format!("{seconds}{micros}").parse().unwrap();
        assert!(between(micros, said[0].time) < Duration::from_secs(1), "{text:?}");
    }
    assert!(log.about(victim, "dead-node proposed").count() >= 1);
    for line in log.about(victim, "dead-node proposed") {
        let reporters: BTreeSet<SocketAddr> = line.list("reporters").into_iter().collect();
        assert!(reporters.len() >= 2, "{:?}", line.raw);
        assert!(reporters.iter().all(|reporter| left.contains(reporter)), "{:?}", line.raw);
    }
    let voters: BTreeSet<SocketAddr> = log
        .about(victim, "vote")
        .filter(|line| line.value("on") == "dead-node" && line.value("accept") == "true")
        .map(|line| line.addr)
        .collect();
    assert!(voters.len() >= 2, "{voters:?}");
    for seed in &seeds {
        let commits: Vec<_> =
            log.about(victim, "dead-node committed").filter(|line| line.addr == *seed).collect();
        assert_eq!(commits.len(), 1, "at {seed}: {commits:#?}");
        let (votes, of) = commits[0].fraction("votes");
        assert!(votes >= 2 && of == 3, "{:?}", commits[0].raw);
        assert_eq!(log.size_at(*seed), 7);
    }
    for line in log.events("dead node confirmed") {
        let seed: SocketAddr = line.value("seed").parse().unwrap();
        assert!(line.peer() == victim && seeds.contains(&seed), "{:?}", line.raw);
        assert!(line.fraction("votes").0 >= 2, "{:?}", line.raw);
    }
    assert!(log.events("suspected").all(|line| line.peer() == victim), "only the victim is");
    assert_eq!(log.events("dead-node rejected").count(), 0);
}

#[test]
fn a_hung_peer_is_removed_and_comes_back_by_itself_when_it_goes_on() {
    let options = ["--gossip-count", "0", "--suspect-timeout", "3s", "--ping-interval", "1s"];
    let (mut network, peers) = Network::with_peers(6, &options);
    network.wait_for_overlay(&peers);
    let (hung, seeds) = (peers[2], network.seeds());
    let former = last_commits(&network.log, &seeds, hung)[0].1;
    let stopped = chrono::Utc::now().timestamp_micros();
    network.signal(hung, "STOP");
    let removed = wait_for_death(&mut network, hung);
    let took = between(stopped, removed);
    assert!(took < Duration::from_secs(6), "removed at all seeds after {took:?}");
    assert!(took > Duration::from_secs(2), "a hung peer has its suspect timeout, not {took:?}");
    network.signal(hung, "CONT");
    wait_for_return(&mut network, hung, former);
    network.wait_for_overlay(&peers);
    let log = &network.log;
    for line in log.events("suspected") {
        assert_eq!(line.peer(), hung, "nobody else is suspected: {:?}", line.raw);
    }
    for seed in &seeds {
        let deaths = log.of_node(*seed, "dead-node committed");
        assert_eq!(deaths.count(), 1, "one death, that of the hung peer, at {seed}");
        assert_eq!(log.size_at(*seed), 6);
    }
}

/// Kills a peer and starts it again on its port, at once or after its death is committed.
fn rejoin(wait_for_its_death: bool) {
    let (mut network, mut peers) = Network::with_peers(5, &["--gossip-count", "0"]);
    let place = Reserved::new();
    let peer = place.addr;
    network.start_peer_on(peer, &["--gossip-count", "0"]);
    peers.push(peer);
    network.wait_for_members(&peers);
    network.wait_for_overlay(&peers);
    let seeds = network.seeds();
    let former = last_commits(&network.log, &seeds, peer)[0].1;

    network.kill(peer);
    if wait_for_its_death {
        wait_for_death(&mut network, peer);
    }
    network.start_peer_on(peer, &["--gossip-count", "1"]);
    wait_for_return(&mut network, peer, former);
    network.wait_for_overlay(&peers);
    network.wait_for_messages(&peers, 1);

    // Whatever was under way against its former life has come to an end that does not concern it.
    let latest = last_commits(&network.log, &seeds, peer);
    for (event, incarnation) in &latest {
        assert_eq!(event, "registration committed");
        assert!(*incarnation > former && *incarnation == latest[0].1, "{latest:?}");
    }
    for seed in &seeds {
        assert_eq!(network.log.size_at(*seed), 6, "at {seed}");
        let deaths: Vec<u64> = network
            .log
            .of_node(*seed, "dead-node committed")
            .map(|line| line.number("incarnation"))
            .collect();
        assert!(deaths.iter().all(|dead| *dead == former) && deaths.len() <= 1, "{deaths:?}");
    }
}

#[test]
fn a_peer_that_is_killed_and_started_again_at_once_is_alive_in_its_new_life() {
    rejoin(false);
}

#[test]
fn a_peer_that_was_voted_dead_and_is_started_again_is_alive_in_its_new_life() {
    rejoin(true);
}
