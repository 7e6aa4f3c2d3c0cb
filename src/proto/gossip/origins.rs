//! The origins of the messages in the list: peers, each in one life, found by name or by short
//! name, with an estimate of their clocks.
//!
//! What must stay true: the number of origins is bounded, and invented ones cannot keep members
//! out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::runs::RunSet;
use super::{AGE_ERROR, MAX_AGE, MessageId, published, tag};
use crate::proto::message::{Addr, Gossip, Identity, Incarnation, Tag};
use crate::proto::time::Time;

/// Most origins (peers in one life) known; messages of further ones are refused.
const MAX_ORIGINS: usize = 16_384;
/// Most origins known that are not members as far as this peer knows. A message may be faster than
/// the news that its origin registered; this leaves room for those and little for invented origins.
pub(super) const MAX_STRANGERS: usize = 256;
/// Most lives of one member that count as its own; any more find room only among the strangers. A
/// peer that crashes and comes back each minute has fewer, and whoever invents lives of a member
/// takes no room from the others.
const MAX_LIVES: usize = 128;

/// What one message of an origin takes of the time that all peers have for its messages, so that one
/// that floods does not use up their processors, links and logs: 5,000 are taken in a second.
const COST: Duration = Duration::from_micros(200);
/// The same with a signature, which takes some 40 us to check: 1,000 are taken in a second.
const SIGNED_COST: Duration = Duration::from_millis(1);
/// What an origin may take at once, and then no more until it has been silent for as long: 2,500
/// messages, or 500 with signatures.
const CREDIT: Duration = Duration::from_millis(500);
/// The same for messages published longer ago than [`LATE`], which a comparison brings all at once to a
/// peer that was away: as many signed ones as are held of one origin.
const LATE_CREDIT: Duration = Duration::from_secs(17);
const LATE: Duration = Duration::from_secs(5);

/// A clock that seems off by less, in microseconds, counts as right: ages show no smaller
/// difference.
const SAME_CLOCK: i64 = 1_000_000;
/// A clock that seems to leap by more, microseconds, cannot be believed at once: whoever forges one
/// message of an origin could say any time, and what the origin then says itself would be too old.
const LEAP: i64 = 3_600 * 1_000_000;
/// So many messages in succession that all speak against what is known of a clock are believed:
/// then it was a forged message that came first.
const IN_SUCCESSION: u8 = 3;
/// Two stopwatches drift apart by less than one part in this many: 200 parts in a million.
const DRIFT: i64 = 5_000;

/// What is known of an origin's clock.
#[derive(Clone, Debug)]
struct Offset {
    /// By how much it is ahead of ours, microseconds, as estimated from its messages.
    ahead: i64,
    /// Number of messages in succession that speak against that.
    doubts: u8,
}

/// A peer in one life, as the source of messages.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The peer.
    pub addr: Addr,
    /// The life.
    pub life: Incarnation,
    /// Its short name.
    pub tag: Tag,
    /// Who it is, if messages are signed. It stays the same for as long as the origin is known.
    pub(super) identity: Option<Identity>,
    /// All message numbers ever accepted.
    pub seen: RunSet,
    pub(super) held: BTreeMap<u64, Held>,
    /// Number of messages held, and bytes that they take.
    pub(super) holds: (usize, usize),
    newest: Time,
    /// When all that it sent so far would have come, had it sent no more than it may: what came soon
    /// after it was published, and what came late.
    paid_until: [Time; 2],
    offset: Offset,
    /// Whether it was one more life of a peer than counts as its own.
    surplus: bool,
    /// Its messages published before this time, by its clock, are not compared any more.
    pub(super) compared_from: Time,
}

impl Origin {
    /// By how much its clock is ahead of ours, microseconds; 0 if the two seem to agree.
    pub fn ahead(&self) -> i64 {
        if self.offset.ahead.abs() < SAME_CLOCK { 0 } else { self.offset.ahead }
    }

    /// What its clock says at `now` by ours.
    pub(super) fn clock(&self, now: Time) -> Time {
        Time::from_micros(now.micros().saturating_add_signed(self.ahead()))
    }

    /// When a message of this origin was published, by our clock.
    pub(super) fn published_here(&self, gossip: &Gossip) -> Time {
        let ahead = self.ahead().saturating_neg();
        Time::from_micros(published(gossip).micros().saturating_add_signed(ahead))
    }

    fn is_late(&self, now: Time, gossip: &Gossip) -> bool {
        now.since(self.published_here(gossip)) > LATE
    }

    /// Whether it sends more than any origin may, so that this message is not taken in.
    pub(super) fn floods(&self, now: Time, gossip: &Gossip) -> bool {
        let [soon, late] = self.paid_until;
        if self.is_late(now, gossip) {
            late.since(now) > LATE_CREDIT
        } else {
            soon.since(now) > CREDIT
        }
    }

    /// Counts a message that is taken in at `now`.
    pub(super) fn pays(&mut self, now: Time, gossip: &Gossip) {
        let cost = if gossip.signature.is_some() { SIGNED_COST } else { COST };
        let is_late = self.is_late(now, gossip);
        let [soon, late] = &mut self.paid_until;
        let paid = if is_late { late } else { soon };
        *paid = now.max(*paid) + cost;
    }

