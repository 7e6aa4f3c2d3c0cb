//! Somebody who sees and can touch the packets: it says once more what was said before.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rumormill::proto::config::{DEFAULT_NETWORK, Network as Name};
use rumormill::proto::gossip;
use rumormill::proto::message::{Broadcast, Gossip, Message, Purpose};
use rumormill::proto::signature::Signer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::{Network, PATIENCE};
use crate::keys::{fresh_key, give_keys};
use crate::stub::{Conduct, Stub};

/// Times that a whole connection is said again.
const TRIES: usize = 100;

/// What stands between the two ends of a connection.
struct Tap {
    addr: SocketAddr,
    /// All that the one that dials has said.
    said: Arc<Mutex<Vec<u8>>>,
    /// More to say in its name.
    more: mpsc::UnboundedSender<Vec<u8>>,
}

impl Tap {
    /// Passes one connection on to that address.
    async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (more, mut added) = mpsc::unbounded_channel::<Vec<u8>>();
        let seen = said.clone();
        tokio::spawn(async move {
            let (mut one, _) = listener.accept().await.unwrap();
            let mut other = TcpStream::connect(to).await.unwrap();
            let (mut heard, mut answered) = ([0; 4_096], [0; 4_096]);
            loop {
                let passed = tokio::select! {
                    read = one.read(&mut heard) => match read {
                        Ok(bytes @ 1..) => {
                            seen.lock().unwrap().extend_from_slice(&heard[..bytes]);
                            other.write_all(&heard[..bytes]).await
                        }
                        _ => return,
                    },
                    read = other.read(&mut answered) => match read {
                        Ok(bytes @ 1..) => one.write_all(&answered[..bytes]).await,
                        _ => return,
                    },
                    Some(bytes) = added.recv() => other.write_all(&bytes).await,
                };
                if passed.is_err() {
                    return;
                }
            }
        });
        Self { addr, said, more }
    }

    fn so_far(&self) -> Vec<u8> {
        self.said.lock().unwrap().clone()
    }
}

/// A connection that says what another one has said; returns how many bytes it is answered before the
/// other side hangs up.
async fn replay(to: SocketAddr, said: &[u8]) -> usize {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // The other side may have hung up before it has all.
    let _ = stream.write_all(said).await;
    let mut answer = Vec::new();
    let hung_up = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = hung_up.expect("the peer hangs up");
    answer.len()
}

async fn attack(network: &mut Network, key: &str, peer: SocketAddr) {
    let name = Name::new(DEFAULT_NETWORK, network.seeds());
    // It takes no links, so all that come up are those that it opens.
    let member = Stub::member(&name, key, Conduct::without_links()).await;
    let tap = Tap::before(peer).await;
    let mut line = member.dial(tap.addr, Purpose::Link).await.unwrap();
    let opening = tap.so_far();
    let mut message = Gossip {
        origin: member.addr,
        life: member.incarnation,
        number: 1,
        offset: 0,
        age: 0,
        payload: "said once".into(),
        signature: None,
    };
    let statement = gossip::statement(&name.name, &gossip::message_id(&message));
    message.signature = Some(Box::new(member.security.as_ref().unwrap().sign(&statement)));
    line.say(&Message::Broadcast(Broadcast::Gossip(message))).await.unwrap();
    let heard = |log: &crate::log::Log| {
        let lines = log.events("gossip received").filter(|line| line.addr == peer);
        lines.filter(|line| line.value("message").contains("said once")).count()
    };
    network.wait_for("the message", |log| (heard(log) == 1).then_some(()));
    let whole = tap.so_far();
    assert!(whole.len() > opening.len());

    // The same record once more in the same connection.
    tap.more.send(whole[opening.len()..].to_vec()).unwrap();
    tokio::time::timeout(PATIENCE, line.ended()).await.expect("the peer hangs up");
    // The whole connection once more. A sound one is told after its opening who answers, and that it
    // is let in; this one is told no more than anybody who dials.
    let links = network.log.events("neighbour up").count();
    for said in [&whole, &opening] {
        let mut answers: Vec<_> = Vec::new();
        for _ in 0..TRIES {
            answers.push(replay(peer, said).await);
        }
        answers.dedup();
        let hello = replay(peer, &opening[..opening.len().min(60)]).await;
        println!("{answers:?} bytes answered; {hello} to half an opening");
        assert_eq!(answers.len(), 1);
    }
    network.log.read_more();
    assert_eq!((heard(&network.log), network.log.events("neighbour up").count()), (1, links));
}

#[test]
fn what_was_said_over_an_encrypted_link_cannot_be_said_again() {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.start_three_seeds();
    let peer = network.start_peer(&["--gossip-count", "0"]);
    network.wait_for_members(&[peer]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(attack(&mut network, &key, peer));
    network.assert_no_errors();
}
