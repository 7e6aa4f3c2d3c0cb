//! What a peer believes of what three seeds tell it, and what it says of itself meanwhile.

use crate::proto::message::{Detection, Message, ToPeer, ToSeed};
use std::collections::BTreeMap;

use super::sessions::CALL;
use super::*;
use crate::proto::roles::MemberEvent;

fn seed(number: u16) -> Addr {
    ([127, 0, 0, 1], 5000 + number).into()
}

/// Peer 5 and three seeds; the test plays the seeds.
struct Voted {
    stage: Stage,
    seed_conns: BTreeMap<Addr, Conn>,
}

fn welcome_of_seed(from: Addr) -> Welcome {
    let (role, incarnation) = (Role::Seed, 0);
    Welcome { role, from, incarnation, leaving: false, clock: 0, identity: None }
}

impl Voted {
    /// A peer that is registered with all three seeds, which know it and peers 0 to 3.
    fn new() -> Self {
        let network = Network::new("test", (0..3).map(seed));
        let config = PeerConfig::new(addr(5), network).gossip_count(0);
        let peer = PeerMachine::new(config, 1);
        let stage = Stage { peer, now: NOW, effects: Vec::new(), incoming: 1 };
        let mut voted = Self { stage, seed_conns: BTreeMap::new() };
        voted.stage.give(Input::Start);
        for _ in 0..8 {
            voted.answer(|_| Some(list(0..4)));
            voted.stage.pass(Duration::from_millis(500));
        }
        assert_eq!(voted.seed_conns.len(), 3, "a peer hears all seeds");
        voted.stage.effects.clear();
        voted
    }

    /// The seeds welcome a caller, grant every registration, and answer with the list that `tells`
    /// returns for them; `None` is answered as "unchanged".
    fn answer(&mut self, tells: impl Fn(Addr) -> Option<Vec<(Addr, Record)>>) {
        loop {
            let effects = std::mem::take(&mut self.stage.effects);
            let mut inputs = Vec::new();
            for effect in &effects {
                match effect {
                    Effect::Open { conn, to, .. } if (5000..5003).contains(&to.port()) => {
                        self.seed_conns.insert(*to, *conn);
                        inputs.push(Input::Opened { conn: *conn, welcome: welcome_of_seed(*to) });
                    }
                    Effect::Send { conn, message } => {
                        let Some((from, _)) =
                            self.seed_conns.iter().find(|(_, seed_conn)| *seed_conn == conn)
                        else {
                            continue;
                        };
                        let request = match message {
                            Message::ToSeed(ToSeed::Register { request, .. }) => {
                                let message = Message::ToPeer(ToPeer::Granted {
                                    request: *request,
                                    votes: 2,
                                });
                                inputs.push(Input::Received { conn: *conn, message });
                                *request
                            }
                            Message::ToSeed(ToSeed::Refresh { request, .. }) => *request,
                            _ => continue,
                        };
                        let message = match tells(*from) {
                            Some(records) => {
                                let records = records.into_iter().collect();
                                Message::ToPeer(ToPeer::List { request, records, more: false })
                            }
                            None => Message::ToPeer(ToPeer::Unchanged { request }),
                        };
                        inputs.push(Input::Received { conn: *conn, message });
                    }
                    _ => {}
                }
            }
            if inputs.is_empty() {
                self.stage.effects = effects;
                return;
            }
            inputs.into_iter().for_each(|input| self.stage.give(input));
        }
    }

    /// Lets enough time pass for one refresh of all seeds.
    fn refresh(&mut self, tells: impl Fn(Addr) -> Option<Vec<(Addr, Record)>>) {
        for _ in 0..15 {
            self.stage.pass(Duration::from_millis(1_000));
            self.answer(&tells);
        }
    }

    fn tell(&mut self, by: u16, peer: u16, record: Record) {
        let conn = self.seed_conns[&seed(by)];
        self.stage.hear(conn, Message::ToPeer(ToPeer::Update(vec![(addr(peer), record)])));
    }

    fn members(&self) -> Vec<u16> {
        self.stage.peer.members().members().map(|(addr, _)| addr.port() - 6000).collect()
    }

    fn member_events(&self, wanted: &MemberEvent) -> usize {
        let wanted =
            |e: &&Effect| matches!(e, Effect::Reply(PeerReply::Member(event)) if event == wanted);
        self.stage.effects.iter().filter(wanted).count()
    }
}

fn list(numbers: std::ops::Range<u16>) -> Vec<(Addr, Record)> {
    let me = (addr(5), Record { incarnation: NOW.millis(), ..alive(5) });
    numbers.map(|number| (addr(number), alive(number))).chain([me]).collect()
}

fn dead(number: u16) -> Record {
    Record { status: Status::Dead, ..alive(number) }
}

