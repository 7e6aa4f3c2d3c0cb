//! Many processes at once, on one machine and one log.

use std::time::Duration;

use crate::harness::Network;
use crate::joining::assert_each_committed_once;

#[test]
fn twenty_peers_that_start_at_once_are_all_registered_and_hear_everything() {
    let mut network = Network::with_three_seeds();
    let seeds = network.seeds();
    let peers = network.start_peers(20, &["--gossip-count", "1"]);
    network.wait_for_members(&peers);
    network.wait_for_messages(&peers, 20);
    network.wait_for_overlay(&peers);
    assert_each_committed_once(&network.log, &seeds, &peers);
    for peer in &peers {
        let took = network.log.registration_time(*peer);
        // Alone on its machine it takes a tenth of a second; other tests may run beside it.
        assert!(took < Duration::from_secs(5), "{peer} took {took:?}");
    }
    for event in ["registration rejected", "dead-node committed"] {
        assert_eq!(network.log.events(event).count(), 0, "{event}");
    }
}

/// Seventeen peers and three seeds: every line of some twenty thousand is read by the strict
/// parser, which any torn line would fail.
#[test]
fn no_line_is_torn_with_twenty_processes_on_one_log() {
    let options = ["--gossip-interval", "5ms", "--gossip-count", "70", "--log-level", "trace"];
    let (mut network, peers) = Network::with_peers(17, &options);
    network.wait_for_messages(&peers, 17 * 70);
    assert!(network.log.len() > 17 * 17 * 70, "{} lines", network.log.len());
}
