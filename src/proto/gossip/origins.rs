//! The peers, each in one life, that messages of the list are from: by name and by short name, with
//! what is known of their clocks.
//!
//! What must stay true: their number is bounded, and invented ones cannot keep members out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::runs::RunSet;
use super::{AGE_ERROR, MAX_AGE, MessageId, published, tag};
use crate::proto::message::{Addr, Gossip, Incarnation, Tag};
use crate::proto::time::Time;

/// Origins (peers in one life) known at most; messages of further ones are refused.
const MAX_ORIGINS: usize = 16_384;
/// Origins that are no members as far as is known: room for messages that are faster than the news
/// of their origin's registration, and none for invented ones.
pub(super) const MAX_STRANGERS: usize = 256;

/// A clock that is off by less is taken to be right: as far as age can tell, it is.
const SAME_CLOCK: i64 = 1_000_000;
/// Two stopwatches drift apart by less than one part in so many: 200 parts in a million.
const DRIFT: i64 = 5_000;

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
    pub(super) held: BTreeMap<u64, Held>,
    newest: Time,
    /// By how much its clock is ahead of ours as far as its messages tell, microseconds.
    ahead: i64,
    /// Messages of it that were published before, by its clock, are compared no more.
    pub(super) compared_from: Time,
}

impl Origin {
    /// By how much its clock is ahead of ours, microseconds; 0 if they agree as far as can be told.
    pub fn ahead(&self) -> i64 {
        if self.ahead.abs() < SAME_CLOCK { 0 } else { self.ahead }
    }

    /// What its clock says at a time of ours.
    pub(super) fn clock(&self, now: Time) -> Time {
        Time::from_micros(now.micros().saturating_add_signed(self.ahead()))
    }

    /// When, by our clock, a message of it was published.
    pub(super) fn published_here(&self, gossip: &Gossip) -> Time {
        let ahead = self.ahead().saturating_neg();
        Time::from_micros(published(gossip).micros().saturating_add_signed(ahead))
    }

    /// One more message of it has come. What it spent on the way is not counted in its age, so the
    /// one that makes its clock look fastest is nearest to the truth.
    pub(super) fn heard(&mut self, now: Time, gossip: &Gossip) {
        let ahead = ahead_of(now, gossip);
        let drifted = i64::try_from(now.since(self.newest).as_micros()).unwrap_or(0) / DRIFT;
        self.ahead = self.ahead.saturating_sub(drifted).max(ahead);
        self.newest = self.newest.max(now);
    }
}

/// By how much its origin's clock is ahead of ours as far as one message tells, microseconds.
pub(super) fn ahead_of(now: Time, gossip: &Gossip) -> i64 {
    let theirs = published(gossip).micros().saturating_add(gossip.age.saturating_mul(1_000));
    let whole = |micros| i64::try_from(micros).unwrap_or(i64::MAX);
    whole(theirs).saturating_sub(whole(now.micros()))
}

/// Places of the messages held under one number. An honest origin has one; but a forger must not be
/// able to keep the honest one out by being first, nor by being many, so all are held, and found by
/// what they are.
#[derive(Clone, Debug)]
pub(super) enum Held {
    One(u64),
    Many(BTreeMap<MessageId, u64>),
}

impl Held {
    pub fn places(&self) -> impl Iterator<Item = u64> + '_ {
        let (one, many) = match self {
            Held::One(place) => (Some(*place), None),
            Held::Many(places) => (None, Some(places.values().copied())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// The origins known.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    /// A retired origin leaves a hole, which the next one fills.
    slots: Vec<Option<Origin>>,
    free: Vec<usize>,
    by_name: HashMap<(Addr, Incarnation), usize>,
    by_tag: BTreeMap<Tag, usize>,
    /// Origins that were no members when they were first heard of.
    strangers: BTreeSet<usize>,
}

impl Origins {
    /// The origin with an index.
    pub fn get(&self, index: usize) -> Option<&Origin> {
        self.slots.get(index)?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Origin> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// All of them, by index.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Origin> {
        self.slots.iter_mut().flatten()
    }

    /// The index of a peer in one life.
    pub fn by_name(&self, name: (Addr, Incarnation)) -> Option<usize> {
        self.by_name.get(&name).copied()
    }

    /// The index of the origin with a short name.
    pub fn by_tag(&self, tag: &Tag) -> Option<usize> {
        self.by_tag.get(tag).copied()
    }

    /// Forgets origins that hold no message and whose messages are all so old that they are refused
    /// for their age; returns how many.
    pub fn retire(&mut self, now: Time) -> usize {
        let mut retired = 0;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let over = slot.as_ref().is_some_and(|origin| {
                origin.held.is_empty() && now.since(origin.newest) > MAX_AGE + AGE_ERROR * 2
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

    /// Makes an origin, if there is room.
    pub fn add(
        &mut self,
        name: (Addr, Incarnation),
        ahead: i64,
        is_member: impl Fn(&Addr, Incarnation) -> bool,
    ) -> Option<usize> {
        let stranger = !is_member(&name.0, name.1);
        if stranger && self.strangers.len() >= MAX_STRANGERS {
            let origins = &self.slots;
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
            ahead,
            compared_from: Time::default(),
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(origin);
        }
        self.by_name.insert(name, index);
        self.by_tag.insert(tag, index);
        if stranger {
            self.strangers.insert(index);
        }
        Some(index)
    }
}
