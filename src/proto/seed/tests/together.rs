//! Tests of several real seeds that talk to each other over a wire that counts bytes.

use std::collections::{BTreeMap, VecDeque};

use super::super::proofs::statement;
use super::*;
use crate::net::codec;
use crate::proto::message::Council as CouncilMessage;
use crate::proto::registry::RETENTION;
use crate::proto::roles::Keep;
use crate::proto::signature::toy::Toy;

/// Several seeds, each with a disk. Their connections deliver at once and in order.
struct Council {
    seeds: Vec<Option<SeedMachine>>,
    disks: Vec<(Standing, Registry)>,
    now: Time,
    /// Both ends of each connection: seed and connection number here lead to seed and number there.
    wires: BTreeMap<(usize, Conn), (usize, Conn)>,
    inbox: VecDeque<(usize, Input<SeedCommand>)>,
    used: Conn,
    network: Network,
    bytes: usize,
    /// Marks of the founding on each disk.
    founders: Vec<Vec<u64>>,
    /// Copies that were set aside: the seed, and the number of records in its copy.
    aside: Vec<(usize, usize)>,
    events: Vec<(usize, Event)>,
    /// Whether links are encrypted and votes signed.
    signed: bool,
}

/// Who a seed is.
fn signer(id: usize) -> Toy {
    Toy(u8::try_from(id).unwrap())
}

impl Council {
    fn of(count: u16) -> Self {
        let disks = (0..count).map(|_| (Standing::Fresh, Registry::new())).collect();
        Self {
            seeds: (0..count).map(|_| None).collect(),
            disks,
            now: NOW,
            wires: BTreeMap::new(),
            inbox: VecDeque::new(),
            used: 1,
            network: Network::new("test", (0..count).map(seed_addr)),
            bytes: 0,
            founders: vec![Vec::new(); usize::from(count)],
            aside: Vec::new(),
            events: Vec::new(),
            signed: false,
        }
    }

    fn start(&mut self, id: usize) {
        let config = SeedConfig::new(seed_addr(u16::try_from(id).unwrap()), self.network.clone());
        let (standing, registry) = self.disks[id].clone();
        let records = registry.iter().map(|(peer, record)| (*peer, record.clone()));
        let founders = self.founders[id].clone();
        let mut seed = SeedMachine::new(config, 7).recovered(standing, founders, records);
        if self.signed {
            seed = seed.signing(Arc::new(signer(id)), []);
        }
        self.seeds[id] = Some(seed);
        self.inbox.push_back((id, Input::Start));
        self.run();
    }

    fn kill(&mut self, id: usize) {
        self.seeds[id] = None;
        let broken: Vec<_> = self
            .wires
            .iter()
            .filter(|(from, to)| from.0 == id || to.0 == id)
            .map(|(from, _)| *from)
            .collect();
        for (from, conn) in broken {
            self.wires.remove(&(from, conn));
            self.inbox.push_back((from, Input::Closed { conn }));
        }
        self.run();
    }

