//! After a cut that was longer than the suspect timeout the two sides come together by themselves,
//! and what was lost on the way reaches everybody within two rounds of anti-entropy.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rumormill::proto::config::PeerConfig;
use rumormill::proto::gossip::MessageId;
use rumormill::proto::message::Addr;
use rumormill::proto::planted::Flaw;
use rumormill::proto::roles::PeerCommand;

use super::chaos::{for_all, numbers, with_seeds};
use super::node::{Kind, NodeId};
use super::overlay;
use super::wire::Weather;
use super::world::World;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn addr(place: usize) -> Addr {
    let [high, low] = u16::try_from(place).unwrap().to_be_bytes();
    ([10, 1, high, low], 6000).into()
}

/// A network of peers with the settings that users have, joined and at rest.
fn network(number: u64, peers: usize) -> (World, Vec<NodeId>, Vec<NodeId>) {
    let (mut world, network, seeds) = with_seeds(number, 3, Flaw::None);
    let add = |(place, world): (usize, &mut World)| {
        let config = PeerConfig::new(addr(place), network.clone()).gossip_count(0);
        let id = world.add(addr(place), Kind::Peer(config));
        world.start(id);
        world.run_for(ms(20));
        id
    };
    let ids = (0..peers).map(|place| add((place, &mut world))).collect();
    world.run_for(ms(5_000));
    (world, seeds, ids)
}

fn publish(world: &mut World, id: NodeId, token: u64) {
    let payload = Bytes::from(format!("message {token}"));
    world.command(id, PeerCommand::Publish { token, payload });
}

/// What a peer holds.
fn held(world: &World, id: NodeId) -> BTreeSet<MessageId> {
    let peer = world.nodes[id].peer().unwrap();
    peer.rumors().list().iter().map(|(_, entry)| entry.id).collect()
}

fn all_have(world: &World, peers: &[NodeId], many: usize) -> bool {
    peers.iter().all(|id| world.nodes[*id].peer().unwrap().rumors().list().len() == many)
}

fn in_one_piece(world: &World, peers: &[NodeId]) -> bool {
    let links: Vec<(Addr, Vec<Addr>)> = peers
        .iter()
        .map(|id| (world.nodes[*id].addr, world.nodes[*id].peer().unwrap().neighbours()))
        .collect();
    overlay::components(&overlay::graph(&links)).len() == 1
}

fn bits(nodes: &[NodeId]) -> u64 {
    nodes.iter().map(|id| 1 << id).sum()
}

/// Who is cut off from whom, beside the peers from each other.
#[derive(Clone, Copy, Debug)]
enum Seeds {
    /// All seeds are on one side.
    OneSide,
    /// Each side has some.
    Split,
    /// Nobody reaches a seed, also after the cut between the peers.
    Nobody,
    /// Every peer reaches all seeds all the time.
    Everybody,
}

/// How long after a cut of 60 s everybody has everything and the overlay is in one piece.
fn heals_after(number: u64, scene: Seeds) -> Duration {
    let (mut world, seeds, peers) = network(number, 20);
    let (left, right) = peers.split_at(if number.is_multiple_of(2) { 10 } else { 3 });
    match scene {
        Seeds::OneSide => world.cut(bits(left)),
        Seeds::Split => world.cut(bits(left) | bits(&seeds[..1])),
        Seeds::Nobody => {
            world.cut(bits(left));
            world.cut(bits(&seeds));
        }
        Seeds::Everybody => world.cut_between(bits(left), bits(right)),
    }
    let mut token = 0;
    for _ in 0..60 {
        for side in [left, right] {
            token += 1;
            publish(&mut world, side[token as usize % side.len()], token);
        }
        world.run_for(ms(1_000));
    }
    let many = usize::try_from(token).unwrap();
    assert!(!all_have(&world, &peers, many), "number {number}: {scene:?}: it was no cut");
    world.heal();
    let healed = world.now;
    while !(all_have(&world, &peers, many) && in_one_piece(&world, &peers)) {
        assert!(
            world.now < healed + ms(60_000),
            "number {number}: {scene:?}: not healed after a minute: {:?} of {many} messages, one piece: {}",
            peers.iter().map(|id| held(&world, *id).len()).collect::<Vec<_>>(),
            in_one_piece(&world, &peers)
        );
        world.run_for(ms(100));
    }
    let took = world.now.since(healed);
    // And stays so: a message of either side still reaches everybody.
    for side in [left, right] {
        token += 1;
        publish(&mut world, side[0], token);
    }
    world.run_for(ms(15_000));
    assert!(all_have(&world, &peers, many + 2), "number {number}: {scene:?}: it fell apart again");
    let violations =
        world.checks.as_ref().map(|checks| checks.violations.clone()).unwrap_or_default();
    assert!(violations.is_empty(), "number {number}: {scene:?}: {violations:?}");
    took
}

#[test]
fn two_sides_cut_apart_for_a_minute_are_one_within_ten_seconds() {
    for scene in [Seeds::OneSide, Seeds::Split, Seeds::Nobody, Seeds::Everybody] {
        let mut took = for_all(numbers(10), |number| heals_after(number, scene));
        took.sort();
        let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
        println!(
            "{scene:?}: healed after {median:?} (median of {}), {slowest:?} (slowest)",
            took.len()
        );
        assert!(slowest <= Duration::from_secs(10), "{scene:?}: {took:?}");
    }
}

/// With a fifth of all that is sent lost: rounds of anti-entropy after the last message until
/// everybody has everything.
fn rounds_until_all_have_all(number: u64) -> u32 {
    let (mut world, _, peers) = network(number, 200);
    world.checks = None;
    // Whoever does not answer handshakes is voted dead, and then has no links for a while, so that it
    // cannot compare anything; what is measured here is comparisons.
    let (loss, latency, loses_handshakes) = (0.2, (ms(1), ms(50)), false);
    world.weather = Weather { loss, latency, loses_handshakes, ..Weather::default() };
    for token in 0..100 {
        publish(&mut world, peers[(token as usize * 37) % peers.len()], token);
        world.run_for(ms(50));
    }
    // Gossip has done what it can, and what it could not is no longer fresh.
    world.run_for(ms(3_000));
    let rounds = |world: &World| -> u64 {
        let begun = |id: &NodeId| world.nodes[*id].peer().unwrap().counters().sync.rounds;
        peers.iter().map(begun).sum()
    };
    let before = rounds(&world);
    // Intervals are up to a quarter longer than configured: then all peers have begun a round.
    for round in 0..10 {
        if all_have(&world, &peers, 100) {
            return round;
        }
        world.run_for(ms(12_500));
    }
    let lacking = peers.iter().filter(|id| held(&world, **id).len() < 100).count();
    panic!("number {number}: {lacking} peers lack something after {}", rounds(&world) - before);
}

#[test]
fn with_a_fifth_lost_everybody_has_everything_after_two_rounds() {
    let rounds = for_all(numbers(20), rounds_until_all_have_all);
    let took = |many: u32| rounds.iter().filter(|rounds| **rounds == many).count();
    let table: Vec<(u32, usize)> = (0..10).map(|many| (many, took(many))).collect();
    println!("rounds until everybody has everything, and in how many runs: {table:?}");
    let late = rounds.iter().filter(|rounds| **rounds > 2).count();
    assert!(
        late * 100 <= rounds.len(),
        "{late} of {} runs took more than two: {table:?}",
        rounds.len()
    );
}
