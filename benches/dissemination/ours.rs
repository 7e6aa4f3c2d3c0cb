//! The load on rumormill peers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rumormill::net::secure::{KnownSeeds, NetworkKey, NetworkKeys, Secret, Security};
use rumormill::node::{Peer, Port, Received, Seed, bind};
use rumormill::proto::config::{Network, PeerConfig, SeedConfig};
use tokio::net::TcpListener;
use tokio::sync::RwLock;

use super::NODES;
use super::load::{Figures, Ledger, Mode, Numbers, WARM_UP, play};

/// A port whose links are encrypted if there is a key.
fn port(listener: TcpListener, network: &Network, key: Option<&NetworkKey>) -> Port {
    let port = Port::from(listener);
    let Some(key) = key else { return port };
    let (keys, secret) = (NetworkKeys::of(key.clone()), Secret::fresh().unwrap());
    port.with_security(Security::new(keys, secret, KnownSeeds::of(network)))
}

pub async fn run(
    mode: Mode,
    kill_hub: bool,
    key: Option<&NetworkKey>,
    signed: bool,
) -> (Figures, Vec<(usize, usize)>) {
    let any = "127.0.0.1:0".parse().unwrap();
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(bind(any).await.unwrap());
    }
    let seeds: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    let network = Network::new("bench", seeds);
    let _seeds: Vec<Seed> = listeners
        .into_iter()
        .map(|listener| {
            let me = listener.local_addr().unwrap();
            let port = port(listener, &network, key);
            Seed::start(port, SeedConfig::new(me, network.clone())).unwrap()
        })
        .collect();

    let ledger = Arc::new(Ledger::new(NODES, WARM_UP * NODES + mode.messages()));
    let mut peers = Vec::new();
    let mut numbers = Numbers::new();
    for node in 0..NODES {
        let listener = bind(any).await.unwrap();
        let me = listener.local_addr().unwrap();
        numbers.insert(me, node);
        let config = PeerConfig::new(me, network.clone()).gossip_count(0).signed(signed);
        let peer = Peer::start(port(listener, &network, key), config).unwrap();
        let mut messages = peer.messages().await.unwrap();
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while messages.next_many(&mut batch, 256).await > 0 {
                for received in batch.drain(..) {
                    match received {
                        Received::Message(delivery) if delivery.from.is_some() => {
                            ledger.received(node, &delivery.gossip.payload);
                        }
                        Received::Message(_) => {}
                        Received::Missed(missed) => eprintln!("missed {missed}"),
                    }
                }
            }
        });
        // One after another, as the overlay's model grows.
        while !peer.status().await.unwrap().registered {
            tokio::task::yield_now().await;
        }
        peers.push(Some(peer));
    }
    // From either end: a link may come up between the looks at its two ends.
    let mut edges = BTreeSet::new();
    loop {
        edges.clear();
        let mut low = 0;
        for (node, peer) in peers.iter().flatten().enumerate() {
            let neighbours = peer.status().await.unwrap().neighbours;
            low += usize::from(neighbours.len() < 3);
            let others = neighbours.iter().filter_map(|addr| numbers.get(addr).copied());
            edges.extend(others.map(|other| (node.min(other), node.max(other))));
        }
        if low == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut degree = [0; NODES];
    for (a, b) in &edges {
        degree[*a] += 1;
        degree[*b] += 1;
    }
    let hub = (0..NODES).max_by_key(|node| degree[*node]).unwrap();

    if kill_hub {
        ledger.doom(hub);
    }
    let peers = RwLock::new(peers);
    let figures = play(
        mode,
        &ledger,
        async |node, payload: Vec<u8>| {
            let publisher = peers.read().await[node].as_ref().unwrap().publisher();
            publisher.post(payload).unwrap();
        },
        async || {
            let mut copies = 0;
            for peer in peers.read().await.iter().flatten() {
                copies += peer.status().await.unwrap().counters.payloads_sent;
            }
            copies
        },
        async |second| {
            if kill_hub && second == 2 {
                peers.write().await[hub].take().unwrap().kill();
            }
        },
    )
    .await;
    if std::env::var_os("RUMORMILL_BENCH_DEBUG").is_some() {
        eprintln!("degrees {degree:?}");
        let mut total = rumormill::proto::gossip::Counters::default();
        for peer in peers.read().await.iter().flatten() {
            let c = peer.status().await.unwrap().counters;
            total.prunes += c.prunes;
            total.grafts += c.grafts;
            total.wants += c.wants;
            total.duplicates += c.duplicates;
            total.announced += c.announced;
            total.sync.sent += c.sync.sent;
        }
        eprintln!("{total:?}");
    }
    (figures, edges.into_iter().collect())
}
