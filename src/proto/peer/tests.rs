//! The peer machine, input by input: the tests play the seed and all other peers.

use bytes::Bytes;

use super::sessions::{Dial, Session};
use super::*;
use crate::proto::config::Network;
use crate::proto::machine::OpenError;
use crate::proto::message::{
    AntiEntropy, Broadcast, Detection, Gossip, Message, Purpose, Refusal, Refused, Role, ToPeer,
    ToSeed, Welcome,
};
use crate::proto::registry::{Record, Status};

mod identities;
mod liars;
mod open;
mod voted;

type Effect = EffectOf<PeerMachine>;

const NOW: Time = Time::from_millis(1_800_000_000_000);

fn seed_addr() -> Addr {
    ([127, 0, 0, 1], 5000).into()
}

fn addr(number: u16) -> Addr {
    ([127, 0, 0, 1], 6000 + number).into()
}

/// Peer 5. The test plays the seed and the other peers; peer n joined in millisecond n.
struct Stage {
    peer: PeerMachine,
    now: Time,
    effects: Vec<Effect>,
    incoming: Conn,
}

impl Stage {
    /// A registered peer 5 among `members` members, numbered from 0, with links to the first
    /// `links`.
    fn new(members: u16, links: u16) -> Self {
        let mut stage = Self::with(members, |config| config);
        for number in 0..links {
            stage.link(number);
        }
        stage.effects.clear();
        stage
    }

    fn with(members: u16, set: impl Fn(PeerConfig) -> PeerConfig) -> Self {
        let network = Network::new("test", [seed_addr()]);
        let config = PeerConfig::new(addr(5), network).gossip_count(0);
        let peer = PeerMachine::new(set(config), 1);
        let mut stage = Self { peer, now: NOW, effects: Vec::new(), incoming: 1 };
        stage.give(Input::Start);
        let conn = stage.dialled(seed_addr()).expect("a peer dials its seed");
        stage.welcome(conn, seed_addr(), Role::Seed, 0);
        stage.give(Input::Received {
            conn,
            message: Message::ToPeer(ToPeer::Granted { request: 1, votes: 1 }),
        });
        let mut numbers: Vec<u16> = (0..members).collect();
        numbers.push(5);
        let records = numbers.into_iter().map(|number| (addr(number), alive(number))).collect();
        let list = Message::ToPeer(ToPeer::List { request: 1, records, more: false });
        stage.give(Input::Received { conn, message: list });
        stage
    }

    fn give(&mut self, input: Input<PeerCommand>) {
        self.peer.handle(self.now, input, &mut self.effects);
    }

    /// Lets time pass as it does for a process that is awake: one timer after another.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.peer.wake_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.give(Input::Tick);
        }
        self.now = end;
    }

    fn welcome(&mut self, conn: Conn, from: Addr, role: Role, incarnation: Incarnation) {
        let welcome = Welcome { role, from, incarnation, leaving: false, clock: 0, identity: None };
        self.give(Input::Opened { conn, welcome });
    }

    /// A member opens a link.
    fn link(&mut self, number: u16) -> Conn {
        self.incoming += 2;
        let conn = self.incoming;
        // The peer's own attempt to link is refused, as it would be by a member that joined later.
        for (own, dial) in self.peer.sessions.dials() {
            if dial == Dial::Link(addr(number)) {
                let error = refused(Refused::AlreadyLinked, vec![]);
                self.give(Input::OpenFailed { conn: own, error });
            }
        }
        let network = self.peer.life.config.network.clone();
        let hello = network.hello(Role::Peer, addr(number), 1, Purpose::Link);
        self.give(Input::Incoming { conn, hello });
        conn
    }

    fn dialled(&self, to: Addr) -> Option<Conn> {
        self.opened(|effect_to, _| effect_to == to)
    }

    fn opened(&self, wanted: impl Fn(Addr, Purpose) -> bool) -> Option<Conn> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Open { conn, to, hello, .. } if wanted(*to, hello.purpose) => Some(*conn),
            _ => None,
        })
    }

    fn probing(&self, number: u16) -> Option<Conn> {
        self.opened(|to, purpose| to == addr(number) && purpose == Purpose::Probe)
    }

    fn sent(&self, wanted: impl Fn(&Message) -> bool) -> usize {
        let count = |effect: &Effect| match effect {
            Effect::Send { message, .. } if wanted(message) => 1,
            Effect::SendMany { conns, message } if wanted(message) => conns.len(),
            _ => 0,
        };
        self.effects.iter().map(count).sum()
    }

    fn events(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        let event = |effect: &&Effect| matches!(effect, Effect::Log(event) if wanted(event));
        self.effects.iter().filter(event).count()
    }

    fn hear(&mut self, conn: Conn, message: Message) {
        self.give(Input::Received { conn, message });
    }

    fn gossip(&self, number: u64) -> Gossip {
        let life = self.now.millis();
        let payload = Bytes::from(format!("text {number}"));
        Gossip { origin: addr(9), life, number, offset: 0, age: 0, payload, signature: None }
    }
}