    fn lose_disk(&mut self, id: usize) {
        self.founders[id].clear();
        self.disks[id] = (Standing::Fresh, Registry::new());
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wake = self.seeds.iter().flatten().filter_map(Machine::wake_at).min();
            match wake {
                Some(at) if at <= end => self.now = at.max(self.now),
                _ => break,
            }
            for id in 0..self.seeds.len() {
                self.inbox.push_back((id, Input::Tick));
            }
            self.run();
        }
        self.now = end;
    }

    fn run(&mut self) {
        while let Some((id, input)) = self.inbox.pop_front() {
            let Some(seed) = &mut self.seeds[id] else { continue };
            let mut effects = Vec::new();
            seed.handle(self.now, input, &mut effects);
            for effect in effects {
                self.perform(id, effect);
            }
        }
    }

    fn perform(&mut self, id: usize, effect: Effect) {
        match effect {
            Effect::Open { conn, to, hello, .. } => self.open(id, conn, to, hello),
            Effect::Answer { conn, answer } => {
                if let Some((other, conn)) = self.wires.get(&(id, conn)).copied()
                    && let crate::proto::message::Answer::Welcome(mut welcome) = answer
                {
                    welcome.identity = self.signed.then(|| signer(id).identity());
                    self.inbox.push_back((other, Input::Opened { conn, welcome }));
                }
            }
            Effect::Send { conn, message } => self.send(id, conn, &message),
            Effect::SendMany { conns, message } => {
                conns.into_iter().for_each(|conn| self.send(id, conn, &message));
            }
            Effect::Persist { batch, changes } => self.persist(id, batch, changes),
            Effect::Log(event) => self.events.push((id, event)),
            Effect::Reply(never) => match never {},
            Effect::Close { .. } | Effect::Stopped => {}
        }
    }

    fn open(&mut self, id: usize, conn: Conn, to: Addr, hello: Hello) {
        let other = usize::from(to.port()) - 5000;
        let up = self.seeds.get(other).is_some_and(Option::is_some);
        if to.port() < 6000 && up {
            self.used += 2;
            self.wires.insert((id, conn), (other, self.used));
            self.wires.insert((other, self.used), (id, conn));
            self.inbox.push_back((other, Input::Incoming { conn: self.used, hello }));
        } else if to.port() < 6000 {
            let error = OpenError::Unreachable;
            self.inbox.push_back((id, Input::OpenFailed { conn, error }));
        } else {
            // Every member answers its probe.
            let welcome = Welcome {
                role: Role::Peer,
                from: to,
                incarnation: 1,
                leaving: false,
                clock: 0,
                identity: None,
            };
            self.inbox.push_back((id, Input::Opened { conn, welcome }));
        }
    }

    fn persist(&mut self, id: usize, batch: u64, changes: Vec<Keep>) {
        let (standing, registry) = &mut self.disks[id];
        for change in changes {
            match change {
                Keep::Record(peer, record) => {
                    registry.merge(peer, record);
                }
                Keep::Forget(peer, _) => {
                    registry.remove(&peer);
                }
                Keep::Standing(new) => *standing = new,
                Keep::Founders(marks) => self.founders[id].extend(marks),
                Keep::SetAside(_) => self.aside.push((id, registry.len())),
            }
        }
        self.inbox.push_back((id, Input::Persisted { batch }));
    }

    fn send(&mut self, id: usize, conn: Conn, message: &Message) {
        let mut frame = Vec::new();
        codec::encode(message, &mut frame).expect("it fits a frame");
        self.bytes += frame.len();
        if let Some((other, conn)) = self.wires.get(&(id, conn)).copied() {
            self.inbox.push_back((other, Input::Received { conn, message: message.clone() }));
        }
    }

    /// A peer asks a seed to be registered.
    fn register(&mut self, id: usize, peer: Addr) {
        self.used += 2;
        let conn = self.used;
        let hello = self.network.hello(Role::Peer, peer, 1, Purpose::Membership);
        self.inbox.push_back((id, Input::Incoming { conn, hello }));
        let message = Message::ToSeed(ToSeed::Register { request: 1, incarnation: 1 });
        self.inbox.push_back((id, Input::Received { conn, message }));
        self.run();
    }

    /// Seed `from` says something to seed `to` that its program would not say.
    fn lies(&mut self, from: usize, to: usize, message: CouncilMessage) {
        let is_its_word = |(here, there): (&(usize, Conn), &(usize, Conn))| {
            here.0 == to && there.0 == from && here.1.is_multiple_of(2)
        };
        let conn = self.wires.iter().find(|wire| is_its_word(*wire)).unwrap().0.1;
        let message = Message::Council(message);
        self.inbox.push_back((to, Input::Received { conn, message }));
        self.run();
    }

    fn seed(&self, id: usize) -> &SeedMachine {
        self.seeds[id].as_ref().expect("it runs")
    }

    fn standings(&self) -> Vec<Option<Standing>> {
        self.seeds.iter().map(|seed| seed.as_ref().map(SeedMachine::standing)).collect()
    }

    fn assert_equal(&self) {
        for seed in self.seeds.iter().flatten() {
            assert_eq!(seed.registry().len(), self.seed(0).registry().len());
            assert_eq!(seed.registry(), self.seed(0).registry());
        }
    }
}

