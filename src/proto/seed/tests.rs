//! The seed machine, input by input.

use super::*;
use crate::proto::config::Network;
use crate::proto::machine::OpenError;
use crate::proto::message::Welcome;

const NOW: Time = Time::from_millis(1_800_000_000_000);

fn seed_addr(number: u16) -> Addr {
    ([127, 0, 0, 1], 5000 + number).into()
}

fn peer_addr(number: u16) -> Addr {
    ([127, 0, 0, 1], 6000 + number).into()
}

/// A seed with its conversation partners played by the test. Seed 0 of `n` is the one under test.
struct Stage {
    seed: SeedMachine,
    now: Time,
    effects: Vec<Effect>,
    next: Conn,
}

impl Stage {
    fn new(n: u16) -> Self {
        let network = Network::new("test", (0..n).map(seed_addr));
        let seed = SeedMachine::new(SeedConfig::new(seed_addr(0), network), 1);
        let mut stage = Self { seed, now: NOW, effects: Vec::new(), next: 1 };
        stage.give(Input::Start);
        // All others are connected, both ways.
        for number in 1..n {
            let addr = seed_addr(number);
            let conn = stage.dialled(addr).expect("a seed dials the others at start");
            let welcome = Welcome { role: Role::Seed, from: addr, incarnation: 0, leaving: false };
            stage.give(Input::Opened { conn, welcome });
            stage.call(addr, Role::Seed, Purpose::Council);
        }
        stage.effects.clear();
        stage
    }

    /// Gives an input; what is to be made durable is durable at once.
    fn give(&mut self, input: Input) {
        let before = self.effects.len();
        self.seed.handle(self.now, input, &mut self.effects);
        let batches: Vec<u64> = self.effects[before..]
            .iter()
            .filter_map(|effect| match effect {
                Effect::Persist { batch, .. } => Some(*batch),
                _ => None,
            })
            .collect();
        for batch in batches {
            self.give(Input::Persisted { batch });
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.give(Input::Tick);
    }

    fn call(&mut self, from: Addr, role: Role, purpose: Purpose) -> Conn {
        self.next += 2;
        let conn = self.next;
        let hello = self.seed.config.network.hello(role, from, 1, purpose);
        self.give(Input::Incoming { conn, hello });
        conn
    }

    fn dialled(&self, addr: Addr) -> Option<Conn> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Open { conn, to, .. } if *to == addr => Some(*conn),
            _ => None,
        })
    }

    /// The connection on which a seed's word is believed: the one that was dialled to it.
    fn line_to(&self, number: u16) -> Conn {
        let addr = seed_addr(number);
        let line = |line: &Line| *line == Line::ToSeed(addr);
        self.seed.lines.iter().find(|(_, l)| line(l)).map(|(conn, _)| *conn).expect("connected")
    }

    fn said(&self, wanted: impl Fn(&Message) -> bool) -> usize {
        self.effects
            .iter()
            .filter(|effect| match effect {
                Effect::Send { message, .. } | Effect::SendMany { message, .. } => wanted(message),
                _ => false,
            })
            .count()
    }

    fn events(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        let event = |effect: &&Effect| matches!(effect, Effect::Log(event) if wanted(event));
        self.effects.iter().filter(event).count()
    }

    /// The probe of a peer under way ends.
    fn probe(&mut self, peer: Addr, result: Result<(Incarnation, bool), OpenError>) {
        let conn = self.dialled(peer).expect("the seed probes by itself");
        self.give(match result {
            Ok((incarnation, leaving)) => {
                let welcome = Welcome { role: Role::Peer, from: peer, incarnation, leaving };
                Input::Opened { conn, welcome }
            }
            Err(error) => Input::OpenFailed { conn, error },
        });
    }

    fn vote(&mut self, number: u16, accept: bool) {
        let ballot = self.seed.ballots_used;
        let conn = self.line_to(number);
        let message = Message::Vote { ballot, accept, reason: "test".to_owned(), known: 0 };
        self.give(Input::Received { conn, message });
    }

    fn member(&mut self, number: u16) {
        let voters = vec![0, 1];
        let record = Record { incarnation: 1, status: Status::Alive, at: 1, voters };
        let conn = self.line_to(1);
        let message = Message::Commit { ballot: 999, peer: peer_addr(number), record };
        self.give(Input::Received { conn, message });
        self.effects.clear();
    }

    fn report(&mut self, reporter: u16, dead: u16) -> Conn {
        let conn = self.call(peer_addr(reporter), Role::Peer, Purpose::Membership);
        let peer = peer_addr(dead);
        let message = Message::DeadNode { peer, incarnation: 1, text: "Dead Node".to_owned() };
        self.give(Input::Received { conn, message });
        conn
    }

    fn status(&self, number: u16) -> Option<Status> {
        self.seed.registry.get(&peer_addr(number)).map(|record| record.status)
    }
}

