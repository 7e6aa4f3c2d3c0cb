//! Membership without seeds, input by input: the tests play the other peers.

use super::*;
use crate::proto::config::Membership;
use crate::proto::kv::clock::Clock;
use crate::proto::message::{Detection, Members, Message, StoreSync};
use crate::proto::order::{Order, Outcome};
use crate::proto::roles::MemberEvent;

/// Peer 5 in a network without seeds; the test plays the other peers.
fn stage(contacts: &[u16]) -> Stage {
    let contacts = Membership::Open(contacts.iter().map(|number| addr(*number)).collect());
    let config = PeerConfig::new(addr(5), Network::without_seeds("test"));
    let config = config.gossip_count(0).membership(contacts);
    let peer = PeerMachine::new(config, 1);
    let mut stage = Stage { peer, now: NOW, effects: Vec::new(), incoming: 1 };
    stage.give(Input::Start);
    stage
}

fn told(number: u16, incarnation: Incarnation, status: Status) -> (Addr, Record) {
    let at = NOW.millis() - 1_000;
    (addr(number), Record::plain(incarnation, status, at, Vec::new()))
}

impl Stage {
    /// A peer opens a link and names the members that it knows, itself among them.
    fn shake_hands(&mut self, number: u16, others: &[(Addr, Record)]) -> Conn {
        let conn = self.link(number);
        let mut records = vec![told(number, 7, Status::Alive)];
        records.extend(others.iter().cloned());
        self.hear(conn, Message::Members(Members::Handshake(records)));
        conn
    }

    fn knows(&self, number: u16) -> bool {
        self.peer.members().alive(&addr(number)).is_some()
    }

    fn order(&mut self, order: Order) -> Outcome {
        self.give(Input::Command(PeerCommand::Operate { token: 1, order }));
        let outcome = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Reply(PeerReply::Operated { outcome, .. }) => Some(outcome.clone()),
            _ => None,
        });
        outcome.expect("an order is answered")
    }
}

#[test]
fn a_handshake_is_answered_and_what_was_new_goes_on() {
    let mut stage = stage(&[]);
    stage.shake_hands(1, &[]);
    stage.effects.clear();
    let conn = stage.shake_hands(2, &[told(3, 9, Status::Alive)]);
    assert!(stage.knows(1) && stage.knows(2) && stage.knows(3));
    let answered = stage.effects.iter().any(|effect| {
        matches!(effect, Effect::Send { conn: to, message: Message::Members(Members::Peers { records, .. }) }
            if *to == conn && records.len() == 4)
    });
    assert!(answered, "with all four that are known: {:?}", stage.effects);
    let passed_on =
        |m: &Message| matches!(m, Message::Members(Members::Changed(news)) if news.len() == 2);
    assert_eq!(stage.sent(passed_on), 1, "to the one who did not say it");
}

#[test]
fn what_cannot_be_true_is_left_out() {
    let mut stage = stage(&[]);
    let nowhere: Addr = "0.0.0.0:6000".parse().unwrap();
    let no_port: Addr = "127.0.0.1:0".parse().unwrap();
    let others = [
        told(2, u64::MAX, Status::Alive),
        (nowhere, told(1, 7, Status::Alive).1),
        (no_port, told(1, 7, Status::Alive).1),
    ];
    stage.shake_hands(1, &others);
    assert_eq!(stage.peer.members().len(), 2, "only itself and who spoke");
}

#[test]
fn how_long_ago_somebody_went_is_counted_here_and_not_by_anothers_clock() {
    let mut stage = stage(&[]);
    let days = |days: u64| NOW.millis() + days * 86_400_000 - 3 * 86_400_000;
    let gone = |at| Record::plain(7, Status::Dead, at, Vec::new());
    let dead = [(addr(3), gone(days(0))), (addr(4), gone(days(6)))];
    stage.shake_hands(1, &dead);
    let known = |stage: &Stage, number| stage.peer.members().get(&addr(number)).is_some();
    stage.pass(Duration::from_secs(60));
    assert!(known(&stage, 3) && known(&stage, 4), "whatever the clocks of those who tell say");
    stage.pass(Duration::from_secs(86_400));
    assert!(!known(&stage, 3) && !known(&stage, 4), "a day is over");
    let teller = stage.shake_hands(1, &[]);
    stage.hear(teller, Message::Members(Members::Changed(dead.to_vec())));
    assert!(!known(&stage, 3) && !known(&stage, 4), "and nobody brings them back");
}

