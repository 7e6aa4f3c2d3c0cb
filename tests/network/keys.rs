//! Encrypted networks: who has the key belongs to it, and keys change without a stop.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::harness::Network;

const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// Peers of these tests send two messages, at once.
const TALKATIVE: [&str; 4] = ["--gossip-interval", "200ms", "--gossip-count", "2"];

/// A key as `peer --generate-key` prints it.
pub fn fresh_key() -> String {
    let output = Command::new(PEER).arg("--generate-key").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let key = String::from_utf8(output.stdout).unwrap();
    assert!(key.trim_end().len() == 64 && key.ends_with('\n'), "{key:?}");
    key
}

/// Makes the key file of a network, and has all processes from here on use it.
pub fn give_keys(network: &mut Network, name: &str, keys: &[&str]) {
    let path = network.path(name);
    fs::write(&path, keys.concat()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    network.env.retain(|(option, _)| *option != "RUMORMILL_KEY_FILE");
    network.env.push(("RUMORMILL_KEY_FILE", path.to_str().unwrap().to_owned()));
}

/// Waits until a peer says why the seeds refuse it.
fn wait_for_refusal(network: &mut Network, peer: SocketAddr, reason: &str) {
    network.wait_for(&format!("{peer} is refused: {reason}"), |log| {
        let mut refusals = log.events("seed refused the link").filter(|line| line.addr == peer);
        refusals
            .any(|line| line.get("reason").is_some_and(|why| why.contains(reason)))
            .then_some(())
    });
}

#[test]
fn a_network_with_a_key_is_a_network_and_nobody_gets_in_without_it() {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.start_three_seeds();
    let peers = network.start_peers(4, &TALKATIVE);
    network.wait_for_members(&peers);
    network.wait_for_overlay(&peers);
    network.wait_for_messages(&peers, 8);

    give_keys(&mut network, "other-key", &[&fresh_key()]);
    let foreign = network.start_peer(&TALKATIVE);
    wait_for_refusal(&mut network, foreign, "no key in common");
    network.env.clear();
    let plain = network.start_peer(&TALKATIVE);
    wait_for_refusal(&mut network, plain, "the link is not encrypted");
    for stranger in [foreign, plain] {
        assert!(!network.log.is_registered(stranger));
    }
    network.wait_for_members(&peers);
}

#[test]
fn keys_change_while_the_network_runs() {
    let mut network = Network::of_seeds(3);
    let (old, new) = (fresh_key(), fresh_key());
    give_keys(&mut network, "key", &[&old]);
    network.start_three_seeds();
    let mut peers = network.start_peers(2, &TALKATIVE);
    network.wait_for_members(&peers);
    // First all accept the new key, then all dial with it, then the old one goes.
    let everybody: Vec<_> = network.seeds().into_iter().chain(peers.clone()).collect();
    for (round, keys) in [vec![&old, &new], vec![&new, &old], vec![&new]].iter().enumerate() {
        let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        give_keys(&mut network, "key", &keys);
        for process in &everybody {
            network.signal(*process, "HUP");
        }
        network.wait_for("everybody has reread the keys", |log| {
            (log.events("keys reread").count() == everybody.len() * (round + 1)).then_some(())
        });
        peers.push(network.start_peer(&TALKATIVE));
        network.wait_for_members(&peers);
    }
    give_keys(&mut network, "old-key", &[&old]);
    let late = network.start_peer(&TALKATIVE);
    wait_for_refusal(&mut network, late, "no key in common");
    // A file that is no key file changes nothing.
    fs::write(network.path("key"), "mistake\n").unwrap();
    network.signal(peers[0], "HUP");
    network.wait_for("the mistake is told", |log| log.events("keys not reread").next().map(|_| ()));
    give_keys(&mut network, "new-key", &[&new]);
    peers.push(network.start_peer(&TALKATIVE));
    network.wait_for_members(&peers);
}

#[test]
fn nobody_else_is_taken_for_a_seed_that_was_seen() {
    let mut network = Network::of_seeds(3);
    give_keys(&mut network, "key", &[&fresh_key()]);
    network.start_three_seeds();
    let peers = network.start_peers(2, &TALKATIVE);
    network.wait_for_members(&peers);
    // A process that has the key, and not the seed's own, takes its place.
    let seed = network.seeds()[0];
    network.kill(seed);
    let dir = network.path(&format!("data/seed-{}-{}", seed.ip(), seed.port()));
    let identity = fs::read(dir.join("identity")).unwrap();
    fs::remove_file(dir.join("identity")).unwrap();
    network.start_seed(seed);
    let others = network.seeds()[1..].to_vec();
    network.wait_for("both other seeds refuse the impostor", |log| {
        let refused = |other: &SocketAddr| {
            let mut lines = log.events("link refused").filter(|line| line.addr == *other);
            lines.any(|line| {
                line.get("from") == Some(&seed.to_string())
                    && line.get("reason").is_some_and(|why| why.contains("another process"))
            })
        };
        others.iter().all(refused).then_some(())
    });
    // With its own identity it is back.
    network.kill(seed);
    fs::write(dir.join("identity"), identity).unwrap();
    let before = network.log.events("seed connected").count();
    network.start_seed(seed);
    network.wait_for("the seed is back", |log| {
        (log.events("seed connected").count() >= before + 4).then_some(())
    });
}
