//! A large network: peers that join one after another, while nothing goes wrong.

use std::time::Duration;

use rumormill::proto::config::{Network, PeerConfig, SeedConfig};
use rumormill::proto::message::Addr;

use super::node::{Kind, NodeId, seed_addr};
use super::world::World;

/// Between the starts of two peers.
const STAGGER: Duration = Duration::from_millis(5);

pub fn peer_addr(place: u16) -> Addr {
    let [high, low] = place.to_be_bytes();
    ([10, 1, high, low], 6000).into()
}

/// Adds seeds and default peers, which have nothing to say, and starts them; the seeds first.
pub fn join(world: &mut World, seeds: u8, peers: u16) -> (Vec<NodeId>, Vec<NodeId>) {
    let network = Network::new("simulated", (0..seeds).map(seed_addr));
    let seeds = (0..seeds).map(|place| {
        let config = SeedConfig::new(seed_addr(place), network.clone());
        let id = world.add(config.me, Kind::Seed(config));
        world.start(id);
        id
    });
    let seeds = seeds.collect();
    world.run_for(Duration::from_secs(1));
    let peers = (0..peers).map(|place| {
        let config = PeerConfig::new(peer_addr(place), network.clone());
        let id = world.add(config.me, Kind::Peer(config.gossip_count(0)));
        world.start(id);
        world.run_for(STAGGER);
        id
    });
    (seeds, peers.collect())
}
