//! The message list (ML): each gossip message seen, by SHA-256, bounded by age, count and bytes.
//!
//! What must stay true: a message is held once, and a message that was dropped is not accepted
//! again, whatever anybody's wall clock says. So the age of a message is what its holders have
//! counted, and for each origin the list knows by how much its clock is ahead of ours. The list
//! keeps messages in order of arrival. Links remember which messages crossed by their *place* in
//! that order, so that one bit does where a hash set would be needed.
//!
//! Anti-entropy compares an index over the messages held, without those that are too fresh or too
//! old for it ([`MessageList::settle`]). The index is brought up to date only when it is asked for,
//! so that a delivery does not pay for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::index::IdIndex;
pub use super::origins::Origin;
use super::origins::{Held, Origins, ahead_of};
use super::{AGE_ERROR, MAX_AGE, MAX_PAYLOAD, MessageId, message_id, published};
use crate::proto::message::{Addr, Gossip, Incarnation, Tag};
use crate::proto::time::Time;

/// Most messages held.
pub const MAX_MESSAGES: usize = 65_536;
/// Most payload bytes held.
const MAX_BYTES: usize = 64 << 20;
/// A message published so recently is still on its way by gossip; comparing it would find a
/// difference in every busy network. All peers round the limit to the same step of the clock, so
/// that two that compare at the same time mostly compare the same messages.
const FRESH: Duration = Duration::from_secs(1);
/// A message that came so long ago is compared even if its origin's clock says that it is fresh.
const FRESH_AT_MOST: Duration = Duration::from_secs(2);
/// A message so old is not compared any more: another peer may find that it is too old to hold.
const COMPARED_UNTIL: Duration = MAX_AGE.saturating_sub(AGE_ERROR);
/// The step of the clock at which old messages leave the comparisons of all peers at once.
const OLD_STEP: Duration = Duration::from_secs(60);
/// A message held.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its identity.
    pub id: MessageId,
    /// The message.
    pub gossip: Gossip,
    /// Its origin's index.
    pub origin: usize,
    /// When it came.
    pub received: Time,
}

/// Why a message was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Older than [`MAX_AGE`].
    Old,
    /// Longer than [`MAX_PAYLOAD`].
    Long,
    /// It has a number that no message can have: 0 or the greatest.
    Nonsense,
    /// It was here before and has been dropped.
    Dropped,
    /// Too many origins, or too many holes in an origin's numbers.
    Crowded,
}

/// What the list did with a message offered to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// New; now held at that place.
    New(u64),
    /// Held already, at that place.
    Known(u64),
    /// Not taken.
    Refused(Refusal),
}

/// The messages held, and the numbers of all that were ever accepted.
#[derive(Clone, Debug, Default)]
pub struct MessageList {
    entries: VecDeque<Option<Entry>>,
    /// Place of the first entry.
    base: u64,
    held: usize,
    bytes: usize,
    /// The messages that anti-entropy compares: those before the place `indexed` that are neither
    /// `fresh` nor published before their origin's `compared_from`.
    index: IdIndex,
    indexed: u64,
    fresh: Vec<u64>,
    /// The newest time of publication, by our clock, among messages dropped for want of room.
    floor: Option<Time>,
    origins: Origins,
}

impl MessageList {
    /// Offers a message that came at `now`. `is_member` tells whether a peer is known as a member
    /// in that life or a later one; it is called only when an origin is new.
    pub fn offer(
        &mut self,
        now: Time,
        gossip: &Gossip,
        is_member: impl Fn(&Addr, Incarnation) -> bool,
    ) -> Offer {
        let name = (gossip.origin, gossip.life);
        let known = self.origins.by_name(name);
        if let Some(offer) = known.and_then(|index| self.offered_before(index, gossip)) {
            return offer;
        }
        if let Some(refusal) = self.objection(now, known, gossip) {
            return Offer::Refused(refusal);
        }
        let ahead = ahead_of(now, gossip);
        let Some(index) = known.or_else(|| self.origins.add(name, ahead, is_member)) else {
            return Offer::Refused(Refusal::Crowded);
        };
        let place = self.base + self.entries.len() as u64;
        let id = message_id(gossip);
        if let Some(origin) = self.origins.get_mut(index) {
            origin.seen.insert(gossip.number);
            let held = match origin.held.remove(&gossip.number) {
                None => Held::One(place),
                Some(Held::One(other)) => {
                    let other_id = entry_at(&self.entries, self.base, other).map(|entry| entry.id);
                    let mut places = BTreeMap::from([(id, place)]);
                    places.extend(other_id.map(|id| (id, other)));
                    Held::Many(places)
                }
                Some(Held::Many(mut places)) => {
                    places.insert(id, place);
                    Held::Many(places)
                }
            };
            origin.held.insert(gossip.number, held);
            origin.heard(now, gossip);
        }
        self.held += 1;
        self.bytes += gossip.payload.len();
        let gossip = gossip.clone();
        self.entries.push_back(Some(Entry { id, gossip, origin: index, received: now }));
        while self.held > MAX_MESSAGES || self.bytes > MAX_BYTES {
            self.drop_first(now);
        }
        Offer::New(place)
    }

