//! Peers know what a quorum of the seeds knows, and nothing that only one of them says.

use std::time::Duration;

use rand::RngExt;
use rumormill::proto::machine::{Conn, Machine};
use rumormill::proto::message::{Addr, Answer, Message, Purpose, Role, ToPeer, ToSeed, Welcome};
use rumormill::proto::planted::Flaw;
use rumormill::proto::registry::{Record, Status};
use rumormill::proto::roles::{PeerCommand, PeerReply};
use rumormill::proto::time::Time;

use super::chaos::{brisk, for_all, numbers, peer_addr, with_seeds};
use super::node::{Change, Effect, Input, Kind, NodeId, seed_addr};
use super::settle::lists;
use super::world::World;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Twice the longest time between two refreshes.
const TWO_REFRESHES: Duration = secs(25);

fn network(number: u64, peers: u8, running: u8) -> (World, Vec<NodeId>, Vec<NodeId>) {
    // Links are plain in worlds of even numbers. Over encrypted ones a majority of seeds that has lost
    // its identities with its disks cannot check what it once signed, and an operator has to help.
    let (mut world, network, seeds) = with_seeds(2 * number, 3, Flaw::None);
    // That seeds forget what they answered for is the point of these runs.
    world.checks = None;
    let ids = (0..peers).map(|place| {
        let config = brisk(peer_addr(place), &network).gossip_count(0);
        let id = world.add(peer_addr(place), Kind::Peer(config));
        if place < running {
            world.start(id);
        }
        id
    });
    let ids = ids.collect();
    world.run_for(secs(5));
    (world, seeds, ids)
}

fn wrong_lists(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    lists(world, &mut found);
    found.iter().map(ToString::to_string).collect()
}

/// How long after the seeds are back each peer's list is the quorum's.
fn agrees_after(number: u64) -> Duration {
    let running = 4 + u8::try_from(number % 5).unwrap();
    let (mut world, seeds, peers) = network(number, running + 2, running);
    let lost = world.rng.random_range(2..=3);
    for _ in 0..world.rng.random_range(1..=2) {
        // Their disks go with them.
        seeds[..lost].iter().for_each(|seed| world.crash(*seed));
        for _ in 0..world.rng.random_range(1..=4) {
            let id = peers[world.rng.random_range(0..peers.len())];
            match world.rng.random_range(0..3) {
                0 if world.peers_up().len() > 2 => world.crash(id),
                1 if world.peers_up().len() > 2 && world.nodes[id].is_up() => {
                    world.command(id, PeerCommand::Leave);
                }
                _ => world.start(id),
            }
            let pause = world.rng.random_range(0..4_000);
            world.run_for(Duration::from_millis(pause));
        }
        seeds.iter().for_each(|seed| world.start(*seed));
        let pause = world.rng.random_range(0..3_000);
        world.run_for(Duration::from_millis(pause));
    }
    let back = world.now;
    while !wrong_lists(&world).is_empty() || world.now.since(back) < secs(5) {
        assert!(
            world.now.since(back) < TWO_REFRESHES,
            "number {number}: after two refreshes {:#?}",
            wrong_lists(&world)
        );
        world.run_for(Duration::from_millis(500));
    }
    world.now.since(back)
}

#[test]
fn when_seeds_lose_what_they_knew_each_peers_list_becomes_the_quorums() {
    let mut took = for_all(numbers(1_000), agrees_after);
    took.sort();
    println!(
        "{} runs: after {:?} (median), {:?} (slowest)",
        took.len(),
        took[took.len() / 2],
        took.last()
    );
}

/// A process that answers at the address of a seed that is dead: it grants what it is asked for, and
/// tells of members that never were and of the death of one that lives.
struct Impostor {
    me: Addr,
    list: Vec<(Addr, Record)>,
    callers: Vec<Conn>,
    next: Option<Time>,
}

fn ghost(place: u8, status: Status, now: Time) -> (Addr, Record) {
    let incarnation = now.millis();
    (peer_addr(place), Record::plain(incarnation, status, incarnation, vec![0, 1]))
}