fn alive(number: u16) -> Record {
    Record::plain(1, Status::Alive, u64::from(number), vec![0])
}

fn refused(reason: Refused, others: Vec<Addr>) -> OpenError {
    OpenError::Refused(Refusal { reason, others })
}

fn suspected(event: &Event) -> bool {
    matches!(event, Event::Suspected { .. })
}

#[test]
fn nobody_joins_a_suspicion_on_hearsay() {
    let mut stage = Stage::new(5, 3);
    let conn = stage.link(3);
    stage
        .hear(conn, Message::Detection(Detection::SuspectNotice { peer: addr(4), incarnation: 1 }));
    let probe = stage.probing(4).expect("it looks for itself");
    assert_eq!(stage.events(suspected), 0);
    stage.welcome(probe, addr(4), Role::Peer, 1);
    assert_eq!(stage.events(suspected), 0);
    let refute = |m: &Message| matches!(m, Message::Detection(Detection::Refute { peer, .. }) if *peer == addr(4));
    assert_eq!(stage.sent(refute), 1, "and says what it found");
}

#[test]
fn a_lost_link_is_acted_on_at_once_after_one_fresh_handshake() {
    let mut stage = Stage::new(5, 3);
    let conn = stage.link(4);
    let witness = stage.link(3);
    stage.give(Input::Closed { conn });
    let probe = stage.probing(4).expect("one fresh handshake");
    assert_eq!(stage.events(suspected), 0);
    stage.give(Input::OpenFailed { conn: probe, error: OpenError::Unreachable });
    assert_eq!(stage.events(suspected), 1);
    assert_eq!(
        stage.sent(|m| matches!(m, Message::ToSeed(ToSeed::DeadNode { .. }))),
        0,
        "not on its own word"
    );
    stage.hear(witness, Message::Detection(Detection::Witness { peer: addr(4), incarnation: 1 }));
    let consensus = |e: &Event| matches!(e, Event::PeerLevelConsensus { witnesses, .. } if *witnesses == [addr(3)]);
    assert_eq!(stage.events(consensus), 1);
    assert_eq!(stage.sent(|m| matches!(m, Message::ToSeed(ToSeed::DeadNode { .. }))), 1);
    let text = stage.effects.iter().find_map(|effect| match effect {
        Effect::Log(Event::DeadNodeMessage { text }) => Some(text.clone()),
        _ => None,
    });
    assert_eq!(text.as_deref(), Some("Dead Node:127.0.0.1:6004:1800000000.000000:127.0.0.1"));
}

#[test]
fn a_silent_neighbour_is_suspected_after_the_timeout_and_not_before() {
    let mut stage = Stage::new(3, 3);
    stage.pass(Duration::from_millis(14_900));
    assert_eq!(stage.events(suspected), 0);
    stage.pass(Duration::from_millis(200));
    assert_eq!(stage.events(suspected), 3);
}

#[test]
fn a_peer_that_was_asleep_trusts_no_silence() {
    let mut stage = Stage::new(3, 3);
    stage.effects.clear();
    // The process was stopped for a minute, so every timer is due at once.
    stage.now = stage.now + Duration::from_secs(60);
    stage.give(Input::Tick);
    assert_eq!(stage.events(suspected), 0);
    assert_eq!(stage.sent(|m| matches!(m, Message::Ping(_))), 6, "a fresh round, and its own turn");
    stage.pass(Duration::from_millis(14_000));
    assert_eq!(stage.events(suspected), 0);
}

