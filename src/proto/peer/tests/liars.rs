//! What a liar among the members, or one that calls in a member's name, can do to a peer: input by
//! input, the tests play the liar.

use super::*;
use crate::proto::config::Membership;
use crate::proto::message::Members;

/// Peer 5 in a network without seeds.
fn open(contacts: &[u16], now: Time) -> Stage {
    let contacts = Membership::Open(contacts.iter().map(|number| addr(*number)).collect());
    let config = PeerConfig::new(addr(5), Network::without_seeds("test"));
    let config = config.gossip_count(0).membership(contacts);
    let peer = PeerMachine::new(config, 1);
    let mut stage = Stage { peer, now, effects: Vec::new(), incoming: 1 };
    stage.give(Input::Start);
    stage
}

fn told(number: u16, incarnation: Incarnation, status: Status) -> (Addr, Record) {
    let at = NOW.millis() - 1_000;
    (addr(number), Record::plain(incarnation, status, at, Vec::new()))
}

fn changed(records: Vec<(Addr, Record)>) -> Message {
    Message::Members(Members::Changed(records))
}

/// A link over which a peer has named itself.
fn shake_hands(stage: &mut Stage, number: u16) -> Conn {
    let conn = stage.link(number);
    stage.hear(conn, Message::Members(Members::Handshake(vec![told(number, 7, Status::Alive)])));
    conn
}

#[test]
fn calls_in_the_names_of_members_throw_no_newcomer_out() {
    let mut stage = Stage::with(5, |config| config.max_links(3));
    let newcomers = [100, 101, 102];
    for newcomer in newcomers {
        stage.link(newcomer);
    }
    let linked = |stage: &Stage| {
        newcomers.into_iter().filter(|one| stage.peer.overlay.contains(&addr(*one))).count()
    };
    assert_eq!(linked(&stage), 3);
    for member in 0..3 {
        stage.link(member);
    }
    assert_eq!(linked(&stage), 3, "they register at this moment");
    // One that has had the time to register and has not makes room for a member.
    stage.pass(Duration::from_secs(10));
    stage.link(0);
    assert_eq!(linked(&stage), 2);
    assert!(stage.peer.overlay.contains(&addr(0)));
}

#[test]
fn a_neighbour_that_is_voted_dead_loses_its_link_whatever_life_it_claims() {
    let mut stage = Stage::new(5, 0);
    let network = stage.peer.life.config.network.clone();
    let hello = network.hello(Role::Peer, addr(0), u64::MAX, Purpose::Link);
    stage.give(Input::Incoming { conn: 901, hello });
    assert!(stage.peer.overlay.contains(&addr(0)));
    let seed = stage.peer.sessions.such(|session| session == Session::Seed(seed_addr()))[0];
    let record = Record::plain(1, Status::Dead, 1, vec![0]);
    stage.hear(seed, Message::ToPeer(ToPeer::Update(vec![(addr(0), record)])));
    stage.pass(Duration::from_secs(10));
    assert!(stage.peer.overlay.contains(&addr(0)), "it may be registering in a later life");
    for _ in 0..4 {
        stage.hear(901, Message::Ping(1));
        stage.pass(Duration::from_secs(10));
    }
    assert!(!stage.peer.overlay.contains(&addr(0)), "it is no member, and has had its time");
}

#[test]
fn a_probe_that_tells_of_a_life_that_cannot_be_raises_no_link_to_it() {
    let mut stage = Stage::new(5, 3);
    let conn = stage.link(4);
    stage.pass(Duration::from_millis(14_900));
    (0..4).filter(|n| *n != 3).for_each(|n| {
        let conn = stage.peer.overlay.get(&addr(n)).map(|neighbour| neighbour.conn);
        conn.into_iter().for_each(|conn| stage.hear(conn, Message::Ping(1)));
    });
    stage.pass(Duration::from_millis(200));
    assert!(stage.peer.suspects(&addr(4)));
    stage.hear(conn, Message::Ping(1));
    stage.pass(Duration::from_secs(3));
    let probe = stage.probing(4).expect("it looks again");
    stage.welcome(probe, addr(4), Role::Peer, u64::MAX);
    assert!(!stage.peer.suspects(&addr(4)), "it lives, whatever else it says");
    let incarnation = stage.peer.overlay.get(&addr(4)).map(|neighbour| neighbour.incarnation);
    assert_eq!(incarnation, Some(1), "a death of its present life would leave the link");
}