    /// The result for a message whose number has come before from this origin, or for whose number
    /// there is no room; none if the message may be new.
    fn offered_before(&self, index: usize, gossip: &Gossip) -> Option<Offer> {
        let origin = self.origin(index)?;
        match origin.held.get(&gossip.number) {
            // Compared byte by byte, which is cheaper than hashing each duplicate.
            Some(Held::One(place)) => {
                let entry = self.entry(*place)?;
                let same =
                    entry.gossip.offset == gossip.offset && entry.gossip.payload == gossip.payload;
                same.then_some(Offer::Known(*place))
            }
            Some(Held::Many(places)) => {
                places.get(&message_id(gossip)).map(|place| Offer::Known(*place))
            }
            None if origin.seen.contains(gossip.number) => Some(Offer::Refused(Refusal::Dropped)),
            None if !origin.seen.has_room_for(gossip.number) => {
                Some(Offer::Refused(Refusal::Crowded))
            }
            None => None,
        }
    }

    /// Why a message is refused for its length, number or age; none if it is not.
    fn objection(&mut self, now: Time, origin: Option<usize>, gossip: &Gossip) -> Option<Refusal> {
        if gossip.payload.len() > MAX_PAYLOAD {
            return Some(Refusal::Long);
        }
        if gossip.number == 0 || gossip.number == u64::MAX {
            return Some(Refusal::Nonsense);
        }
        if Duration::from_millis(gossip.age) > MAX_AGE {
            return Some(Refusal::Old);
        }
        let origin = origin.and_then(|index| self.origins.get_mut(index))?;
        let is_old = now.since(origin.published_here(gossip)) > MAX_AGE;
        (is_old && !origin.doubt(ahead_of(now, gossip))).then_some(Refusal::Old)
    }

