//! The message list (ML): each gossip message seen, by SHA-256, bounded by
//! age, count and bytes.
//!
//! What must stay true: a message is held once, and what has been dropped is
//! not accepted again. The list keeps messages in order of arrival; a message's
//! *place* in that order is what links remember (which ones crossed), so that
//! a bit does where a hash set would.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::runs::RunSet;
use super::{MAX_AGE, MAX_PAYLOAD, MAX_SKEW, MessageId, message_id, published, tag};
use crate::proto::message::{Addr, Gossip, Incarnation, Tag};
use crate::proto::time::Time;

/// Messages held at most.
const MAX_MESSAGES: usize = 65_536;
/// Payload bytes held at most.
const MAX_BYTES: usize = 64 << 20;
/// Origins (peers in one life) known at most; messages of further ones are refused.
const MAX_ORIGINS: usize = 16_384;
/// Origins that are no members as far as is known: room for messages that are faster than the news
/// of their origin's registration, and none for invented ones.
const MAX_STRANGERS: usize = 256;

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

/// A peer in one life, as the source of messages.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The peer.
    pub addr: Addr,
    /// Which life.
    pub life: Incarnation,
    /// Its short name.
    pub tag: Tag,
    /// Numbers ever accepted.
    pub seen: RunSet,
    held: BTreeMap<u64, Held>,
    newest: Time,
}

/// Places of the messages held under one number. An honest origin has one; but a forger must not be
/// able to keep the honest one out by being first, nor by being many, so all are held, and found by
/// what they are.
#[derive(Clone, Debug)]
enum Held {
    One(u64),
    Many(BTreeMap<MessageId, u64>),
}

impl Held {
    fn places(&self) -> impl Iterator<Item = u64> + '_ {
        let (one, many) = match self {
            Held::One(place) => (Some(*place), None),
            Held::Many(places) => (None, Some(places.values().copied())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// Why a message was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Older than [`MAX_AGE`].
    Old,
    /// Published later than now, beyond [`MAX_SKEW`].
    Future,
    /// Longer than [`MAX_PAYLOAD`].
    Long,
    /// Number 0, or a life later than now.
    Nonsense,
    /// It was here before and has been dropped.
    Dropped,
    /// Too many origins, or too many holes in an origin's numbers.
    Crowded,
}

/// What became of a message offered to the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// New; now held at that place.
    New(u64),
    /// Held already, at that place.
    Known(u64),
    /// Not taken.
    Refused(Refusal),
}

/// The messages held, and what has ever been accepted.
#[derive(Clone, Debug, Default)]
pub struct MessageList {
    entries: VecDeque<Option<Entry>>,
    /// Place of the first entry.
    base: u64,
    held: usize,
    bytes: usize,
    digest: [u8; 32],
    /// A retired origin leaves a hole, which the next one fills.
    origins: Vec<Option<Origin>>,
    free: Vec<usize>,
    by_name: HashMap<(Addr, Incarnation), usize>,
    by_tag: BTreeMap<Tag, usize>,
    /// Origins that were no members when they were first heard of.
    strangers: BTreeSet<usize>,
}

impl MessageList {
    /// Offers a message that came at `now`. `is_member` tells whether a peer was ever registered in
    /// that life or a later one; it is asked only for an origin that is new.
    pub fn offer(
        &mut self,
        now: Time,
        gossip: &Gossip,
        is_member: impl Fn(&Addr, Incarnation) -> bool,
    ) -> Offer {
        let name = (gossip.origin, gossip.life);
        let known = self.by_name.get(&name).copied();
        if let Some(origin) = known.and_then(|index| self.origin(index)) {
            match origin.held.get(&gossip.number) {
                // Compared byte by byte, which is cheaper than hashing each duplicate.
                Some(Held::One(place)) => {
                    let same = self.entry(*place).is_some_and(|entry| {
                        entry.gossip.offset == gossip.offset
                            && entry.gossip.payload == gossip.payload
                    });
                    if same {
                        return Offer::Known(*place);
                    }
                }
                Some(Held::Many(places)) => {
                    if let Some(place) = places.get(&message_id(gossip)) {
                        return Offer::Known(*place);
                    }
                }
                None if origin.seen.contains(gossip.number) => {
                    return Offer::Refused(Refusal::Dropped);
                }
                None if !origin.seen.has_room_for(gossip.number) => {
                    return Offer::Refused(Refusal::Crowded);
                }
                None => {}
            }
        }
        let published = published(gossip);
        let refusal = if gossip.payload.len() > MAX_PAYLOAD {
            Some(Refusal::Long)
        } else if gossip.number == 0 || gossip.number == u64::MAX {
            Some(Refusal::Nonsense)
        } else if published > now + MAX_SKEW {
            Some(Refusal::Future)
        } else if now.since(published) > MAX_AGE {
            Some(Refusal::Old)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return Offer::Refused(refusal);
        }
        let Some(index) = known.or_else(|| self.new_origin(name, is_member)) else {
            return Offer::Refused(Refusal::Crowded);
        };
        let place = self.base + self.entries.len() as u64;
        let id = message_id(gossip);
        if let Some(origin) = self.origins.get_mut(index).and_then(Option::as_mut) {
            origin.seen.insert(gossip.number);
            match origin.held.remove(&gossip.number) {
                None => {
                    origin.held.insert(gossip.number, Held::One(place));
                }
                Some(Held::One(other)) => {
                    let other_id = entry_at(&self.entries, self.base, other).map(|entry| entry.id);
                    let mut places = BTreeMap::from([(id, place)]);
                    places.extend(other_id.map(|id| (id, other)));
                    origin.held.insert(gossip.number, Held::Many(places));
                }
                Some(Held::Many(mut places)) => {
                    places.insert(id, place);
                    origin.held.insert(gossip.number, Held::Many(places));
                }
            }
            origin.newest = origin.newest.max(now);
        }
        self.held += 1;
        self.bytes += gossip.payload.len();
        xor(&mut self.digest, &id);
        let gossip = gossip.clone();
        self.entries.push_back(Some(Entry { id, gossip, origin: index, received: now }));
        while self.held > MAX_MESSAGES || self.bytes > MAX_BYTES {
            self.drop_first();
        }
        Offer::New(place)
    }