#[test]
fn a_suspect_refutes_by_raising_its_incarnation_but_not_for_every_liar() {
    let mut stage = Stage::new(5, 3);
    let conn = stage.link(3);
    let before = stage.peer.incarnation();
    let me = addr(5);
    stage
        .hear(conn, Message::Detection(Detection::SuspectNotice { peer: me, incarnation: before }));
    assert_eq!(stage.peer.incarnation(), before + 1);
    for incarnation in [before, before + 1, u64::MAX] {
        stage.hear(conn, Message::Detection(Detection::SuspectNotice { peer: me, incarnation }));
    }
    assert_eq!(stage.peer.incarnation(), before + 1);
}

#[test]
fn a_peer_that_finds_itself_dead_comes_back_in_a_later_life() {
    let mut stage = Stage::new(5, 3);
    let before = stage.peer.incarnation();
    let conn = stage.peer.sessions.such(|session| session == Session::Seed(seed_addr()))[0];
    let record = Record::plain(before, Status::Dead, 1, vec![0]);
    stage.hear(conn, Message::ToPeer(ToPeer::Update(vec![(addr(5), record)])));
    assert_eq!(stage.peer.incarnation(), before + 1);
    let again = |m: &Message| matches!(m, Message::ToSeed(ToSeed::Register { incarnation, .. }) if *incarnation == before + 1);
    assert_eq!(stage.sent(again), 1);
}

#[test]
fn a_full_peer_names_others_and_the_newcomer_asks_them() {
    let mut full = Stage::with(5, |config| config.max_links(3));
    (0..4).for_each(|number| {
        full.link(number);
    });
    let named = full.effects.iter().rev().find_map(|effect| match effect {
        Effect::Answer { answer: crate::proto::message::Answer::Refused(refusal), .. } => {
            Some(refusal.clone())
        }
        _ => None,
    });
    let named = named.expect("the fourth is refused");
    assert_eq!((named.reason, named.others.len()), (Refused::Full, 3));

    let mut stage = Stage::with(5, |config| config.links(1));
    let (conn, first) = stage
        .effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Open { conn, to, hello, .. } if hello.purpose == Purpose::Link => {
                Some((*conn, *to))
            }
            _ => None,
        })
        .expect("a newcomer links");
    let other = (0..5).map(addr).find(|other| *other != first).unwrap();
    stage.give(Input::OpenFailed { conn, error: refused(Refused::Full, vec![other]) });
    assert!(stage.opened(|to, purpose| to == other && purpose == Purpose::Link).is_some());
}

#[test]
fn what_strangers_say_of_suspects_is_answered_and_costs_no_line() {
    let mut stage = Stage::new(5, 1);
    let notices = |stage: &Stage| stage.events(|e| matches!(e, Event::SuspectNotice { .. }));
    let refute = |m: &Message| matches!(m, Message::Detection(Detection::Refute { .. }));
    let hello = |stage: &Stage, from| {
        stage.peer.life.config.network.clone().hello(Role::Peer, addr(from), 1, Purpose::Errand)
    };
    // Who brings it, about whom; whether it is answered, and whether it is told.
    for (from, suspect, answered, told) in
        [(50, 5, true, false), (50, 4, false, false), (3, 5, true, true), (3, 4, false, true)]
    {
        stage.effects.clear();
        let (conn, hello) = (1_001 + 2 * u64::from(from + suspect), hello(&stage, from));
        stage.give(Input::Incoming { conn, hello });
        let notice = Detection::SuspectNotice { peer: addr(suspect), incarnation: 1 };
        stage.hear(conn, Message::Detection(notice));
        let what = format!("{from} says it of {suspect}");
        assert_eq!((stage.sent(refute) > 0, notices(&stage) > 0), (answered, told), "{what}");
    }
}

#[test]
fn links_that_strangers_open_and_break_make_a_peer_dial_few_addresses() {
    let mut stage = Stage::new(5, 1);
    for stranger in 100..300 {
        let conn = stage.link(stranger);
        stage.give(Input::Closed { conn });
    }
    let dials = stage.effects.iter().filter(|effect| {
        matches!(effect, Effect::Open { to, hello, .. }
            if hello.purpose == Purpose::Probe && *to >= addr(100))
    });
    assert_eq!(dials.count(), 16);
    let conn = stage.peer.overlay.get(&addr(0)).expect("a member is linked").conn;
    stage.give(Input::Closed { conn });
    assert!(stage.probing(0).is_some(), "a member is looked at all the same");
    assert!(stage.probing(299).is_none());
    let conn = stage.peer.sessions.such(|session| session == Session::Seed(seed_addr()))[0];
    let record = Record::plain(1, Status::Alive, 1, vec![0]);
    stage.hear(conn, Message::ToPeer(ToPeer::Update(vec![(addr(299), record)])));
    assert!(stage.probing(299).is_some(), "a newcomer is looked at once there is news of it");
}

