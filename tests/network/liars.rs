//! Members and seeds of an encrypted network that are who they say, and lie about everything else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rumormill::proto::config::{DEFAULT_NETWORK, Network as Name};
use rumormill::proto::message::{
    Addr, Answer, Hello, Message, Purpose, Refusal, Refused, Role, ToPeer, ToSeed, Welcome,
};
use rumormill::proto::registry::{Record, Status};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::harness::{Network, ask, wait_until};
use crate::keys::{fresh_key, give_keys};
use crate::log::between;
use crate::stub::{Conduct, Line, Stub, fresh_security};

/// Lies of each kind.
const TRIES: usize = 100;
/// Links that answer PING and do nothing else.
const IDLE: usize = 60;

/// A network with a key that answers HTTP, before any of it runs.
fn prepare() -> (Network, Name, String, Runtime) {
    let mut network = Network::of_seeds(3);
    let key = fresh_key();
    give_keys(&mut network, "key", &[&key]);
    network.env.push(("RUMORMILL_HTTP", "127.0.0.1:0".to_owned()));
    let name = Name::new(DEFAULT_NETWORK, network.seeds());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    (network, name, key, runtime)
}

/// An address at which nobody was ever registered.
fn ghost(number: usize) -> Addr {
    ([10, 9, 9, 9], 7_000 + u16::try_from(number).unwrap()).into()
}