    /// Makes an origin, if there is room.
    fn new_origin(
        &mut self,
        name: (Addr, Incarnation),
        is_member: impl Fn(&Addr, Incarnation) -> bool,
    ) -> Option<usize> {
        let stranger = !is_member(&name.0, name.1);
        if stranger && self.strangers.len() >= MAX_STRANGERS {
            let origins = &self.origins;
            self.strangers.retain(|index| {
                let origin = origins.get(*index).and_then(Option::as_ref);
                origin.is_some_and(|origin| !is_member(&origin.addr, origin.life))
            });
            if self.strangers.len() >= MAX_STRANGERS {
                return None;
            }
        }
        if self.by_name.len() >= MAX_ORIGINS {
            return None;
        }
        let tag = tag(&name.0, name.1);
        let origin = Origin {
            addr: name.0,
            life: name.1,
            tag,
            seen: RunSet::default(),
            held: BTreeMap::new(),
            newest: Time::default(),
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.origins.push(None);
                self.origins.len() - 1
            }
        };
        if let Some(slot) = self.origins.get_mut(index) {
            *slot = Some(origin);
        }
        self.by_name.insert(name, index);
        self.by_tag.insert(tag, index);
        if stranger {
            self.strangers.insert(index);
        }
        Some(index)
    }

