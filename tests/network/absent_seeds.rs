//! Seeds that are down, hung, or back and empty.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::Network;
use crate::joining::assert_each_committed_once;

const QUIET: [&str; 2] = ["--gossip-count", "0"];

#[test]
fn registration_is_quick_with_one_of_three_seeds_down() {
    let mut network = Network::with_three_seeds();
    let seeds = network.seeds();
    network.kill(seeds[1]);
    let peers = network.start_peers(6, &QUIET);
    network.wait_for("registered peers", |log| {
        peers.iter().all(|peer| log.is_registered(*peer)).then_some(())
    });
    for peer in &peers {
        let took = network.log.registration_time(*peer);
        assert!(took < Duration::from_secs(1), "{peer} took {took:?}");
    }
    let up = [seeds[0], seeds[2]];
    network
        .wait_for("full lists", |log| up.iter().all(|seed| log.size_at(*seed) == 6).then_some(()));
    for seed in up {
        for line in network.log.of_node(seed, "registration committed") {
            assert_eq!(line.fraction("votes"), (2, 3), "of all three seeds: {:?}", line.raw);
        }
    }
    network.wait_for_overlay(&peers);
}

/// What a process shows of itself; none while it does not answer.
fn metrics(http: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(http).ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_peer_that_dies_while_the_seeds_lose_everything_haunts_nobody() {
    let options = [&QUIET[..], &["--http", "127.0.0.1:0"]].concat();
    let (mut network, peers) = Network::with_peers(4, &options);
    network.wait_for_overlay(&peers);
    // A link says nothing of who belongs to the network: they have to have been told by the seeds.
    network.wait_for("peers that know all others", |log| {
        let knows_all = |peer| {
            let listening = log.of_node(peer, "http listening").next()?;
            let metrics = metrics(listening.value("http").parse().ok()?)?;
            metrics.lines().any(|line| line == "rumormill_members 4").then_some(())
        };
        peers.iter().try_for_each(|peer| knows_all(*peer))
    });
    let seeds = network.seeds();
    for seed in &seeds {
        network.kill(*seed);
    }
    network.kill(peers[0]);
    network.wait_for("somebody who suspects it", |log| {
        log.about(peers[0], "suspected").next().map(drop)
    });
    for entry in std::fs::read_dir(network.path("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("seed-") {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    for seed in &seeds {
        network.start_seed(*seed);
    }
    let left = &peers[1..];
    network.wait_for("the survivors at every seed, and nobody else", |log| {
        let forgotten = |peer| log.of_node(peer, "member forgotten").any(|l| l.peer() == peers[0]);
        let all = left.iter().all(|peer| forgotten(*peer));
        (all && seeds.iter().all(|seed| log.size_at(*seed) == 3)).then_some(())
    });
}

#[test]
fn registration_goes_on_past_a_seed_that_hangs() {
    let mut network = Network::with_three_seeds();
    let seeds = network.seeds();
    network.signal(seeds[0], "STOP");
    let peers = network.start_peers(6, &QUIET);
    network.wait_for("registered peers", |log| {
        peers.iter().all(|peer| log.is_registered(*peer)).then_some(())
    });
    for peer in &peers {
        let took = network.log.registration_time(*peer);
        assert!(took < Duration::from_secs(3), "{peer} took {took:?}");
    }
    network.wait_for_overlay(&peers);
    // And the one that hung hears of it all.
    network.signal(seeds[0], "CONT");
    network.wait_for_members(&peers);
    assert_each_committed_once(&network.log, &seeds, &peers);
}

#[test]
fn without_a_quorum_nobody_is_registered_until_a_seed_is_back() {
    let mut network = Network::with_three_seeds();
    let seeds = network.seeds();
    network.kill(seeds[0]);
    network.kill(seeds[2]);
    let peer = network.start_peer(&QUIET);
    // It goes on trying, which is not told again.
    let reason = network.wait_for("a rejection", |log| {
        let reasons =
            log.about(peer, "registration rejected").map(|l| l.value("reason").to_owned());
        reasons.last()
    });
    let silent = format!("{},{}", seeds[0].min(seeds[2]), seeds[0].max(seeds[2]));
    for part in ["no quorum", "1 of 3 seeds answered", "2 accepts needed", &silent] {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    for line in network.log.about(peer, "registration rejected") {
        assert_eq!(line.fraction("votes"), (1, 3), "{:?}", line.raw);
    }
    assert_eq!(network.log.events("registration committed").count(), 0);
    assert_eq!(network.log.of_node(peer, "registered").count(), 0);

    network.start_seed(seeds[2]);
    network.wait_for("registration", |log| log.is_registered(peer).then_some(()));
    network.start_seed(seeds[0]);
    network.wait_for_members(&[peer]);
    assert_each_committed_once(&network.log, &seeds, &[peer]);
}

#[test]
fn a_seed_that_comes_back_empty_catches_up() {
    let (mut network, peers) = Network::with_peers(5, &QUIET);
    let seed = network.seeds()[1];
    network.kill(seed);
    let latecomer = network.start_peer(&QUIET);
    let others = [network.seeds()[0], network.seeds()[2]];
    network.wait_for("a sixth peer", |log| {
        others.iter().all(|seed| log.size_at(*seed) == 6).then_some(())
    });
    let so_far = network.log.len();
    // Its disk is lost with it.
    let dir = network.path(&format!("data/seed-{}-{}", seed.ip(), seed.port()));
    std::fs::remove_dir_all(dir).unwrap();
    network.start_seed(seed);
    network.wait_for("six peers at the seed that is back", |log| {
        let sizes = log.lines()[so_far..].iter().filter(|l| l.addr == seed);
        let sizes = sizes.filter(|l| l.event == "peer list").map(|l| l.number("size"));
        (sizes.max() == Some(6)).then_some(())
    });
    // Its new life has committed each member once.
    let log = &network.log;
    for peer in peers.iter().chain([&latecomer]) {
        let lines = log.lines()[so_far..].iter().filter(|line| line.addr == seed);
        let commits =
            lines.filter(|l| l.event == "registration committed" && l.peer() == *peer).count();
        assert_eq!(commits, 1, "{peer}");
    }
    // It may have all six from one seed, and does not vote before it has read the other one, too.
    network.wait_for("the vote of the seed that is back", |log| {
        let mut standings = log.lines()[so_far..].iter().filter(|l| l.addr == seed);
        standings.any(|l| l.event == "voting from now on").then_some(())
    });
    network.kill(others[0]);
    let last = network.start_peer(&QUIET);
    network.wait_for("a quorum with the seed that is back", |log| {
        log.is_registered(last).then_some(())
    });
}
