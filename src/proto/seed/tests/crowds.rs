//! What crowds of strangers, and callers that ask again and again, can do to a seed.

use super::*;

/// An address at which nobody listens.
fn nobody(number: u16) -> Addr {
    let [high, low] = number.to_be_bytes();
    ([10, 9, high, low], 7000).into()
}

fn asks_to_register(stage: &mut Stage, from: Addr, request: u64, incarnation: u64) -> Conn {
    let conn = stage.call(from, Role::Peer, Purpose::Membership);
    stage.hear(conn, Message::ToSeed(ToSeed::Register { request, incarnation }));
    conn
}

#[test]
fn registrations_of_dead_addresses_keep_neither_members_nor_newcomers_from_being_judged() {
    let mut stage = Stage::new(3);
    (0..4).for_each(|number| stage.member(number));
    for number in 0..2_000 {
        asks_to_register(&mut stage, nobody(number), 1, 1);
    }
    stage.report(1, 0);
    stage.report(2, 0);
    assert!(stage.dialled(peer_addr(0)).is_some(), "the death of a member has a place of its own");
    stage.pass(Duration::from_millis(300));
    asks_to_register(&mut stage, peer_addr(9), 7, 9);
    for _ in 0..10 {
        stage.pass(Duration::from_millis(50));
    }
    assert!(stage.dialled(peer_addr(9)).is_some(), "who answers does not wait for who does not");
    stage.probe(peer_addr(9), Ok((9, false)));
    let yes =
        |e: &Event| matches!(e, Event::Vote { accept: true, peer, .. } if *peer == peer_addr(9));
    assert_eq!(stage.events(yes), 1);
}

#[test]
fn a_seed_dials_no_more_than_so_many_newcomers_at_a_time() {
    let mut stage = Stage::new(1);
    for number in 0..5_000 {
        asks_to_register(&mut stage, nobody(number), 1, 1);
    }
    let dials = stage.effects.iter().filter(|effect| matches!(effect, Effect::Open { .. })).count();
    assert_eq!(dials, 1_024);
    let refusals = |m: &Message| matches!(m, Message::ToPeer(ToPeer::Denied { .. }));
    assert_eq!(stage.said(refusals), 0, "the others wait for their turn");
}

#[test]
fn one_connection_opens_few_ballots() {
    let mut stage = Stage::new(3);
    let conn = stage.call(nobody(1), Role::Peer, Purpose::Membership);
    for number in 1..=2_000 {
        let (request, incarnation) = (number, number);
        stage.hear(conn, Message::ToSeed(ToSeed::Register { request, incarnation }));
    }
    assert!(stage.seed.polls.counts().1 <= 8, "{}", stage.seed.polls.counts().1);
    // Nor does it wait many times for one ballot, to be answered as often.
    let mut stage = Stage::new(1);
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    for request in 1..=2_000 {
        stage.hear(conn, Message::ToSeed(ToSeed::Register { request, incarnation: 9 }));
    }
    stage.probe(peer_addr(0), Ok((9, false)));
    let granted = |m: &Message| matches!(m, Message::ToPeer(ToPeer::Granted { .. }));
    assert!(stage.said(granted) <= 8, "{}", stage.said(granted));
    assert_eq!(lists(&stage).len(), 1);
}

#[test]
fn a_caller_that_has_just_had_the_list_gets_no_second_one_until_something_changes() {
    let mut stage = Stage::new(3);
    stage.member(0);
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    let ask = |request| Message::ToSeed(ToSeed::Refresh { request, digest: [0; 32] });
    let again = |request| Message::ToSeed(ToSeed::Register { request, incarnation: 1 });
    for number in 0..100 {
        stage.hear(conn, ask(2 * number));
        stage.hear(conn, again(2 * number + 1));
    }
    let granted = |m: &Message| matches!(m, Message::ToPeer(ToPeer::Granted { .. }));
    assert_eq!((lists(&stage).len(), stage.said(granted)), (1, 100));
    stage.pass(Duration::from_secs(1));
    stage.hear(conn, ask(900));
    assert_eq!(lists(&stage).len(), 2, "a moment later it does");
    stage.member(1);
    stage.hear(conn, ask(901));
    assert_eq!(lists(&stage).len(), 1, "and at once if the list is another one");
}

#[test]
fn reports_on_nobody_cost_few_lines() {
    let mut stage = Stage::new(3);
    let conn = stage.call(nobody(1), Role::Peer, Purpose::Membership);
    for number in 0..5_000 {
        let (peer, text) = (nobody(number), "Dead Node".to_owned());
        stage.hear(conn, Message::ToSeed(ToSeed::DeadNode { peer, incarnation: 1, text }));
    }
    let told = |e: &Event| matches!(e, Event::Note { what: "dead-node report refused", .. });
    assert!((1..=1_000).contains(&stage.events(told)), "{}", stage.events(told));
}

#[test]
fn registrations_that_come_to_nothing_cost_few_lines() {
    let mut stage = Stage::new(1);
    for number in 0..6_000 {
        asks_to_register(&mut stage, nobody(number), 1, 1);
        stage.probe(nobody(number), Err(OpenError::Unreachable));
    }
    let told = |e: &Event| !matches!(e, Event::Aside(_));
    assert!((1..=4_000).contains(&stage.events(told)), "{}", stage.events(told));
    asks_to_register(&mut stage, peer_addr(0), 1, 9);
    stage.probe(peer_addr(0), Ok((9, false)));
    assert_eq!(stage.events(|e| matches!(e, Event::RegistrationCommitted { .. })), 1);
}

