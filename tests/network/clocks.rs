//! Real processes whose wall clocks disagree: nothing is lost, and both sides say so.

use std::path::Path;

use crate::harness::Network;

/// Where Debian and others put the library that shows a process another time.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

#[test]
fn processes_with_clocks_that_disagree_hear_all_of_each_other_and_say_so() {
    let Some(library) = LIBRARIES.into_iter().find(|library| Path::new(library).exists()) else {
        eprintln!("skipped: libfaketime is not installed; the simulator sets clocks as well");
        return;
    };
    let mut network = Network::with_three_seeds();
    let options = ["--gossip-interval", "200ms", "--gossip-count", "3"];
    let mut peers = network.start_peers(2, &options);
    for clock in ["+10m", "-90m", "+20h"] {
        network.env = vec![
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME", clock.to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        peers.push(network.start_peer(&options));
    }
    network.wait_for("all messages of all at all", |log| {
        let heard = |peer| log.messages_at(peer).len();
        peers.iter().all(|peer| heard(*peer) == 3 * peers.len()).then_some(())
    });
    for (peer, sign) in [(peers[2], '+'), (peers[3], '-'), (peers[4], '+')] {
        network.wait_for("a word on a clock", |log| {
            let told = |line: &&crate::log::Line| line.value("offset").starts_with(sign);
            log.about(peer, "clock skew").find(told).map(drop)
        });
    }
    let suspected = network.log.events("suspected").count();
    assert_eq!(suspected, 0, "a clock is no reason to suspect anybody");
}