#[test]
fn a_message_is_delivered_once_and_crosses_each_link_once() {
    let mut stage = Stage::new(4, 3);
    let conns: Vec<Conn> = stage.peer.overlay.conns();
    let gossip = stage.gossip(1);
    for conn in &conns {
        stage.hear(*conn, Message::Broadcast(Broadcast::Gossip(gossip.clone())));
    }
    let delivered =
        stage.effects.iter().filter(|e| matches!(e, Effect::Reply(PeerReply::Deliver(_)))).count();
    assert_eq!(delivered, 1);
    let sent = stage.sent(|m| matches!(m, Message::Broadcast(Broadcast::Gossip(_))));
    assert!(sent < conns.len(), "to those that had not brought it: {sent}");
    let want = vec![(crate::proto::gossip::tag(&gossip.origin, gossip.life), vec![(1, 1)])];
    stage.effects.clear();
    for conn in &conns {
        stage.hear(*conn, Message::Broadcast(Broadcast::Want(want.clone())));
        stage.hear(*conn, Message::Broadcast(Broadcast::Want(want.clone())));
    }
    let again = stage.sent(|m| matches!(m, Message::Broadcast(Broadcast::Gossip(_))));
    assert!(sent + again <= conns.len(), "{sent} pushed and {again} sent on request");
}

#[test]
fn a_message_that_is_announced_and_does_not_come_is_asked_for() {
    let mut stage = Stage::new(4, 3);
    let conns: Vec<Conn> = stage.peer.overlay.conns();
    let gossip = stage.gossip(1);
    let have = vec![(crate::proto::gossip::tag(&gossip.origin, gossip.life), vec![(1, 1)])];
    stage.hear(conns[1], Message::Broadcast(Broadcast::Have(have.clone())));
    let wants = |stage: &Stage| stage.sent(|m| matches!(m, Message::Broadcast(Broadcast::Want(_))));
    assert_eq!(wants(&stage), 0, "it may be on its way");
    stage.pass(Duration::from_secs(1));
    assert_eq!(wants(&stage), 1);
    stage.hear(conns[1], Message::Broadcast(Broadcast::Gossip(gossip)));
    stage.pass(Duration::from_secs(5));
    assert_eq!(wants(&stage), 1, "once it is here nobody is asked again");
}

#[test]
fn the_tree_runs_to_the_oldest_neighbour() {
    let mut stage = Stage::new(4, 3);
    let conn = |stage: &Stage, number| stage.peer.overlay.get(&addr(number)).unwrap().conn;
    stage.pass(Duration::from_millis(10));
    // Both other neighbours have pruned this peer, as the ends of lazy links do.
    for number in [1, 2] {
        let conn = conn(&stage, number);
        stage.hear(conn, Message::Broadcast(Broadcast::Prune));
    }
    stage.effects.clear();
    let token = 1;
    let payload = Bytes::from_static(b"mine");
    stage.give(Input::Command(PeerCommand::Publish { token, payload: payload.clone() }));
    let pushed = |stage: &Stage, to: Conn| {
        stage.effects.iter().any(|effect| {
            matches!(effect, Effect::Send { conn, message: Message::Broadcast(Broadcast::Gossip(_)) } if *conn == to)
        })
    };
    assert!(pushed(&stage, conn(&stage, 0)), "the parent gets it pushed");
    // The parent is lost: the next oldest neighbour is grafted at once, and gets the next message.
    let (lost, next) = (conn(&stage, 0), conn(&stage, 1));
    stage.effects.clear();
    stage.give(Input::Closed { conn: lost });
    let graft = Effect::Send { conn: next, message: Message::Broadcast(Broadcast::Graft) };
    assert!(stage.effects.contains(&graft), "{:?}", stage.effects);
    stage.give(Input::Command(PeerCommand::Publish { token, payload }));
    assert!(pushed(&stage, next));
}

