//! Members whose address the seeds have bound to an identity.

use super::*;
use crate::proto::message::{Answer, Hello, Identity};

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