fn address(number: u32) -> Addr {
    // The ports lie above those of seeds. One IP address has too few, so others follow.
    let [_, a, b, c] = (number / 50_000).to_be_bytes();
    let port = u16::try_from(6_000 + number % 50_000).unwrap();
    ([127, a, b, 1 + c], port).into()
}

fn alive(at: u64) -> Record {
    Record::plain(1, Status::Alive, at, vec![0, 1])
}

fn members(count: u32) -> Registry {
    let mut registry = Registry::new();
    (0..count).for_each(|number| registry.replace(address(number), alive(1)));
    registry
}

const VOTING: Option<Standing> = Some(Standing::Voting);

#[test]
fn a_quorum_of_new_seeds_founds_the_network_and_one_alone_does_not() {
    let mut council = Council::of(3);
    council.start(0);
    council.pass(Duration::from_secs(5));
    assert_eq!(council.standings(), [Some(Standing::Fresh), None, None]);
    council.start(1);
    council.pass(Duration::from_secs(5));
    assert_eq!(council.standings(), [VOTING, VOTING, None]);
    council.start(2);
    assert_eq!(council.standings(), [VOTING, VOTING, VOTING]);
    let mut single = Council::of(1);
    single.start(0);
    assert_eq!(single.standings(), [VOTING]);
    assert!(single.seed(0).is_voting());
}

#[test]
fn a_seed_whose_disk_was_lost_votes_only_when_it_has_read_enough_others() {
    let mut council = Council::of(3);
    council.disks = vec![(Standing::Voting, members(50)); 3];
    (0..3).for_each(|id| council.start(id));
    assert!((0..3).all(|id| council.seed(id).is_voting()));
    council.kill(0);
    council.kill(1);
    council.lose_disk(0);
    council.start(0);
    council.pass(Duration::from_secs(60));
    // Seed 1 alone knows what it answered for together with seed 0 before seed 0 lost its disk.
    assert_eq!(council.standings(), [Some(Standing::Fresh), None, VOTING]);
    assert_eq!(council.seed(0).registry().len(), 50, "it reads all the same");
    council.start(1);
    council.pass(Duration::from_secs(5));
    assert_eq!(council.standings(), [VOTING, VOTING, VOTING]);
    council.assert_equal();
}

#[test]
fn with_a_majority_of_disks_lost_what_is_left_is_taken_over_once_all_are_there() {
    // Over encrypted links nobody can check what is left: seeds 0 and 1 have no identity of then.
    for signed in [false, true] {
        let mut council = Council::of(3);
        council.signed = signed;
        council.disks[2] = (Standing::Voting, members(50));
        council.start(2);
        council.start(0);
        council.pass(Duration::from_secs(5));
        assert_eq!(council.standings(), [Some(Standing::Fresh), None, VOTING]);
        council.start(1);
        council.pass(Duration::from_secs(15));
        assert_eq!(council.standings(), [VOTING, VOTING, VOTING], "signed: {signed}");
        council.assert_equal();
        assert_eq!(council.seed(0).registry().len(), 50);
    }
}

