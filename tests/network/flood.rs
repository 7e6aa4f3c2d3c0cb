//! Members that send as much as they can: registrations, and gossip.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rumormill::proto::config::{DEFAULT_NETWORK, Network as Name};
use rumormill::proto::gossip;
use rumormill::proto::message::{Broadcast, Gossip, Message, Purpose};
use rumormill::proto::signature::Signer;
use rumormill::{Delivery, Messages, Peer, PeerConfig, Port, Received};

use crate::harness::{Network, PATIENCE};
use crate::keys::{fresh_key, give_keys};
use crate::stub::{Conduct, Line, Stub, fresh_security};

/// Messages that the flooder wants to send each second.
const RATE: u64 = 100_000;
/// For so long.
const FLOOD: Duration = Duration::from_secs(2);
/// Peers that it floods at the same time, with different messages.
const FLOODED: u64 = 2;
/// Messages that each of two others says meanwhile.
const SAID: usize = 200;
/// Messages that it sends at once.
const BATCH: usize = 500;
/// Bytes by which the others may grow meanwhile.
const GROWTH: u64 = 20 << 20;

/// A peer inside this process, and the messages that it hears.
async fn listener(name: &Name, key: &str) -> (Peer, Messages) {
    let security = fresh_security(name, key);
    let socket = rumormill::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let config = PeerConfig::new(socket.local_addr().unwrap(), name.clone()).gossip_count(0);
    let peer = Peer::start(Port::from(socket).with_security(security), config).unwrap();
    let messages = peer.messages().await.unwrap();
    (peer, messages)
}

fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// What the flooder says over one link: every `FLOODED`th number from `start` on, signed. All are made
/// beforehand, since signing takes longer than sending.
fn flood_of(stub: &Stub, name: &Name, start: u64) -> Vec<Message> {
    let signer = stub.security.as_ref().unwrap();
    let many = RATE * FLOOD.as_secs() / FLOODED;
    let say = |number| {
        let mut gossip = Gossip {
            origin: stub.addr,
            life: stub.incarnation,
            number: start + number * FLOODED,
            offset: i64::try_from(micros() / 1_000 - stub.incarnation).unwrap(),
            age: 0,
            payload: Bytes::from_static(b"a message of forty bytes, as any may be."),
            signature: None,
        };
        let statement = gossip::statement(&name.name, &gossip::message_id(&gossip));
        gossip.signature = Some(Box::new(signer.sign(&statement)));
        Message::Broadcast(Broadcast::Gossip(gossip))
    };
    (0..many).map(say).collect()
}

/// Floods one peer over a link of its own; returns how many messages the peer has read.
async fn flood(messages: Vec<Message>, mut line: Line) -> usize {
    let begun = Instant::now();
    let mut sent = 0;
    for batch in messages.chunks(BATCH) {
        // One that does not read holds the flooder back, and that is well.
        let said = tokio::time::timeout(FLOOD, line.say_all(batch)).await;
        if !matches!(said, Ok(Ok(()))) || begun.elapsed() > FLOOD {
            break;
        }
        sent += batch.len();
        let due = begun + Duration::from_secs_f64((sent as u64 * FLOODED) as f64 / RATE as f64);
        tokio::time::sleep_until(due.into()).await;
    }
    sent
}

/// Hears until all that is expected has come; returns how long each message was on its way.
async fn hear(mut messages: Messages, flooder: SocketAddr, expected: usize) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while latencies.len() < expected {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await;
        let Ok(Some(received)) = next else {
            panic!("{} of {expected} messages came", latencies.len())
        };
        let Received::Message(Delivery { gossip, .. }) = received else { panic!("{received:?}") };
        if gossip.origin != flooder {
            let sent = gossip.life.saturating_add_signed(gossip.offset);
            latencies.push(Duration::from_millis((micros() / 1_000).saturating_sub(sent)));
        }
    }
    latencies
}

/// A flood over two links, while two peers in this process and all others speak and hear.
async fn attack(network: &Network, name: &Name, key: &str, peers: &[SocketAddr]) {
    let (one, heard_by_one) = listener(name, key).await;
    let (other, heard_by_other) = listener(name, key).await;
    let stub = Arc::new(Stub::member(name, key, Conduct::without_links()).await);
    for peer in [&one, &other] {
        until_it_knows(peer, peers.len() + 3).await;
    }
    let before: Vec<u64> = peers.iter().map(|peer| network.resident(*peer)).collect();
    let signing = (1..=FLOODED).map(|start| {
        let (stub, name) = (Arc::clone(&stub), name.clone());
        tokio::task::spawn_blocking(move || flood_of(&stub, &name, start))
    });
    let signing: Vec<_> = signing.collect();
    let mut floods = Vec::new();
    for (messages, peer) in signing.into_iter().zip(peers) {
        let messages = messages.await.unwrap();
        let line = stub.dial(*peer, Purpose::Link).await.unwrap();
        floods.push(async move { flood(messages, line).await });
    }
    let floods: Vec<_> = floods.into_iter().map(tokio::spawn).collect();
    let expected = 2 * SAID;
    let heard = [heard_by_one, heard_by_other].map(|m| tokio::spawn(hear(m, stub.addr, expected)));
    let mut clock = tokio::time::interval(FLOOD / u32::try_from(SAID).unwrap());
    for _ in 0..SAID {
        clock.tick().await;
        one.publish("one").await.unwrap();
        other.publish("other").await.unwrap();
    }
    let mut sent = 0;
    for flood in floods {
        sent += flood.await.unwrap();
    }
    let mut latencies = Vec::new();
    for heard in heard {
        latencies.extend(heard.await.unwrap());
    }
    latencies.sort();
    let (p50, p99) = (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]);
    let grown: Vec<u64> = peers
        .iter()
        .zip(before)
        .map(|(peer, before)| network.resident(*peer).saturating_sub(before) >> 10)
        .collect();
    println!("{sent} messages of the flood taken; p50 {p50:?}, p99 {p99:?}; grown {grown:?} KiB");
    assert!(grown.iter().all(|grown| *grown < GROWTH >> 10), "grown by {grown:?} KiB");
    one.leave().await;
    other.leave().await;
}

async fn until_it_knows(peer: &Peer, members: usize) {
    let deadline = Instant::now() + PATIENCE;
    while peer.status().await.unwrap().members.len() < members {
        assert!(Instant::now() < deadline, "{:?}", peer.status().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_member_that_floods_neither_grows_the_others_nor_drowns_what_they_say() {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.start_three_seeds();
    let peers = network.start_peers(4, &["--gossip-count", "0"]);
    let name = Name::new(DEFAULT_NETWORK, network.seeds());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(attack(&network, &name, &key, &peers));
}
