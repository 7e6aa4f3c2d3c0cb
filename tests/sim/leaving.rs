//! A peer that is told to stop leaves, however young it is.

use std::time::Duration;

use rand::RngExt;
use rumormill::proto::config::{Flaw, PeerConfig};
use rumormill::proto::machine::Command;
use rumormill::proto::registry::Status;

use super::chaos::{brisk, for_all, from_env, peer_addr, with_seeds};
use super::node::Kind;
use super::wire::Weather;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the seeds have of a peer that was told to stop in its first moments.
fn stops_young(number: u64) -> Option<Status> {
    let (mut world, network, seeds) = with_seeds(number, 3, Flaw::None);
    let ids: Vec<_> = (0..5)
        .map(|place| {
            let config = PeerConfig { gossip_count: 0, ..brisk(peer_addr(place), &network) };
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
    world.command(ids[4], Command::Leave);
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
    let runs = from_env("RUMORMILL_SIM_RUNS").unwrap_or(300);
    let ended = for_all(0..runs, stops_young);
    let left = ended.iter().filter(|status| status.is_some()).count();
    println!("{left} of {runs} had been registered when they left");
    assert!(left > 0);
}
