//! Wall clocks that disagree by up to a day harm nobody, and are told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rumormill::proto::config::{Membership, Network};
use rumormill::proto::planted::Flaw;
use rumormill::proto::roles::PeerCommand;

use super::chaos::{brisk, for_all, numbers, peer_addr, with_seeds};
use super::node::{Kind, NodeId};
use super::settle::lists;
use super::world::World;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const MINUTE: i64 = 60_000_000;

/// What clocks say too much, microseconds: the cases that were reported, and others at random.
fn offset(world: &mut World, number: u64, place: usize) -> i64 {
    let reported = [10, -10, -90, 20 * 60, 24 * 60, -24 * 60, 0];
    match number % 3 {
        0 => reported[(number as usize / 3 + place) % reported.len()] * MINUTE,
        1 if place == 2 => reported[number as usize / 3 % reported.len()] * MINUTE,
        1 => 0,
        _ => world.rng.random_range(-24 * 60 * MINUTE..24 * 60 * MINUTE),
    }
}

/// Peers whose clocks disagree, with three seeds or without.
fn network(number: u64, open: bool) -> (World, Vec<NodeId>) {
    let (mut world, network, seeds) = if open {
        (World::new(number), Network::without_seeds("simulated"), Vec::new())
    } else {
        with_seeds(number, 3, Flaw::None)
    };
    world.checks = None;
    world.trace.in_words();
    for seed in seeds {
        world.crash(seed);
        world.nodes[seed].ahead = offset(&mut world, number, seed);
        world.start(seed);
    }
    let mut peers = Vec::new();
    for place in 0..7 {
        let membership =
            if open { Membership::Open(vec![peer_addr(0)]) } else { Membership::Voted };
        let config = brisk(peer_addr(place), &network).membership(membership);
        let id = world.add(peer_addr(place), Kind::Peer(config));
        world.nodes[id].ahead = offset(&mut world, number, id);
        world.start(id);
        peers.push(id);
    }
    world.run_for(secs(6));
    (world, peers)
}

fn publish(world: &mut World, id: NodeId, token: u64) {
    let payload = Bytes::from(format!("said {token}"));
    world.command(id, PeerCommand::Publish { token, payload });
}

/// How often each payload was delivered at each peer.
fn deliveries(world: &World) -> BTreeMap<(String, String), usize> {
    let mut delivered = BTreeMap::new();
    for line in world.trace.words().lines().filter(|line| line.contains("-> Deliver(")) {
        let who = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let said = line.split("said ").nth(1).unwrap_or_default();
        let said = said.chars().take_while(char::is_ascii_digit).collect();
        *delivered.entry((who, said)).or_insert(0) += 1;
    }
    delivered
}

fn everybody_hears_everything(number: u64, open: bool) {
    let (mut world, peers) = network(number, open);
    let mut wrong = Vec::new();
    lists(&world, &mut wrong);
    assert!(wrong.is_empty(), "number {number}: {wrong:?}");
    for (token, peer) in (0..).zip(&peers) {
        publish(&mut world, *peer, token);
    }
    world.run_for(secs(2));
    // One that was cut off meanwhile gets by anti-entropy what it missed.
    let cut = peers[number as usize % peers.len()];
    world.cut(1 << cut);
    for (token, peer) in (100..).zip(&peers) {
        publish(&mut world, *peer, token);
    }
    world.run_for(secs(2));
    world.heal();
    // Over an hour and a half all are dropped, at about the same time everywhere, and none comes
    // again.
    world.run_for(secs(20));
    let tokens = (0..7).chain(100..107);
    let expected: Vec<(String, String)> = peers
        .iter()
        .flat_map(|id| {
            tokens.clone().map(|token| (world.nodes[*id].addr.to_string(), token.to_string()))
        })
        .collect();
    let delivered = deliveries(&world);
    let missing: Vec<_> = expected.iter().filter(|d| !delivered.contains_key(*d)).collect();
    let offsets: Vec<i64> = world.nodes.iter().map(|node| node.ahead / MINUTE).collect();
    assert!(missing.is_empty(), "number {number}, minutes {offsets:?}: lost {missing:?}");
    let twice: Vec<_> = delivered.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "number {number}, minutes {offsets:?}: twice {twice:?}");
    let told = world.trace.words().contains("clock skew");
    assert_eq!(told, offsets.iter().any(|o| *o != offsets[0]), "number {number}: {offsets:?}");
}

#[test]
fn with_clocks_up_to_a_day_off_everybody_hears_everything_and_is_told() {
    for_all(numbers(60), |number| everybody_hears_everything(number, false));
    for_all(numbers(60), |number| everybody_hears_everything(number, true));
}

#[test]
fn messages_grow_old_together_whatever_the_clocks_say() {
    for_all(0..6, |number| {
        let (mut world, peers) = network(number, false);
        for (token, peer) in (0..).zip(&peers) {
            publish(&mut world, *peer, token);
        }
        world.run_for(secs(60));
        let resent = |world: &World| -> u64 {
            let counters = |id: &NodeId| world.nodes[*id].peer().unwrap().counters().clone();
            peers.iter().map(|id| counters(id).sync.sent).sum()
        };
        let held = |world: &World| -> Vec<usize> {
            peers.iter().map(|id| world.nodes[*id].peer().unwrap().rumors().list().len()).collect()
        };
        assert_eq!(held(&world), vec![7; peers.len()], "number {number}");
        let before = resent(&world);
        world.run_for(secs(4_000));
        assert_eq!(held(&world), vec![0; peers.len()], "number {number}: an hour is over");
        assert_eq!(resent(&world), before, "number {number}: and nobody brought them back");
    });
}
