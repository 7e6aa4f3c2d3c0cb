//! The message list, message by message.

use super::super::origins::MAX_STRANGERS;
use super::*;
use crate::proto::signature::Signature;
use bytes::Bytes;
use std::time::Duration;

const START: Time = Time::from_millis(1_800_000_000_000);

fn anybody(_: &Addr, _: Incarnation) -> bool {
    true
}

fn gossip(number: u64, text: &str) -> Gossip {
    Gossip {
        origin: ([127, 0, 0, 1], 6000).into(),
        life: START.millis(),
        number,
        offset: 0,
        age: 0,
        payload: Bytes::copy_from_slice(text.as_bytes()),
        signature: None,
    }
}

#[test]
fn a_message_is_held_once() {
    let mut list = MessageList::default();
    assert_eq!(list.offer(START, &gossip(1, "a"), anybody), Offer::New(0));
    assert_eq!(list.offer(START, &gossip(1, "a"), anybody), Offer::Known(0));
    assert_eq!(list.offer(START, &gossip(2, "b"), anybody), Offer::New(1));
    assert_eq!(list.len(), 2);
}

#[test]
fn a_forger_cannot_keep_the_honest_message_out() {
    let mut list = MessageList::default();
    assert_eq!(list.offer(START, &gossip(1, "forged"), anybody), Offer::New(0));
    assert_eq!(list.offer(START, &gossip(1, "honest"), anybody), Offer::New(1));
    assert_eq!(list.offer(START, &gossip(1, "honest"), anybody), Offer::Known(1));
    assert!(list.iter().any(|(_, entry)| entry.id == message_id(&gossip(1, "honest"))));
    // Nor can the forger by sending many messages under the next number.
    for text in 0..1_000 {
        list.offer(START, &gossip(2, &text.to_string()), anybody);
    }
    assert!(matches!(list.offer(START, &gossip(2, "honest"), anybody), Offer::New(_)));
    assert!(matches!(list.offer(START, &gossip(2, "7"), anybody), Offer::Known(_)));
}

#[test]
fn no_forged_time_keeps_the_messages_of_an_origin_out() {
    let ten_years = 10 * 365 * 86_400_000;
    let forged = |number| Gossip { offset: ten_years, ..gossip(number, "forged") };
    let refused = |list: &mut MessageList, numbers: std::ops::Range<u64>| {
        let offers = numbers.map(|number| list.offer(START, &gossip(number, "honest"), anybody));
        offers.filter(|offer| !matches!(offer, Offer::New(_))).count()
    };
    let mut list = MessageList::default();
    assert_eq!(list.offer(START, &gossip(1, "honest"), anybody), Offer::New(0));
    assert!(matches!(list.offer(START, &forged(2), anybody), Offer::New(_)));
    assert_eq!(refused(&mut list, 2..50), 0);
    // One that comes before all others costs a few messages at most, whatever comes later.
    let mut list = MessageList::default();
    assert_eq!(list.offer(START, &forged(1), anybody), Offer::New(0));
    assert!(refused(&mut list, 2..50) <= 3);
    list.offer(START, &forged(60), anybody);
    assert_eq!(refused(&mut list, 61..99), 0);
    list.expire(START + MAX_AGE * 2);
    assert!(list.is_empty(), "nor does it stay for ten years");
}

#[test]
fn invented_origins_find_little_room_and_take_none_from_members() {
    let mut list = MessageList::default();
    let origin = |number: u64, ip: [u8; 4]| Gossip {
        origin: (ip, 6000).into(),
        life: START.millis() - number,
        ..gossip(1, "a")
    };
    let is_member = |addr: &Addr, _: Incarnation| addr.ip().to_string() == "10.0.0.1";
    for number in 0..1_000 {
        list.offer(START, &origin(number, [10, 0, 0, 9]), is_member);
    }
    assert_eq!(list.len(), MAX_STRANGERS);
    assert!(matches!(list.offer(START, &origin(0, [10, 0, 0, 1]), is_member), Offer::New(_)));
}

#[test]
fn invented_lives_of_one_member_take_no_room_from_the_others() {
    let mut list = MessageList::default();
    for number in 1..20_000 {
        let life = START.millis() - number;
        list.offer(START, &Gossip { life, ..gossip(1, "a") }, anybody);
    }
    let other = Gossip { origin: ([127, 0, 0, 1], 6001).into(), ..gossip(1, "a") };
    assert!(matches!(list.offer(START, &other, anybody), Offer::New(_)));
    assert!(list.len() < 1_000, "{}", list.len());
}

#[test]
fn what_was_dropped_for_its_age_is_not_accepted_again() {
    let mut list = MessageList::default();
    list.offer(START, &gossip(1, "a"), anybody);
    let later = START + MAX_AGE + Duration::from_secs(1);
    assert_eq!(list.expire(later), 0);
    assert_eq!(list.len(), 0);
    assert_eq!(list.offer(later, &gossip(1, "a"), anybody), Offer::Refused(Refusal::Dropped));
    let much_later = later + MAX_AGE + AGE_ERROR * 2;
    assert_eq!(list.expire(much_later), 1, "the origin is forgotten in the end");
    // A peer that still holds the message has counted its age.
    let age = u64::try_from(much_later.since(START).as_millis()).unwrap();
    let late = Gossip { age, ..gossip(1, "a") };
    assert_eq!(list.offer(much_later, &late, anybody), Offer::Refused(Refusal::Old));
}

