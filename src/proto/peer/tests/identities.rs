//! Members whose address the seeds have bound to an identity.

use super::*;
use crate::proto::config::Network;
use crate::proto::gossip::message_id;
use crate::proto::gossip::statement;
use crate::proto::message::{Answer, Hello, Identity};
use crate::proto::signature::toy::Toy;

const OWNER: Option<Identity> = Some(Identity([1; 32]));
const OTHER: Option<Identity> = Some(Identity([2; 32]));

/// A peer that knows member 0 by its identity.
fn stage() -> Stage {
    let mut stage = Stage::with(3, |config| config);
    stage.peer.membership.members.merge(addr(0), Record { at: 0, identity: OWNER, ..alive(0) });
    let record = stage.peer.membership.members.alive(&addr(0)).unwrap();
    assert_eq!(record.identity, OWNER);
    stage
}

#[test]
fn nobody_else_calls_in_the_name_of_a_member() {
    for purpose in [Purpose::Link, Purpose::Errand, Purpose::Sync, Purpose::Ask] {
        for (identity, refused) in [(OWNER, false), (OTHER, true), (None, true)] {
            let mut stage = stage();
            let network = stage.peer.life.config.network.clone();
            let hello = network.hello(Role::Peer, addr(0), 1, purpose);
            stage.give(Input::Incoming { conn: 91, hello: Hello { identity, ..hello } });
            let answered = stage.effects.iter().any(|effect| {
                matches!(effect, Effect::Answer { conn: 91, answer: Answer::Refused(refusal) }
                    if refusal.reason == Refused::WrongIdentity)
            });
            assert_eq!(answered, refused, "{purpose:?} by {identity:?}");
        }
    }
}

#[test]
fn a_neighbour_is_known_by_its_link_before_any_seed_tells_of_it() {
    let mut stage = Stage::new(3, 3);
    let network = stage.peer.life.config.network.clone();
    // Nobody has told this peer of number 8 yet.
    let link = network.hello(Role::Peer, addr(8), 1, Purpose::Link);
    stage.give(Input::Incoming { conn: 91, hello: Hello { identity: OWNER, ..link.clone() } });
    assert!(stage.peer.neighbours().contains(&addr(8)));
    for (conn, purpose) in [(93, Purpose::Link), (95, Purpose::Errand), (97, Purpose::Ask)] {
        let hello = network.hello(Role::Peer, addr(8), 2, purpose);
        stage.give(Input::Incoming { conn, hello: Hello { identity: OTHER, ..hello } });
        let refused = stage.effects.iter().any(|effect| {
            matches!(effect, Effect::Answer { conn: c, answer: Answer::Refused(refusal) }
                if *c == conn && refusal.reason == Refused::WrongIdentity)
        });
        assert!(refused, "{purpose:?}");
    }
    // Once that link is gone, nothing is known of number 8 any more.
    stage.give(Input::Closed { conn: 91 });
    stage.give(Input::Incoming { conn: 99, hello: Hello { identity: OTHER, ..link } });
    assert!(stage.peer.neighbours().contains(&addr(8)));
}

#[test]
fn a_process_with_another_identity_is_not_the_member_that_was_called() {
    for (identity, linked) in [(OWNER, true), (OTHER, false)] {
        let mut stage = stage();
        let conn = stage.dialled(addr(0)).expect("it links to member 0");
        let (role, from) = (Role::Peer, addr(0));
        let welcome = Welcome { role, from, incarnation: 1, leaving: false, clock: 0, identity };
        stage.give(Input::Opened { conn, welcome });
        assert_eq!(stage.peer.neighbours().contains(&addr(0)), linked, "{identity:?}");
    }
}

/// A message of that number in the name of member 0, signed by `signer`.
fn said(network: &Network, number: u64, signer: u8) -> Gossip {
    let mut gossip = Gossip {
        origin: addr(0),
        life: 1,
        number,
        offset: NOW.millis().cast_signed(),
        age: 0,
        payload: Bytes::from_static(b"said"),
        signature: None,
    };
    let statement = statement(&network.name, &message_id(&gossip));
    gossip.signature = Some(Box::new(Toy(signer).sign(&statement)));
    gossip
}

/// The numbers of the messages that the peer has delivered, and how many it has passed on.
fn spread(stage: &Stage) -> (Vec<u64>, usize) {
    let delivered = |effect: &Effect| match effect {
        Effect::Reply(PeerReply::Deliver(delivery)) => Some(delivery.gossip.number),
        _ => None,
    };
    let passed_on = stage.sent(|m| matches!(m, Message::Broadcast(Broadcast::Gossip(_))));
    (stage.effects.iter().filter_map(delivered).collect(), passed_on)
}

#[test]
fn nobody_publishes_in_the_name_of_a_member() {
    let mut stage = Stage::new(4, 3);
    stage.peer.broadcast.rumors.sign_with(Some(Arc::new(Toy(5))));
    let network = stage.peer.life.config.network.clone();
    stage.peer.membership.members.replace(addr(0), Record { identity: OWNER, ..alive(0) });
    let conns: Vec<Conn> = stage.peer.overlay.conns();
    let hear = |stage: &mut Stage, gossip: Gossip| {
        stage.hear(conns[1], Message::Broadcast(Broadcast::Gossip(gossip)));
    };
    for number in 1..=64 {
        hear(&mut stage, said(&network, number, 2));
        hear(&mut stage, Gossip { signature: None, ..said(&network, number, 1) });
        if number == 32 {
            // It is not kept out by those that were forged under its number.
            hear(&mut stage, said(&network, 7, 1));
        }
    }
    assert_eq!(spread(&stage).0, [7], "only what member 0 has signed");
    assert!(spread(&stage).1 > 0, "and that is passed on");
    let closed =
        stage.effects.iter().any(|e| matches!(e, Effect::Close { conn } if *conn == conns[1]));
    assert!(closed, "who brings many forged messages makes them");
    assert_eq!(stage.peer.counters().forged, 65, "the link is closed then");
}

#[test]
fn what_a_member_says_before_it_is_known_waits_for_the_news() {
    let mut stage = Stage::with(4, |config| config);
    let seed = stage.dialled(seed_addr()).expect("it is connected to its seed");
    for number in 1..4 {
        stage.link(number);
    }
    stage.peer.broadcast.rumors.sign_with(Some(Arc::new(Toy(5))));
    let network = stage.peer.life.config.network.clone();
    stage.peer.membership.members.remove(&addr(0));
    let conns: Vec<Conn> = stage.peer.overlay.conns();
    stage.hear(conns[1], Message::Broadcast(Broadcast::Gossip(said(&network, 1, 1))));
    stage.hear(conns[1], Message::Broadcast(Broadcast::Gossip(said(&network, 2, 2))));
    assert_eq!(spread(&stage).0, [0; 0], "nobody knows who that is");
    let record = Record { identity: OWNER, ..alive(0) };
    stage.hear(seed, Message::ToPeer(ToPeer::Update(vec![(addr(0), record)])));
    assert_eq!(spread(&stage).0, [1], "what it has signed, and not what somebody else has");
}
