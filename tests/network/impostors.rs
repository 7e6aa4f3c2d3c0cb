//! A member with the network's key that lies about who it is: it speaks in the name of another
//! member, at whose address it does not answer.

use std::net::SocketAddr;
use std::time::Duration;

use rumormill::net::secure::Security;
use rumormill::net::{codec, handshake};
use rumormill::proto::config::{DEFAULT_NETWORK, Network as Name};
use rumormill::proto::machine::OpenError;
use rumormill::proto::message::{Broadcast, Gossip, Message, Purpose, Refused, Role, ToSeed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Network, PATIENCE};
use crate::keys::{fresh_key, give_keys};
use crate::stub::fresh_security;

/// Lies of each kind.
const TRIES: usize = 100;

/// Somebody who has the key, and an identity of its own.
struct Liar {
    name: Name,
    security: Security,
}

impl Liar {
    fn new(network: &Network, key: &str) -> Self {
        let name = Name::new(DEFAULT_NETWORK, network.seeds());
        let security = fresh_security(&name, key);
        Self { name, security }
    }

    async fn call(
        &self,
        to: SocketAddr,
        as_whom: (SocketAddr, u64),
        purpose: Purpose,
    ) -> Result<handshake::Opened, OpenError> {
        let hello = self.name.hello(Role::Peer, as_whom.0, as_whom.1, purpose);
        handshake::open(to, &hello, PATIENCE, Some(&self.security)).await.map(|(opened, _)| opened)
    }

    /// Says something to a seed in a member's name; returns once the seed has hung up.
    async fn tell(&self, seed: SocketAddr, as_whom: (SocketAddr, u64), lie: ToSeed) {
        let opened = self.call(seed, as_whom, Purpose::Membership).await.unwrap();
        self.say(opened, [Message::ToSeed(lie)]).await;
    }

    /// Says something over a connection; returns once the other side has hung up.
    async fn say(&self, mut opened: handshake::Opened, lies: impl IntoIterator<Item = Message>) {
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        lies.into_iter().for_each(|lie| codec::encode(&lie, &mut plain).unwrap());
        let (session, _) = opened.session.as_deref_mut().unwrap();
        session.sealer.seal(&plain, &mut sealed).unwrap();
        opened.stream.write_all(&sealed).await.unwrap();
        let hung_up = async {
            while opened.stream.read(&mut [0; 1_024]).await.is_ok_and(|bytes| bytes > 0) {}
        };
        tokio::time::timeout(PATIENCE, hung_up).await.expect("the seed hangs up");
    }
}

fn incarnation_of(network: &mut Network, peer: SocketAddr) -> u64 {
    network.wait_for("the victim's life", |log| {
        let line = log.about(peer, "registration committed").next()?;
        Some(line.number("incarnation"))
    })
}

#[test]
fn nobody_speaks_in_the_name_of_a_living_member() {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.start_three_seeds();
    let peers = network.start_peers(3, &["--gossip-count", "0"]);
    network.wait_for_members(&peers);
    network.wait_for_overlay(&peers);
    let lives: Vec<_> =
        peers.iter().map(|peer| (*peer, incarnation_of(&mut network, *peer))).collect();
    let liar = Liar::new(&network, &key);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for number in 0..TRIES {
            let seed = network.seeds()[number % 3];
            let (victim, other) = (lives[number % 3], lives[(number + 1) % 3]);
            let (incarnation, request) = (victim.1, 1);
            liar.tell(seed, victim, ToSeed::Leave { request, incarnation }).await;
            let (peer, incarnation, text) = (other.0, other.1, String::new());
            liar.tell(seed, victim, ToSeed::DeadNode { peer, incarnation, text }).await;
            for purpose in [Purpose::Link, Purpose::Errand, Purpose::Sync, Purpose::Ask] {
                let Err(OpenError::Refused(refusal)) = liar.call(other.0, victim, purpose).await
                else {
                    panic!("{purpose:?} in the name of {} is not refused", victim.0);
                };
                assert_eq!(refusal.reason, Refused::WrongIdentity, "{purpose:?}");
            }
        }
    });
    // Whatever would come of it would have come by then.
    network.log.read_more();
    for event in ["leave committed", "dead-node proposed", "dead-node committed", "suspected"] {
        assert_eq!(network.log.events(event).count(), 0, "{event}");
    }
    network.wait_for_members(&peers);
}

#[test]
fn nobody_registers_where_another_member_answers() {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.start_three_seeds();
    let peers = network.start_peers(2, &["--gossip-count", "0"]);
    network.wait_for_members(&peers);
    let life = incarnation_of(&mut network, peers[0]);
    let liar = Liar::new(&network, &key);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // In its present life, and in one that would replace it.
        for incarnation in [life, life + 1] {
            let seed = network.seeds()[0];
            let claimed = (peers[0], incarnation);
            let mut opened = liar.call(seed, claimed, Purpose::Membership).await.unwrap();
            let (mut plain, mut sealed) = (Vec::new(), Vec::new());
            let register = ToSeed::Register { request: 1, incarnation };
            codec::encode(&Message::ToSeed(register), &mut plain).unwrap();
            let (session, _) = opened.session.as_deref_mut().unwrap();
            session.sealer.seal(&plain, &mut sealed).unwrap();
            opened.stream.write_all(&sealed).await.unwrap();
            let mut bytes = [0; 4_096];
            let answer = opened.stream.read(&mut bytes);
            let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
            assert!(answer.expect("it is answered").unwrap() > 0);
        }
    });
    network.wait_for("both attempts are rejected", |log| {
        (log.about(peers[0], "registration rejected").count() >= 2).then_some(())
    });
    assert_eq!(network.log.about(peers[0], "registration committed").count(), 3, "once a seed");
}

#[test]
fn nobody_publishes_in_the_name_of_another_member() {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.start_three_seeds();
    let peers = network.start_peers(3, &["--gossip-interval", "100ms", "--gossip-count", "20"]);
    network.wait_for_members(&peers);
    network.wait_for_overlay(&peers);
    let victim = (peers[0], incarnation_of(&mut network, peers[0]));
    let liar = Liar::new(&network, &key);
    // Nobody answers there, but nobody else can take it meanwhile.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let lie = |number| {
        let payload = format!("forged {number}").into_bytes().into();
        let (origin, life) = victim;
        // Numbers that the victim is about to use, and some that it will not.
        let gossip = Gossip { origin, life, number, offset: 0, age: 0, payload, signature: None };
        Message::Broadcast(Broadcast::Gossip(gossip))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for peer in [peers[1], peers[2]] {
            let link = liar.call(peer, (address, 1), Purpose::Link).await.unwrap();
            liar.say(link, (1..=TRIES as u64).map(lie)).await;
        }
    });
    // All that the victim itself says is heard, also under the numbers that were forged.
    network.wait_for_messages(&peers, 60);
    assert_eq!(network.log.events("link closed").count(), 2, "who forges loses its link");
    let heard = network.log.events("gossip received");
    assert_eq!(heard.filter(|line| line.value("message").contains("forged")).count(), 0);
}
