//! A crowd that joins in seconds and vanishes: it has to be gone again within a minute, and those who
//! were there before notice nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumormill::proto::config::Network;
use rumormill::proto::machine::{Conn, Machine};
use rumormill::proto::message::{
    Addr, Answer, Incarnation, Message, Purpose, Role, ToPeer, ToSeed, Welcome,
};
use rumormill::proto::roles::{PeerCommand, PeerReply};
use rumormill::proto::time::Time;

use super::chaos::from_env;
use super::large;
use super::node::{Change, Effect, Input, NodeId, seed_addr};
use super::world::{START, World};

/// Members that come for a moment: more take long to simulate.
const CROWD: u64 = 2_500;
/// Members that stay, and seeds.
const STAY: u16 = 8;
const SEEDS: u8 = 3;
/// So soon the crowd has to be gone.
const GONE: Duration = Duration::from_secs(60);

/// The least that passes for a peer: it registers, answers probes, and has no links.
struct Ghost {
    me: Addr,
    seed: Addr,
    network: Network,
    incarnation: Incarnation,
}

impl Machine for Ghost {
    type Command = PeerCommand;
    type Reply = PeerReply;
    type Change = Change;

    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        const LINE: Conn = 2;
        match input {
            Input::Start => {
                self.incarnation = now.millis();
                let hello =
                    self.network.hello(Role::Peer, self.me, self.incarnation, Purpose::Membership);
                let within = Duration::from_secs(1);
                effects.push(Effect::Open { conn: LINE, to: self.seed, hello, within });
            }
            Input::Opened { conn, .. } => {
                let (request, incarnation) = (1, self.incarnation);
                let message = Message::ToSeed(ToSeed::Register { request, incarnation });
                effects.push(Effect::Send { conn, message });
            }
            Input::Incoming { conn, .. } => {
                let welcome = Welcome {
                    role: Role::Peer,
                    from: self.me,
                    incarnation: self.incarnation,
                    leaving: false,
                    clock: 0,
                    identity: None,
                };
                effects.push(Effect::Answer { conn, answer: Answer::Welcome(welcome) });
            }
            Input::Received { conn, message: Message::ToPeer(ToPeer::Granted { .. }) } => {
                effects.push(Effect::Close { conn });
            }
            _ => {}
        }
    }

    fn wake_at(&self) -> Option<Time> {
        None
    }
}

fn ghost_addr(number: u64) -> Addr {
    let [.., high, low] = number.to_be_bytes();
    ([10, 9, high, low], 7000 + u16::from(low)).into()
}

/// Lets a crowd join; returns its nodes once all are members everywhere.
fn join(world: &mut World, seeds: &[NodeId]) -> Vec<NodeId> {
    let network = Network::new("simulated", (0..SEEDS).map(seed_addr));
    let mut crowd = Vec::new();
    for number in 0..from_env("RUMORMILL_CROWD").unwrap_or(CROWD) {
        let seed = seed_addr(u8::try_from(number % u64::from(SEEDS)).unwrap_or(0));
        let me = ghost_addr(number);
        let ghost = Ghost { me, seed, network: network.clone(), incarnation: 0 };
        crowd.push(world.add_script(me, Box::new(ghost)));
        if number % 20 == 0 {
            world.run_for(Duration::from_millis(10));
        }
    }
    let all = crowd.len() + usize::from(STAY);
    for _ in 0..50 {
        if seeds.iter().all(|seed| members(world, *seed) == all) {
            return crowd;
        }
        world.run_for(Duration::from_millis(100));
    }
    panic!("{} of {all} are members", members(world, seeds[0]));
}

fn members(world: &World, seed: NodeId) -> usize {
    world.nodes[seed].seed().map_or(0, |seed| seed.registry().size())
}

fn known(world: &World, peer: NodeId) -> usize {
    world.nodes[peer].peer().map_or(0, |peer| peer.members().size())
}

#[test]
fn thousands_that_vanish_at_once_are_gone_within_a_minute_and_the_rest_notice_nothing() {
    // Their process has ended, so that connections to it are refused; or its host is gone, so that
    // nothing answers.
    for silent in [false, true] {
        let (mut world, began) = (World::new(7), Instant::now());
        let (seeds, peers) = large::join(&mut world, SEEDS, STAY);
        world.run_for(Duration::from_secs(5));
        let lives: Vec<_> = peers.iter().map(|id| world.nodes[*id].incarnation()).collect();
        let crowd = join(&mut world, &seeds);
        let joined = world.now;
        for id in &crowd {
            if silent { world.hang(*id) } else { world.crash(*id) }
        }
        let mut said = 0;
        let stay = usize::from(STAY);
        let all_gone = |world: &World| {
            seeds.iter().all(|seed| members(world, *seed) == stay)
                && peers.iter().all(|peer| known(world, *peer) == stay)
        };
        while !all_gone(&world) {
            said += 1;
            let payload = Bytes::from(format!("still here {said}"));
            let from = peers[said % peers.len()];
            world.command(from, PeerCommand::Publish { token: said as u64, payload });
            world.run_for(Duration::from_secs(1));
            for id in &peers {
                let held = world.nodes[*id].peer().map_or(0, |peer| peer.rumors().list().len());
                assert_eq!(held, said, "silent: {silent}: each hears each within a second");
            }
            let took = world.now.since(joined);
            let left = members(&world, seeds[0]) - stay;
            assert!(took <= GONE, "silent: {silent}: {left} are left after {took:?}");
        }
        println!(
            "silent: {silent}: joined {:?} after the start, gone after {:?}; {:?} of real time",
            joined.since(START),
            world.now.since(joined),
            began.elapsed()
        );
        let after: Vec<_> = peers.iter().map(|id| world.nodes[*id].incarnation()).collect();
        assert_eq!(after, lives, "nobody had to refute anything");
        let addrs: BTreeSet<Addr> = peers.iter().map(|id| world.nodes[*id].addr).collect();
        for id in &peers {
            let neighbours = world.nodes[*id].peer().map(|peer| peer.neighbours());
            let neighbours = neighbours.unwrap_or_default();
            assert!(neighbours.len() >= 3, "silent: {silent}: {neighbours:?}");
            assert!(neighbours.iter().all(|peer| addrs.contains(peer)));
        }
    }
}
