//! Replicas without a disk, each of whose lives is a name of its own: what that costs stays small.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;
use rumormill::proto::config::{Membership, Network};
use rumormill::proto::kv::clock::Clock;
use rumormill::proto::kv::replica::Request;
use rumormill::proto::kv::store::Store;
use rumormill::proto::kv::value::Value;
use rumormill::proto::roles::PeerCommand;

use super::chaos::{brisk, for_all, from_env, numbers, peer_addr};
use super::check::Checks;
use super::node::{Kind, NodeId};
use super::world::World;

/// Peers that keep their disks.
const STAY: u8 = 4;
/// Places of the others.
const PLACES: u8 = 8;
/// Keys that are written.
const KEYS: u64 = 200;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn network(number: u64, seal_from: usize) -> (World, Vec<NodeId>) {
    let mut world = World::new(number);
    let network = Network::without_seeds("simulated");
    let all: Vec<_> = (0..STAY + PLACES).map(peer_addr).collect();
    let ids = all.iter().map(|addr| {
        let membership = Membership::Fixed(all.clone());
        let config = brisk(*addr, &network).membership(membership).seal_from(seal_from);
        world.add(*addr, Kind::Peer(config))
    });
    let ids: Vec<NodeId> = ids.collect();
    ids[..STAY as usize].iter().for_each(|id| world.start(*id));
    world.run_for(ms(3_000));
    (world, ids)
}

fn store(world: &World, id: NodeId) -> &Store {
    world.nodes[id].peer().unwrap().replica().store()
}

/// Ends a life and begins the next one in its place, which writes or deletes once. Of those before it
/// some are caught up, and some never hear of anybody.
fn next_life(world: &mut World, id: NodeId, life: u64) {
    world.crash(id);
    world.lose_shelf(id);
    world.start(id);
    // No process comes twice in one millisecond, of which its name is made.
    let young = world.rng.random_range(1..300);
    world.run_for(ms(young));
    let key = format!("key {}", world.rng.random_range(0..KEYS)).into();
    let request = if world.rng.random_bool(0.2) {
        Request::Delete(key)
    } else {
        Request::Put(key, Value::new(&life.into()).unwrap())
    };
    if let Some(checks) = &mut world.checks {
        let (Request::Put(key, _) | Request::Delete(key) | Request::Get(key)) = &request else {
            return;
        };
        checks.stores.asks(life, key.clone(), None);
    }
    world.command(id, PeerCommand::Store { token: life, request, seen: None });
}

/// So many lives; the last peer with a disk is away for a third of them. Returns the most names that
/// any clock had.
fn live(number: u64, lives: u64, seal_from: usize, checked: bool) -> usize {
    let (mut world, ids) = network(number, seal_from);
    if checked {
        let mut checks = Checks::new(1);
        checks.open = true;
        world.checks = Some(Box::new(checks));
    }
    let (stay, places) = ids.split_at(STAY as usize);
    let away = stay[STAY as usize - 1];
    let mut longest = 0;
    for life in 0..lives {
        if life == lives / 3 {
            world.crash(away);
        }
        if life == lives / 3 * 2 {
            world.start(away);
        }
        let place = world.rng.random_range(0..places.len());
        next_life(&mut world, places[place], life);
        if life % 64 == 0 {
            longest = longest.max(store(&world, stay[0]).context().len());
        }
    }
    // Three looks for lives that are over, and what is left of what was said in between.
    world.run_for(ms(40_000));
    places.iter().for_each(|place| world.start(*place));
    world.run_for(ms(20_000));
    let first = store(&world, stay[0]);
    let shown: BTreeSet<_> = first.iter().flat_map(|(_, of)| of).map(|v| v.dot.clone()).collect();
    let nothing = Clock::new();
    for id in &ids {
        let store = store(&world, *id);
        assert_eq!(store.context(), first.context(), "number {number}");
        let theirs: BTreeSet<_> =
            store.iter().flat_map(|(_, of)| of).map(|v| v.dot.clone()).collect();
        assert_eq!(theirs, shown, "number {number}");
        assert_eq!(store.seals().lives(), first.seals().lives(), "number {number}");
    }
    if checked {
        let checks = world.checks.as_ref().unwrap();
        let found: Vec<String> = checks.violations.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "number {number}: {found:#?}");
        for id in &ids {
            assert_eq!(checks.stores.judge(store(&world, *id)), None, "number {number}");
            assert_eq!(store(&world, *id).snapshot(&nothing), first.snapshot(&nothing));
        }
    }
    println!(
        "{lives} lives: {} names at the end, {longest} at most, {} seals of {} lives, {} keys",
        first.context().len(),
        first.seals().len(),
        first.seals().lives(),
        first.keys().count(),
    );
    longest
}

#[test]
fn a_name_for_each_life_does_not_cost_for_ever() {
    let lives = from_env("RUMORMILL_LIVES").unwrap_or(600);
    let longest = live(1, lives, 64, false);
    // Those that live, those that ended since the last look but one, and as many as are ended at once.
    assert!(longest < 400, "{longest} names in one clock");
}

#[test]
fn what_ended_lives_wrote_is_judged_as_what_any_wrote() {
    for_all(numbers(20), |number| live(number, 60, 3, true));
}