#[test]
fn one_seed_can_neither_invent_a_member_nor_bury_one() {
    let mut voted = Voted::new();
    assert_eq!(voted.members(), [0, 1, 2, 3, 5]);
    voted.tell(0, 9, alive(9));
    voted.tell(0, 1, dead(1));
    assert_eq!(voted.members(), [0, 1, 2, 3, 5], "that is one seed's word");
    // It makes no difference how the seed says it, or how often.
    let ghosts = |from| {
        (from == seed(0)).then(|| {
            list(0..1).into_iter().chain([(addr(9), alive(9)), (addr(1), dead(1))]).collect()
        })
    };
    voted.refresh(ghosts);
    assert_eq!(voted.members(), [0, 1, 2, 3, 5]);
    assert_eq!(voted.member_events(&MemberEvent::Joined(addr(9), 1)), 0);
    // A second seed makes a quorum.
    voted.tell(1, 9, alive(9));
    voted.tell(1, 1, dead(1));
    assert_eq!(voted.members(), [0, 2, 3, 5, 9]);
    assert_eq!(voted.member_events(&MemberEvent::Dead(addr(1))), 1);
}

#[test]
fn whoever_no_quorum_of_seeds_knows_any_more_goes_at_the_refresh() {
    let mut voted = Voted::new();
    let without_3 = |_| Some(list(0..3));
    voted.refresh(|from| (from == seed(0)).then(|| list(0..3)));
    assert_eq!(voted.members(), [0, 1, 2, 3, 5], "a seed that lost its registry takes nobody away");
    voted.refresh(without_3);
    assert_eq!(voted.members(), [0, 1, 2, 5]);
    assert_eq!(voted.member_events(&MemberEvent::Forgotten(addr(3))), 1);
}

#[test]
fn a_suspect_that_no_quorum_knows_is_forgotten_when_its_death_is_reported() {
    let mut voted = Voted::new();
    voted.stage.link(3);
    let conn = voted.stage.peer.overlay.get(&addr(3)).unwrap().conn;
    voted.stage.give(Input::Closed { conn });
    let probe = voted.stage.probing(3).expect("it looks");
    voted.stage.give(Input::OpenFailed { conn: probe, error: OpenError::Unreachable });
    assert!(voted.stage.peer.suspects(&addr(3)));
    for by in [0, 1] {
        let conn = voted.seed_conns[&seed(by)];
        voted.stage.hear(conn, Message::ToPeer(ToPeer::NoMember { peer: addr(3) }));
    }
    assert!(!voted.stage.peer.suspects(&addr(3)), "nobody will ever vote on it");
    assert_eq!(voted.members(), [0, 1, 2, 5]);
}

#[test]
fn an_answer_of_one_seed_is_none_to_what_another_was_asked() {
    let mut voted = Voted::new();
    // Time passes until a refresh has gone out to all three seeds.
    let asked = |stage: &Stage, seed_conn: Conn| {
        stage.effects.iter().find_map(|effect| match effect {
            Effect::Send { conn, message: Message::ToSeed(ToSeed::Refresh { request, .. }) }
                if *conn == seed_conn =>
            {
                Some(*request)
            }
            _ => None,
        })
    };
    let seed_conns = [voted.seed_conns[&seed(0)], voted.seed_conns[&seed(1)]];
    while asked(&voted.stage, seed_conns[1]).is_none() {
        voted.stage.pass(Duration::from_millis(100));
    }
    let request = asked(&voted.stage, seed_conns[1]).unwrap();
    voted.stage.hear(seed_conns[0], Message::ToPeer(ToPeer::Unchanged { request }));
    assert!(
        voted.stage.peer.registration.request_to(seed(1), request).is_some(),
        "the other one still has to answer"
    );
    voted.stage.hear(seed_conns[1], Message::ToPeer(ToPeer::Unchanged { request }));
    assert!(voted.stage.peer.registration.request_to(seed(1), request).is_none());
}