    /// Corrects the estimate of its clock by a message that came at `now`. An age leaves out the
    /// time on the way, which makes the clock look slow; so the message that makes it look fastest
    /// is nearest to the truth.
    pub(super) fn heard(&mut self, now: Time, gossip: &Gossip) {
        let ahead = ahead_of(now, gossip);
        let is_first = self.newest == Time::default();
        let since = if is_first { Duration::ZERO } else { now.since(self.newest) };
        let drifted = i64::try_from(since.as_micros()).unwrap_or(0) / DRIFT;
        let known = self.offset.ahead.saturating_sub(drifted);
        self.newest = self.newest.max(now);
        if ahead.saturating_sub(known) > LEAP {
            self.offset.ahead = known;
            self.doubt(ahead);
        } else {
            self.offset.ahead = known.max(ahead);
            self.offset.doubts = 0;
        }
    }

    /// A message speaks against what is known of the clock. Returns whether it is believed, as the
    /// last one of several in succession.
    pub(super) fn doubt(&mut self, ahead: i64) -> bool {
        self.offset.doubts = self.offset.doubts.saturating_add(1);
        let believed = self.offset.doubts >= IN_SUCCESSION;
        if believed {
            self.offset.ahead = ahead;
            self.offset.doubts = 0;
        }
        believed
    }
}

/// By how much the origin's clock is ahead of ours, microseconds, judged by one message alone.
pub(super) fn ahead_of(now: Time, gossip: &Gossip) -> i64 {
    let theirs = published(gossip).micros().saturating_add(gossip.age.saturating_mul(1_000));
    let whole = |micros| i64::try_from(micros).unwrap_or(i64::MAX);
    whole(theirs).saturating_sub(whole(now.micros()))
}

/// Places of the messages held under one number. An honest origin has one message under a number.
/// But a forger must not keep the honest message out by coming first or by sending many; so all are
/// held, and found by their identity.
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
    /// Number of lives of each peer.
    lives: BTreeMap<Addr, usize>,
    /// Origins that were not members when they were first heard of.
    strangers: BTreeSet<usize>,
}

impl Origins {
    /// The origin with an index.
    pub fn get(&self, index: usize) -> Option<&Origin> {
        self.slots.get(index)?.as_ref()
    }

    /// The origin with an index, for changes.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Origin> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// All origins, by index.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Origin> {
        self.slots.iter_mut().flatten()
    }

    /// The index of the origin with a name: a peer in one life.
    pub fn by_name(&self, name: (Addr, Incarnation)) -> Option<usize> {
        self.by_name.get(&name).copied()
    }

    /// The index of the origin with a short name.
    pub fn by_tag(&self, tag: &Tag) -> Option<usize> {
        self.by_tag.get(tag).copied()
    }

    /// Forgets origins of which no message is held and all messages are so old that they are
    /// refused for their age; returns the number of these origins.
    pub fn retire(&mut self, now: Time) -> usize {
        let mut retired = 0;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let over = slot.as_ref().is_some_and(|origin| {
                origin.held.is_empty() && now.since(origin.newest) > MAX_AGE + AGE_ERROR * 2
            });
            if over && let Some(origin) = slot.take() {
                self.by_name.remove(&(origin.addr, origin.life));
                self.by_tag.remove(&origin.tag);
                if let Some(lives) = self.lives.get_mut(&origin.addr) {
                    *lives = lives.saturating_sub(1);
                    if *lives == 0 {
                        self.lives.remove(&origin.addr);
                    }
                }
                self.strangers.remove(&index);
                self.free.push(index);
                retired += 1;
            }
        }
        retired
    }

    /// Puts an origin into a hole, or behind all others. Returns its index.
    fn put(&mut self, origin: Origin) -> usize {
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
        index
    }

    /// Adds an origin and returns its index; none if there is no room.
    pub fn add(
        &mut self,
        name: (Addr, Incarnation),
        ahead: i64,
        is_member: impl Fn(&Addr, Incarnation) -> bool,
    ) -> Option<usize> {
        let surplus = self.lives.get(&name.0).is_some_and(|lives| *lives >= MAX_LIVES);
        let stranger = surplus || !is_member(&name.0, name.1);
        if stranger && self.strangers.len() >= MAX_STRANGERS {
            let origins = &self.slots;
            self.strangers.retain(|index| {
                let origin = origins.get(*index).and_then(Option::as_ref);
                origin.is_some_and(|of| of.surplus || !is_member(&of.addr, of.life))
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
            identity: None,
            seen: RunSet::default(),
            held: BTreeMap::new(),
            holds: (0, 0),
            newest: Time::default(),
            paid_until: [Time::default(); 2],
            offset: Offset { ahead, doubts: 0 },
            surplus,
            compared_from: Time::default(),
        };
        let index = self.put(origin);
        *self.lives.entry(name.0).or_default() += 1;
        self.by_name.insert(name, index);
        self.by_tag.insert(tag, index);
        if stranger {
            self.strangers.insert(index);
        }
        Some(index)
    }
}