#[test]
fn what_was_dropped_for_want_of_room_is_not_accepted_again() {
    let mut list = MessageList::default();
    let first = gossip(1, "first");
    list.offer(START, &first, anybody);
    for number in 0..=MAX_MESSAGES as u64 {
        list.offer(START + Duration::from_micros(100 * number), &of_many(number), anybody);
    }
    assert_eq!(list.len(), MAX_MESSAGES);
    assert_eq!(list.offer(START, &first, anybody), Offer::Refused(Refusal::Dropped));
    assert_eq!(list.take_dropped(), 2);
}

/// One of many messages, of sixteen origins by turns.
fn of_many(number: u64) -> Gossip {
    let port = u16::try_from(number % 16).unwrap();
    Gossip { origin: ([127, 0, 0, 1], 6000 + port).into(), ..gossip(number / 16 + 2, "x") }
}

#[test]
fn one_origin_takes_a_quarter_of_the_room_and_drives_out_only_its_own() {
    let one = |number| gossip(number, "x");
    let other = Gossip { origin: ([127, 0, 0, 1], 6001).into(), ..gossip(1, "kept") };
    for numbers in [(1..=40_000).collect::<Vec<u64>>(), (1..=40_000).rev().collect()] {
        let mut list = MessageList::default();
        list.offer(START, &other, anybody);
        let mut now = START;
        for number in numbers {
            now = now + Duration::from_millis(1);
            assert!(matches!(list.offer(now, &one(number), anybody), Offer::New(_)), "{number}");
        }
        assert_eq!(list.len(), MAX_OF_ONE + 1);
        assert!(matches!(list.offer(now, &other, anybody), Offer::Known(_)));
        assert_eq!(list.take_dropped(), 40_000 - MAX_OF_ONE as u64);
        // Whichever way they came, all peers keep the same ones.
        assert!(matches!(list.offer(now, &one(40_000), anybody), Offer::Known(_)));
        assert_eq!(list.offer(now, &one(1), anybody), Offer::Refused(Refusal::Dropped));
    }
}

#[test]
fn large_messages_of_one_origin_leave_room_for_others_and_the_newest_is_held() {
    let mut list = MessageList::default();
    let large = Bytes::from(vec![7; MAX_PAYLOAD]);
    for number in 1..=100 {
        let gossip = Gossip { payload: large.clone(), ..gossip(number, "") };
        let Offer::New(place) = list.offer(START, &gossip, anybody) else { panic!("{number}") };
        assert!(list.entry(place).is_some());
    }
    assert_eq!(list.len(), MAX_BYTES_OF_ONE / (MAX_PAYLOAD + BESIDE));
}

#[test]
fn an_origin_that_floods_is_heard_no_faster_than_others_can_bear() {
    let signature = Some(Box::new(Signature::from_bytes(&[0; 64])));
    for (signature, at_once, a_second) in [(None, 2_500, 5_000), (signature, 500, 1_000)] {
        let mut list = MessageList::default();
        let mut numbers = 1..;
        let mut taken = |list: &mut MessageList, now: Time, age: u64, many| {
            let offset = i64::try_from(now.since(START).as_millis()).unwrap();
            let offset = offset - i64::try_from(age).unwrap();
            let offers = numbers.by_ref().take(many).filter(|number| {
                let signature = signature.clone();
                let gossip = Gossip { signature, offset, age, ..gossip(*number, "x") };
                match list.offer(now, &gossip, anybody) {
                    Offer::New(_) => true,
                    Offer::Refused(Refusal::Flood) => false,
                    other => panic!("{other:?}"),
                }
            });
            offers.count()
        };
        assert_eq!(taken(&mut list, START, 0, 10_000), at_once + 1);
        let mut later = START;
        for _ in 0..3 {
            later = later + Duration::from_secs(1);
            assert_eq!(taken(&mut list, later, 0, 10_000), a_second.min(at_once + 1));
            let half = later + Duration::from_millis(400);
            assert_eq!(taken(&mut list, half, 0, 10_000), a_second * 2 / 5);
            later = half;
        }
        let other = Gossip { origin: ([127, 0, 0, 1], 6001).into(), ..gossip(1, "heard") };
        assert!(matches!(list.offer(later, &other, anybody), Offer::New(_)));
        // What a comparison brings late comes all at once, and has a bound, too.
        assert_eq!(taken(&mut list, later, 600_000, 16_000), 16_000);
        assert!(taken(&mut list, later, 600_000, 400_000) < 100_000);
    }
}

fn compared(list: &mut MessageList, now: Time, all: bool) -> usize {
    list.settle(now, all);
    list.index().len()
}

