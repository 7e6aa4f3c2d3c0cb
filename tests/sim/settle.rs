//! What must hold in a network that had time to heal: invariants 3, 4, 5 and 7 of DESIGN.md,
//! section 7, and an overlay that is in one piece.

use std::collections::{BTreeMap, BTreeSet};

use rumormill::proto::kv::store::Store;
use rumormill::proto::message::{Addr, Incarnation};
use rumormill::proto::seed::SeedMachine;

use super::check::Violation;
use super::node::Kind;
use super::overlay;
use super::world::World;

/// What does not hold yet.
pub fn unsettled(world: &World) -> Vec<Violation> {
    let mut found = Vec::new();
    registries(world, &mut found);
    lists(world, &mut found);
    messages(world, &mut found);
    stores(world, &mut found);
    shape(world, &mut found);
    found
}

/// All seeds hold one registry, and its members are the peers that run, as they are now.
fn registries(world: &World, found: &mut Vec<Violation>) {
    let seeds: Vec<(Addr, &SeedMachine)> =
        world.nodes.iter().filter_map(|node| Some((node.addr, node.seed()?))).collect();
    let Some((first, seed)) = seeds.first() else { return };
    for (other, theirs) in &seeds[1..] {
        if theirs.registry() != seed.registry() {
            let differ: Vec<_> = world
                .nodes
                .iter()
                .map(|node| {
                    (node.addr, seed.registry().get(&node.addr), theirs.registry().get(&node.addr))
                })
                .filter(|(_, ours, theirs)| ours != theirs)
                .collect();
            let what = format!("holds another registry than {first}: {differ:?}");
            found.push(Violation { invariant: 3, whose: *other, what });
        }
    }
    for node in world.nodes.iter().filter(|node| node.is_peer()) {
        let member: Option<Incarnation> =
            seed.registry().alive(&node.addr).map(|record| record.incarnation);
        let runs = node.incarnation();
        if member == runs {
            continue;
        }
        let (invariant, what) = match (member, runs) {
            (Some(member), None) => (4, format!("is gone, and still a member in {member}")),
            (None, Some(runs)) => {
                let record = seed.registry().get(&node.addr);
                (3, format!("runs in {runs}, and is no member: {record:?}"))
            }
            (member, runs) => (3, format!("runs in {runs:?}, and is a member in {member:?}")),
        };
        found.push(Violation { invariant, whose: node.addr, what });
    }
}

/// Each peer's list holds just the members: those that a quorum of seeds has or, without seeds, the
/// peers that run, as they are now.
pub fn lists(world: &World, found: &mut Vec<Violation>) {
    let seeds: Vec<&SeedMachine> = world.nodes.iter().filter_map(|node| node.seed()).collect();
    let configured = world.nodes.iter().filter(|node| node.is_seed()).count();
    let mut expected: BTreeMap<Addr, Incarnation> = BTreeMap::new();
    if configured == 0 {
        let peers = world.nodes.iter().filter(|node| node.is_peer());
        expected.extend(peers.filter_map(|node| Some((node.addr, node.incarnation()?))));
    }
    // A liar may be registered, too.
    let known: BTreeSet<Addr> =
        seeds.iter().flat_map(|seed| seed.registry().members().map(|(addr, _)| *addr)).collect();
    for addr in known {
        let incarnation = |seed: &&SeedMachine| Some(seed.registry().alive(&addr)?.incarnation);
        let mut told: Vec<Incarnation> = seeds.iter().filter_map(incarnation).collect();
        told.sort_unstable();
        let quorum = configured / 2 + 1;
        let agreed = told.chunk_by(|one, other| one == other).find(|same| same.len() >= quorum);
        expected.extend(agreed.map(|same| (addr, same[0])));
    }
    for peer in world.nodes.iter().filter_map(|node| node.peer().map(|peer| (node.addr, peer))) {
        let (addr, peer) = peer;
        let members: BTreeMap<Addr, Incarnation> =
            peer.members().members().map(|(addr, record)| (*addr, record.incarnation)).collect();
        if members != expected {
            let what = format!("knows {members:?}, and there are {expected:?}");
            found.push(Violation { invariant: 3, whose: addr, what });
        }
    }
}

/// All replicas have seen the same, and show what follows from it.
fn stores(world: &World, found: &mut Vec<Violation>) {
    let Some(checks) = &world.checks else { return };
    let replicas: Vec<(Addr, &Store)> = world
        .nodes
        .iter()
        .filter_map(|node| Some((node.addr, node.peer()?.replica().store())))
        .collect();
    for (addr, store) in &replicas {
        if let Some(what) = checks.stores.judge(store) {
            found.push(Violation { invariant: 7, whose: *addr, what });
        }
        let (first, other) = replicas[0];
        if store.context() != other.context() {
            let (ours, theirs) = (store.context(), other.context());
            let what = format!("has seen {ours}, and {first} {theirs}");
            found.push(Violation { invariant: 7, whose: *addr, what });
        }
    }
}

/// What any running peer has, all have that were there when it was published.
fn messages(world: &World, found: &mut Vec<Violation>) {
    let Some(checks) = &world.checks else { return };
    let lives: Vec<_> = world.peers_up().into_iter().map(|id| (id, world.nodes[id].life)).collect();
    for (id, publication) in &checks.published {
        let has = |life| checks.delivered.get(life).is_some_and(|ids| ids.contains(id));
        let Some((holder, _)) = lives.iter().find(|life| has(life)) else { continue };
        for life in &lives {
            let was_there = checks.registered.get(life).is_some_and(|at| *at <= publication.at);
            // Whoever has not heard who that was before it lost its identity cannot know that the
            // message is its own.
            let is_lost = world.is_somebody_else_since(&publication.origin, publication.at);
            if was_there && !has(life) && !is_lost {
                let what = format!(
                    "does not have message {} of {}, published at {}, which {} has",
                    publication.number,
                    publication.origin,
                    publication.at,
                    world.nodes[*holder].addr
                );
                found.push(Violation { invariant: 5, whose: world.nodes[life.0].addr, what });
            }
        }
    }
}

/// One connected overlay in which both ends know of each link and nobody is short of them. That is
/// what invariant 5 rests on.
fn shape(world: &World, found: &mut Vec<Violation>) {
    let peers = world.neighbours_of(&world.peers_up());
    for (addr, neighbour) in overlay::one_sided(&peers) {
        if world.nodes.iter().any(|node| node.addr == neighbour && node.is_peer()) {
            let what = format!("names {neighbour} as a neighbour, which does not know of it");
            found.push(Violation { invariant: 5, whose: addr, what });
        }
    }
    let graph = overlay::graph(&peers);
    let components = overlay::components(&graph);
    if let Some((addr, _)) = peers.first()
        && components.len() > 1
    {
        let what = format!("the overlay is in pieces of {components:?}");
        found.push(Violation { invariant: 5, whose: *addr, what });
    }
    for ((addr, _), neighbours) in peers.iter().zip(&graph) {
        let links =
            world.nodes.iter().find(|node| node.addr == *addr).map(|node| match &node.kind {
                Kind::Peer(config) => config.topology.links,
                Kind::Seed(_) | Kind::Script => 0,
            });
        let wanted = links.unwrap_or(0).min(peers.len() - 1);
        if neighbours.len() < wanted {
            let what = format!("has {} of {wanted} links", neighbours.len());
            found.push(Violation { invariant: 5, whose: *addr, what });
        }
    }
}