fn get(network: &mut Network, process: SocketAddr, path: &str) -> Value {
    let http = network.http_of(process);
    let (head, body) = ask(http, &format!("GET {path}"), "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(&body).unwrap()
}

/// All that a process knows of members: their states and incarnations.
fn members(network: &mut Network, process: SocketAddr) -> BTreeMap<String, (String, u64)> {
    let known = get(network, process, "/members");
    let entries = known["members"].as_array().unwrap().iter().map(|member| {
        let text = |key: &str| member[key].as_str().unwrap().to_owned();
        (text("address"), (text("status"), member["incarnation"].as_u64().unwrap()))
    });
    entries.collect()
}

/// The lives of these peers, once all of these processes know them.
fn lives(
    network: &mut Network,
    processes: &[SocketAddr],
    peers: &[SocketAddr],
) -> BTreeMap<String, (String, u64)> {
    let agreed = wait_until(|| {
        let known = processes.iter().map(|process| members(network, *process));
        let known: Vec<_> = known.collect();
        let all_alive = known[0].values().all(|(status, _)| status == "alive");
        let agreed = known.iter().all(|members| *members == known[0]);
        (all_alive && agreed && known[0].len() == peers.len()).then(|| known[0].clone())
    });
    agreed.expect("all processes know these peers alone")
}

async fn report(line: &mut Line, victim: (Addr, u64)) {
    let (peer, incarnation) = victim;
    let text = format!("Dead Node:{peer}");
    line.say(&Message::ToSeed(ToSeed::DeadNode { peer, incarnation, text })).await.unwrap();
}

#[test]
fn members_that_report_whoever_lives_as_dead_remove_nobody() {
    let (mut network, name, key, runtime) = prepare();
    network.start_three_seeds();
    let peers = network.start_peers(3, &["--gossip-count", "0"]);
    network.wait_for_members(&peers);
    let liars = runtime.block_on(async {
        let one = Stub::member(&name, &key, Conduct::default()).await;
        [one, Stub::member(&name, &key, Conduct::default()).await]
    });
    let all: Vec<_> = peers.iter().copied().chain(liars.iter().map(|liar| liar.addr)).collect();
    let processes: Vec<_> = network.seeds().into_iter().chain(peers.clone()).collect();
    let before = lives(&mut network, &processes, &all);
    runtime.block_on(async {
        for seed in name.seeds() {
            let mut one = liars[0].call(*seed).await.unwrap();
            let mut other = liars[1].call(*seed).await.unwrap();
            // First one alone, then both.
            for number in 0..2 * TRIES {
                let peer = peers[number % 3];
                let victim = (peer, before[&peer.to_string()].1);
                report(&mut one, victim).await;
                if number >= TRIES {
                    report(&mut other, victim).await;
                }
            }
            // What came before the question is done with once it is answered.
            one.list().await.unwrap();
            other.list().await.unwrap();
        }
    });
    let proposed = network.wait_for("all proposals are decided", |log| {
        let proposed = log.events("dead-node proposed").count();
        (proposed > 0 && log.events("dead-node rejected").count() >= proposed).then_some(proposed)
    });
    println!("{proposed} proposals were rejected");
    for event in ["dead-node committed", "dead node confirmed"] {
        assert_eq!(network.log.events(event).count(), 0, "{event}");
    }
    assert_eq!(lives(&mut network, &processes, &all), before, "and nobody had to be reborn");
}

#[test]
fn what_a_member_says_of_its_links_and_of_others_shows_nobody_that_is_not_there() {
    let (mut network, name, key, runtime) = prepare();
    network.start_three_seeds();
    let peers = network.start_peers(3, &["--gossip-count", "0"]);
    network.wait_for_members(&peers);
    // Whoever dials it is sent on to ghosts, or is told of a life of which nobody else knows.
    let mut conduct = Conduct::default();
    conduct.answer = Box::new(|hello: &Hello, welcome: Welcome| match hello.purpose {
        Purpose::Link => {
            Answer::Refused(Refusal { reason: Refused::Full, others: (0..16).map(ghost).collect() })
        }
        Purpose::Probe => Answer::Welcome(welcome),
        _ => Answer::Welcome(Welcome { incarnation: u64::MAX / 2, ..welcome }),
    });
    let liar = runtime.block_on(Stub::member(&name, &key, conduct));
    let all: Vec<_> = peers.iter().copied().chain([liar.addr]).collect();
    let processes: Vec<_> = network.seeds().into_iter().chain(peers.clone()).collect();
    let before = lives(&mut network, &processes, &all);
    let neighbours: Vec<_> = (0..64).map(ghost).chain(peers.clone()).cycle().take(1_024).collect();
    let mut links = Vec::new();
    runtime.block_on(async {
        let mut lines = Vec::new();
        for seed in name.seeds() {
            lines.push(liar.call(*seed).await.unwrap());
        }
        for number in 1..=TRIES as u64 {
            for line in &mut lines {
                let neighbours = neighbours.clone();
                line.say(&Message::ToSeed(ToSeed::Links { number, neighbours })).await.unwrap();
            }
        }
        for line in &mut lines {
            line.list().await.unwrap();
        }
        // It links with all, as it says; each link is one.
        for peer in &peers {
            links.push(liar.dial(*peer, Purpose::Link).await.unwrap());
        }
    });
    // A newcomer finds its place among those that are there.
    let newcomer = network.start_peer(&["--gossip-count", "0"]);
    network.wait_for_overlay(&[&peers[..], &[newcomer]].concat());
    for seed in network.seeds() {
        let topology = get(&mut network, seed, "/topology");
        let nodes = topology["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 5, "{topology}");
        let liars = nodes.iter().find(|node| node["address"] == liar.addr.to_string()).unwrap();
        assert!(liars["degree"].as_u64().unwrap() <= 4, "{topology}");
        assert!(!topology.to_string().contains("10.9.9.9"), "{topology}");
    }
    for process in processes {
        let known = members(&mut network, process);
        assert!(known.keys().all(|peer| !peer.starts_with("10.9.9.9")), "{known:?}");
        for (peer, life) in &before {
            assert_eq!(known.get(peer), Some(life), "at {process}");
        }
    }
}

/// Records of which nothing is true: ghosts that live, and peers that are dead.
fn lies(number: usize, victims: &BTreeMap<String, (String, u64)>) -> Vec<(Addr, Record)> {
    let record =
        |incarnation, status| Record::plain(incarnation, status, incarnation, vec![0, 1, 2]);
    let alive = (ghost(number), record(1_700_000_000_000, Status::Alive));
    let buried = victims.iter().map(|(peer, (_, incarnation))| {
        // In its present life, and in one that would replace it.
        let later = u64::try_from(number % 2).unwrap();
        (peer.parse().unwrap(), record(incarnation + later, Status::Dead))
    });
    [alive].into_iter().chain(buried).collect()
}

/// Grants everything, and answers with lies.
async fn lie(mut line: Line, victims: BTreeMap<String, (String, u64)>, told: &AtomicUsize) {
    for number in 0.. {
        let Ok(message) = line.hear().await else { return };
        let records = lies(number, &victims);
        let answers = match message {
            Message::ToSeed(ToSeed::Register { request, .. }) => vec![
                ToPeer::Granted { request, votes: 3 },
                ToPeer::List { request, records: records.clone().into(), more: false },
            ],
            Message::ToSeed(ToSeed::Refresh { request, .. }) => {
                vec![ToPeer::List { request, records: records.clone().into(), more: false }]
            }
            _ => continue,
        };
        let updates = (0..TRIES).map(|number| ToPeer::Update(lies(number, &victims)));
        let said: Vec<_> = answers.into_iter().chain(updates).map(Message::ToPeer).collect();
        if line.say_all(&said).await.is_err() {
            return;
        }
        told.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_seed_that_lies_shows_no_peer_a_ghost_or_a_death() {
    let (mut network, name, key, runtime) = prepare();
    let seeds = network.seeds();
    // Two seeds are a quorum; the third has the key, and nobody has seen another at its address.
    seeds[..2].iter().for_each(|seed| network.start_seed(*seed));
    let peers = network.start_peers(3, &["--gossip-count", "0"]);
    let honest = [&seeds[..2], &peers].concat();
    let before = lives(&mut network, &honest, &peers);
    let victims = before.clone();
    let told = Arc::new(AtomicUsize::new(0));
    let tells = told.clone();
    let liar = runtime.block_on(async {
        let conduct = Conduct::of(Role::Seed, move |hello: Hello, line| {
            let (victims, told) = (victims.clone(), tells.clone());
            async move {
                if hello.purpose == Purpose::Membership {
                    lie(line, victims, &told).await;
                }
            }
        });
        Stub::start_with(&name, seeds[2], Some(fresh_security(&name, &key)), conduct).await
    });
    let all_told = || (told.load(Ordering::Relaxed) >= peers.len()).then_some(());
    wait_until(all_told).expect("all peers have heard the third seed");
    // One that asks it first, too.
    let newcomer = network.start_peer(&["--gossip-count", "0"]);
    let all = [&peers[..], &[newcomer]].concat();
    wait_until(|| (told.load(Ordering::Relaxed) > all.len()).then_some(())).expect("so has it");
    let after = lives(&mut network, &[&honest[..], &[newcomer]].concat(), &all);
    for (peer, life) in before {
        assert_eq!(after.get(&peer), Some(&life));
    }
    for event in ["dead node confirmed", "dead-node proposed", "suspected"] {
        assert_eq!(network.log.events(event).count(), 0, "{event}");
    }
    drop(liar);
}

/// Answers PING over a link, and does nothing else.
async fn idle(mut line: Line) {
    while let Ok(message) = line.hear().await {
        if let Message::Ping(number) = message {
            let _ = line.say(&Message::Pong(number)).await;
        }
    }
}

#[test]
fn sixty_links_that_do_nothing_but_answer_keep_nobody_from_hearing_everything() {
    let (mut network, name, key, runtime) = prepare();
    network.start_three_seeds();
    let options = ["--gossip-count", "30", "--gossip-interval", "100ms"];
    let peers = network.start_peers(4, &options);
    network.wait_for_members(&peers);
    network.wait_for_overlay(&peers);
    let target = peers[1];
    let idlers = runtime.block_on(async {
        let mut idlers = Vec::new();
        let mut linked = 0;
        for _ in 0..IDLE {
            let conduct = Conduct::of(Role::Peer, |_, line| idle(line));
            let stub = Stub::member(&name, &key, conduct).await;
            if let Ok(line) = stub.dial(target, Purpose::Link).await {
                tokio::spawn(idle(line));
                linked += 1;
            }
            idlers.push(stub);
        }
        println!("{linked} of {IDLE} links were let in");
        idlers
    });
    network.wait_for_messages(&peers, 30 * peers.len());
    for peer in &peers {
        let wrong = network.log.about(*peer, "suspected").count();
        assert_eq!(wrong, 0, "{peer} is suspected");
    }
    drop(idlers);
}

#[test]
fn a_member_that_breaks_each_link_is_not_dialled_without_a_pause() {
    let (mut network, name, key, runtime) = prepare();
    network.start_three_seeds();
    let peer = network.start_peer(&["--gossip-count", "0"]);
    network.wait_for_members(&[peer]);
    // It lets links come up and hangs up, and answers whoever looks whether it is there.
    let conduct = Conduct::of(Role::Peer, |_, line| async move { drop(line) });
    let breaker = runtime.block_on(Stub::member(&name, &key, conduct));
    let times = network.wait_for("several links", |log| {
        let up = log.events("neighbour up").filter(|line| line.addr == peer);
        let times: Vec<_> = up.map(|line| line.time).collect();
        (times.len() >= 5).then_some(times)
    });
    for three in times.windows(3) {
        let took = between(three[0], three[2]);
        assert!(took > Duration::from_secs(2), "three links within {took:?}");
    }
    drop(breaker);
}
