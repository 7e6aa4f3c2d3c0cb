//! Networks without seeds: lies that must not drop anybody, cuts that must heal, and what an operator
//! orders.

use std::collections::BTreeSet;
use std::time::Duration;

use rumormill::proto::config::{Membership, Network};
use rumormill::proto::machine::{Conn, Machine};
use rumormill::proto::message::{
    Addr, Answer, Detection, Incarnation, Members, Message, Purpose, Role, Welcome,
};
use rumormill::proto::order::Order;
use rumormill::proto::registry::{Record, Status};
use rumormill::proto::roles::{PeerCommand, PeerReply};
use rumormill::proto::time::Time;

use super::chaos::{brisk, for_all, peer_addr};
use super::check::Checks;
use super::node::{Change, Effect, Input, Kind, NodeId};
use super::world::World;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many peers that name the first, joined and at rest.
fn network(number: u64, peers: u8) -> (World, Vec<NodeId>) {
    let mut world = World::new(number);
    let mut checks = Checks::new(1);
    checks.open = true;
    world.checks = Some(Box::new(checks));
    let network = Network::without_seeds("simulated");
    let ids = (0..peers).map(|place| {
        let membership = Membership::Open(vec![peer_addr(0)]);
        let config = brisk(peer_addr(place), &network).membership(membership);
        let id = world.add(peer_addr(place), Kind::Peer(config));
        world.start(id);
        id
    });
    let ids = ids.collect();
    world.run_for(secs(5));
    (world, ids)
}

fn known_to(world: &World, id: NodeId) -> BTreeSet<Addr> {
    let peer = world.nodes[id].peer().unwrap();
    peer.members().members().map(|(addr, _)| *addr).collect()
}

fn all_know(world: &World, ids: &[NodeId], members: &BTreeSet<Addr>) -> bool {
    ids.iter().all(|id| known_to(world, *id) == *members)
}

fn addrs(places: std::ops::Range<u8>) -> BTreeSet<Addr> {
    places.map(peer_addr).collect()
}

fn violations(world: &World) -> Vec<String> {
    let checks = world.checks.as_ref().unwrap();
    checks.violations.iter().map(ToString::to_string).collect()
}

/// A member that says to everybody, over links and errands, that its victim is dead, and seen so by
/// others. (That somebody has left is believed of whoever may link.)
struct Slanderer {
    me: Addr,
    victim: Addr,
    network: Network,
    incarnation: Incarnation,
    victims_life: Incarnation,
    others: Vec<Addr>,
    opened: Vec<Conn>,
    used: Conn,
    next: Option<Time>,
}

impl Slanderer {
    fn new(place: u8, victim: (Addr, Incarnation), others: Vec<Addr>) -> Self {
        let (victim, victims_life) = victim;
        Self {
            me: peer_addr(place),
            victim,
            network: Network::without_seeds("simulated"),
            incarnation: 0,
            victims_life,
            others,
            opened: Vec::new(),
            used: 0,
            next: None,
        }
    }

    fn record(&self, incarnation: Incarnation, status: Status, now: Time) -> Record {
        Record::plain(incarnation, status, now.millis(), vec![0, 1])
    }

    fn lie(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (victim, incarnation) = (self.victim, self.victims_life);
        for conn in std::mem::take(&mut self.opened) {
            let lies = vec![
                (self.me, self.record(self.incarnation, Status::Alive, now)),
                (victim, self.record(incarnation, Status::Dead, now)),
            ];
            for message in [
                Message::Members(Members::Handshake(lies.clone())),
                Message::Detection(Detection::SuspectNotice { peer: victim, incarnation }),
                Message::Detection(Detection::Witness { peer: victim, incarnation }),
                Message::Members(Members::Changed(lies)),
            ] {
                effects.push(Effect::Send { conn, message });
            }
            effects.push(Effect::Close { conn });
        }
        for (place, to) in self.others.clone().into_iter().enumerate() {
            self.used += 2;
            let purpose = if place % 2 == 0 { Purpose::Link } else { Purpose::Errand };
            let hello = self.network.hello(Role::Peer, self.me, self.incarnation, purpose);
            effects.push(Effect::Open { conn: self.used, to, hello, within: secs(1) });
        }
        self.others.rotate_left(1);
        self.next = Some(now + Duration::from_millis(400));
    }
}

impl Machine for Slanderer {
    type Command = PeerCommand;
    type Reply = PeerReply;
    type Change = Change;

    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Start => {
                self.incarnation = now.millis();
                self.lie(now, effects);
            }
            Input::Incoming { conn, .. } => {
                let (from, incarnation) = (self.me, self.incarnation);
                let welcome = Welcome {
                    role: Role::Peer,
                    from,
                    incarnation,
                    leaving: false,
                    clock: 0,
                    identity: None,
                };
                effects.push(Effect::Answer { conn, answer: Answer::Welcome(welcome) });
            }
            Input::Opened { conn, .. } => self.opened.push(conn),
            Input::Closed { conn } => self.opened.retain(|open| *open != conn),
            Input::Received { message, .. } => {
                let records = match message {
                    Message::Members(Members::Handshake(records))
                    | Message::Members(Members::Changed(records)) => records,
                    Message::Members(Members::Peers { records, .. }) => records,
                    _ => return,
                };
                let of_victim = records.iter().filter(|(peer, _)| *peer == self.victim);
                let lives = of_victim.map(|(_, record)| record.incarnation);
                self.victims_life = lives.fold(self.victims_life, u64::max);
            }
            Input::Tick => self.lie(now, effects),
            _ => {}
        }
    }

    fn wake_at(&self) -> Option<Time> {
        self.next
    }
}