#[test]
fn a_network_founded_anew_is_no_secret_and_what_the_earlier_one_held_is_kept_beside() {
    let noted = |council: &Council, what: &'static str| {
        let is = |event: &Event| matches!(event, Event::Note { what: told, .. } if *told == what);
        council.events.iter().filter(|(_, event)| is(event)).map(|(id, _)| *id).collect::<Vec<_>>()
    };
    let anew = "the network was founded anew without this seed";
    let earlier = "a seed holds records of an earlier network";
    let mut council = Council::of(3);
    (0..3).for_each(|id| council.start(id));
    assert_eq!(council.standings(), [VOTING, VOTING, VOTING]);
    (0..3).for_each(|id| council.kill(id));
    council.disks[2] = (Standing::Voting, members(5));
    // A seed that was only down, and missed a record, is no cause for alarm.
    council.disks[0] = (Standing::Voting, members(6));
    council.disks[1] = (Standing::Voting, members(6));
    (0..3).for_each(|id| council.start(id));
    council.pass(Duration::from_secs(10));
    assert_eq!((noted(&council, anew), noted(&council, earlier)), (vec![], vec![]));
    (0..3).for_each(|id| council.kill(id));
    // Two disks of three are lost, and the seeds that lost them meet first.
    (0..2).for_each(|id| council.lose_disk(id));
    council.now = council.now + Duration::from_secs(60);
    (0..2).for_each(|id| council.start(id));
    assert_eq!(council.standings(), [VOTING, VOTING, None]);
    council.start(2);
    council.pass(Duration::from_secs(10));
    assert_eq!(noted(&council, anew), [2]);
    assert_eq!(council.aside, [(2, 6)], "with all that it had");
    assert!(!noted(&council, earlier).is_empty(), "and the others say so, too");
    council.assert_equal();
    let told = noted(&council, earlier).len();
    council.kill(2);
    council.start(2);
    council.pass(Duration::from_secs(10));
    assert_eq!(noted(&council, anew), [2], "once");
    assert_eq!(noted(&council, earlier).len(), told);
}

#[test]
fn comparing_costs_what_differs_and_not_what_there_is() {
    let all = members(100_000);
    let mut council = Council::of(2);
    let (mut one, mut other) = (all.clone(), all);
    for number in 0..5 {
        one.replace(address(number * 20_000), alive(2));
        other.replace(address(200_000 + number), alive(3));
    }
    council.disks = vec![(Standing::Voting, one), (Standing::Voting, other)];
    council.start(0);
    council.start(1);
    council.pass(Duration::from_secs(1));
    council.assert_equal();
    assert_eq!(council.seed(0).registry().len(), 100_005);
    let repaired = council.bytes;
    assert!(repaired < 20_000, "{repaired} bytes for ten records of 100,000");
    council.bytes = 0;
    council.pass(Duration::from_secs(2));
    // Each seed sends one digest in two seconds.
    assert!((1..100).contains(&council.bytes), "{} bytes for nothing", council.bytes);
    println!("{repaired} bytes for ten of 100,000 records, {} for none", council.bytes);
}

#[test]
fn a_large_registry_moves_to_an_empty_seed_in_frames() {
    let mut council = Council::of(3);
    council.disks = vec![(Standing::Voting, members(60_000)); 3];
    council.lose_disk(1);
    (0..3).for_each(|id| council.start(id));
    council.pass(Duration::from_secs(1));
    council.assert_equal();
    assert_eq!(council.standings(), [VOTING, VOTING, VOTING]);
    assert_eq!(council.seed(1).registry().len(), 60_000);
}

#[test]
fn members_long_gone_are_dropped_once_all_seeds_know_and_come_not_back() {
    let mut council = Council::of(3);
    let died = NOW.millis();
    let mut gone = members(3);
    for (number, status) in [(0, Status::Dead), (1, Status::Left)] {
        gone.merge(address(number), Record { status, ..alive(died) });
    }
    // Seed 2 has missed that one member died and another left, and is down for two days.
    council.disks = vec![
        (Standing::Voting, gone.clone()),
        (Standing::Voting, gone),
        (Standing::Voting, members(3)),
    ];
    council.start(0);
    council.start(1);
    council.pass(RETENTION * 2);
    assert_eq!(council.seed(0).registry().len(), 3, "seed 2 could still bring them back");
    council.start(2);
    council.pass(Duration::from_secs(10));
    assert_eq!(council.seed(2).registry().size(), 1, "it hears of the deaths first");
    council.pass(Duration::from_secs(120));
    council.assert_equal();
    assert_eq!(council.seed(0).registry().len(), 1);
    assert!(council.disks.iter().all(|(_, registry)| registry.len() == 1));
    council.pass(RETENTION);
    assert_eq!(council.seed(2).registry().len(), 1);
    let deaths = council.events.iter().filter(|(id, event)| {
        *id < 2 && matches!(event, Event::DeadNodeCommitted { .. } | Event::LeaveCommitted { .. })
    });
    assert_eq!(deaths.count(), 0, "no seed tells twice what it has known");
}

