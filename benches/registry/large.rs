//! A registry of 100,000 members: what it takes to hold, to serve and to start.

use std::fs;
use std::time::{Duration, Instant};

use rumormill::net::handshake;
use rumormill::proto::config::Network;
use rumormill::proto::message::{Addr, Answer, Role, Standing, Welcome};
use rumormill::proto::registry::{Record, Status};
use rumormill::proto::roles::Keep;
use rumormill::storage::OpenStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::seeds::Seeds;
use super::stub::Stub;
use super::{millis, show};

const MEMBERS: u32 = 100_000;

/// The members are addresses of the loopback network, all of which one listener serves.
fn member(number: u32, port: u16) -> Addr {
    let [_, a, b, c] = (number + 65_536).to_be_bytes();
    ([127, a, b, c], port).into()
}

async fn everybody(listener: TcpListener, network: Network) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(from) = stream.local_addr() else { continue };
        let network = network.clone();
        tokio::spawn(async move {
            let Ok((mut opened, _)) = handshake::accept(stream, &network, None).await else {
                return;
            };
            let welcome = Welcome {
                role: Role::Peer,
                from,
                incarnation: 1,
                leaving: false,
                clock: 0,
                identity: None,
            };
            let bytes = handshake::answer_bytes(None, &Answer::Welcome(welcome)).unwrap();
            let _ = opened.stream.write_all(&bytes).await;
            let _ = opened.stream.read(&mut [0; 1]).await;
        });
    }
}

fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

fn fill(seeds: &Seeds, place: usize, port: u16) {
    let store = OpenStore::open(&seeds.data(place)).unwrap();
    let store = store.start(|_| {}, |error| panic!("{error}")).unwrap();
    let mut changes = vec![Keep::Standing(Standing::Voting)];
    changes.extend((0..MEMBERS).map(|number| {
        let voters = vec![0, 1];
        let record = Record::plain(1, Status::Alive, 1, voters);
        Keep::Record(member(number, port), record)
    }));
    assert!(store.submit(1, changes));
}

pub async fn figures() {
    let mut seeds = Seeds::prepare(3);
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(everybody(listener, seeds.network.clone()));
    (0..3).for_each(|place| fill(&seeds, place, port));
    (0..3).for_each(|place| seeds.run(place));
    seeds.wait_until_connected(6);
    let stub = Stub::start(&seeds.network).await;
    let mut lists = Vec::new();
    for round in 0..9 {
        let mut line = stub.call(seeds.addr(round)).await.unwrap();
        let start = Instant::now();
        let list = line.list().await.unwrap();
        lists.push(millis(start.elapsed()));
        assert_eq!(list.len(), MEMBERS as usize);
    }
    show("a list of 100,000 while all members are looked at", "ms", lists);
    let mut restarts = Vec::new();
    for round in 0..3 {
        seeds.kill(round);
        let start = Instant::now();
        seeds.run(round);
        loop {
            if let Ok(mut line) = stub.call(seeds.addr(round)).await
                && let Ok(list) = line.list().await
            {
                assert_eq!(list.len(), MEMBERS as usize);
                break;
            }
            // The process does not listen yet.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        restarts.push(start.elapsed().as_secs_f64());
    }
    show("restart with 100,000 members until a list is served", "s", restarts);
    // The looks at all members take some seconds; memory and lists are shown as they are after that.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut lists = Vec::new();
    for round in 0..9 {
        let mut line = stub.call(seeds.addr(round)).await.unwrap();
        let start = Instant::now();
        line.list().await.unwrap();
        lists.push(millis(start.elapsed()));
    }
    show("a list of 100,000", "ms", lists);
    let memory = (0..3).map(|place| resident(seeds.pid(place))).collect();
    show("resident memory of a seed with 100,000 members", "MB", memory);
    serving.abort();
}
