//! To whom an address belongs: who may register it, and who may speak for it.

use super::*;
use crate::proto::message::Identity;

/// Who the member is, and somebody else who has the network's key too.
const OWNER: Option<Identity> = Some(Identity([1; 32]));
const OTHER: Option<Identity> = Some(Identity([2; 32]));

impl Stage {
    fn call_as(&mut self, from: Addr, identity: Option<Identity>) -> Conn {
        self.next += 2;
        let (conn, purpose) = (self.next, Purpose::Membership);
        let hello = self.seed.roster.network().hello(Role::Peer, from, 1, purpose);
        self.give(Input::Incoming { conn, hello: Hello { identity, ..hello } });
        conn
    }

    /// Somebody asks to be peer 0 in that life; returns the connection.
    fn register_as(&mut self, identity: Option<Identity>, incarnation: Incarnation) -> Conn {
        let conn = self.call_as(peer_addr(0), identity);
        self.hear(conn, Message::ToSeed(ToSeed::Register { request: 7, incarnation }));
        conn
    }

    /// Ends the probe of peer 0 that is under way.
    fn answers_as(&mut self, identity: Option<Identity>, incarnation: Incarnation) {
        let (role, from) = (Role::Peer, peer_addr(0));
        let conn = self.dialled(from).expect("the seed probes by itself");
        let welcome = Welcome { role, from, incarnation, leaving: false, clock: 0, identity };
        self.give(Input::Opened { conn, welcome });
        self.effects.retain(|effect| !matches!(effect, Effect::Open { conn: c, .. } if *c == conn));
    }

    /// A seed of which peer 0 is a member, in life 9, as its owner.
    fn owned() -> Self {
        let mut stage = Stage::new(3);
        stage.register_as(OWNER, 9);
        stage.answers_as(OWNER, 9);
        stage.vote(1, true);
        assert_eq!(stage.owner(), Some((9, OWNER)));
        stage.effects.clear();
        stage
    }

    fn owner(&self) -> Option<(Incarnation, Option<Identity>)> {
        let record = self.seed.registry().alive(&peer_addr(0))?;
        Some((record.incarnation, record.identity))
    }

    fn is_closed(&self, conn: Conn) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Close { conn: c } if *c == conn))
    }
}

#[test]
fn an_address_is_registered_for_the_one_that_answers_there() {
    for (asks, answers, accepts) in
        [(OWNER, OWNER, true), (OTHER, OWNER, false), (OWNER, None, false), (None, None, true)]
    {
        let mut stage = Stage::new(3);
        stage.register_as(asks, 9);
        stage.answers_as(answers, 9);
        let voted =
            |wanted| stage.events(|e| matches!(e, Event::Vote { accept, .. } if *accept == wanted));
        assert_eq!((voted(true), voted(false)), (accepts.into(), (!accepts).into()), "{asks:?}");
    }
}

#[test]
fn a_yes_to_one_process_is_no_yes_to_another() {
    let mut stage = Stage::new(3);
    // Two processes ask for the same address and life at the same time.
    stage.register_as(OWNER, 9);
    stage.register_as(OTHER, 9);
    stage.answers_as(OWNER, 9);
    stage.answers_as(OWNER, 9);
    let votes = |stage: &Stage, wanted| {
        stage.events(|e| matches!(e, Event::Vote { accept, .. } if *accept == wanted))
    };
    assert_eq!((votes(&stage, true), votes(&stage, false)), (1, 1));
    // A moment later another seed proposes the second one: the yes to the first is not given again.
    let (kind, peer, reporters) = (ChangeKind::Join, peer_addr(0), Vec::new());
    let change = Change { kind, peer, incarnation: 9, at: 1, reporters, identity: OTHER };
    stage.hear(stage.line_to(1), Message::Council(Council::Propose { ballot: 77, change }));
    stage.answers_as(OWNER, 9);
    let yes = |m: &Message| matches!(m, Message::Council(Council::Vote { accept: true, .. }));
    assert_eq!(stage.said(yes), 0);
}

#[test]
fn a_living_address_is_taken_over_only_by_the_one_that_answers_there_now() {
    for (answers, expected) in [(OWNER, (9, OWNER)), (OTHER, (10, OTHER))] {
        let mut stage = Stage::owned();
        stage.register_as(OTHER, 10);
        stage.answers_as(answers, 10);
        stage.vote(1, true);
        assert_eq!(stage.owner(), Some(expected), "{answers:?} answers there");
    }
    // In the same life it belongs to the one that has it, and nobody is granted it for the asking.
    let mut stage = Stage::owned();
    stage.register_as(OTHER, 9);
    stage.vote(1, true);
    assert_eq!(stage.said(|m| matches!(m, Message::ToPeer(ToPeer::Granted { .. }))), 0);
    assert_eq!(stage.owner(), Some((9, OWNER)));
}

#[test]
fn nobody_else_speaks_for_a_member() {
    let says = [
        ToSeed::Leave { request: 1, incarnation: 9 },
        ToSeed::Refresh { request: 1, digest: [0; 32] },
        ToSeed::DeadNode { peer: peer_addr(1), incarnation: 1, text: String::new() },
        ToSeed::Links { number: 1, neighbours: Vec::new() },
    ];
    for said in says {
        for (caller, allowed) in [(OWNER, true), (OTHER, false), (None, false)] {
            let mut stage = Stage::owned();
            let conn = stage.call_as(peer_addr(0), caller);
            stage.hear(conn, Message::ToSeed(said.clone()));
            assert_eq!(stage.is_closed(conn), !allowed, "{said:?} of {caller:?}");
        }
    }
}

#[test]
fn a_member_in_whose_place_another_process_answers_is_dead() {
    for (answers, accepts) in [(OWNER, 0), (OTHER, 1)] {
        let mut stage = Stage::owned();
        (1..4).for_each(|number| stage.member(number));
        for reporter in 1..3 {
            let conn = stage.call_as(peer_addr(reporter), None);
            let (peer, text) = (peer_addr(0), String::new());
            stage.hear(conn, Message::ToSeed(ToSeed::DeadNode { peer, incarnation: 9, text }));
        }
        stage.answers_as(answers, 9);
        let yes = |e: &Event| matches!(e, Event::Vote { accept: true, .. });
        assert_eq!(stage.events(yes), accepts, "{answers:?} answers there");
    }
}
