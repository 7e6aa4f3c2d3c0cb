//! A thousand connections that mean no good, at processes with a key: the network works meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use rumormill::net::codec;
use rumormill::net::secure::Dialling;
use rumormill::proto::config::{DEFAULT_NETWORK, Network as Name};
use rumormill::proto::message::{Purpose, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{Network, PATIENCE};
use crate::keys::{fresh_key, give_keys};
use crate::stub::fresh_security;

/// Connections to each process.
const BAD: usize = 1_000;
/// Bytes by which a process may have grown.
const GROWTH: u64 = 10 << 20;
/// A slow connection says a byte this often, and so never says all in time.
const SLOW: Duration = Duration::from_millis(100);

/// How a connection goes on.
#[derive(Clone, Copy)]
enum After {
    /// It says no more, and ends.
    End,
    /// It says no more, and stays.
    Silence,
    /// It goes on with garbage.
    Garbage,
}

/// A connection that says these bytes, at once or one by one; returns once it is closed.
async fn bad(to: SocketAddr, says: Vec<u8>, slowly: bool, after: After) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // Either may fail, because the process may have hung up by then.
    if slowly {
        for byte in says {
            let _ = stream.write_all(&[byte]).await;
            tokio::time::sleep(SLOW).await;
        }
    } else {
        let _ = stream.write_all(&says).await;
    }
    match after {
        After::End => drop(stream.shutdown().await),
        After::Silence => {}
        After::Garbage => {
            // The answer to what was right so far.
            let _ = stream.read(&mut [0; 1_024]).await;
            let _ = stream.write_all(&[&[0, 0, 1, 0][..], &[7; 256]].concat()).await;
        }
    }
    while stream.read(&mut [0; 1_024]).await.is_ok_and(|bytes| bytes > 0) {}
}

/// The first words of each kind of connection, whether they come slowly, and what follows.
fn kinds(name: &Name, key: &str) -> Vec<(Vec<u8>, bool, After)> {
    let opening = |key: &str| {
        let (_, first) = Dialling::begin(&fresh_security(name, key), &codec::prologue()).unwrap();
        codec::encode_sealed_opening(&first).unwrap().to_vec()
    };
    let (right, wrong) = (opening(key), opening(&fresh_key()));
    let mut plain = Vec::new();
    let hello = name.hello(Role::Peer, ([127, 0, 0, 1], 9).into(), 7, Purpose::Link);
    codec::encode_hello(&hello, &mut plain).unwrap();
    vec![
        ([0x5a; 2_000].to_vec(), false, After::End),
        ([&[0xff; 4], &right[..]].concat(), false, After::End),
        (1_000_000_u32.to_be_bytes().to_vec(), false, After::Silence),
        (right[..right.len() / 2].to_vec(), false, After::End),
        (right[..right.len() / 2].to_vec(), false, After::Silence),
        (right.clone(), true, After::Silence),
        (right.clone(), false, After::Silence),
        (right, false, After::Garbage),
        (wrong, false, After::End),
        (plain, false, After::Silence),
        (Vec::new(), false, After::Silence),
    ]
}

#[test]
fn a_thousand_bad_connections_neither_grow_a_process_nor_keep_anybody_waiting() {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.start_three_seeds();
    let options = ["--gossip-count", "20", "--gossip-interval", "50ms"];
    let peers = network.start_peers(3, &options);
    network.wait_for_members(&peers);
    network.wait_for_overlay(&peers);
    let targets = [network.seeds()[0], peers[1]];
    let before = targets.map(|target| network.resident(target));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let kinds = kinds(&Name::new(DEFAULT_NETWORK, network.seeds()), &key);
    let mut open = JoinSet::new();
    for number in 0..BAD {
        for target in targets {
            let (says, slowly, after) = kinds[number % kinds.len()].clone();
            open.spawn_on(bad(target, says, slowly, after), runtime.handle());
        }
    }
    let newcomer = network.start_peer(&options);
    let members = [&peers[..], &[newcomer]].concat();
    network.wait_for_members(&members);
    network.wait_for_messages(&members, 20 * members.len());
    let took = network.log.registration_time(newcomer);
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Nobody keeps a connection open for them.
    let ended = async { while open.join_next().await.is_some_and(|done| done.is_ok()) {} };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, ended).await }).expect("all closed");
    assert!(open.is_empty(), "one of them was not even let in");
    for (target, before) in targets.into_iter().zip(before) {
        let grown = network.resident(target).saturating_sub(before);
        println!("{target} grew by {} KiB; the newcomer was registered in {took:?}", grown >> 10);
        assert!(grown < GROWTH, "{target} grew by {grown} bytes");
        assert!(network.is_running(target));
    }
    for event in ["suspected", "dead-node proposed", "registration rejected"] {
        assert_eq!(network.log.events(event).count(), 0, "{event}");
    }
}
