//! A peer that is told to stop leaves, however young it is, and what it wrote last stays.

use std::time::Duration;

use rand::RngExt;
use rumormill::proto::config::{Membership, Network};
use rumormill::proto::kv::replica::Request;
use rumormill::proto::kv::store::Store;
use rumormill::proto::kv::value::Value;
use rumormill::proto::planted::Flaw;
use rumormill::proto::registry::Status;
use rumormill::proto::roles::PeerCommand;

use super::chaos::{brisk, for_all, numbers, peer_addr, with_seeds};
use super::node::{Kind, NodeId};
use super::wire::Weather;
use super::world::World;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the seeds have of a peer that was told to stop in its first moments.
fn stops_young(number: u64) -> Option<Status> {
    let (mut world, network, seeds) = with_seeds(number, 3, Flaw::None);
    let ids: Vec<_> = (0..5)
        .map(|place| {
            let config = brisk(peer_addr(place), &network).gossip_count(0);
            world.add(peer_addr(place), Kind::Peer(config))
        })
        .collect();
    ids[..4].iter().for_each(|id| world.start(*id));
    world.run_for(ms(4_000));
    world.weather = Weather { latency: (ms(1), ms(40)), ..Weather::default() };
    if number % 4 == 1 {
        world.hang(seeds[number as usize / 4 % 3]);
    }
    world.start(ids[4]);
    let young = world.rng.random_range(0..200);
    world.run_for(ms(young));
    world.command(ids[4], PeerCommand::Leave);
    world.run_for(ms(2_000));
    assert!(!world.nodes[ids[4]].is_up(), "number {number}: it still runs after 2 s");
    seeds.iter().for_each(|seed| world.resume(*seed));
    world.run_for(ms(20_000));
    let status =
        world.nodes[seeds[0]].seed().unwrap().registry().get(&peer_addr(4)).map(|r| r.status);
    assert!(
        matches!(status, None | Some(Status::Left)),
        "number {number}: after {young} ms of life it was told to stop, and is {status:?}"
    );
    status
}

#[test]
fn a_peer_that_is_told_to_stop_in_its_first_moments_leaves() {
    let ended = for_all(numbers(300), stops_young);
    let left = ended.iter().filter(|status| status.is_some()).count();
    println!("{left} of {} had been registered when they left", ended.len());
    assert!(left > 0 || ended.len() < 100);
}

const PEERS: u8 = 5;

/// A network of replicas at rest, with seeds or without.
fn at_rest(number: u64) -> (World, Vec<NodeId>) {
    let (mut world, network) = if number.is_multiple_of(2) {
        let (world, network, _) = with_seeds(number, 3, Flaw::None);
        (world, network)
    } else {
        (World::new(number), Network::without_seeds("simulated"))
    };
    let ids = (0..PEERS).map(|place| {
        let membership = match network.has_seeds() {
            true => Membership::Voted,
            false => Membership::Open(vec![peer_addr(0)]),
        };
        let config = brisk(peer_addr(place), &network).gossip_count(0).membership(membership);
        let id = world.add(peer_addr(place), Kind::Peer(config));
        world.start(id);
        world.run_for(ms(200));
        id
    });
    let ids = ids.collect();
    world.run_for(ms(4_000));
    (world, ids)
}

fn store(world: &World, id: NodeId) -> &Store {
    world.nodes[id].peer().unwrap().replica().store()
}

/// One replica writes, knows that it is durable, and is told to stop; its disk is never seen again.
fn writes_and_leaves(number: u64) {
    let (mut world, ids) = at_rest(number);
    world.weather = Weather { latency: (ms(1), ms(60)), ..Weather::default() };
    let goes = ids[world.rng.random_range(0..ids.len())];
    // A young one has links of which the others have not made up their minds yet.
    if world.rng.random_bool(0.5) {
        world.crash(goes);
        world.lose_shelf(goes);
        world.run_for(ms(3_000));
        world.start(goes);
        let young = world.rng.random_range(50..600);
        world.run_for(ms(young));
    }
    let hangs = ids.iter().copied().find(|id| *id != goes && world.rng.random_bool(0.1));
    let neighbours = world.nodes[goes].peer().unwrap().neighbours();
    if neighbours.iter().all(|addr| hangs.is_some_and(|id| world.nodes[id].addr == *addr)) {
        return; // nobody could have it
    }
    hangs.iter().for_each(|id| world.hang(*id));
    let request = Request::Put("last".into(), Value::new(&number.into()).unwrap());
    world.command(goes, PeerCommand::Store { token: 1, request, seen: None });
    world.run_for(ms(20));
    assert_eq!(store(&world, goes).get("last").len(), 1, "number {number}: it was written");
    world.command(goes, PeerCommand::Leave);
    world.run_for(ms(3_000));
    assert!(!world.nodes[goes].is_up(), "number {number}");
    world.run_for(ms(5_000));
    for id in ids.into_iter().filter(|id| *id != goes && Some(*id) != hangs) {
        assert_eq!(store(&world, id).get("last").len(), 1, "number {number}: {id:?} lacks it");
    }
}

#[test]
fn what_a_replica_wrote_before_it_left_stays() {
    for_all(numbers(400), writes_and_leaves);
}
