//! The message list (ML): each gossip message seen, by SHA-256, bounded by age, count and bytes, in all
//! and of each origin, so that one that floods drives only its own messages out.
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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::index::IdIndex;
pub use super::origins::Origin;
use super::origins::{Held, Origins, ahead_of};
use super::{AGE_ERROR, MAX_AGE, MAX_PAYLOAD, MessageId, message_id, published};
use crate::proto::message::{Addr, Gossip, Identity, Incarnation, Tag};
use crate::proto::time::Time;

/// Most messages held: an hour of 18 messages a second.
pub const MAX_MESSAGES: usize = 65_536;
/// Most payload bytes held: what a peer gives to gossip, whatever is published.
const MAX_BYTES: usize = 64 << 20;
/// Most messages held of one origin: a quarter of all, so that one that floods drives out only its own.
/// Those with the greatest numbers stay, so all peers keep the same ones.
const MAX_OF_ONE: usize = MAX_MESSAGES / 4;
/// Most bytes held of one origin, with what is kept beside the payloads: a quarter, so that a flood
/// makes a peer grow by less than 20 MB.
const MAX_BYTES_OF_ONE: usize = MAX_BYTES / 4;
/// What is kept of a message beside its payload, roughly.
const BESIDE: usize = 512;
/// Most places from the oldest message held to the newest. Those of messages that were dropped before
/// older ones of other origins take a word each, and a few bits for each link.
const MAX_PLACES: usize = 4 * MAX_MESSAGES;
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
/// The place of a message that is expected: no message has it.
const NOWHERE: u64 = u64::MAX;

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
    /// Nobody has told yet who its origin is.
    Unknown,
    /// Its origin has not signed it.
    Forged,
    /// Its origin sends more than any may.
    Flood,
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
    /// Those dropped from the middle leave holes.
    entries: VecDeque<Option<Box<Entry>>>,
    /// Place of the first entry.
    base: u64,
    held: usize,
    bytes: usize,
    /// The messages that anti-entropy compares: those before the place `indexed` that are neither
    /// `fresh` nor published before their origin's `compared_from`.
    index: IdIndex,
    /// What the index holds and the list does not.
    expected: BTreeSet<MessageId>,
    indexed: u64,
    fresh: Vec<u64>,
    /// The newest time of publication, by our clock, among messages dropped for want of room.
    floor: Option<Time>,
    /// Messages dropped for want of room, until somebody takes their number.
    dropped: u64,
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
        self.offer_checked(now, gossip, is_member, |_, _| Ok(None))
    }

    /// The same, but the message is taken only if `check` says who has published it. That is asked
    /// last, with the message's identity and who its origin is known to be.
    pub(super) fn offer_checked(
        &mut self,
        now: Time,
        gossip: &Gossip,
        is_member: impl Fn(&Addr, Incarnation) -> bool,
        check: impl FnOnce(&MessageId, Option<Identity>) -> Result<Option<Identity>, Refusal>,
    ) -> Offer {
        let name = (gossip.origin, gossip.life);
        let known = self.origins.by_name(name);
        if let Some(offer) = known.and_then(|index| self.offered_before(index, gossip)) {
            return offer;
        }
        if let Some(refusal) = self.objection(now, known, gossip) {
            return Offer::Refused(refusal);
        }
        let id = message_id(gossip);
        let origin = known.and_then(|index| self.origin(index)?.identity);
        let identity = match check(&id, origin) {
            Ok(identity) => identity,
            Err(refusal) => return Offer::Refused(refusal),
        };
        let ahead = ahead_of(now, gossip);
        let Some(index) = known.or_else(|| self.origins.add(name, ahead, is_member)) else {
            return Offer::Refused(Refusal::Crowded);
        };
        Offer::New(self.hold(now, gossip, (index, identity), id))
    }

    /// Puts a message of an origin into the list; returns its place.
    fn hold(
        &mut self,
        now: Time,
        gossip: &Gossip,
        (index, identity): (usize, Option<Identity>),
        id: MessageId,
    ) -> u64 {
        self.no_longer_expects(&id);
        let place = self.base + self.entries.len() as u64;
        if let Some(origin) = self.origins.get_mut(index) {
            origin.identity = origin.identity.or(identity);
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
            origin.holds.0 += 1;
            origin.holds.1 += BESIDE + gossip.payload.len();
            origin.heard(now, gossip);
            origin.pays(now, gossip);
        }
        self.held += 1;
        self.bytes += gossip.payload.len();
        let gossip = gossip.clone();
        let entry = Entry { id, gossip, origin: index, received: now };
        self.entries.push_back(Some(Box::new(entry)));
        self.make_room(now, index);
        place
    }

    /// Drops messages until none of the limits is passed: first those of the origin whose message
    /// has just come, if it is the one that has too many.
    fn make_room(&mut self, now: Time, index: usize) {
        let is_over = |origin: &Origin| {
            let (messages, bytes) = origin.holds;
            // What it has just said stays, or it could not be sent on.
            messages > MAX_OF_ONE || (bytes > MAX_BYTES_OF_ONE && messages > 1)
        };
        while let Some(origin) = self.origins.get(index).filter(|origin| is_over(origin)) {
            let oldest = origin.held.values().next().and_then(|held| held.places().next());
            let entry = oldest.and_then(|place| self.entry_mut(place)).and_then(Option::take);
            let Some(entry) = entry else { break };
            self.dropped += 1;
            self.unlist(&entry);
        }
        while matches!(self.entries.front(), Some(None)) {
            self.entries.pop_front();
            self.base += 1;
        }
        while self.held > MAX_MESSAGES || self.bytes > MAX_BYTES || self.entries.len() > MAX_PLACES
        {
            self.drop_first(now);
        }
    }

    fn entry_mut(&mut self, place: u64) -> Option<&mut Option<Box<Entry>>> {
        self.entries.get_mut(usize::try_from(place.checked_sub(self.base)?).ok()?)
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
        if origin.floods(now, gossip) {
            return Some(Refusal::Flood);
        }
        let is_old = now.since(origin.published_here(gossip)) > MAX_AGE;
        (is_old && !origin.doubt(ahead_of(now, gossip))).then_some(Refusal::Old)
    }

    fn drop_first(&mut self, now: Time) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.base += 1;
        if let Some(entry) = entry {
            let published = self.published_here(&entry).min(now);
            self.floor = self.floor.max(Some(published));
            self.dropped += 1;
            self.unlist(&entry);
        }
    }

    fn unlist(&mut self, entry: &Entry) {
        self.held -= 1;
        self.bytes -= entry.gossip.payload.len();
        self.index.remove(&entry.id);
        let Some(origin) = self.origins.get_mut(entry.origin) else { return };
        origin.holds.0 -= 1;
        origin.holds.1 -= BESIDE + entry.gossip.payload.len();
        if let Some(held) = origin.held.get_mut(&entry.gossip.number) {
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
            let entry = self.entries.get(offset).and_then(Option::as_deref);
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
        (self.base..).zip(&self.entries).filter_map(|(place, e)| Some((place, e.as_deref()?)))
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

    /// Has comparisons count a message as held that is not in the list yet.
    pub(super) fn expects(&mut self, id: MessageId) {
        if self.index.insert(id, NOWHERE) {
            self.expected.insert(id);
        }
    }

    /// The message is no longer expected: it comes into the list now, or is given up.
    pub(super) fn no_longer_expects(&mut self, id: &MessageId) {
        if self.expected.remove(id) {
            self.index.remove(id);
        }
    }

    /// The first place whose message the last [`MessageList::settle`] may have left out as too fresh.
    pub fn settled_before(&self) -> u64 {
        self.fresh.first().copied().unwrap_or(self.indexed)
    }

    /// Takes the number of messages dropped for want of room since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
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

fn entry_at(entries: &VecDeque<Option<Box<Entry>>>, base: u64, place: u64) -> Option<&Entry> {
    entries.get(usize::try_from(place.checked_sub(base)?).ok()?)?.as_deref()
}

#[cfg(test)]
mod tests;