#[test]
fn who_is_told_of_a_death_looks_first() {
    let dead = told(2, 7, Status::Dead);
    for answers in [true, false] {
        let mut stage = stage(&[]);
        stage.shake_hands(2, &[]);
        let teller = stage.shake_hands(1, &[]);
        stage.effects.clear();
        stage.hear(teller, Message::Members(Members::Changed(vec![dead.clone()])));
        assert!(stage.knows(2), "not on hearsay");
        let probe = stage.probing(2).expect("it looks for itself");
        if answers {
            stage.welcome(probe, addr(2), Role::Peer, 7);
            assert!(stage.knows(2));
            let refutes = |m: &Message| matches!(m, Message::Detection(Detection::Refute { peer, .. }) if *peer == addr(2));
            assert_eq!(stage.sent(refutes), 1, "the one who told hears otherwise");
            let told_so = stage.opened(|to, why| to == addr(2) && why == Purpose::Errand);
            assert!(told_so.is_some(), "and so does the one in question, to rise above it");
        } else {
            stage.give(Input::OpenFailed { conn: probe, error: OpenError::Unreachable });
            assert!(!stage.knows(2), "its own finding, and that of the one who told");
            let confirmed =
                |event: &Event| matches!(event, Event::DeadNodeConfirmed { votes: 2, .. });
            assert_eq!(stage.events(confirmed), 1);
            let passed_on = |m: &Message| matches!(m, Message::Members(Members::Changed(_)));
            assert_eq!(stage.sent(passed_on), 2, "to all whom it is linked with");
        }
    }
}

#[test]
fn who_is_told_of_its_own_death_rises_above_it() {
    let mut stage = stage(&[]);
    let conn = stage.shake_hands(1, &[]);
    let before = stage.peer.incarnation();
    stage.hear(conn, Message::Members(Members::Changed(vec![told(5, before, Status::Dead)])));
    assert_eq!(stage.peer.incarnation(), before + 1);
    let says_so = |m: &Message| {
        matches!(m, Message::Members(Members::Changed(news))
            if news[0].0 == addr(5) && news[0].1.incarnation == before + 1)
    };
    assert_eq!(stage.sent(says_so), 1);
}

#[test]
fn one_that_is_alone_and_has_nothing_waits_for_a_call_before_it_is_ready() {
    // The peer may have lost its disk, and the others call whom they have lost once a ping
    // interval.
    let mut alone = stage(&[]);
    assert!(!alone.peer.is_ready(), "in its first moment");
    alone.pass(Duration::from_secs(5));
    assert!(!alone.peer.is_ready(), "a ping interval and the time of a handshake");
    alone.pass(Duration::from_millis(1_100));
    assert!(alone.peer.is_ready(), "nobody has called");
    // A peer that is called waits for what the caller has.
    let mut called = stage(&[]);
    called.pass(Duration::from_secs(3));
    let link = called.shake_hands(1, &[]);
    let context: Clock = [("127.0.0.1:6001@7".into(), 3)].into_iter().collect();
    let records = vec![told(1, 7, Status::Alive)];
    called.hear(link, Message::Members(Members::Peers { records, context, caught_up: true }));
    called.pass(Duration::from_secs(10));
    assert!(!called.peer.is_ready(), "it lacks what that one has");
}

#[test]
fn one_that_was_named_has_time_to_start() {
    let mut stage = stage(&[1, 2]);
    assert!(stage.knows(1) && stage.knows(2), "the peers named are the start of the network");
    let refuse_all = |stage: &mut Stage| {
        for (conn, _) in stage.peer.sessions.dials() {
            stage.give(Input::OpenFailed { conn, error: OpenError::Unreachable });
        }
    };
    assert!(!stage.peer.is_ready(), "somebody may have something that it lacks");
    (0..3).for_each(|_| refuse_all(&mut stage));
    assert!(!stage.peer.is_ready(), "somebody may call");
    for _ in 0..14 {
        stage.pass(Duration::from_secs(1));
        refuse_all(&mut stage);
    }
    assert!(stage.peer.is_ready(), "there is nobody");
    assert!(stage.knows(1) && stage.knows(2), "not yet");
    for _ in 0..14 {
        stage.pass(Duration::from_secs(1));
        refuse_all(&mut stage);
    }
    assert!(!stage.knows(1) && !stage.knows(2), "they have had their time");
    stage.effects.clear();
    stage.pass(Duration::from_secs(30));
    assert!(stage.opened(|_, why| why == Purpose::Link).is_some(), "they are called all the same");
}

#[test]
fn a_replica_is_ready_once_it_has_seen_what_another_had() {
    let mut stage = stage(&[1]);
    let link = stage.dialled(addr(1)).unwrap();
    stage.welcome(link, addr(1), Role::Peer, 7);
    let context: Clock = [("127.0.0.1:6001@7".into(), 1)].into_iter().collect();
    let records = vec![told(1, 7, Status::Alive)];
    let peers = |caught_up| {
        let (records, context) = (records.clone(), context.clone());
        Message::Members(Members::Peers { records, context, caught_up })
    };
    stage.hear(link, peers(false));
    assert!(!stage.peer.is_ready(), "that one has not caught up itself, and is older");
    stage.hear(link, peers(true));
    assert!(!stage.peer.is_ready());
    stage.give(Input::Persisted { batch: 1 });
    let nothing_else = Message::StoreSync(StoreSync::SnapshotOffer);
    stage.hear(link, nothing_else);
    let part = |versions| {
        Message::StoreSync(StoreSync::SnapshotPart {
            round: 1,
            part: 0,
            context: context.clone(),
            lamport: 1,
            seals: Vec::new(),
            standing: Vec::new(),
            entries: versions,
            more: false,
        })
    };
    stage.hear(link, part(Vec::new()));
    assert!(stage.peer.is_ready());
}

