//! Tests of the seed machine, one input at a time.

mod crowds;
mod identities;
mod together;

use std::sync::Arc;
use std::time::Duration;

use super::tree::Tree;
use super::*;
use crate::proto::config::Network;
use crate::proto::limits::Limit;
use crate::proto::message::{
    CastVote, Change, ChangeKind, Council, Incarnation, Message, Records, ToPeer, ToSeed,
};
use crate::proto::registry::{Record, Status};

type Effect = EffectOf<SeedMachine>;

const NOW: Time = Time::from_millis(1_800_000_000_000);

fn seed_addr(number: u16) -> Addr {
    ([127, 0, 0, 1], 5000 + number).into()
}

fn peer_addr(number: u16) -> Addr {
    ([127, 0, 0, 1], 6000 + number).into()
}

/// Seed 0 of `n` is under test; the test plays the other seeds and the peers.
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
        // All other seeds are connected, both ways.
        for number in 1..n {
            stage.connect(number);
            stage.hear_digest(number, &Registry::new(), Standing::Voting);
        }
        assert!(stage.seed.is_voting(), "it has read all others, who know nothing");
        stage.effects.clear();
        stage
    }

    fn connect(&mut self, number: u16) {
        let addr = seed_addr(number);
        let conn = self.dialled(addr).expect("a seed dials the others at start");
        let welcome = Welcome {
            role: Role::Seed,
            from: addr,
            incarnation: 0,
            leaving: false,
            clock: 0,
            identity: None,
        };
        self.give(Input::Opened { conn, welcome });
        self.call(addr, Role::Seed, Purpose::Council);
    }

    /// Gives the seed an input. Whatever it wants to be durable is durable at once.
    fn give(&mut self, input: Input<SeedCommand>) {
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

    /// Seed `number` tells the digest of this registry as its own.
    fn hear_digest(&mut self, number: u16, registry: &Registry, standing: Standing) {
        let conn = self.line_to(number);
        let (count, digest) = (registry.len() as u64, tree_of(registry).root(registry));
        self.hear(
            conn,
            Message::Council(Council::Compare { count, digest, standing, founders: Vec::new() }),
        );
    }

    fn hear(&mut self, conn: Conn, message: Message) {
        self.give(Input::Received { conn, message });
    }

    fn call(&mut self, from: Addr, role: Role, purpose: Purpose) -> Conn {
        self.next += 2;
        let conn = self.next;
        let hello = self.seed.roster.network().hello(role, from, 1, purpose);
        self.give(Input::Incoming { conn, hello });
        conn
    }

    fn dialled(&self, addr: Addr) -> Option<Conn> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Open { conn, to, .. } if *to == addr => Some(*conn),
            _ => None,
        })
    }

    /// The connection that seed 0 dialled to another seed, over which it believes that seed's word.
    fn line_to(&self, number: u16) -> Conn {
        let addr = seed_addr(number);
        let is_line = |conn: &Conn| self.seed.sessions.get(*conn) == Some(Session::ToSeed(addr));
        (0..1_000).find(is_line).expect("connected")
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

    /// Ends the probe of a peer that is under way.
    fn probe(&mut self, peer: Addr, result: Result<(Incarnation, bool), OpenError>) {
        let conn = self.dialled(peer).expect("the seed probes by itself");
        self.give(match result {
            Ok((incarnation, leaving)) => {
                let welcome = Welcome {
                    role: Role::Peer,
                    from: peer,
                    incarnation,
                    leaving,
                    clock: 0,
                    identity: None,
                };
                Input::Opened { conn, welcome }
            }
            Err(error) => Input::OpenFailed { conn, error },
        });
    }

    fn vote(&mut self, number: u16, accept: bool) {
        let ballot = self.seed.polls.counts().0;
        let conn = self.line_to(number);
        let (reason, signature) = ("test".to_owned(), None);
        let message =
            Message::Council(Council::Vote { ballot, accept, reason, known: 0, signature });
        self.give(Input::Received { conn, message });
    }

    fn member(&mut self, number: u16) {
        let voters = vec![0, 1];
        let record = Record::plain(1, Status::Alive, 1, voters);
        let conn = self.line_to(1);
        let peer = peer_addr(number);
        let message = Message::Council(Council::Commit {
            ballot: 999,
            peer,
            record,
            decision: Box::new(decision(peer)),
        });
        self.give(Input::Received { conn, message });
        self.effects.clear();
    }

    fn report(&mut self, reporter: u16, dead: u16) -> Conn {
        let conn = self.call(peer_addr(reporter), Role::Peer, Purpose::Membership);
        let peer = peer_addr(dead);
        let message = Message::ToSeed(ToSeed::DeadNode {
            peer,
            incarnation: 1,
            text: "Dead Node".to_owned(),
        });
        self.give(Input::Received { conn, message });
        conn
    }

    fn status(&self, number: u16) -> Option<Status> {
        self.seed.registry().get(&peer_addr(number)).map(|record| record.status)
    }
}

