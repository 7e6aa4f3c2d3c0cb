//! A flood of valid registrations: one source, which answers at each address that it registers.

use std::net::SocketAddr;
use std::time::Duration;

use rumormill::net::secure::Security;
use rumormill::proto::config::{DEFAULT_NETWORK, Network as Name};

use crate::harness::{Network, PATIENCE};
use crate::keys::{fresh_key, give_keys};
use crate::stub::{Conduct, Failure, Stub, fresh_security};

/// Where the flood comes from. The others are at 127.0.0.1.
const SOURCE: [u8; 4] = [127, 0, 0, 2];
/// Members that a source may have here, and how many it wants.
const ALLOWED: usize = 120;
const WANTED: usize = 300;
/// Registrations that it asks for at the same time.
const AT_ONCE: usize = 20;
/// Bytes by which a seed may have grown.
const GROWTH: u64 = 10 << 20;

/// Registers from now on until enough have been refused; returns those that were let in.
async fn flood(name: Name, security: Security, seed: SocketAddr) -> (Vec<Stub>, Vec<String>) {
    let (mut members, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..WANTED / AT_ONCE {
        // They take no links: a newcomer whose links were all theirs would hear late.
        let (any, security, conduct) =
            ((SOURCE, 0).into(), Some(security.clone()), Conduct::without_links());
        let stub = Stub::start_with(&name, any, security, conduct).await;
        let mut line = stub.call(seed).await.unwrap();
        match line.register(stub.incarnation).await {
            Ok(()) => members.push(stub),
            Err(Failure::Denied(reason)) => refused.push(reason),
            Err(Failure::Gone) => panic!("the seed hung up"),
        }
    }
    (members, refused)
}

#[test]
fn a_source_that_registers_all_the_time_takes_its_share_and_keeps_nobody_waiting() {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.env.push(("RUMORMILL_MAX_MEMBERS_PER_SOURCE", ALLOWED.to_string()));
    network.start_three_seeds();
    network.env.pop();
    let options = ["--gossip-count", "20", "--gossip-interval", "50ms"];
    let mut peers = network.start_peers(3, &options);
    network.wait_for_members(&peers);
    let seeds = network.seeds();
    let before: Vec<u64> = seeds.iter().map(|seed| network.resident(*seed)).collect();
    let name = Name::new(DEFAULT_NETWORK, seeds.clone());
    let security = fresh_security(&name, &key);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let floods: Vec<_> = (0..AT_ONCE)
        .map(|place| runtime.spawn(flood(name.clone(), security.clone(), seeds[place % 3])))
        .collect();
    network.wait_for("the flood", |log| {
        (log.events("registration committed").count() > 100).then_some(())
    });
    let newcomer = network.start_peer(&options);
    peers.push(newcomer);
    let took = network.wait_for("the newcomer", |log| {
        log.is_registered(newcomer).then(|| log.registration_time(newcomer))
    });
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (mut members, mut refused) = (Vec::new(), Vec::new());
    for flood in floods {
        let ended = async { tokio::time::timeout(PATIENCE, flood).await };
        let (let_in, sent_away) = runtime.block_on(ended).expect("it ends").unwrap();
        members.extend(let_in);
        refused.extend(sent_away);
    }
    // Seeds count a registration once it is decided, so some more get in that were under way.
    println!("{} let in, {} refused; the newcomer took {took:?}", members.len(), refused.len());
    assert!((ALLOWED..ALLOWED + 3 * AT_ONCE).contains(&members.len()), "{}", members.len());
    let reason = format!("127.0.0.2 has {ALLOWED} members already");
    assert!(refused.iter().any(|why| why.contains(&reason)), "{refused:?}");
    network.wait_for_messages(&peers, 20 * peers.len());
    for (seed, before) in seeds.iter().zip(before) {
        let grown = network.resident(*seed).saturating_sub(before);
        println!("{seed} grew by {} KiB", grown >> 10);
        assert!(grown < GROWTH, "{seed} grew by {grown} bytes");
    }
    for event in ["suspected", "dead-node proposed"] {
        let ours = network.log.events(event).filter(|line| peers.contains(&line.peer()));
        assert_eq!(ours.count(), 0, "{event}");
    }
}