/// A link to peer 0 over which a comparison has begun, and the number of the question that was
/// asked.
fn compared(stage: &mut Stage) -> (Conn, u64) {
    let conn = stage.peer.overlay.get(&addr(0)).unwrap().conn;
    stage.hear(
        conn,
        Message::AntiEntropy(AntiEntropy::Digest {
            round: 1,
            count: 7,
            digest: [9; 32],
            fresh: true,
        }),
    );
    let asked = stage.effects.iter().rev().find_map(|effect| match effect {
        Effect::Send { message: Message::AntiEntropy(AntiEntropy::Ranges(ranges)), .. } => {
            Some(ranges.round)
        }
        _ => None,
    });
    (conn, asked.expect("digests differ"))
}

fn ranges(to: u64, parts: crate::proto::message::Parts) -> Message {
    let (round, salt, floor) = (2, [1; 8], 0);
    Message::AntiEntropy(AntiEntropy::Ranges(Box::new(crate::proto::message::Ranges {
        to,
        round,
        salt,
        floor,
        parts,
    })))
}

#[test]
fn a_comparison_that_makes_no_sense_closes_the_link_and_costs_nothing_else() {
    use crate::proto::message::{Parts, Prefix};
    let deep = Prefix::new(Prefix::DEEPEST, 0).unwrap();
    let absurd = [
        Parts { splits: vec![(deep, [[1; 6]; 16])], ..Parts::default() },
        Parts { lists: vec![(Prefix::ALL, vec![]), (Prefix::ALL, vec![])], ..Parts::default() },
        Parts { wants: vec![(Prefix::ALL, vec![[1; 6]; 40_000])], ..Parts::default() },
    ];
    for parts in absurd {
        let mut stage = Stage::new(5, 3);
        let (conn, asked) = compared(&mut stage);
        stage.hear(conn, ranges(asked, parts.clone()));
        assert!(stage.effects.contains(&Effect::Close { conn }), "{parts:?}");
        assert!(!stage.peer.overlay.contains(&addr(0)));
        assert_eq!(stage.peer.overlay.len(), 2, "the others stay");
    }
    let mut stage = Stage::new(5, 3);
    let conn = stage.peer.overlay.get(&addr(0)).unwrap().conn;
    let digest = Message::AntiEntropy(AntiEntropy::Digest {
        round: 1,
        count: u64::MAX,
        digest: [9; 32],
        fresh: false,
    });
    stage.hear(conn, digest);
    assert!(stage.effects.contains(&Effect::Close { conn }), "nobody holds so many");
}

#[test]
fn over_a_connection_for_one_comparison_nothing_is_said_of_the_store() {
    let mut stage = Stage::new(4, 1);
    stage.give(Input::Persisted { batch: 1 });
    let of_store = |message: &Message| matches!(message, Message::StoreSync(_));
    let from = addr(3);
    let hello = Network::new("test", [seed_addr()]).hello(Role::Peer, from, 1, Purpose::Sync);
    stage.give(Input::Incoming { conn: 101, hello });
    stage.give(Input::Congested { conn: 101 });
    stage.give(Input::Relieved { conn: 101 });
    assert_eq!(stage.sent(of_store), 0, "whoever is at the other end would close it for that");
    // After a jam a neighbour is told what it may have missed.
    let conn = stage.link(1);
    stage.effects.clear();
    stage.give(Input::Congested { conn });
    stage.give(Input::Relieved { conn });
    assert_eq!(stage.sent(of_store), 1);
}

#[test]
fn an_answer_to_a_question_that_was_not_asked_is_not_looked_at() {
    let mut stage = Stage::new(5, 3);
    let (conn, asked) = compared(&mut stage);
    let nothing = crate::proto::message::Parts {
        lists: vec![(crate::proto::message::Prefix::ALL, vec![])],
        ..Default::default()
    };
    stage
        .give(Input::Command(PeerCommand::Publish { token: 1, payload: Bytes::from_static(b"a") }));
    stage.effects.clear();
    for to in [0, asked + 1, u64::MAX] {
        stage.hear(conn, ranges(to, nothing.clone()));
    }
    assert!(stage.effects.is_empty(), "{:?}", stage.effects);
}
