//! What a slow neighbour gets, what it loses, and who is told of it.

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::proto::config::Network;
use crate::proto::event::Event;
use crate::proto::gossip::MAX_AGE;
use crate::proto::machine::Effect;
use crate::proto::message::{AntiEntropy, Gossip, Message};

const START: Time = Time::from_millis(1_800_000_000_000);
/// The links of the peer under test: to one that reads slowly, and to one that does not.
const SLOW: Conn = 1;
const FAST: Conn = 3;

type Said = Effect<crate::proto::roles::PeerReply, crate::proto::kv::request::StoreChange>;

fn addr(number: u16) -> Addr {
    ([127, 0, 0, 1], 6000 + number).into()
}

/// A peer that publishes, and has a slow neighbour.
struct Stage {
    rumors: Rumors,
    now: Time,
    said: Vec<Said>,
}

impl Stage {
    fn new() -> Self {
        let config = PeerConfig::new(addr(0), Network::without_seeds("test"));
        let mut rumors = Rumors::new(&config);
        rumors.start(START, START.millis());
        rumors.link_up(START, SLOW, addr(1), false);
        rumors.link_up(START, FAST, addr(3), false);
        rumors.set_congested(SLOW, true);
        Self { rumors, now: START, said: Vec::new() }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Rumors, &mut PeerTurn<'_>) -> T) -> T {
        act(&mut self.rumors, &mut PeerTurn { now: self.now, effects: &mut self.said })
    }

    fn publish(&mut self, bytes: usize) {
        let result = self.act(|rumors, turn| rumors.publish(turn, Bytes::from(vec![7; bytes])));
        assert!(result.is_ok());
    }

    /// Time passes, and announcements go out.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let mut rng = SmallRng::seed_from_u64(1);
        self.act(|rumors, turn| rumors.tick(turn, &mut rng));
    }

    /// Somebody else's message comes over the fast link.
    fn hear(&mut self, number: u64, bytes: usize) {
        let payload = vec![8; bytes].into();
        let life = START.millis();
        let (origin, signature) = (addr(9), None);
        let gossip = Gossip { origin, life, number, offset: 0, age: 0, payload, signature };
        let heard = self.act(|rumors, turn| {
            rumors.on_gossip(turn, FAST, gossip, &|_: &Addr, _: Incarnation| true)
        });
        assert!(heard.is_ok());
    }

    /// Payloads pushed over a link.
    fn pushed(&self, over: Conn) -> usize {
        let is_gossip =
            |message: &Message| matches!(message, Message::Broadcast(Broadcast::Gossip(_)));
        let is_push = |effect: &&Said| match effect {
            Effect::Send { conn, message } => *conn == over && is_gossip(message),
            Effect::SendMany { conns, message } => conns.contains(&over) && is_gossip(message),
            _ => false,
        };
        self.said.iter().filter(is_push).count()
    }

    /// How much was said to be over a limit, and whose it was last.
    fn over(&self, wanted: Limit) -> (u64, Option<Addr>) {
        let of = self.said.iter().filter_map(|effect| match effect {
            Effect::Log(Event::OverLimit { limit, from, times }) if *limit == wanted => {
                Some((*times, *from))
            }
            _ => None,
        });
        of.fold((0, None), |(all, _), (times, from)| (all + times, from))
    }
}

#[test]
fn of_what_a_slow_neighbour_loses_the_messages_of_others_go_first() {
    let mut stage = Stage::new();
    for number in 1..=100 {
        stage.hear(number, 1_024);
        stage.publish(1_024);
    }
    assert_eq!(stage.pushed(SLOW), 100, "own messages alone");
    assert_eq!(stage.over(Limit::Forwarded), (100, Some(addr(1))));
    assert_eq!(stage.over(Limit::Own), (0, None));
    for _ in 0..300 {
        stage.publish(1_024);
    }
    assert_eq!(stage.pushed(SLOW), OWN_AHEAD / 1_024, "and of these only so many");
    assert_eq!(stage.over(Limit::Own), (144, Some(addr(1))));
    assert_eq!(stage.pushed(FAST), 400, "the other neighbour gets all that it has not sent");
}

#[test]
fn a_publisher_is_told_what_its_list_dropped_before_a_slow_neighbour_had_it() {
    const MIB: usize = 1 << 20;
    // How many of the first ten messages the slow neighbour has fetched; the list holds
    // fifteen such messages of one origin.
    for fetched in [0, 10] {
        let mut stage = Stage::new();
        for _ in 0..10 {
            stage.publish(MIB);
        }
        stage.pass(HAVE_INTERVAL * 2);
        if fetched > 0 {
            stage.rumors.set_congested(SLOW, false);
            let tag = super::super::tag(&addr(0), START.millis());
            while stage.pushed(SLOW) < fetched {
                let want = [(tag, vec![(1, 10)])];
                let before = stage.pushed(SLOW);
                assert!(stage.act(|rumors, turn| rumors.on_want(turn, SLOW, &want)).is_ok());
                assert!(stage.pushed(SLOW) > before, "it may fetch what is held");
            }
        }
        for _ in 0..15 {
            stage.publish(MIB);
        }
        let lost = 10 - fetched as u64;
        let from = (lost > 0).then(|| addr(1));
        assert_eq!(stage.over(Limit::Unfetched), (lost, from), "{fetched} were fetched");
        assert_eq!(stage.over(Limit::Messages).0, 10);
    }
}

#[test]
fn whoever_asks_for_what_is_gone_has_its_publisher_told() {
    let mut stage = Stage::new();
    stage.publish(10);
    stage.pass(HAVE_INTERVAL * 2);
    stage.publish(10);
    let tag = super::super::tag(&addr(0), START.millis());
    let ask = |stage: &mut Stage, numbers| {
        let want = [(tag, vec![numbers])];
        assert!(stage.act(|rumors, turn| rumors.on_want(turn, FAST, &want)).is_ok());
        stage.over(Limit::Gone)
    };
    assert_eq!(ask(&mut stage, (1, 60_000)), (0, None), "what was never published is not gone");
    stage.pass(MAX_AGE + Duration::from_secs(60));
    assert!(stage.rumors.list().is_empty());
    assert_eq!(ask(&mut stage, (1, 60_000)), (2, Some(addr(3))));
    assert_eq!(ask(&mut stage, (2, 1)), (3, Some(addr(3))));
}

#[test]
fn what_a_comparison_has_shown_to_be_there_is_not_said_to_be_lost() {
    let mut stage = Stage::new();
    for number in 1..=300 {
        stage.hear(number, 1_024);
        stage.publish(1_024);
    }
    assert!(stage.over(Limit::Own).0 > 0);
    // Another neighbour has brought them to it, as the comparison shows.
    stage.pass(Duration::from_secs(10));
    stage.act(|rumors, turn| rumors.begin_sync(turn, SLOW, false));
    let round = stage.said.iter().rev().find_map(|effect| match effect {
        Effect::Send {
            message: Message::AntiEntropy(AntiEntropy::Digest { round, .. }), ..
        } => Some(*round),
        _ => None,
    });
    let round = round.unwrap_or_default();
    stage.act(|rumors, turn| rumors.on_sync_matched(turn, SLOW, round));
    stage.pass(MAX_AGE + Duration::from_secs(60));
    assert!(stage.rumors.list().is_empty());
    assert_eq!(stage.over(Limit::Unfetched), (0, None));
}
