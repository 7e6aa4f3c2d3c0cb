//! What must hold in every state: invariants 1 to 4 of DESIGN.md, section 7.

use rumormill::proto::message::Addr;
use rumormill::proto::registry::{Record, Status};

use super::ledger::entry;
use super::scenario::{Fault, PEERS, SEEDS, Scenario};
use super::seat::{Seat, peer_addr, peer_at};
use super::world::{Life, World, quorum};

/// Each record names a quorum of distinct configured seeds, each of which was seen to accept it
/// after a probe of its own (invariant 1).
pub fn each_record_was_voted_for(world: &World) -> bool {
    let voted = |(addr, record): (&Addr, &Record)| {
        let Some(peer) = peer_at(*addr) else { return false };
        let distinct = record.voters.windows(2).all(|pair| pair[0] < pair[1]);
        let configured = record.voters.iter().all(|voter| usize::from(*voter) < SEEDS);
        let looked = world.ledger.voted_for(peer, record);
        distinct
            && configured
            && record.voters.len() >= quorum()
            && record.voters.iter().all(|voter| looked(*voter))
    };
    world.seats.iter().filter_map(|seat| seat.registry()).all(|registry| registry.iter().all(voted))
}

/// Whoever asks any quorum of the seeds that are relied on hears of what was granted, also if they
/// all end now and come back (invariant 2).
pub fn what_was_granted_is_kept(world: &World) -> bool {
    (0..PEERS).all(|peer| {
        let granted = world.ledger.granted(peer);
        let knows = |seat: &Seat| {
            let kept = entry(&seat.disk.records(), peer_addr(peer)) >= granted;
            let holds = seat.registry().is_none_or(|registry| {
                let record = registry.get(&peer_addr(peer));
                record.map(|record| (record.incarnation, record.status)) >= granted
            });
            kept && holds
        };
        let relied_on = world.seats.iter().filter(|seat| seat.is_relied_on());
        let ignorant = relied_on.filter(|seat| !knows(seat)).count();
        ignorant < quorum() && world.seats.iter().any(|seat| knows(seat))
    })
}

/// The registry follows from what was heard, in whatever order (invariant 3).
pub fn same_commits_make_same_registries(world: &World) -> bool {
    let running: Vec<&Seat> =
        world.seats.iter().map(AsRef::as_ref).filter(|seat| seat.machine.is_some()).collect();
    running.iter().enumerate().all(|(place, one)| {
        let others = running.iter().skip(place + 1);
        others
            .filter(|other| other.heard == one.heard)
            .all(|other| other.registry() == one.registry())
    })
}

/// Where nothing is under way and nothing broken, comparing makes all registries one, and what was
/// granted is in it (invariant 3).
pub fn all_are_alike_in_the_end(scenario: &Scenario, world: &World) -> bool {
    if !world.is_quiet() {
        return true;
    }
    let mut world = world.clone();
    world.settle(scenario);
    let first = world.seats[0].registry();
    let granted = |peer| world.listed(0, peer) >= world.ledger.granted(peer);
    world.seats.iter().all(|seat| seat.registry() == first) && (0..PEERS).all(granted)
}

/// The half of invariant 4 that can be broken at one moment; where probes of the living may be lost,
/// nothing is promised.
pub fn who_answers_is_not_dead(scenario: &Scenario, world: &World) -> bool {
    if scenario.faults.each[Fault::Blind as usize] > 0 {
        return true;
    }
    (0..PEERS).all(|peer| {
        let Some(Life { incarnation, .. }) = world.peers[peer] else { return true };
        let dead = Some((incarnation, Status::Dead));
        (0..SEEDS).all(|seed| world.listed(seed, peer) != dead)
    })
}