impl Machine for Impostor {
    type Command = PeerCommand;
    type Reply = PeerReply;
    type Change = Change;

    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Incoming { conn, hello } => {
                let (from, incarnation) = (self.me, 0);
                let welcome = Welcome {
                    role: Role::Seed,
                    from,
                    incarnation,
                    leaving: false,
                    clock: 0,
                    identity: None,
                };
                effects.push(Effect::Answer { conn, answer: Answer::Welcome(welcome) });
                if hello.purpose == Purpose::Membership {
                    self.callers.push(conn);
                }
            }
            Input::Received { conn, message } => {
                let records = self.list.iter().cloned().collect();
                match message {
                    Message::ToSeed(ToSeed::Register { request, .. }) => {
                        let message = Message::ToPeer(ToPeer::Granted { request, votes: 2 });
                        effects.push(Effect::Send { conn, message });
                        let message =
                            Message::ToPeer(ToPeer::List { request, records, more: false });
                        effects.push(Effect::Send { conn, message });
                    }
                    Message::ToSeed(ToSeed::Refresh { request, .. }) => {
                        let message =
                            Message::ToPeer(ToPeer::List { request, records, more: false });
                        effects.push(Effect::Send { conn, message });
                    }
                    _ => {}
                }
            }
            Input::Closed { conn } => self.callers.retain(|caller| *caller != conn),
            _ => {}
        }
        if self.next.is_none_or(|next| next <= now) {
            self.next = Some(now + secs(1));
            for conn in &self.callers {
                let message = Message::ToPeer(ToPeer::Update(self.list.clone()));
                effects.push(Effect::Send { conn: *conn, message });
            }
        }
    }

    fn wake_at(&self) -> Option<Time> {
        self.next
    }
}

#[test]
fn an_impostor_at_a_dead_seeds_address_adds_nobody_and_buries_nobody() {
    for_all(0..100, |number| {
        let (mut world, seeds, peers) = network(number, 6, 5);
        world.crash(seeds[2]);
        let life = world.nodes[peers[1]].incarnation().unwrap();
        let mut list: Vec<_> =
            (20..25).map(|place| ghost(place, Status::Alive, world.now)).collect();
        let (victim, record) = ghost(1, Status::Dead, world.now);
        list.push((victim, Record { incarnation: life, ..record }));
        let impostor = Impostor { me: seed_addr(2), list, callers: Vec::new(), next: None };
        world.add_script(seed_addr(2), Box::new(impostor));
        // A newcomer that asks it first, and everybody at their refreshes.
        world.start(peers[5]);
        for _ in 0..60 {
            world.run_for(Duration::from_millis(500));
            for peer in world.peers_up() {
                let known = world.nodes[peer].peer().unwrap().members();
                let ghosts = (20..25).filter(|place| known.get(&peer_addr(*place)).is_some());
                assert_eq!(
                    ghosts.count(),
                    0,
                    "number {number}: ghosts at {}",
                    world.nodes[peer].addr
                );
                let newcomer = known.get(&victim).is_none();
                assert!(
                    newcomer || known.alive(&victim).is_some(),
                    "number {number}: {victim} is buried at {}",
                    world.nodes[peer].addr
                );
            }
        }
        assert_eq!(wrong_lists(&world), Vec::<String>::new(), "number {number}");
    });
}

#[test]
fn whoever_died_while_the_seeds_lost_everything_is_suspected_by_nobody_in_the_end() {
    let (mut world, seeds, peers) = network(1, 4, 4);
    seeds.iter().for_each(|seed| world.crash(*seed));
    world.crash(peers[3]);
    world.run_for(secs(4));
    let suspects = |world: &World| {
        let suspects = |id: &&NodeId| world.nodes[**id].peer().unwrap().suspects(&peer_addr(3));
        peers[..3].iter().filter(suspects).count()
    };
    assert!(suspects(&world) > 0, "nobody noticed");
    seeds.iter().for_each(|seed| world.start(*seed));
    world.run_for(TWO_REFRESHES);
    assert_eq!(suspects(&world), 0, "nobody votes on it, and nobody waits for it any more");
    assert_eq!(wrong_lists(&world), Vec::<String>::new());
}