#[test]
fn what_is_compared_is_what_is_held_but_for_what_is_too_fresh_or_too_old() {
    let mut list = MessageList::default();
    list.offer(START, &gossip(1, "a"), anybody);
    assert_eq!(compared(&mut list, START, false), 0, "it is on its way by gossip");
    assert_eq!(compared(&mut list, START, true), 1, "unless all is asked for");
    // A message of another origin, whose clock is ahead.
    let ahead = Gossip { origin: ([127, 0, 0, 1], 6001).into(), ..gossip(2, "clock ahead") };
    list.offer(START, &Gossip { offset: 60_000, ..ahead }, anybody);
    assert_eq!(compared(&mut list, START + Duration::from_millis(1_900), false), 1);
    assert_eq!(compared(&mut list, START + Duration::from_secs(2), false), 2);
    // Two peers that heard a message at different times leave it out at the same time.
    let mut other = MessageList::default();
    other.offer(START + Duration::from_millis(700), &gossip(1, "a"), anybody);
    let now = START + Duration::from_millis(1_900);
    let mut one = MessageList::default();
    one.offer(START, &gossip(1, "a"), anybody);
    assert_eq!(compared(&mut one, now, false), compared(&mut other, now, false));
    let late = START + COMPARED_UNTIL + OLD_STEP;
    assert_eq!(compared(&mut list, late, false), 0, "they are nearly over");
    assert_eq!(list.len(), 2, "and held all the same");
    list.expire(START + MAX_AGE + Duration::from_secs(120));
    assert_eq!(compared(&mut list, START + MAX_AGE + Duration::from_secs(120), true), 0);
}

#[test]
fn what_was_dropped_for_want_of_room_is_not_compared_and_not_asked_for() {
    let mut list = MessageList::default();
    assert_eq!(list.floor(), None);
    for number in 0..=MAX_MESSAGES as u64 {
        let (offset, age) = (i64::try_from(number).unwrap(), 600_000 - number);
        list.offer(
            START + Duration::from_secs(600),
            &Gossip { offset, age, ..of_many(number) },
            anybody,
        );
    }
    list.settle(START + Duration::from_secs(600), true);
    assert_eq!(list.index().len(), MAX_MESSAGES);
    assert_eq!(list.floor(), Some(START));
}

#[test]
fn whatever_its_origins_clock_says_a_message_is_as_old_as_its_holders_have_counted() {
    const HOUR: i64 = 3_600_000;
    for offset in [-24 * HOUR, -HOUR, -600_000, 0, 600_000, HOUR, 24 * HOUR] {
        let mut list = MessageList::default();
        let at = |number, age: i64| {
            let offset = offset - age;
            Gossip { offset, age: age.unsigned_abs(), ..gossip(number, "a") }
        };
        assert_eq!(list.offer(START, &at(1, 0), anybody), Offer::New(0), "{offset}");
        let ahead = list.ahead(&gossip(1, "a").origin, START.millis());
        assert_eq!(ahead, offset * 1_000, "so far off is its clock");
        let old = list.offer(START, &at(2, HOUR + 1_000), anybody);
        assert_eq!(old, Offer::Refused(Refusal::Old), "{offset}");
        // A message that lay in a queue for so long that its age is wrong.
        let queued = Gossip { age: 0, ..at(3, HOUR + 1_000) };
        let queued = list.offer(START, &queued, anybody);
        assert_eq!(queued, Offer::Refused(Refusal::Old), "{offset}");
        // It is compared like any other: not while it is fresh, then for nearly an hour, then
        // no more.
        let after = |seconds| START + Duration::from_secs(seconds);
        let fresh = usize::from(offset < 0);
        assert_eq!(compared(&mut list, START, false), fresh, "{offset}: or it was late");
        assert_eq!(compared(&mut list, after(3), false), 1, "{offset}");
        assert_eq!(compared(&mut list, after(3_400), false), 0, "{offset}");
        assert_eq!(list.len(), 1);
        list.expire(after(3_601));
        assert_eq!(list.len(), 0, "{offset}");
    }
}

#[test]
fn the_slowest_message_does_not_decide_what_an_origins_clock_says() {
    let mut list = MessageList::default();
    let later = START + Duration::from_secs(100);
    // This message was published at the start and was on its way for 100 s.
    list.offer(later, &gossip(1, "a"), anybody);
    let origin = gossip(1, "a").origin;
    assert_eq!(list.ahead(&origin, START.millis()), -100_000_000);
    list.offer(later, &Gossip { offset: 100_000, ..gossip(2, "b") }, anybody);
    assert_eq!(list.ahead(&origin, START.millis()), 0);
    list.offer(later + Duration::from_secs(50), &gossip(3, "c"), anybody);
    assert_eq!(list.ahead(&origin, START.millis()), 0, "slow ones say nothing");
}

#[test]
fn nonsense_is_refused() {
    let mut list = MessageList::default();
    assert_eq!(list.offer(START, &gossip(0, "a"), anybody), Offer::Refused(Refusal::Nonsense));
    let long = Gossip { payload: vec![0; MAX_PAYLOAD + 1].into(), ..gossip(1, "a") };
    assert_eq!(list.offer(START, &long, anybody), Offer::Refused(Refusal::Long));
    assert!(list.is_empty());
}