fn register(stage: &mut Stage) -> Conn {
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    let message = Message::Register { request: 7, incarnation: 9 };
    stage.give(Input::Received { conn, message });
    conn
}

#[test]
fn a_join_needs_a_dial_back_a_quorum_and_durability_at_a_quorum() {
    let mut stage = Stage::new(3);
    register(&mut stage);
    assert_eq!(stage.said(|m| matches!(m, Message::Propose { .. })), 1, "to all at once");
    stage.vote(1, true);
    assert_eq!(stage.status(0), None, "its own vote is not cast yet: one of three is no quorum");
    stage.probe(peer_addr(0), Ok((9, false)));
    assert_eq!(stage.status(0), Some(Status::Alive));
    let granted = |m: &Message| matches!(m, Message::Granted { request: 7, votes: 2 });
    assert_eq!(stage.said(granted), 0, "durable at one seed only");
    let ballot = stage.seed.ballots_used;
    let conn = stage.line_to(2);
    stage.give(Input::Received { conn, message: Message::Committed { ballot } });
    assert_eq!(stage.said(granted), 1, "durable at two of three");
    let committed = |e: &Event| matches!(e, Event::RegistrationCommitted { votes: 2, of: 3, .. });
    assert_eq!(stage.events(committed), 1);
}

#[test]
fn a_join_that_proves_another_incarnation_is_no_join() {
    let mut stage = Stage::new(1);
    register(&mut stage);
    stage.probe(peer_addr(0), Ok((8, false)));
    assert_eq!(stage.status(0), None);
    assert_eq!(stage.said(|m| matches!(m, Message::Denied { request: 7, .. })), 1);
}

#[test]
fn without_a_quorum_the_asker_is_told_within_a_second_who_did_not_answer() {
    let network = Network::new("test", (0..3).map(seed_addr));
    let seed = SeedMachine::new(SeedConfig::new(seed_addr(0), network), 1);
    let mut stage = Stage { seed, now: NOW, effects: Vec::new(), next: 1 };
    stage.give(Input::Start);
    register(&mut stage);
    stage.probe(peer_addr(0), Ok((9, false)));
    stage.pass(Duration::from_millis(999));
    let told = |m: &Message| match m {
        Message::Denied { reason, .. } => {
            reason.contains("1 of 3 seeds answered, 2 accepts needed")
                && reason.contains("127.0.0.1:5001,127.0.0.1:5002")
        }
        _ => false,
    };
    assert_eq!(stage.said(told), 1, "{:?}", stage.effects);
}

#[test]
fn a_peer_that_answers_is_never_removed_whoever_accuses_it() {
    let mut stage = Stage::new(3);
    (0..4).for_each(|number| stage.member(number));
    for reporter in 1..4 {
        stage.report(reporter, 0);
    }
    // The two other seeds are liars and accept; this seed's own probe is answered.
    stage.probe(peer_addr(0), Ok((1, false)));
    let no = |e: &Event| matches!(e, Event::Vote { accept: false, .. });
    assert_eq!(stage.events(no), 1, "its own vote is no");
    stage.vote(1, false);
    assert_eq!(stage.status(0), Some(Status::Alive));
    assert_eq!(stage.events(|e| matches!(e, Event::DeadNodeRejected { .. })), 1);
}

#[test]
fn a_death_needs_two_registered_reporters_and_the_own_failed_probe() {
    let mut stage = Stage::new(3);
    (0..3).for_each(|number| stage.member(number));
    stage.report(1, 0);
    stage.report(1, 0);
    stage.report(9, 0);
    assert!(stage.dialled(peer_addr(0)).is_none(), "one reporter, twice, and a stranger");
    stage.report(2, 0);
    stage.vote(1, true);
    assert_eq!(stage.status(0), Some(Status::Alive), "one accept of three");
    stage.probe(peer_addr(0), Err(OpenError::Unreachable));
    assert_eq!(stage.status(0), Some(Status::Dead));
}

#[test]
fn a_seed_that_cannot_look_does_not_vote_yes() {
    let mut stage = Stage::new(3);
    (0..3).for_each(|number| stage.member(number));
    stage.report(1, 0);
    stage.report(2, 0);
    stage.vote(1, true);
    // Out of descriptors: that says nothing about the peer.
    stage.probe(peer_addr(0), Err(OpenError::Local));
    assert_eq!(stage.events(|e| matches!(e, Event::Vote { accept: false, .. })), 1);
    assert_eq!(stage.status(0), Some(Status::Alive));
}

#[test]
fn an_incarnation_far_in_the_future_cannot_take_an_address_for_good() {
    let mut stage = Stage::new(1);
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    let message = Message::Register { request: 7, incarnation: u64::MAX };
    stage.give(Input::Received { conn, message });
    assert_eq!(stage.said(|m| matches!(m, Message::Denied { request: 7, .. })), 1);
    assert_eq!(stage.status(0), None);
}