    fn drop_first(&mut self, now: Time) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.base += 1;
        if let Some(entry) = entry {
            let published = self.published_here(&entry).min(now);
            self.floor = self.floor.max(Some(published));
            self.unlist(&entry);
        }
    }

    fn unlist(&mut self, entry: &Entry) {
        self.held -= 1;
        self.bytes -= entry.gossip.payload.len();
        self.index.remove(&entry.id);
        if let Some(origin) = self.origins.get_mut(entry.origin)
            && let Some(held) = origin.held.get_mut(&entry.gossip.number)
        {
            let empty = match held {
                Held::One(_) => true,
                Held::Many(places) => {
                    places.remove(&entry.id);
                    places.is_empty()
                }
            };
            if empty {
                origin.held.remove(&entry.gossip.number);
            }
        }
    }

    /// When a held message was published, by our clock.
    pub fn published_here(&self, entry: &Entry) -> Time {
        self.origin(entry.origin)
            .map_or(entry.received, |origin| origin.published_here(&entry.gossip))
    }

    /// Drops messages that are too old. Then forgets the origins all of whose messages are so old
    /// that they are refused for their age; returns the number of these origins.
    pub fn expire(&mut self, now: Time) -> usize {
        for offset in 0..self.entries.len() {
            let entry = self.entries.get(offset).and_then(Option::as_ref);
            // Whatever it says of its time, it has been here for so long.
            let old = entry.is_some_and(|entry| {
                now.since(self.published_here(entry).min(entry.received)) > MAX_AGE
            });
            if old && let Some(entry) = self.entries.get_mut(offset).and_then(Option::take) {
                self.unlist(&entry);
            }
        }
        while matches!(self.entries.front(), Some(None)) {
            self.entries.pop_front();
            self.base += 1;
        }
        self.origins.retire(now)
    }

    /// The message at a place, if it is still held.
    pub fn entry(&self, place: u64) -> Option<&Entry> {
        entry_at(&self.entries, self.base, place)
    }

    /// The messages held, in order of arrival, with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        (self.base..).zip(&self.entries).filter_map(|(place, e)| Some((place, e.as_ref()?)))
    }

    /// The first place whose message may still be held.
    pub fn first_place(&self) -> u64 {
        self.base
    }

    /// The place that the next message gets.
    pub fn next_place(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The origin with an index.
    pub fn origin(&self, index: usize) -> Option<&Origin> {
        self.origins.get(index)
    }

    /// By how much the clock of an origin is ahead of ours, microseconds; 0 if it is not known to
    /// be off.
    pub fn ahead(&self, origin: &Addr, life: Incarnation) -> i64 {
        let index = self.origins.by_name((*origin, life));
        index.and_then(|index| self.origin(index)).map_or(0, Origin::ahead)
    }

    /// The index of the origin with a short name.
    pub fn by_tag(&self, tag: &Tag) -> Option<usize> {
        self.origins.by_tag(tag)
    }

    /// Number of messages held.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether no message is held.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Brings the index up to date with the messages held at `now`; with `all`, it includes those
    /// so fresh that gossip is still spreading them.
    pub fn settle(&mut self, now: Time, all: bool) {
        self.leave_out_the_old(now);
        let end = self.base + self.entries.len() as u64;
        let mut fresh = Vec::new();
        let places = std::mem::take(&mut self.fresh);
        for place in places.into_iter().chain(self.indexed.max(self.base)..end) {
            let Some(entry) = entry_at(&self.entries, self.base, place) else { continue };
            let Some(origin) = self.origins.get(entry.origin) else {
                continue;
            };
            let published = published(&entry.gossip);
            // An origin's clock may only seem to be behind because its message was late, and a late
            // message is not fresh. So never take an earlier time than our own.
            let clock = origin.clock(now).max(now);
            let step = before(clock, FRESH, FRESH);
            let is_fresh = published >= step && now.since(entry.received) < FRESH_AT_MOST;
            if is_fresh && !all {
                fresh.push(place);
            } else if published >= origin.compared_from {
                self.index.insert(entry.id, place);
            }
        }
        self.fresh = fresh;
        self.indexed = end;
    }

    /// Takes messages out of the index that have become too old to be compared.
    fn leave_out_the_old(&mut self, now: Time) {
        let mut advanced = false;
        for origin in self.origins.iter_mut() {
            let old = before(origin.clock(now), COMPARED_UNTIL, OLD_STEP);
            if old > origin.compared_from {
                origin.compared_from = old;
                advanced = true;
            }
        }
        if !advanced {
            return;
        }
        for entry in self.entries.iter().flatten() {
            let from = self.origins.get(entry.origin);
            if from.is_some_and(|origin| published(&entry.gossip) < origin.compared_from) {
                self.index.remove(&entry.id);
            }
        }
    }

    /// The index that anti-entropy compares, as of the last [`MessageList::settle`].
    pub fn index(&mut self) -> &mut IdIndex {
        &mut self.index
    }

    /// The newest time of publication among messages dropped for want of room, by our clock.
    /// Anti-entropy is not to bring back a message that is not newer. None if none was dropped.
    pub fn floor(&self) -> Option<Time> {
        self.floor
    }

    /// A message as it is sent on: its age includes the time for which it was held here.
    pub fn outgoing(&self, now: Time, entry: &Entry) -> Gossip {
        let held = u64::try_from(now.since(entry.received).as_millis()).unwrap_or(u64::MAX);
        Gossip { age: entry.gossip.age.saturating_add(held), ..entry.gossip.clone() }
    }
}

/// The last whole `step` of the clock that is at least `by` before `now`.
fn before(now: Time, by: Duration, step: Duration) -> Time {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let at = now.millis().saturating_sub(millis(by));
    Time::from_millis(at - at % millis(step).max(1))
}

impl Origin {
    /// Places of the held messages with this number.
    pub fn places(&self, number: u64) -> impl Iterator<Item = u64> + '_ {
        self.held.get(&number).into_iter().flat_map(Held::places)
    }

    /// Places of the held messages whose numbers are in a run from the wire.
    pub fn places_in(&self, first: u64, many: u64) -> impl Iterator<Item = u64> + '_ {
        let end = first.saturating_add(many);
        self.held.range(first..end).flat_map(|(_, held)| held.places())
    }
}

fn entry_at(entries: &VecDeque<Option<Entry>>, base: u64, place: u64) -> Option<&Entry> {
    entries.get(usize::try_from(place.checked_sub(base)?).ok()?)?.as_ref()
}

#[cfg(test)]
mod tests {
    use super::super::origins::MAX_STRANGERS;
    use super::*;
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
            let offers =
                numbers.map(|number| list.offer(START, &gossip(number, "honest"), anybody));
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
            list.offer(START, &gossip(number + 2, "x"), anybody);
        }
        assert_eq!(list.len(), MAX_MESSAGES);
        assert_eq!(list.offer(START, &first, anybody), Offer::Refused(Refusal::Dropped));
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
                &Gossip { offset, age, ..gossip(number + 1, "x") },
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
}