fn tree_of(registry: &Registry) -> Tree {
    let mut tree = Tree::default();
    registry.iter().for_each(|(peer, _)| tree.touch(peer));
    tree
}

fn commit(ballot: u64, record: Record) -> Message {
    let peer = peer_addr(0);
    Message::Council(Council::Commit { ballot, peer, record, decision: Box::new(decision(peer)) })
}

fn decision(peer: Addr) -> Decision {
    let kind = ChangeKind::Join;
    let change =
        Change { kind, peer, incarnation: 1, at: 1, reporters: Vec::new(), identity: None };
    let vote = CastVote { seed: seed_addr(1), accept: true, reason: "test".to_owned() };
    let proposer = seed_addr(1);
    Decision { change, proposer, decided: 2, votes: vec![vote], committed: true }
}

fn register(stage: &mut Stage) -> Conn {
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    let message = Message::ToSeed(ToSeed::Register { request: 7, incarnation: 9 });
    stage.give(Input::Received { conn, message });
    conn
}

#[test]
fn a_join_needs_a_dial_back_a_quorum_and_durability_at_a_quorum() {
    let mut stage = Stage::new(3);
    register(&mut stage);
    assert_eq!(
        stage.said(|m| matches!(m, Message::Council(Council::Propose { .. }))),
        1,
        "to all at once"
    );
    stage.vote(1, true);
    assert_eq!(stage.status(0), None, "its own vote is not cast yet: one of three is no quorum");
    stage.probe(peer_addr(0), Ok((9, false)));
    assert_eq!(stage.status(0), Some(Status::Alive));
    let granted =
        |m: &Message| matches!(m, Message::ToPeer(ToPeer::Granted { request: 7, votes: 2 }));
    assert_eq!(stage.said(granted), 0, "durable at one seed only");
    let ballot = stage.seed.polls.counts().0;
    let conn = stage.line_to(2);
    stage.give(Input::Received { conn, message: Message::Council(Council::Committed { ballot }) });
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
    assert_eq!(stage.said(|m| matches!(m, Message::ToPeer(ToPeer::Denied { request: 7, .. }))), 1);
}