#[test]
fn a_peer_that_a_quorum_refuses_or_has_as_dead_is_not_ready() {
    let mut voted = Voted::new();
    let ready = |voted: &Voted| voted.stage.peer.readiness();
    assert!(ready(&voted).ready && ready(&voted).seeds_reachable == 3, "{:?}", ready(&voted));
    let incarnation = voted.stage.peer.incarnation();
    let dead = Record { incarnation, ..dead(5) };
    voted.tell(0, 5, dead.clone());
    assert!(ready(&voted).ready, "one seed's word");
    voted.tell(1, 5, dead);
    let state = ready(&voted);
    assert!(!state.ready, "{state:?}");
    assert!(voted.stage.peer.incarnation() > incarnation, "and it comes back above that");

    // Every seed refuses the link, as it does where the seed lists differ.
    let mut voted = Voted::new();
    for (_, conn) in voted.seed_conns.clone() {
        voted.stage.give(Input::Closed { conn });
    }
    assert!(ready(&voted).ready, "a peer that merely hears from no seed stays ready");
    assert_eq!(ready(&voted).seeds_reachable, 0);
    let mut refusals = 0;
    for _ in 0..100 {
        voted.stage.pass(Duration::from_millis(100));
        let dials: Vec<Conn> = voted
            .stage
            .peer
            .sessions
            .dials()
            .iter()
            .filter(|(_, dial)| matches!(dial, Dial::Seed(_)))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in dials {
            refusals += 1;
            let error = refused(Refused::SeedList, vec![]);
            voted.stage.give(Input::OpenFailed { conn, error });
        }
    }
    assert!(refusals >= 3);
    let state = ready(&voted);
    assert!(!state.ready && state.reason.contains("seed list differs"), "{state:?}");
}

#[test]
fn a_notice_of_another_life_makes_no_witness() {
    let mut stage = Stage::new(5, 3);
    let conn = stage.link(4);
    let witness = stage.link(3);
    stage.give(Input::Closed { conn });
    let probe = stage.probing(4).unwrap();
    stage.give(Input::OpenFailed { conn: probe, error: OpenError::Unreachable });
    stage.effects.clear();
    stage.hear(
        witness,
        Message::Detection(Detection::SuspectNotice { peer: addr(4), incarnation: 0 }),
    );
    assert_eq!(
        stage.sent(|m| matches!(m, Message::ToSeed(ToSeed::DeadNode { .. }))),
        0,
        "an earlier life's"
    );
    stage.hear(
        witness,
        Message::Detection(Detection::SuspectNotice { peer: addr(4), incarnation: 2 }),
    );
    assert_eq!(
        stage.sent(|m| matches!(m, Message::ToSeed(ToSeed::DeadNode { .. }))),
        0,
        "a later life's"
    );
    stage.hear(
        witness,
        Message::Detection(Detection::SuspectNotice { peer: addr(4), incarnation: 1 }),
    );
    assert_eq!(stage.sent(|m| matches!(m, Message::ToSeed(ToSeed::DeadNode { .. }))), 1);
}

#[test]
fn where_nobody_else_could_be_a_witness_no_consensus_is_claimed() {
    let mut stage = Stage::new(1, 1);
    let conn = stage.peer.overlay.get(&addr(0)).unwrap().conn;
    stage.give(Input::Closed { conn });
    let probe = stage.probing(0).unwrap();
    stage.give(Input::OpenFailed { conn: probe, error: OpenError::Unreachable });
    assert_eq!(stage.sent(|m| matches!(m, Message::ToSeed(ToSeed::DeadNode { .. }))), 1);
    assert_eq!(stage.events(|e| matches!(e, Event::PeerLevelConsensus { .. })), 0);
    assert_eq!(stage.events(|e| matches!(e, Event::Note { what: "sole witness", .. })), 1);
}

#[test]
fn a_link_that_is_replaced_is_told_as_gone_and_as_there() {
    let mut stage = Stage::new(5, 3);
    stage.effects.clear();
    stage.now = stage.now + Duration::from_secs(11);
    stage.incoming += 2;
    let hello = stage.peer.life.config.network.hello(Role::Peer, addr(1), 2, Purpose::Link);
    stage.give(Input::Incoming { conn: stage.incoming, hello });
    let told: Vec<&MemberEvent> = stage
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply(PeerReply::Member(event)) => Some(event),
            _ => None,
        })
        .collect();
    let (down, up) = (MemberEvent::NeighbourDown(addr(1)), MemberEvent::NeighbourUp(addr(1)));
    assert_eq!(told, [&down, &up]);
}

#[test]
fn whoever_calls_and_asks_nothing_is_sent_away_whatever_the_ping_interval() {
    let hour = Duration::from_secs(3_600);
    let mut stage = Stage::with(5, |config| {
        config.ping_interval(hour).suspect_timeout(hour * 3).sync_interval(hour)
    });
    let call = |stage: &mut Stage| {
        stage.incoming += 2;
        let network = stage.peer.life.config.network.clone();
        let hello = network.hello(Role::Peer, addr(0), 1, Purpose::Ask);
        stage.effects.clear();
        stage.give(Input::Incoming { conn: stage.incoming, hello });
        let welcomed = |e: &Effect| {
            matches!(e, Effect::Answer { answer: crate::proto::message::Answer::Welcome(_), .. })
        };
        stage.effects.iter().any(welcomed)
    };
    let mut places = 0;
    while call(&mut stage) {
        places += 1;
    }
    assert!(places > 0, "some can ask at the same time");
    stage.pass(CALL + Duration::from_secs(1));
    assert!(call(&mut stage), "the idle ones are gone");
}