#[test]
fn the_oldest_asks_those_that_it_heard_of_and_has_no_link_with() {
    let mut stage = stage(&[1, 2, 3, 4]);
    let younger = |number| {
        let (peer, record) = told(number, 7, Status::Alive);
        (peer, Record { at: NOW.millis() + 1, ..record })
    };
    let says = |number| {
        Message::Members(Members::Peers {
            records: vec![younger(number)],
            context: Clock::new(),
            caught_up: false,
        })
    };
    // Only peers 1 to 3 are there yet, and they link before this peer's own calls succeed.
    let links = [1, 2, 3].map(|number| (number, stage.link(number)));
    while let Some(conn) = stage.peer.sessions.dials().keys().next().copied() {
        stage.give(Input::OpenFailed { conn, error: OpenError::TimedOut });
    }
    for (number, link) in links {
        stage.hear(link, says(number));
    }
    assert!(stage.peer.sessions.dials().is_empty(), "it has links enough");
    stage.hear(links[0].1, Message::Members(Members::Changed(vec![younger(4)])));
    assert!(!stage.peer.is_ready(), "that one may have something");
    let call = stage.dialled(addr(4)).expect("nobody else is going to link the two");
    stage.welcome(call, addr(4), Role::Peer, 7);
    stage.hear(call, says(4));
    assert!(stage.peer.is_ready());
}

#[test]
fn who_is_removed_keeps_out_until_it_is_let_in() {
    let mut stage = stage(&[]);
    stage.pass(Duration::from_secs(7));
    assert!(stage.peer.is_ready());
    let conn = stage.shake_hands(1, &[]);
    let me = stage.peer.incarnation();
    stage.hear(conn, Message::Members(Members::Changed(vec![told(5, me, Status::Left)])));
    assert!(!stage.peer.is_ready() && stage.peer.neighbours().is_empty());
    assert!(!stage.knows(5));
    // A peer that has not heard of the removal yet is told so, and gets no link.
    stage.effects.clear();
    stage.shake_hands(1, &[told(5, me, Status::Alive)]);
    assert!(stage.peer.neighbours().is_empty());
    let says_so = |m: &Message| {
        let out =
            |(peer, record): &(Addr, Record)| *peer == addr(5) && record.status == Status::Left;
        matches!(m, Message::Members(Members::Peers { records, .. }) if records.iter().any(out))
    };
    assert_eq!(stage.sent(says_so), 1);
    stage.shake_hands(1, &[told(5, me + 1, Status::Alive)]);
    assert!(stage.peer.is_ready() && stage.knows(5) && stage.peer.neighbours() == [addr(1)]);
    assert!(stage.peer.incarnation() > me + 1, "above what others say of it");
}

#[test]
fn orders_are_answered() {
    let mut stage = stage(&[]);
    stage.shake_hands(1, &[]);
    for (order, outcome) in [
        (Order::Admit(addr(1)), Outcome::AlreadyMember),
        (Order::Admit(addr(5)), Outcome::AlreadyMember),
        (Order::Admit(addr(2)), Outcome::Admitted),
        (Order::Remove(addr(2)), Outcome::Removed),
        (Order::Remove(addr(2)), Outcome::NoMember),
        (Order::Admit(addr(2)), Outcome::Admitted),
    ] {
        assert_eq!(stage.order(order.clone()), outcome, "{order:?}");
    }
    assert!(matches!(stage.order(Order::Sync), Outcome::Synced(1..)));
    let mut voted = Stage::new(2, 1);
    assert_eq!(voted.order(Order::Admit(addr(7))), Outcome::NotOurs);
    assert_eq!(voted.order(Order::Remove(addr(0))), Outcome::NotOurs);
}

#[test]
fn a_death_of_one_that_was_never_a_member_is_history() {
    let mut stage = stage(&[]);
    let teller = stage.shake_hands(1, &[]);
    stage.shake_hands(2, &[]);
    stage.effects.clear();
    stage.hear(teller, Message::Members(Members::Changed(vec![told(3, 7, Status::Dead)])));
    let lost = stage.effects.iter().any(
        |effect| matches!(effect, Effect::Reply(PeerReply::Member(MemberEvent::Dead(peer))) if *peer == addr(3)),
    );
    assert!(!lost, "nobody here has lost it");
    let passed_on =
        |m: &Message| matches!(m, Message::Members(Members::Changed(news)) if news[0].0 == addr(3));
    assert_eq!(stage.sent(passed_on), 1, "but all must know, to keep old news of it out");
}
