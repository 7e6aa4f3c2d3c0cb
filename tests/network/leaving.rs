//! A clean leave is not a death; and the log goes on under another name.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::harness::Network;
use crate::log::Log;

/// Messages that go on while a peer leaves: they show that time has passed for everybody.
const OPTIONS: [&str; 4] = ["--gossip-interval", "150ms", "--gossip-count", "1000"];

#[test]
fn a_peer_that_is_told_to_stop_leaves_and_nobody_suspects_it() {
    let (mut network, mut peers) = Network::with_peers(6, &OPTIONS);
    network.wait_for_overlay(&peers);
    let seeds = network.seeds();
    for signal in ["TERM", "INT"] {
        let leaver = peers.remove(2);
        let (code, took) = network.stop(leaver, signal);
        assert_eq!(code, Some(0), "after SIG{signal}");
        assert!(took < Duration::from_secs(2), "SIG{signal} took {took:?}");
        let size = u64::try_from(peers.len()).unwrap();
        network.wait_for("the leave at every seed", |log| {
            seeds.iter().all(|seed| log.size_at(*seed) == size).then_some(())
        });
        // Whoever was to suspect it would do so before it has heard ten more messages.
        let so_far = network.log.len();
        let count = 10 * peers.len() * peers.len();
        network.wait_for("messages after the leave", |log| {
            let later = log.lines()[so_far..].iter().filter(|l| l.event.starts_with("gossip "));
            (later.count() >= count).then_some(())
        });
        for seed in &seeds {
            let lines: Vec<_> = network
                .log
                .about(leaver, "leave committed")
                .filter(|line| line.addr == *seed)
                .collect();
            assert_eq!(lines.len(), 1, "at {seed}: {lines:#?}");
            let (votes, of) = lines[0].fraction("votes");
            assert!(votes >= 2 && of == 3, "{:?}", lines[0].raw);
        }
        for event in ["suspected", "suspect notice", "dead-node proposed", "dead-node committed"] {
            let lines: Vec<_> = network.log.about(leaver, event).collect();
            assert!(lines.is_empty(), "{lines:#?}");
        }
        network.wait_for_overlay(&peers);
    }
}

#[test]
fn a_log_that_was_renamed_goes_on_in_a_new_file_and_no_line_is_lost() {
    let options = ["--gossip-interval", "30ms", "--gossip-count", "80"];
    let (mut network, peers) = Network::with_peers(5, &options);
    let (name, moved) = (network.path("outputfile.txt"), network.path("outputfile.txt.1"));
    let everybody = [network.seeds(), peers.clone()].concat();
    fs::rename(&name, &moved).unwrap();
    let mut old = Log::of(moved);
    network.log = Log::of(name);
    for process in &everybody {
        network.signal(*process, "USR1");
    }
    // Somebody joins, so that the seeds have something to say as well.
    let newcomer = network.start_peer(&["--gossip-count", "0"]);
    network.wait_for("everybody in the new file", |log| {
        let speaks = |addr| log.lines().iter().any(|line| line.addr == addr);
        everybody.iter().all(|addr| speaks(*addr)).then_some(())
    });
    assert!(network.is_running(newcomer));
    network.wait_for("all messages, in whichever file", |new| {
        old.read_more();
        let had = |log: &Log, peer| log.messages_at(peer).values().sum::<usize>();
        peers.iter().all(|peer| had(&old, *peer) + had(new, *peer) >= 5 * 80).then_some(())
    });
    let sent = both(old.messages_sent(), network.log.messages_sent());
    for peer in &peers {
        let (before, after) = (old.messages_at(*peer), network.log.messages_at(*peer));
        assert!(!before.is_empty() && !after.is_empty(), "{peer} gossips while the log moves");
        assert_eq!(both(before, after), sent, "each message once, at {peer}");
    }
}

/// The messages of two files.
fn both<'a>(
    mut one: BTreeMap<&'a str, usize>,
    other: BTreeMap<&'a str, usize>,
) -> BTreeMap<&'a str, usize> {
    for (message, count) in other {
        *one.entry(message).or_default() += count;
    }
    one
}