#[test]
fn lies_of_members_never_drop_a_peer_that_answers() {
    for_all(0..20, |number| {
        let (mut world, _) = network(number, 6);
        // From here on nobody may be dropped, by whomever.
        let since = world.now;
        world.checks.as_mut().unwrap().calm_since = Some(since);
        for place in 20..22 {
            let others = addrs(0..6).into_iter().collect();
            // A word of another life than the present one would count for nothing.
            let victim = world.nodes.iter().find(|node| node.addr == peer_addr(3)).unwrap();
            let victim = (victim.addr, victim.incarnation().unwrap());
            let liar = Slanderer::new(place, victim, others);
            world.add_script(peer_addr(place), Box::new(liar));
        }
        world.run_for(secs(60));
        assert_eq!(violations(&world), Vec::<String>::new(), "number {number}");
        let victim = world.nodes.iter().find(|node| node.addr == peer_addr(3)).unwrap();
        let risen = victim.incarnation().unwrap();
        assert!(risen > since.millis() - 5_000, "number {number}: nobody was ever lied to");
    });
}

#[test]
fn halves_that_took_each_other_for_dead_become_one() {
    let took = for_all(0..50, |number| {
        let (mut world, ids) = network(number, 8);
        assert!(all_know(&world, &ids, &addrs(0..8)), "number {number}: not joined");
        let (left, right) = ids.split_at(3);
        world.cut(left.iter().map(|id| 1 << id).sum());
        world.run_for(secs(40));
        assert!(
            all_know(&world, left, &addrs(0..3)),
            "number {number}: the others are not dropped"
        );
        assert!(
            all_know(&world, right, &addrs(3..8)),
            "number {number}: the others are not dropped"
        );
        world.heal();
        let healed = world.now;
        while !all_know(&world, &ids, &addrs(0..8)) {
            assert!(world.now.since(healed) < secs(60), "number {number}: still two");
            world.run_for(Duration::from_millis(100));
        }
        world.now.since(healed)
    });
    let slowest = took.iter().max();
    println!("one again after {slowest:?} at most");
    assert!(slowest <= Some(&secs(15)), "{took:?}");
}

#[test]
fn a_crash_is_dropped_everywhere_and_a_restart_is_back_everywhere() {
    for_all(0..50, |number| {
        let (mut world, ids) = network(number, 8);
        world.crash(ids[0]); // the one that all named
        world.run_for(secs(2));
        let others = addrs(1..8);
        assert!(all_know(&world, &ids[1..], &others), "number {number}: not dropped");
        world.start(ids[0]);
        // It names nobody but itself, so the others have to call it.
        world.run_for(secs(12));
        assert!(all_know(&world, &ids, &addrs(0..8)), "number {number}: not back");
        assert_eq!(violations(&world), Vec::<String>::new(), "number {number}");
    });
}

#[test]
fn an_operator_removes_and_lets_in_from_anywhere() {
    for_all(0..20, |number| {
        let (mut world, ids) = network(number, 6);
        let order = |world: &mut World, at: usize, order| {
            world.command(ids[at], PeerCommand::Operate { token: 1, order });
        };
        order(&mut world, 1, Order::Remove(peer_addr(4)));
        world.run_for(secs(20));
        let rest: Vec<NodeId> = ids.iter().copied().filter(|id| *id != ids[4]).collect();
        let mut others = addrs(0..6);
        others.remove(&peer_addr(4));
        assert!(all_know(&world, &rest, &others), "number {number}: it is still there");
        let out = world.nodes[ids[4]].peer().unwrap();
        assert!(
            out.neighbours().is_empty() && !out.is_ready(),
            "number {number}: it does not know: {:?}, links with {:?}, lists {:?}",
            out.readiness(),
            out.neighbours(),
            rest.iter()
                .map(|id| world.nodes[*id].peer().unwrap().members().get(&peer_addr(4)).cloned())
                .collect::<Vec<_>>()
        );
        order(&mut world, 2, Order::Admit(peer_addr(4)));
        world.run_for(secs(3));
        assert!(all_know(&world, &ids, &addrs(0..6)), "number {number}: it is not back");
        // One that does not run yet is a member until it has had time to start, and then again.
        order(&mut world, 3, Order::Admit(peer_addr(30)));
        world.run_for(secs(2));
        let mut awaited = addrs(0..6);
        awaited.insert(peer_addr(30));
        assert!(all_know(&world, &ids, &awaited), "number {number}: it is not awaited");
        world.run_for(secs(20));
        assert!(all_know(&world, &ids, &addrs(0..6)), "number {number}: awaited for ever");
    });
}
