//! What a program that embeds seeds and peers can ask them: who is in and why, and who is linked to
//! whom.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rumormill::proto::message::{ChangeKind, Standing};
use rumormill::proto::registry::Status;
use rumormill::storage::OpenReplica;
use rumormill::{Network, Peer, PeerConfig, Seed, SeedConfig, StoreError, Value, bind};
use serde_json::json;

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
        .map(|(listener, me)| Seed::start(listener, SeedConfig::new(me, network.clone())).unwrap())
        .collect();
    (network, seeds)
}

async fn start_peer(network: &Network) -> Peer {
    let listener = bind(SocketAddr::from(ANY)).await.unwrap();
    let config = PeerConfig::new(listener.local_addr().unwrap(), network.clone());
    Peer::start(listener, config.gossip_count(0)).unwrap()
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

fn value(json: serde_json::Value) -> Value {
    Value::new(&json).unwrap()
}

async fn registered(peers: &[Peer]) {
    for peer in peers {
        until(
            "a registered peer",
            async || peer.status().await.unwrap(),
            |status| status.registered && !status.neighbours.is_empty(),
        )
        .await;
    }
}

#[tokio::test]
async fn what_one_replica_was_told_all_show_and_a_client_never_reads_less_than_it_has_seen() {
    let (network, _seeds) = start_seeds(1).await;
    let mut peers = Vec::new();
    for _ in 0..5 {
        peers.push(start_peer(&network).await);
    }
    registered(&peers).await;
    let mut seen = None;
    for round in 0..50 {
        // A client that writes here and reads there at once: it waits for its own write.
        let (here, there) = (peers[round % 5].store(), peers[(round + 1) % 5].store());
        let written = here.put("k", value(json!(round)), seen).await.unwrap();
        let found = there.get("k", Some(written.seen)).await.unwrap();
        let values: Vec<_> = found.versions.iter().map(|version| version.value.json()).collect();
        assert_eq!(values, [json!(round)]);
        seen = Some(found.seen);
    }
    let seen = peers[0].store().delete("k", seen).await.unwrap();
    for peer in &peers {
        let read = peer.store().get("k", Some(seen.clone())).await;
        assert!(matches!(read, Err(StoreError::NotFound(_))), "{read:?}");
    }
}

#[tokio::test]
async fn a_replica_that_comes_late_or_comes_back_gets_all_and_keeps_what_was_answered() {
    let (network, _seeds) = start_seeds(1).await;
    let mut peers = vec![start_peer(&network).await, start_peer(&network).await];
    registered(&peers).await;
    for number in 0..2_000 {
        let key = format!("k{number}");
        assert!(peers[0].store().put(key, value(json!(number)), None).await.unwrap().created);
    }
    let dir = tempfile::tempdir().unwrap();
    let late = async |addr: SocketAddr| {
        let listener = bind(addr).await.unwrap();
        let config = PeerConfig::new(listener.local_addr().unwrap(), network.clone());
        let config = config.gossip_count(0);
        Peer::start_durable(listener, config, OpenReplica::open(dir.path()).unwrap()).unwrap()
    };
    let third = late(SocketAddr::from(ANY)).await;
    let keys = async |peer: &Peer| {
        peer.handle().look(|machine| machine.replica().store().keys().count()).await.unwrap()
    };
    until("all keys at a new replica", async || keys(&third).await, |count| *count == 2_000).await;
    let seen = third.store().put("mine", value(json!(1)), None).await.unwrap().seen;
    let addr = third.address();
    third.kill();
    peers[0].store().delete("k7", None).await.unwrap();
    // The lock on its disk is free when its writer has ended.
    let again = until("the disk", async || OpenReplica::open(dir.path()).is_ok(), |free| *free);
    again.await;
    let third = late(addr).await;
    assert_eq!(keys(&third).await, 2_001, "at once, from its disk");
    until("the delete", async || keys(&third).await, |count| *count == 2_000).await;
    peers[1].store().get("mine", Some(seen)).await.unwrap();
    peers.push(third);
}