    fn drop_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.base += 1;
        if let Some(entry) = entry {
            self.unlist(&entry);
        }
    }

    fn unlist(&mut self, entry: &Entry) {
        self.held -= 1;
        self.bytes -= entry.gossip.payload.len();
        xor(&mut self.digest, &entry.id);
        if let Some(origin) = self.origins.get_mut(entry.origin).and_then(Option::as_mut)
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

    /// Drops what is too old, and forgets origins all of whose messages are so old that they are
    /// refused for their age; returns how many.
    pub fn expire(&mut self, now: Time) -> usize {
        for offset in 0..self.entries.len() {
            let Some(slot) = self.entries.get_mut(offset) else { break };
            let old =
                slot.as_ref().is_some_and(|entry| now.since(published(&entry.gossip)) > MAX_AGE);
            if old && let Some(entry) = slot.take() {
                self.unlist(&entry);
            }
        }
        while matches!(self.entries.front(), Some(None)) {
            self.entries.pop_front();
            self.base += 1;
        }
        let mut retired = 0;
        for (index, slot) in self.origins.iter_mut().enumerate() {
            let over = slot.as_ref().is_some_and(|origin| {
                origin.held.is_empty() && now.since(origin.newest) > MAX_AGE + MAX_SKEW * 2
            });
            if over && let Some(origin) = slot.take() {
                self.by_name.remove(&(origin.addr, origin.life));
                self.by_tag.remove(&origin.tag);
                self.strangers.remove(&index);
                self.free.push(index);
                retired += 1;
            }
        }
        retired
    }

    /// The message at a place, if it is still held.
    pub fn entry(&self, place: u64) -> Option<&Entry> {
        entry_at(&self.entries, self.base, place)
    }

    /// Messages in order of arrival, with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        (self.base..).zip(&self.entries).filter_map(|(place, e)| Some((place, e.as_ref()?)))
    }

    /// The first place that may still be held.
    pub fn first_place(&self) -> u64 {
        self.base
    }

    /// The origin with an index.
    pub fn origin(&self, index: usize) -> Option<&Origin> {
        self.origins.get(index)?.as_ref()
    }

    /// The index of the origin with a short name.
    pub fn by_tag(&self, tag: &Tag) -> Option<usize> {
        self.by_tag.get(tag).copied()
    }

    /// Origins by short name.
    pub fn origins(&self) -> impl Iterator<Item = (usize, &Origin)> {
        self.by_tag.values().filter_map(|index| Some((*index, self.origin(*index)?)))
    }

    /// Number of messages held.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// XOR over the identities held.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl Origin {
    /// Places of the held messages with that number.
    pub fn places(&self, number: u64) -> impl Iterator<Item = u64> + '_ {
        self.held.get(&number).into_iter().flat_map(Held::places)
    }

    /// Places of the held messages with numbers of a run from the wire.
    pub fn places_in(&self, first: u64, many: u64) -> impl Iterator<Item = u64> + '_ {
        let end = first.saturating_add(many);
        self.held.range(first..end).flat_map(|(_, held)| held.places())
    }

    /// Places of all held messages, by number.
    pub fn held(&self) -> impl Iterator<Item = (u64, impl Iterator<Item = u64> + '_)> {
        self.held.iter().map(|(number, held)| (*number, held.places()))
    }
}

fn entry_at(entries: &VecDeque<Option<Entry>>, base: u64, place: u64) -> Option<&Entry> {
    entries.get(usize::try_from(place.checked_sub(base)?).ok()?)?.as_ref()
}

fn xor(digest: &mut [u8; 32], id: &MessageId) {
    for (byte, other) in digest.iter_mut().zip(id.0) {
        *byte ^= other;
    }
}

#[cfg(test)]
mod tests {
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
        // Nor by sending many under the number that comes next.
        for text in 0..1_000 {
            list.offer(START, &gossip(2, &text.to_string()), anybody);
        }
        assert!(matches!(list.offer(START, &gossip(2, "honest"), anybody), Offer::New(_)));
        assert!(matches!(list.offer(START, &gossip(2, "7"), anybody), Offer::Known(_)));
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
        assert_eq!(list.digest(), [0; 32]);
        assert_eq!(list.offer(later, &gossip(1, "a"), anybody), Offer::Refused(Refusal::Dropped));
        let much_later = later + MAX_AGE + MAX_SKEW * 2;
        assert_eq!(list.expire(much_later), 1, "the origin is forgotten in the end");
        assert_eq!(list.offer(much_later, &gossip(1, "a"), anybody), Offer::Refused(Refusal::Old));
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

    #[test]
    fn nonsense_is_refused() {
        let mut list = MessageList::default();
        let future = Gossip { offset: 3_600_000, ..gossip(1, "a") };
        assert_eq!(list.offer(START, &future, anybody), Offer::Refused(Refusal::Future));
        assert_eq!(list.offer(START, &gossip(0, "a"), anybody), Offer::Refused(Refusal::Nonsense));
        let long = Gossip { payload: vec![0; MAX_PAYLOAD + 1].into(), ..gossip(1, "a") };
        assert_eq!(list.offer(START, &long, anybody), Offer::Refused(Refusal::Long));
        assert!(list.is_empty());
    }
}