#[test]
fn without_a_quorum_the_asker_is_told_within_a_second_who_did_not_answer() {
    let network = Network::new("test", (0..3).map(seed_addr));
    let seed = SeedMachine::new(SeedConfig::new(seed_addr(0), network), 1);
    let mut stage = Stage { seed, now: NOW, effects: Vec::new(), next: 1 };
    stage.give(Input::Start);
    register(&mut stage);
    stage.pass(Duration::from_millis(500));
    stage.pass(Duration::from_millis(499));
    let told = |m: &Message| match m {
        Message::ToPeer(ToPeer::Denied { reason, .. }) => {
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
    // This seed's own probe is answered, so it votes no. One more no rejects the death.
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
    // The seed is out of descriptors, which says nothing about the peer.
    stage.probe(peer_addr(0), Err(OpenError::Local));
    assert_eq!(stage.events(|e| matches!(e, Event::Vote { accept: false, .. })), 1);
    assert_eq!(stage.status(0), Some(Status::Alive));
}

#[test]
fn an_incarnation_far_in_the_future_cannot_take_an_address_for_good() {
    let mut stage = Stage::new(1);
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    let message = Message::ToSeed(ToSeed::Register { request: 7, incarnation: u64::MAX });
    stage.give(Input::Received { conn, message });
    assert_eq!(stage.said(|m| matches!(m, Message::ToPeer(ToPeer::Denied { request: 7, .. }))), 1);
    assert_eq!(stage.status(0), None);
}

#[test]
fn the_last_member_besides_the_dead_one_is_reporter_enough() {
    let mut stage = Stage::new(1);
    (0..3).for_each(|number| {
        let voters = vec![0];
        let record = Record::plain(1, Status::Alive, 1, voters);
        stage.seed.book.registry_mut().merge(peer_addr(number), record);
    });
    // Two of three members are dead. The third cannot have a second reporter, and reports both.
    stage.report(2, 0);
    assert!(stage.dialled(peer_addr(0)).is_none(), "peer 1 could report too");
    stage.report(2, 1);
    stage.probe(peer_addr(0), Err(OpenError::TimedOut));
    stage.probe(peer_addr(1), Err(OpenError::TimedOut));
    // Two accused members are no wave, so one probe of each decides.
    assert_eq!((stage.status(0), stage.status(1)), (Some(Status::Dead), Some(Status::Dead)));
}

#[test]
fn a_leave_is_believed_only_from_the_peer_itself() {
    let mut stage = Stage::new(1);
    let record = Record::plain(1, Status::Alive, 1, vec![0]);
    stage.seed.book.registry_mut().merge(peer_addr(0), record);
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    let leave = Message::ToSeed(ToSeed::Leave { request: 1, incarnation: 1 });
    stage.give(Input::Received { conn, message: leave.clone() });
    stage.probe(peer_addr(0), Ok((1, false)));
    assert_eq!(stage.status(0), Some(Status::Alive), "who answers there is not leaving");
    stage.give(Input::Received { conn, message: leave });
    stage.probe(peer_addr(0), Ok((1, true)));
    assert_eq!(stage.status(0), Some(Status::Left));
}

#[test]
fn votes_and_commits_from_whoever_calls_itself_a_seed_are_refused() {
    let record = Record::plain(1, Status::Dead, 1, vec![0, 1]);
    let forged = [
        Message::Council(Council::Vote {
            ballot: 1,
            accept: true,
            reason: String::new(),
            known: 0,
            signature: None,
        }),
        commit(1, record.clone()),
        Message::Council(Council::Records {
            records: vec![(peer_addr(0), record)],
            wanted: Vec::new(),
            done: None,
        }),
    ];
    for message in forged {
        let mut stage = Stage::new(3);
        stage.member(0);
        register(&mut stage);
        stage.effects.clear();
        // An impostor calls as seed 1. The seed answers it, and believes nothing it says.
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
        let record = Record::plain(1, Status::Alive, 1, voters);
        let message = commit(1, record.clone());
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
    let record = Record::plain(9, Status::Alive, 1, vec![1, 2]);
    for number in [1, 2] {
        let conn = stage.line_to(number);
        let message = commit(5, record.clone());
        stage.give(Input::Received { conn, message });
    }
    assert_eq!(stage.events(|e| matches!(e, Event::RegistrationCommitted { .. })), 1);
    let granted = |m: &Message| matches!(m, Message::ToPeer(ToPeer::Granted { request: 7, .. }));
    assert_eq!(stage.said(granted), 1, "whoever asked here has what it wants");
    assert_eq!(stage.said(|m| matches!(m, Message::Council(Council::Committed { ballot: 5 }))), 2);
    stage.probe(peer_addr(0), Ok((9, false)));
    assert_eq!(stage.events(|e| matches!(e, Event::RegistrationRejected { .. })), 0);
}

/// Another seed proposes deaths on the seeds' own evidence, so that no peer has to report.
fn accuse(stage: &mut Stage, numbers: std::ops::Range<u16>) {
    let conn = stage.line_to(1);
    for number in numbers {
        let change = Change {
            kind: ChangeKind::Dead,
            peer: peer_addr(number),
            incarnation: 1,
            at: 3,
            reporters: vec![seed_addr(1)],
            identity: None,
        };
        stage.hear(
            conn,
            Message::Council(Council::Propose { ballot: 100 + u64::from(number), change }),
        );
        stage.probe(peer_addr(number), Err(OpenError::TimedOut));
    }
}

fn accepts(message: &Message) -> bool {
    matches!(message, Message::Council(Council::Vote { accept: true, .. }))
}

#[test]
fn in_a_wave_each_death_is_confirmed_by_a_second_probe() {
    let mut stage = Stage::new(3);
    (0..9).for_each(|number| stage.member(number));
    accuse(&mut stage, 0..3);
    assert_eq!(stage.said(accepts), 3, "a third of the members may die at once");
    accuse(&mut stage, 3..5);
    assert_eq!(stage.said(accepts), 3, "more is a wave: one probe is not enough");
    stage.effects.clear();
    stage.pass(Duration::from_secs(1));
    stage.probe(peer_addr(3), Ok((1, false)));
    stage.probe(peer_addr(4), Err(OpenError::TimedOut));
    assert_eq!(stage.said(accepts), 1, "only whoever does not answer the second one");
    let refuses = |m: &Message| {
        matches!(m, Message::Council(Council::Vote { accept: false, ballot: 103, .. }))
    };
    assert_eq!(stage.said(refuses), 1);
}

#[test]
fn a_report_on_somebody_unknown_is_answered_and_logged() {
    let mut stage = Stage::new(3);
    stage.member(0);
    stage.report(0, 7);
    let answer = |m: &Message| matches!(m, Message::ToPeer(ToPeer::NoMember { peer }) if *peer == peer_addr(7));
    assert_eq!(stage.said(answer), 1);
    let noted = |e: &Event| matches!(e, Event::Note { what: "dead-node report refused", .. });
    assert_eq!(stage.events(noted), 1);
}

#[test]
fn two_crashes_in_a_small_network_are_no_wave() {
    let mut stage = Stage::new(3);
    (0..4).for_each(|number| stage.member(number));
    accuse(&mut stage, 0..2);
    assert_eq!(stage.said(accepts), 2, "each is judged by one look");
}

#[test]
fn in_a_wave_a_refused_connection_is_looked_at_twice_without_a_pause() {
    let mut stage = Stage::new(3);
    (0..6).for_each(|number| stage.member(number));
    accuse(&mut stage, 0..2);
    let (kind, peer, incarnation) = (ChangeKind::Dead, peer_addr(2), 1);
    let change =
        Change { kind, peer, incarnation, at: 3, reporters: vec![seed_addr(1)], identity: None };
    stage.effects.clear();
    let conn = stage.line_to(1);
    stage.hear(conn, Message::Council(Council::Propose { ballot: 104, change }));
    stage.probe(peer_addr(2), Err(OpenError::Unreachable));
    assert_eq!(stage.said(accepts), 0, "a wave");
    stage.probe(peer_addr(2), Err(OpenError::Unreachable));
    assert_eq!(stage.said(accepts), 1, "and no second has passed");
}

#[test]
fn a_peer_that_accuses_everybody_fills_no_table() {
    let mut stage = Stage::new(3);
    (0..400).for_each(|number| stage.member(number));
    (0..399).for_each(|number| {
        stage.report(399, number);
    });
    assert_eq!(stage.seed.cases.counts().0, 256);
    let dropped = |e: &Event| matches!(e, Event::OverLimit { limit: Limit::Reports, .. });
    assert_eq!(stage.events(dropped), 399 - 256, "what is dropped is said");
    stage.pass(Duration::from_secs(61));
    assert_eq!(stage.seed.cases.counts(), (0, 0));
}

#[test]
fn a_seed_with_an_empty_disk_waits_to_hear_enough_others_before_it_votes() {
    let network = Network::new("test", (0..5).map(seed_addr));
    let seed = SeedMachine::new(SeedConfig::new(seed_addr(0), network), 1);
    let mut stage = Stage { seed, now: NOW, effects: Vec::new(), next: 1 };
    stage.give(Input::Start);
    for number in 1..5 {
        stage.connect(number);
    }
    stage.hear_digest(1, &Registry::new(), Standing::Voting);
    stage.hear_digest(2, &Registry::new(), Standing::Voting);
    stage.hear_digest(3, &Registry::new(), Standing::Fresh);
    assert_eq!(stage.seed.standing(), Standing::Fresh, "two that know; three of five are needed");
    register(&mut stage);
    assert!(stage.dialled(peer_addr(0)).is_none(), "it does not even look");
    let refuses = |m: &Message| matches!(m, Message::Council(Council::Vote { .. }));
    stage.hear_digest(4, &Registry::new(), Standing::Voting);
    assert_eq!(stage.seed.standing(), Standing::Voting);
    stage.probe(peer_addr(0), Ok((9, false)));
    assert_eq!(stage.said(refuses), 0, "what waited is judged now");
    assert_eq!(stage.seed.polls.counts().1, 1);
}

#[test]
fn an_even_number_of_seeds_is_warned_of() {
    for (n, expected) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let network = Network::new("test", (0..n).map(seed_addr));
        let seed = SeedMachine::new(SeedConfig::new(seed_addr(0), network), 1);
        let mut stage = Stage { seed, now: NOW, effects: Vec::new(), next: 1 };
        stage.give(Input::Start);
        let warned = |e: &Event| matches!(e, Event::Note { what: "even number of seeds", .. });
        assert_eq!(stage.events(warned), expected, "{n} seeds");
    }
}

/// The lists that were sent, with the connection of each.
fn lists(stage: &Stage) -> Vec<(Conn, Records)> {
    let list = |effect: &Effect| match effect {
        Effect::Send { conn, message: Message::ToPeer(ToPeer::List { records, .. }) } => {
            Some((*conn, Arc::clone(records)))
        }
        _ => None,
    };
    stage.effects.iter().filter_map(list).collect()
}

#[test]
fn a_list_is_made_once_until_a_record_changes() {
    let mut stage = Stage::new(3);
    stage.member(0);
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    let ask = |request| Message::ToSeed(ToSeed::Refresh { request, digest: [0; 32] });
    stage.hear(conn, ask(1));
    let other = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    stage.hear(other, ask(2));
    let [(_, first), (_, second)] = &lists(&stage)[..] else { panic!("{:?}", stage.effects) };
    assert!(Arc::ptr_eq(first, second), "made twice");
    stage.member(1);
    stage.hear(conn, ask(3));
    let [(_, third)] = &lists(&stage)[..] else { panic!("{:?}", stage.effects) };
    assert_eq!((first.len(), third.len()), (1, 2), "the new member is on the next one");
}

/// Connections over which peers were told of changed records.
fn told(stage: &Stage) -> Vec<Conn> {
    let conns = |effect: &Effect| match effect {
        Effect::Send { conn, message: Message::ToPeer(ToPeer::Update(_)) } => vec![*conn],
        Effect::SendMany { conns, message: Message::ToPeer(ToPeer::Update(_)) } => conns.clone(),
        _ => Vec::new(),
    };
    stage.effects.iter().flat_map(conns).collect()
}

#[test]
fn a_peer_that_is_not_registered_after_all_hears_of_the_changes_meanwhile() {
    let mut stage = Stage::new(3);
    let waiting = register(&mut stage);
    stage.member(5);
    stage.pass(Duration::from_millis(100));
    assert_eq!(told(&stage), [] as [Conn; 0]);
    stage.vote(1, false);
    stage.vote(2, false);
    assert_eq!(stage.said(|m| matches!(m, Message::ToPeer(ToPeer::Denied { request: 7, .. }))), 1);
    assert_eq!(told(&stage), [waiting]);
    // A peer that has missed nothing is told nothing.
    let mut stage = Stage::new(3);
    register(&mut stage);
    stage.vote(1, false);
    stage.vote(2, false);
    assert_eq!(told(&stage), [] as [Conn; 0]);
}

#[test]
fn a_peer_that_waits_to_be_registered_hears_of_changes_by_its_list() {
    let mut stage = Stage::new(3);
    let waiting = register(&mut stage);
    let other = stage.call(peer_addr(1), Role::Peer, Purpose::Membership);
    stage.probe(peer_addr(0), Ok((9, false)));
    stage.member(5);
    stage.pass(Duration::from_millis(100));
    assert_eq!(told(&stage), [other]);
    stage.vote(1, true);
    let ballot = stage.seed.polls.counts().0;
    stage.hear(stage.line_to(2), Message::Council(Council::Committed { ballot }));
    let [(conn, list)] = &lists(&stage)[..] else { panic!("{:?}", stage.effects) };
    assert_eq!(*conn, waiting);
    assert!(list.iter().any(|(peer, _)| *peer == peer_addr(5)), "{list:?}");
    stage.member(6);
    stage.pass(Duration::from_millis(100));
    assert_eq!(told(&stage), [waiting, other], "from then on it is told like all");
}
