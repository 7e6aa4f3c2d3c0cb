//! What a program that embeds seeds and peers can ask them: who is in and why, and who is linked to
//! whom.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rumormill::node::{Peer, Seed, bind};
use rumormill::proto::config::{Network, PeerConfig, SeedConfig};
use rumormill::proto::message::{ChangeKind, Standing};
use rumormill::proto::registry::Status;

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const PATIENCE: Duration = Duration::from_secs(20);

async fn start_seeds(count: usize) -> (Network, Vec<Seed>) {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(bind(SocketAddr::from(ANY)).await.unwrap());
    }
    let addrs: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    let network = Network::new("library", addrs.clone());
    let seeds = listeners
        .into_iter()
        .zip(addrs)
        .map(|(listener, me)| Seed::start(listener, SeedConfig::new(me, network.clone())))
        .collect();
    (network, seeds)
}

async fn start_peer(network: &Network) -> Peer {
    let listener = bind(SocketAddr::from(ANY)).await.unwrap();
    let config = PeerConfig::new(listener.local_addr().unwrap(), network.clone());
    Peer::start(listener, PeerConfig { gossip_count: 0, ..config })
}

/// Asks again until the answer is as wanted: there is nothing that says when it will be.
async fn until<T, F: Future<Output = T>>(
    what: &str,
    ask: impl Fn() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn links_of(peers: &[Peer]) -> BTreeSet<(SocketAddr, SocketAddr)> {
    let mut links = BTreeSet::new();
    for peer in peers {
        for other in peer.status().await.unwrap().neighbours {
            links.insert((peer.address().min(other), peer.address().max(other)));
        }
    }
    links
}

#[tokio::test]
async fn every_seed_shows_the_overlay_as_it_is() {
    let (network, seeds) = start_seeds(3).await;
    let mut peers = Vec::new();
    for _ in 0..6 {
        peers.push(start_peer(&network).await);
    }
    for seed in &seeds {
        until(
            "the links of six peers",
            async || {
                let topology = seed.topology().await.unwrap();
                (links_of(&peers).await, topology)
            },
            |(links, topology)| {
                let shown: BTreeSet<_> = topology.links.iter().copied().collect();
                topology.nodes.len() == 6 && shown.len() >= 6 && shown == *links
            },
        )
        .await;
    }
    let gone = peers.pop().unwrap();
    let dead = gone.address();
    gone.kill();
    for seed in &seeds {
        let topology = until(
            "the overlay without the dead peer",
            async || (links_of(&peers).await, seed.topology().await.unwrap()),
            |(links, topology)| {
                let node = topology.nodes.iter().find(|node| node.address == dead);
                let shown: BTreeSet<_> = topology.links.iter().copied().collect();
                node.is_some_and(|node| node.status == Status::Dead && node.degree == 0)
                    && shown == *links
            },
        )
        .await
        .1;
        let degrees: usize = topology.nodes.iter().map(|node| node.degree).sum();
        assert_eq!(degrees, 2 * topology.links.len());
        let json = topology.to_json();
        assert!(json.contains(&format!(r#"{{"address":"{dead}","degree":0,"status":"dead"}}"#)));
        let dot = topology.to_dot();
        assert_eq!(dot.matches(" -- ").count(), topology.links.len(), "{dot}");
        assert!(!dot.contains(&dead.to_string()), "{dot}");
    }
}

#[tokio::test]
async fn every_seed_tells_why_a_member_is_in_or_out() {
    let (network, seeds) = start_seeds(3).await;
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(start_peer(&network).await);
    }
    for peer in &peers {
        until(
            "a registered peer",
            async || peer.status().await.unwrap(),
            |status| status.registered && status.members.len() == 4,
        )
        .await;
    }
    let victim = peers.pop().unwrap();
    let dead = victim.address();
    victim.kill();
    for seed in &seeds {
        let member = until(
            "the death",
            async || seed.member(dead).await.unwrap(),
            |member| {
                member.as_ref().is_some_and(|(record, history)| {
                    record.status == Status::Dead
                        && history.iter().any(|d| d.change.kind == ChangeKind::Dead && d.committed)
                })
            },
        )
        .await;
        let (_, history) = member.unwrap();
        let of = |kind| history.iter().find(|d| d.change.kind == kind && d.committed).unwrap();
        let join = of(ChangeKind::Join);
        assert!(join.votes.iter().filter(|vote| vote.accept).count() >= 2, "{join:?}");
        assert!(join.votes.iter().any(|vote| vote.reason.contains("dial-back")), "{join:?}");
        let death = of(ChangeKind::Dead);
        assert!(death.change.reporters.len() >= 2, "{death:?}");
        assert!(death.votes.iter().all(|vote| vote.reason.contains("probe")), "{death:?}");
        assert!(network.seeds().contains(&death.proposer));
        assert_eq!(seed.member(SocketAddr::from(ANY)).await.unwrap(), None);
    }
    let status = seeds[0].status().await.unwrap();
    assert!(status.has_quorum && status.voting && status.standing == Standing::Voting);
    assert_eq!((status.members, status.records), (3, 4));
    assert_eq!(seeds[0].records().await.unwrap().len(), 4);
}