#[test]
fn who_is_told_of_a_life_far_ahead_rises_no_further_than_others_believe() {
    let mut stage = open(&[], NOW);
    let conn = shake_hands(&mut stage, 1);
    let ten_years = 10 * 365 * 86_400_000;
    let far = told(5, NOW.millis() + ten_years - 1, Status::Alive);
    stage.hear(conn, changed(vec![far]));
    let risen = stage.peer.incarnation();
    // A peer whose clock is an hour behind.
    let behind = Time::from_millis(NOW.millis() - 3_600_000);
    let mut other = open(&[], behind);
    let conn = shake_hands(&mut other, 1);
    other.hear(conn, changed(vec![told(6, risen, Status::Alive)]));
    let known = other.peer.members().alive(&addr(6)).map(|record| record.incarnation);
    assert_eq!(known, Some(risen), "or it would be out for an hour");
}

#[test]
fn who_is_refused_as_no_member_pauses_before_it_calls_again() {
    let mut stage = open(&[1], NOW);
    let link = |stage: &Stage| stage.opened(|to, why| to == addr(1) && why == Purpose::Link);
    let mut calls = 0;
    while let Some(conn) = link(&stage).filter(|_| calls < 100) {
        calls += 1;
        stage.effects.clear();
        let error = refused(Refused::NotMember, vec![]);
        stage.give(Input::OpenFailed { conn, error });
    }
    assert_eq!(calls, 1, "the next one follows when the pause is over");
}

/// Peer 5 suspects peer 2, which does not answer; peer 1 is linked.
fn suspecting() -> (Stage, Conn) {
    let mut stage = open(&[], NOW);
    let teller = shake_hands(&mut stage, 1);
    let conn = shake_hands(&mut stage, 2);
    stage.give(Input::Closed { conn });
    // The link was with an earlier life than the one that is known, so it looks at both, and twice
    // at the present one.
    for _ in 0..3 {
        let probe = stage.probing(2).expect("it looks");
        stage.give(Input::OpenFailed { conn: probe, error: OpenError::Unreachable });
    }
    assert!(stage.peer.suspects(&addr(2)));
    stage.effects.clear();
    (stage, teller)
}

#[test]
fn hearsay_of_a_later_life_ends_no_suspicion() {
    for answers in [false, true] {
        let (mut stage, teller) = suspecting();
        stage.hear(teller, changed(vec![told(2, 8, Status::Alive)]));
        assert!(stage.peer.suspects(&addr(2)), "it has said nothing itself");
        let probe = stage.probing(2).expect("it looks for itself");
        if answers {
            stage.welcome(probe, addr(2), Role::Peer, 8);
            assert!(!stage.peer.suspects(&addr(2)));
            continue;
        }
        stage.give(Input::OpenFailed { conn: probe, error: OpenError::Unreachable });
        assert!(stage.peer.suspects(&addr(2)));
        // More of the same within a suspect timeout is not taken, or it would never end.
        for life in 9..20 {
            stage.hear(teller, changed(vec![told(2, life, Status::Alive)]));
        }
        let known = |stage: &Stage| stage.peer.members().get(&addr(2)).cloned();
        assert_eq!(known(&stage).map(|record| record.incarnation), Some(8));
        let witness = Detection::Witness { peer: addr(2), incarnation: 8 };
        stage.hear(teller, Message::Detection(witness));
        assert_eq!(known(&stage).map(|record| record.status), Some(Status::Dead));
    }
}

#[test]
fn a_neighbour_that_asks_for_all_members_again_and_again_is_answered_a_few_times() {
    let mut stage = open(&[], NOW);
    let conn = shake_hands(&mut stage, 1);
    stage.effects.clear();
    for _ in 0..1_000 {
        stage.hear(conn, Message::Members(Members::Digest([9; 32])));
        stage.hear(conn, Message::Members(Members::Handshake(Vec::new())));
    }
    let lists =
        |m: &Message| matches!(m, Message::Members(Members::Handshake(_) | Members::Peers { .. }));
    assert!((1..=100).contains(&stage.sent(lists)), "{}", stage.sent(lists));
    stage.pass(Duration::from_secs(1));
    let conn = shake_hands(&mut stage, 2);
    stage.effects.clear();
    stage.hear(conn, Message::Members(Members::Digest([9; 32])));
    assert_eq!(stage.sent(lists), 1, "others are answered");
}

#[test]
fn links_that_strangers_open_and_break_cost_few_lines() {
    let mut stage = Stage::new(5, 0);
    for stranger in 0..5_000 {
        let conn = stage.link(100 + stranger);
        stage.give(Input::Closed { conn });
    }
    let told = |e: &Event| matches!(e, Event::NeighbourUp { .. } | Event::NeighbourDown { .. });
    assert!((1..=1_000).contains(&stage.events(told)), "{}", stage.events(told));
    stage.effects.clear();
    stage.link(0);
    assert_eq!(stage.events(told), 1, "a member's is told");
}