/// A record of `peer`, and the signatures with which seed `by` vouches for it in the names of seeds
/// 0 and 1: its own and a forged one.
fn forged(network: &Network, by: usize, peer: Addr, status: Status) -> Record {
    let record = Record { status, ..alive(1) };
    let statement = statement(network, (peer, record.incarnation, status, None));
    Record { signatures: vec![signer(by).sign(&statement); 2], ..record }
}

#[test]
fn a_seed_that_lies_can_neither_invent_a_member_nor_bury_one_at_another_seed() {
    let mut council = Council::of(3);
    council.signed = true;
    (0..3).for_each(|id| council.start(id));
    council.register(0, address(1));
    assert!((0..3).all(|id| council.seed(id).registry().alive(&address(1)).is_some()));
    let (ghost, member) = (address(2), address(1));
    for (peer, status) in [(ghost, Status::Alive), (member, Status::Dead)] {
        for to in [0, 2] {
            let record = forged(&council.network, 1, peer, status);
            let unsigned = record.unsigned();
            for record in [record, unsigned] {
                let (records, wanted, done) = (vec![(peer, record.clone())], Vec::new(), None);
                council.lies(1, to, CouncilMessage::Records { records, wanted, done });
                let decision = Box::new(Decision { proposer: seed_addr(1), ..decision(peer) });
                council.lies(1, to, CouncilMessage::Commit { ballot: 9, peer, record, decision });
            }
        }
    }
    council.pass(Duration::from_secs(10));
    for id in [0, 2] {
        let registry = council.seed(id).registry();
        assert_eq!(registry.len(), 1, "seed {id} believes in a ghost");
        assert!(registry.alive(&member).is_some(), "seed {id} has buried a living member");
    }
    let told = |event: &Event| matches!(event, Event::Note { what: "commit refused", .. });
    assert!(council.events.iter().any(|(id, event)| *id == 0 && told(event)));
}

#[test]
fn an_accept_that_is_not_signed_counts_for_nothing() {
    let mut council = Council::of(3);
    council.signed = true;
    (0..3).for_each(|id| council.start(id));
    council.kill(2);
    // Seed 1 is not the one that seed 0 knows: its accepts are signed by nobody whom seed 0 knows.
    let seed = council.seeds[1].take().unwrap();
    council.seeds[1] = Some(seed.signing(Arc::new(Toy(77)), []));
    council.register(0, address(1));
    council.pass(Duration::from_secs(5));
    assert!(council.seed(0).registry().is_empty());
    let reason = council.events.iter().find_map(|(_, event)| match event {
        Event::RegistrationRejected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.is_some_and(|reason| reason.contains("has not signed it")));
}

#[test]
fn a_seed_catches_up_with_what_was_signed_by_one_that_it_never_met() {
    let mut council = Council::of(5);
    council.signed = true;
    (0..5).for_each(|id| council.start(id));
    (0..20).for_each(|number| council.register(0, address(number)));
    // Seed 0 has voted for all of them, and is gone before seed 4 comes back with an empty disk.
    council.kill(4);
    council.lose_disk(4);
    council.kill(0);
    council.start(4);
    council.pass(Duration::from_secs(20));
    assert_eq!(council.seed(4).registry().len(), 20);
    assert!(council.seed(4).is_voting());
}
