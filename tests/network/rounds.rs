//! Seeds are killed again and again: nothing that was answered for is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rumormill::node::{self, Peer};
use rumormill::proto::config::{DEFAULT_NETWORK, Network as Net, PeerConfig};
use rumormill::proto::message::Addr;
use rumormill::proto::registry::{Record, Status};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::harness::{Network, wait_until};
use crate::stub::Stub;

/// Rounds of the first test unless RUMORMILL_ROUNDS says otherwise.
const ROUNDS: u64 = 50;
/// Peers that register in each round.
const A_ROUND: usize = 20;
/// Seconds of the second test unless RUMORMILL_STORM says otherwise; it was run with 60.
const STORM: u64 = 12;
/// Peers that join and leave meanwhile.
const STORM_PEERS: usize = 50;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn net(network: &Network) -> Net {
    Net::new(DEFAULT_NETWORK, network.seeds())
}

/// What each seed says that it knows; none if one of them does not say.
async fn lists(stub: &Stub, seeds: &[SocketAddr]) -> Option<Vec<BTreeMap<Addr, Record>>> {
    let mut all = Vec::new();
    for seed in seeds {
        all.push(stub.call(*seed).await.ok()?.list().await.ok()?.into_iter().collect());
    }
    Some(all)
}

#[test]
fn no_answered_registration_is_lost_when_all_seeds_are_killed_under_load() {
    let mut network = Network::with_three_seeds();
    let (seeds, net) = (network.seeds(), net(&network));
    let runtime = Runtime::new().unwrap();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut stubs: Vec<Stub> = Vec::new();
    let mut answered: BTreeSet<Addr> = BTreeSet::new();
    let rounds = from_env("RUMORMILL_ROUNDS", ROUNDS);
    for round in 0..rounds {
        let (sender, mut granted) = mpsc::unbounded_channel();
        for _ in 0..A_ROUND {
            let stub = runtime.block_on(Stub::start(&net));
            let seed = *seeds.choose(&mut rng).unwrap();
            let sender = sender.clone();
            runtime.block_on(async {
                let (addr, line) = (stub.addr, stub.call(seed).await);
                let incarnation = stub.incarnation;
                tokio::spawn(async move {
                    if let Ok(mut line) = line
                        && line.register(incarnation).await.is_ok()
                    {
                        let _ = sender.send(addr);
                    }
                });
            });
            stubs.push(stub);
        }
        drop(sender);
        // Some registrations are answered by then, some are under way: a round that is cut short
        // at another point each time.
        let enough = rng.random_range(0..A_ROUND);
        runtime.block_on(async {
            for _ in 0..enough {
                answered.extend(granted.recv().await);
            }
        });
        for seed in &seeds {
            network.kill(*seed);
        }
        // What was answered just before.
        runtime.block_on(async {
            while let Some(addr) = granted.recv().await {
                answered.insert(addr);
            }
        });
        for seed in &seeds {
            network.start_seed(*seed);
        }
        let mut seen = Vec::new();
        let held = wait_until(|| {
            let known = runtime.block_on(lists(&stubs[0], &seeds))?;
            seen = known;
            let alive = |list: &BTreeMap<Addr, Record>, peer: &Addr| {
                list.get(peer).is_some_and(|record| record.status == Status::Alive)
            };
            let all = seen.iter().all(|list| answered.iter().all(|peer| alive(list, peer)));
            (all && seen.windows(2).all(|pair| pair[0] == pair[1])).then_some(())
        });
        let lost: Vec<&Addr> = answered
            .iter()
            .filter(|peer| !seen.iter().all(|list| list.contains_key(peer)))
            .collect();
        assert!(held.is_some(), "round {round}: answered for, and not at all seeds: {lost:?}");
    }
    println!("{rounds} rounds, {} of {} registrations answered", answered.len(), stubs.len());
    assert!(answered.len() > stubs.len() / 10, "the seeds were killed before they did anything");
}

/// A peer that joins and leaves until the time is up, and is then a member or not.
async fn come_and_go(net: Net, number: u64, end: Instant) -> Option<Peer> {
    let mut rng = SmallRng::seed_from_u64(number);
    loop {
        let listener = node::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let mut config = PeerConfig::new(listener.local_addr().unwrap(), net.clone());
        config.broadcast.gossip_count = 0;
        let peer = Peer::start(listener, config).unwrap();
        let stay = Duration::from_millis(rng.random_range(200..3_000));
        tokio::time::sleep(stay).await;
        if Instant::now() > end {
            return Some(peer);
        }
        if rng.random_bool(0.2) {
            peer.kill();
        } else {
            peer.leave().await;
        }
        if Instant::now() > end {
            return None;
        }
    }
}

#[test]
fn seeds_killed_at_random_end_with_the_same_right_registry() {
    let mut network = Network::with_three_seeds();
    let (seeds, net) = (network.seeds(), net(&network));
    let runtime = Runtime::new().unwrap();
    let mut rng = SmallRng::seed_from_u64(2);
    let end = Instant::now() + Duration::from_secs(from_env("RUMORMILL_STORM", STORM));
    let peers: Vec<_> = (0..STORM_PEERS as u64)
        .map(|number| runtime.spawn(come_and_go(net.clone(), number, end)))
        .collect();
    let mut kills = 0;
    while Instant::now() < end {
        let seed = *seeds.choose(&mut rng).unwrap();
        network.kill(seed);
        kills += 1;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..600)));
        network.start_seed(seed);
        std::thread::sleep(Duration::from_millis(rng.random_range(0..600)));
    }
    let peers: Vec<Peer> =
        peers.into_iter().filter_map(|peer| runtime.block_on(peer).unwrap()).collect();
    let right: BTreeSet<Addr> = peers.iter().map(Peer::address).collect();
    let stub = runtime.block_on(Stub::start(&net));
    let mut seen = Vec::new();
    // The peers that were killed are found dead by their neighbours, or by a seed that restarts.
    let settled = wait_until(|| {
        seen = runtime.block_on(lists(&stub, &seeds))?;
        let equal = seen.windows(2).all(|pair| pair[0] == pair[1]);
        (equal && members(&seen[0]) == right).then_some(())
    });
    assert!(
        settled.is_some(),
        "after {kills} kills members are {:?}, and should be {right:?}",
        seen.iter().map(members).collect::<Vec<_>>()
    );
    println!("{kills} seeds killed, {} records, {} members", seen[0].len(), right.len());
    assert!(kills > 3 && seen[0].len() > STORM_PEERS);
    runtime.block_on(async {
        for peer in peers {
            peer.leave().await;
        }
    });
}

fn members(list: &BTreeMap<Addr, Record>) -> BTreeSet<Addr> {
    let alive = list.iter().filter(|(_, record)| record.status == Status::Alive);
    alive.map(|(addr, _)| *addr).collect()
}