#[test]
fn the_last_member_besides_the_dead_one_is_reporter_enough() {
    let mut stage = Stage::new(1);
    (0..3).for_each(|number| {
        let voters = vec![0];
        let record = Record { incarnation: 1, status: Status::Alive, at: 1, voters };
        stage.seed.registry.merge(peer_addr(number), record);
    });
    // Two of three are dead: the third can have no company, and says so of both.
    stage.report(2, 0);
    assert!(stage.dialled(peer_addr(0)).is_none(), "peer 1 could report too");
    stage.report(2, 1);
    stage.probe(peer_addr(0), Err(OpenError::TimedOut));
    stage.probe(peer_addr(1), Err(OpenError::TimedOut));
    assert_eq!((stage.status(0), stage.status(1)), (Some(Status::Dead), Some(Status::Dead)));
}

#[test]
fn a_leave_is_believed_only_from_the_peer_itself() {
    let mut stage = Stage::new(1);
    let record = Record { incarnation: 1, status: Status::Alive, at: 1, voters: vec![0] };
    stage.seed.registry.merge(peer_addr(0), record);
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    let leave = Message::Leave { request: 1, incarnation: 1 };
    stage.give(Input::Received { conn, message: leave.clone() });
    stage.probe(peer_addr(0), Ok((1, false)));
    assert_eq!(stage.status(0), Some(Status::Alive), "who answers there is not leaving");
    stage.give(Input::Received { conn, message: leave });
    stage.probe(peer_addr(0), Ok((1, true)));
    assert_eq!(stage.status(0), Some(Status::Left));
}

#[test]
fn votes_and_commits_from_whoever_calls_itself_a_seed_are_refused() {
    let record = Record { incarnation: 1, status: Status::Dead, at: 1, voters: vec![0, 1] };
    let forged = [
        Message::Vote { ballot: 1, accept: true, reason: String::new(), known: 0 },
        Message::Commit { ballot: 1, peer: peer_addr(0), record: record.clone() },
        Message::Records { records: vec![(peer_addr(0), record)], more: false, answer: false },
    ];
    for message in forged {
        let mut stage = Stage::new(3);
        stage.member(0);
        register(&mut stage);
        stage.effects.clear();
        // An impostor calls as seed 1: it is talked to, not listened to.
        let conn = stage.call(seed_addr(1), Role::Seed, Purpose::Council);
        stage.give(Input::Received { conn, message });
        assert_eq!(stage.status(0), Some(Status::Alive));
        let closed = |effect: &Effect| *effect == Effect::Close { conn };
        assert!(stage.effects.iter().any(closed), "and it is hung up on");
    }
}

#[test]
fn a_commit_that_names_no_quorum_of_distinct_seeds_is_refused() {
    for voters in [vec![0], vec![1, 1], vec![0, 7], vec![2, 1], vec![]] {
        let mut stage = Stage::new(3);
        let conn = stage.line_to(1);
        let record = Record { incarnation: 1, status: Status::Alive, at: 1, voters };
        let message = Message::Commit { ballot: 1, peer: peer_addr(0), record: record.clone() };
        stage.give(Input::Received { conn, message });
        assert_eq!(stage.status(0), None, "{record:?}");
        let refused = |e: &Event| matches!(e, Event::Note { what: "commit refused", .. });
        assert_eq!(stage.events(refused), 1);
    }
}

#[test]
fn a_transition_is_logged_once_whoever_proposes_it() {
    let mut stage = Stage::new(3);
    register(&mut stage);
    let record = Record { incarnation: 9, status: Status::Alive, at: 1, voters: vec![1, 2] };
    for number in [1, 2] {
        let conn = stage.line_to(number);
        let message = Message::Commit { ballot: 5, peer: peer_addr(0), record: record.clone() };
        stage.give(Input::Received { conn, message });
    }
    assert_eq!(stage.events(|e| matches!(e, Event::RegistrationCommitted { .. })), 1);
    let granted = |m: &Message| matches!(m, Message::Granted { request: 7, .. });
    assert_eq!(stage.said(granted), 1, "whoever asked here has what it wants");
    assert_eq!(stage.said(|m| matches!(m, Message::Committed { ballot: 5 })), 2);
    stage.probe(peer_addr(0), Ok((9, false)));
    assert_eq!(stage.events(|e| matches!(e, Event::RegistrationRejected { .. })), 0);
}

#[test]
fn a_seed_that_missed_a_commit_catches_up() {
    let mut stage = Stage::new(3);
    stage.member(0);
    let conn = stage.line_to(1);
    let message = Message::Compare { count: 0, digest: Registry::new().digest() };
    stage.give(Input::Received { conn, message });
    let all = |m: &Message| matches!(m, Message::Records { records, answer: true, .. } if records.len() == 1);
    assert_eq!(stage.said(all), 1);
}