#[test]
fn who_calls_itself_a_seed_has_nothing_sent_to_the_real_one() {
    let mut stage = Stage::new(3);
    stage.member(0);
    let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
    stage.hear(conn, Message::ToSeed(ToSeed::Links { number: 1, neighbours: vec![peer_addr(1)] }));
    stage.effects.clear();
    let impostor = stage.call(seed_addr(1), Role::Seed, Purpose::Council);
    let to_others = stage.effects.iter().filter(|effect| match effect {
        Effect::Send { conn, .. } => *conn != impostor,
        Effect::SendMany { conns, .. } => conns.iter().any(|conn| *conn != impostor),
        _ => false,
    });
    assert_eq!(to_others.count(), 0, "{:?}", stage.effects);
}

#[test]
fn a_full_registry_takes_nobody_in_and_says_why_and_loses_nobody_who_is_there() {
    for (in_all, of_source, says) in [
        (2, 100, "the registry is full: 2 members (--max-members)"),
        (100, 2, "127.0.0.1 has 2 members already"),
    ] {
        let network = Network::new("test", [seed_addr(0)]);
        let mut config = SeedConfig::new(seed_addr(0), network);
        (config.max_members, config.max_members_per_source) = (in_all, of_source);
        let mut stage =
            Stage { seed: SeedMachine::new(config, 1), now: NOW, effects: Vec::new(), next: 1 };
        stage.give(Input::Start);
        for number in 0..2 {
            asks_to_register(&mut stage, peer_addr(number), 1, 9);
            stage.probe(peer_addr(number), Ok((9, false)));
        }
        assert_eq!(stage.seed.registry().size(), 2);
        stage.effects.clear();
        asks_to_register(&mut stage, peer_addr(2), 1, 9);
        let denied = |m: &Message| match m {
            Message::ToPeer(ToPeer::Denied { reason, .. }) => reason.contains(says),
            _ => false,
        };
        assert_eq!(stage.said(denied), 1, "{:?}", stage.effects);
        let full = if in_all == 2 { Limit::Members } else { Limit::MembersOfSource };
        let dropped = |e: &Event| matches!(e, Event::OverLimit { limit, .. } if *limit == full);
        assert_eq!(stage.events(dropped), 1);
        // A member that comes back in a later life has its place.
        asks_to_register(&mut stage, peer_addr(1), 1, 10);
        stage.probe(peer_addr(1), Ok((10, false)));
        let record = stage.seed.registry().get(&peer_addr(1));
        assert_eq!(record.map(|record| record.incarnation), Some(10));
        // Who leaves makes room, and whoever has another address is another source.
        let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
        stage.hear(conn, Message::ToSeed(ToSeed::Leave { request: 2, incarnation: 9 }));
        stage.probe(peer_addr(0), Ok((9, true)));
        asks_to_register(&mut stage, peer_addr(2), 1, 9);
        stage.probe(peer_addr(2), Ok((9, false)));
        assert_eq!(stage.seed.registry().size(), 2);
        asks_to_register(&mut stage, nobody(1), 1, 9);
        assert_eq!(stage.dialled(nobody(1)).is_some(), in_all > 2, "{says}");
    }
}

#[test]
fn a_member_that_is_silent_and_does_not_answer_is_proposed_dead_and_one_that_answers_is_not() {
    let mut stage = Stage::new(1);
    for number in 0..4 {
        asks_to_register(&mut stage, peer_addr(number), 1, 9);
        stage.probe(peer_addr(number), Ok((9, false)));
    }
    let asks = |stage: &mut Stage| {
        let conn = stage.call(peer_addr(0), Role::Peer, Purpose::Membership);
        stage.hear(conn, Message::ToSeed(ToSeed::Refresh { request: 3, digest: [0; 32] }));
    };
    stage.effects.clear();
    for _ in 0..20 {
        stage.pass(Duration::from_secs(2));
        asks(&mut stage);
        // One of the silent answers, one does not, and at one this seed could not even look.
        let results = [(1, Ok(9)), (2, Err(OpenError::Unreachable)), (3, Err(OpenError::Local))];
        for (number, result) in results {
            while let Some(conn) = stage.dialled(peer_addr(number)) {
                stage.effects.retain(
                    |effect| !matches!(effect, Effect::Open { to, .. } if *to == peer_addr(number)),
                );
                stage.give(match &result {
                    Err(error) => Input::OpenFailed { conn, error: error.clone() },
                    Ok(incarnation) => {
                        let (role, from) = (Role::Peer, peer_addr(number));
                        let (incarnation, leaving) = (*incarnation, false);
                        let (clock, identity) = (0, None);
                        let welcome = Welcome { role, from, incarnation, leaving, clock, identity };
                        Input::Opened { conn, welcome }
                    }
                });
            }
        }
        assert!(stage.dialled(peer_addr(0)).is_none(), "who asks for news is there");
    }
    assert_eq!(stage.status(1), Some(Status::Alive));
    assert_eq!(stage.status(2), Some(Status::Dead));
    assert_eq!(stage.status(3), Some(Status::Alive), "that says nothing");
    assert_eq!(stage.events(|e| matches!(e, Event::DeadNodeCommitted { .. })), 1);
}
