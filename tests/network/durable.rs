//! What a seed answered for survives its death.

use std::fs;

use super::harness::Network;

const QUIET: [&str; 2] = ["--gossip-count", "0"];

#[test]
fn what_was_answered_survives_kill_9_of_every_seed_at_once() {
    let (mut network, peers) = Network::with_peers(5, &QUIET);
    let seeds = network.seeds();
    let so_far = network.log.len();
    for seed in &seeds {
        network.kill(*seed);
    }
    // Nobody watches while this one dies.
    network.kill(peers[0]);
    for seed in &seeds {
        network.start_seed(*seed);
    }
    network.wait_for("the death of the peer that died unseen, at all seeds", |log| {
        let deaths = log.about(peers[0], "dead-node committed").count();
        (deaths == seeds.len()).then_some(())
    });
    let last = network.start_peer(&QUIET);
    network.wait_for("a list of those that live", |log| {
        log.lines()[so_far..]
            .iter()
            .filter(|line| line.addr == last && line.event == "peer list received")
            .any(|line| {
                let list = line.list("peers");
                list.len() == 5 && peers[1..].iter().all(|peer| list.contains(peer))
            })
            .then_some(())
    });
    // What a seed had on disk is no news to it.
    let again = network.log.lines()[so_far..]
        .iter()
        .filter(|line| line.event == "registration committed" && line.peer() != last)
        .count();
    assert_eq!(again, 0, "registrations that were committed before are committed again");
}

#[test]
fn a_damaged_registry_is_refused_and_left_as_it_is() {
    let mut network = Network::with_three_seeds();
    let seed = network.seeds()[0];
    network.kill(seed);
    let dir = network.path(&format!("data/seed-{}-{}", seed.ip(), seed.port()));
    let file = dir.join("registry.redb");
    let diary = b"somebody's diary ".repeat(1_000);
    fs::write(&file, &diary).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_seed"))
        .args([&seed.ip().to_string(), &seed.port().to_string(), "config.txt"])
        .current_dir(network.path("."))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("registry.redb") && stderr.contains("--data-dir"), "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), diary);
}
