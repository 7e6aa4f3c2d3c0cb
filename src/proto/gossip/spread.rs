//! Over which links a message goes: Plumtree, pruned by origin.
//!
//! Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees" (SRDS 2007): a
//! message is pushed along eager links and only announced along lazy ones; a
//! duplicate makes its link lazy, a missing message is asked for from an
//! announcer and makes that link eager. Here a link is eager or lazy *for each
//! origin*: one tree for all senders is pruned by races between messages that
//! come from different sides, and falls apart when many send; a tree for each
//! origin is the tree of that origin's shortest paths, which keeps the latency
//! of flooding. Three more things differ from the paper:
//!
//! - a peer keeps one *parent* for each origin, and prunes any other link that
//!   brings a duplicate, never the parent for being late once. Another link
//!   becomes the parent after bringing three messages first;
//! - when the link to the parent is lost, the peer grafts all its other links
//!   for that origin at once and lets duplicates prune them again, so that a
//!   dead hub costs no waiting for a timer;
//! - announcements name origin and number in runs, and are gathered.
//!
//! What must stay true: a message crosses a link at most once in each
//! direction, and is handed to the application once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::list::{MessageList, Offer, Refusal};
use super::runs::{gather, is_sane};
use super::window::Window;
use super::{Counters, MAX_PAYLOAD, MessageId};
use crate::proto::config::Flaw;
use crate::proto::event::{Event, Severity};
use crate::proto::machine::{Conn, Delivery, Effect, PublishError};
use crate::proto::message::{Addr, Gossip, Incarnation, Message, Runs, Tag};
use crate::proto::time::Time;
use crate::proto::timers::Timers;
use crate::proto::turn::Turn;

/// Announcements gather this long. A lost push waits for one announcement; lost links, the usual
/// cause, are answered by grafts at once, so bytes decide: at 100 messages a second this makes one
/// frame of ten announcements.
const HAVE_INTERVAL: Duration = Duration::from_millis(100);
/// Announcements that wait for one link before they are sent early.
const HAVE_BATCH: usize = 4_096;
/// A missing message is asked for this many round trips after it was announced, because the push
/// may be on its way; bounded below by a scheduler's time slice and above by patience.
const GRAFT_ROUND_TRIPS: u32 = 3;
const GRAFT_BOUNDS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Round trip assumed until one was measured.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(50);
/// Missing messages remembered at most; anti-entropy finds the rest.
const MAX_MISSING: usize = 65_536;
/// Messages asked for in one go, so that the request fits a frame; the rest a moment later.
const ASK_BATCH: usize = 16_384;
/// Announcers remembered for one missing message.
const MAX_ANNOUNCERS: usize = 8;
/// Messages, and payload bytes, sent for one request; the rest is asked for again.
const ANSWER_MESSAGES: usize = 2_048;
/// See [`ANSWER_MESSAGES`].
pub(super) const ANSWER_BYTES: usize = 2 << 20;
/// Numbers that one frame may announce or ask for.
const MAX_NUMBERS: u64 = 1 << 17;
/// Messages that a link must bring first before it replaces the parent: one may be chance.
const WINS: u8 = 3;
/// A duplicate that comes this long after its link was pruned says that the prune was lost.
const PRUNE_AGAIN: Duration = Duration::from_secs(1);
/// How often what is too old is dropped.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Send the announcements that have gathered.
    Have,
    /// Ask for a missing message.
    Want(Tag, u64),
    /// Drop what is too old.
    Expire,
}

/// What is remembered of one link.
#[derive(Debug)]
pub(super) struct Link {
    pub peer: Addr,
    /// Messages pushed or sent over this link, by place.
    pub sent: Window,
    /// Messages that the other side is known to have.
    pub known: Window,
    /// Of those sent: the ones that the other side may not have seen when it last summed up.
    pub unsettled: Window,
    /// By origin: it asked us not to push.
    lazy: Vec<bool>,
    /// By origin: we asked it not to push, and when.
    pruned: Vec<Option<Time>>,
    /// Places of messages to announce.
    announce: Vec<u64>,
    pub congested: bool,
    round_trip: Option<Duration>,
    /// A summary that comes in several frames.
    pub summary: BTreeMap<Tag, Runs>,
}

impl Link {
    fn is_lazy(&self, origin: usize) -> bool {
        self.lazy.get(origin).copied().unwrap_or(false)
    }

    fn set_lazy(&mut self, origin: usize, lazy: bool) {
        if self.lazy.len() <= origin {
            self.lazy.resize(origin + 1, false);
        }
        self.lazy[origin] = lazy;
    }

    fn pruned_at(&self, origin: usize) -> Option<Time> {
        self.pruned.get(origin).copied().flatten()
    }

    fn set_pruned(&mut self, origin: usize, at: Option<Time>) {
        if self.pruned.len() <= origin {
            self.pruned.resize(origin + 1, None);
        }
        self.pruned[origin] = at;
    }
}

/// Which link brings an origin's messages.
#[derive(Clone, Copy, Debug, Default)]
struct Parent {
    link: Option<Conn>,
    challenger: Option<Conn>,
    wins: u8,
}

#[derive(Clone, Debug, Default)]
struct Missing {
    announcers: Vec<Conn>,
    asked: usize,
}

/// The gossip half of a peer: the message list, and what is known of each link.
#[derive(Debug)]
pub struct Rumors {
    me: Addr,
    life: Incarnation,
    numbers_used: u64,
    flaw: Flaw,
    pub(super) list: MessageList,
    pub(super) links: BTreeMap<Conn, Link>,
    parents: Vec<Parent>,
    missing: BTreeMap<(Tag, u64), Missing>,
    pub(super) timers: Timers<Timer>,
    pub(super) counters: Counters,
}

impl Rumors {
    /// Of a peer that listens at `me`; not started.
    pub fn new(me: Addr, flaw: Flaw) -> Self {
        Self {
            me,
            life: 0,
            numbers_used: 0,
            flaw,
            list: MessageList::default(),
            links: BTreeMap::new(),
            parents: Vec::new(),
            missing: BTreeMap::new(),
            timers: Timers::default(),
            counters: Counters::default(),
        }
    }

    /// Begins a life.
    pub fn start(&mut self, now: Time, life: Incarnation) {
        self.life = life;
        self.timers.set(Timer::Expire, now + EXPIRE_INTERVAL);
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The messages held.
    pub fn list(&self) -> &MessageList {
        &self.list
    }

    /// When a timer is due.
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.next()
    }

    /// A link is up. All origins start eager on it.
    pub(crate) fn link_up(&mut self, conn: Conn, peer: Addr) {
        let start = self.list.first_place();
        self.links.insert(
            conn,
            Link {
                peer,
                sent: Window::starting(start),
                known: Window::starting(start),
                unsettled: Window::starting(start),
                lazy: Vec::new(),
                pruned: Vec::new(),
                announce: Vec::new(),
                congested: false,
                round_trip: None,
                summary: BTreeMap::new(),
            },
        );
    }

    /// A link is gone: whoever had its parent there grafts the other links at once.
    pub(crate) fn link_down(&mut self, turn: &mut Turn<'_>, conn: Conn) {
        if self.links.remove(&conn).is_none() {
            return;
        }
        let mut orphaned = Vec::new();
        for (index, parent) in self.parents.iter_mut().enumerate() {
            if parent.link == Some(conn) {
                *parent = Parent::default();
                orphaned.push(index);
            } else if parent.challenger == Some(conn) {
                parent.challenger = None;
                parent.wins = 0;
            }
        }
        for (other, link) in &mut self.links {
            let mut tags = Vec::new();
            for index in &orphaned {
                if link.pruned_at(*index).is_some()
                    && let Some(origin) = self.list.origin(*index)
                {
                    link.set_pruned(*index, None);
                    tags.push(origin.tag);
                }
            }
            if !tags.is_empty() {
                self.counters.grafts += tags.len() as u64;
                turn.send(*other, Message::Graft(tags));
            }
        }
    }

    /// A round trip over a link was measured.
    pub(crate) fn round_trip(&mut self, conn: Conn, sample: Duration) {
        if let Some(link) = self.links.get_mut(&conn) {
            // Smoothed as in RFC 6298, section 2: 7/8 old and 1/8 new.
            link.round_trip = Some(match link.round_trip {
                None => sample,
                Some(old) => old.mul_f64(0.875) + sample.mul_f64(0.125),
            });
        }
    }

    /// A link's queue has filled, or emptied.
    pub(crate) fn set_congested(&mut self, conn: Conn, congested: bool) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.congested = congested;
        }
    }

    /// Publishes a payload of this peer's own.
    pub(crate) fn publish(
        &mut self,
        turn: &mut Turn<'_>,
        payload: Bytes,
    ) -> Result<MessageId, PublishError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLong(payload.len()));
        }
        self.numbers_used += 1;
        let now = i64::try_from(turn.now.millis()).unwrap_or(i64::MAX);
        let life = i64::try_from(self.life).unwrap_or(i64::MAX);
        let gossip = Gossip {
            origin: self.me,
            life: self.life,
            number: self.numbers_used,
            offset: now.saturating_sub(life),
            payload,
        };
        match self.list.offer(turn.now, &gossip) {
            Offer::New(place) => Ok(self.accepted(turn, None, gossip, place)),
            // A number of our own is used once, so it can be neither known nor dropped; what is
            // left is a clock far off, and that is worth a line.
            Offer::Known(_) | Offer::Refused(_) => {
                turn.note(Severity::Warn, "own message refused", vec![]);
                Ok(super::message_id(&gossip))
            }
        }
    }

    /// A new message is in the list: hand it over, push it, announce it.
    fn accepted(
        &mut self,
        turn: &mut Turn<'_>,
        from: Option<Conn>,
        gossip: Gossip,
        place: u64,
    ) -> MessageId {
        let (id, index) = match self.list.entry(place) {
            Some(entry) => (entry.id, entry.origin),
            None => (super::message_id(&gossip), usize::MAX),
        };
        let mut push = Vec::with_capacity(self.links.len());
        let mut announced = false;
        for (conn, link) in &mut self.links {
            if Some(*conn) == from || link.known.get(place) {
                continue;
            }
            if link.is_lazy(index) || link.congested {
                link.announce.push(place);
                announced = true;
                if link.announce.len() >= HAVE_BATCH {
                    self.timers.set(Timer::Have, turn.now);
                }
            } else {
                link.sent.set(place);
                link.known.set(place);
                link.unsettled.set(place);
                push.push(*conn);
            }
        }
        if announced {
            self.timers.set_if_unset(Timer::Have, turn.now + HAVE_INTERVAL);
        }
        self.counters.payloads_sent += push.len() as u64;
        if self.flaw == Flaw::ForwardTwice {
            turn.send_many(push.clone(), Message::Gossip(gossip.clone()));
        }
        let peer = from.and_then(|conn| self.links.get(&conn)).map(|link| link.peer);
        turn.log(match peer {
            Some(from) => Event::GossipReceived { message: gossip.payload.clone(), from },
            None => Event::GossipSent { message: gossip.payload.clone() },
        });
        turn.effects.push(Effect::Deliver(Delivery { id, gossip: gossip.clone(), from: peer }));
        turn.send_many(push, Message::Gossip(gossip));
        id
    }

    /// A payload came over a link.
    pub(crate) fn on_gossip(&mut self, turn: &mut Turn<'_>, conn: Conn, gossip: Gossip) {
        match self.list.offer(turn.now, &gossip) {
            Offer::New(place) => {
                let Some(index) = self.list.entry(place).map(|entry| entry.origin) else { return };
                if let Some(link) = self.links.get_mut(&conn) {
                    link.known.set(place);
                }
                self.brought_first(conn, index);
                if let Some(origin) = self.list.origin(index)
                    && !self.missing.is_empty()
                {
                    let name = (origin.tag, gossip.number);
                    if self.missing.remove(&name).is_some() {
                        self.timers.cancel(&Timer::Want(name.0, name.1));
                    }
                }
                self.counters.received += 1;
                self.accepted(turn, Some(conn), gossip, place);
            }
            Offer::Known(place) => {
                self.counters.duplicates += 1;
                let Some(index) = self.list.entry(place).map(|entry| entry.origin) else { return };
                if let Some(link) = self.links.get_mut(&conn) {
                    link.known.set(place);
                }
                self.brought_again(turn, conn, index);
            }
            Offer::Refused(refusal) => {
                self.counters.refused += 1;
                if refusal != Refusal::Dropped {
                    let keys = vec![
                        ("origin", gossip.origin.to_string()),
                        ("number", gossip.number.to_string()),
                        ("reason", format!("{refusal:?}").to_lowercase()),
                    ];
                    turn.note(Severity::Debug, "gossip refused", keys);
                }
            }
        }
    }

    fn parent(&mut self, index: usize) -> &mut Parent {
        if self.parents.len() <= index {
            self.parents.resize_with(index + 1, Parent::default);
        }
        &mut self.parents[index]
    }

    /// A link brought a message of an origin first.
    fn brought_first(&mut self, conn: Conn, index: usize) {
        let pruned = self.links.get(&conn).is_none_or(|link| link.pruned_at(index).is_some());
        let parent = self.parent(index);
        match parent.link {
            None => *parent = Parent { link: Some(conn), challenger: None, wins: 0 },
            Some(link) if link == conn => {
                parent.challenger = None;
                parent.wins = 0;
            }
            // What was under way when the link was pruned says nothing about it.
            Some(_) if pruned => {}
            Some(_) => {
                parent.wins = if parent.challenger == Some(conn) { parent.wins + 1 } else { 1 };
                parent.challenger = Some(conn);
                if parent.wins >= WINS {
                    *parent = Parent { link: Some(conn), challenger: None, wins: 0 };
                }
            }
        }
    }

    /// A link brought a message of an origin that was here already.
    fn brought_again(&mut self, turn: &mut Turn<'_>, conn: Conn, index: usize) {
        if self.parent(index).link == Some(conn) {
            return;
        }
        let Some(link) = self.links.get_mut(&conn) else { return };
        let again = |at| turn.now.since(at) > PRUNE_AGAIN;
        if link.pruned_at(index).is_none_or(again)
            && let Some(origin) = self.list.origin(index)
        {
            link.set_pruned(index, Some(turn.now));
            self.counters.prunes += 1;
            turn.send(conn, Message::Prune(vec![origin.tag]));
        }
    }

    /// The other side does not want these origins pushed.
    pub(crate) fn on_prune(&mut self, conn: Conn, tags: &[Tag]) {
        self.set_lazy(conn, tags, true);
    }

    /// The other side wants these origins pushed.
    pub(crate) fn on_graft(&mut self, conn: Conn, tags: &[Tag]) {
        self.set_lazy(conn, tags, false);
    }

    fn set_lazy(&mut self, conn: Conn, tags: &[Tag], lazy: bool) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        for index in tags.iter().filter_map(|tag| self.list.by_tag(tag)) {
            link.set_lazy(index, lazy);
        }
    }

    /// The other side announces messages. False if the announcement makes no sense.
    pub(crate) fn on_have(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        have: Vec<(Tag, Runs)>,
    ) -> bool {
        if !within_bounds(&have) {
            return false;
        }
        let delay = self.graft_delay();
        let Some(link) = self.links.get_mut(&conn) else { return true };
        for (tag, runs) in have {
            let origin = self.list.by_tag(&tag).and_then(|index| self.list.origin(index));
            for (first, many) in runs {
                for number in first..first.saturating_add(many) {
                    let places = origin.map_or(&[][..], |origin| origin.places(number));
                    for place in places {
                        link.known.set(*place);
                    }
                    if origin.is_some_and(|origin| origin.seen.contains(number)) {
                        continue;
                    }
                    if self.missing.len() >= MAX_MISSING {
                        return true;
                    }
                    let missing = self.missing.entry((tag, number)).or_default();
                    if missing.announcers.len() < MAX_ANNOUNCERS
                        && !missing.announcers.contains(&conn)
                    {
                        missing.announcers.push(conn);
                    }
                    self.timers.set_if_unset(Timer::Want(tag, number), turn.now + delay);
                }
            }
        }
        true
    }

    fn graft_delay(&self) -> Duration {
        let slowest = self.links.values().filter_map(|link| link.round_trip).max();
        let delay = slowest.unwrap_or(FIRST_ROUND_TRIP).saturating_mul(GRAFT_ROUND_TRIPS);
        delay.clamp(GRAFT_BOUNDS.0, GRAFT_BOUNDS.1)
    }

    /// Asks for what has been announced and did not come. All that is due with the same announcer
    /// goes in one frame.
    fn ask(&mut self, turn: &mut Turn<'_>, first: (Tag, u64)) {
        let mut wants: BTreeMap<Conn, BTreeMap<Tag, Vec<u64>>> = BTreeMap::new();
        let delay = self.graft_delay();
        let mut next = Some(first);
        let mut asked = 0;
        while let Some(name) = next {
            asked += 1;
            if let Some(missing) = self.missing.get_mut(&name) {
                let links = &self.links;
                missing.announcers.retain(|conn| links.contains_key(conn));
                match missing.announcers.get(missing.asked) {
                    Some(conn) => {
                        missing.asked += 1;
                        wants.entry(*conn).or_default().entry(name.0).or_default().push(name.1);
                        // Longer each time: an announcer may be slow because it is loaded.
                        let wait = delay.saturating_mul(1 << missing.asked.min(6));
                        self.timers.set(Timer::Want(name.0, name.1), turn.now + wait);
                    }
                    // Nobody is left to ask; whoever announces it anew, or anti-entropy, is next.
                    None => {
                        self.missing.remove(&name);
                    }
                }
            }
            if asked >= ASK_BATCH {
                break;
            }
            next = match self.timers.due(turn.now) {
                Some((_, Timer::Want(tag, number))) => Some((tag, number)),
                Some((at, other)) => {
                    self.timers.set(other, at);
                    None
                }
                None => None,
            };
        }
        for (conn, wanted) in wants {
            self.graft(turn, conn, wanted.keys());
            let mut want = Vec::new();
            for (tag, mut numbers) in wanted {
                numbers.sort_unstable();
                self.counters.wants += numbers.len() as u64;
                want.push((tag, gather(numbers)));
            }
            turn.send(conn, Message::Want(want));
        }
    }

    /// Makes a link eager, and the parent, for origins whose messages did not come otherwise.
    fn graft<'a>(&mut self, turn: &mut Turn<'_>, conn: Conn, tags: impl Iterator<Item = &'a Tag>) {
        let mut grafted = Vec::new();
        for tag in tags {
            if let Some(index) = self.list.by_tag(tag) {
                *self.parent(index) = Parent { link: Some(conn), challenger: None, wins: 0 };
                if let Some(link) = self.links.get_mut(&conn)
                    && link.pruned_at(index).is_some()
                {
                    link.set_pruned(index, None);
                    grafted.push(*tag);
                }
            }
        }
        if !grafted.is_empty() {
            self.counters.grafts += grafted.len() as u64;
            turn.send(conn, Message::Graft(grafted));
        }
    }

    /// The other side asks for messages. False if the request makes no sense.
    pub(crate) fn on_want(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        want: &[(Tag, Runs)],
    ) -> bool {
        if !within_bounds(want) {
            return false;
        }
        let mut places = Vec::new();
        for (tag, runs) in want {
            let Some(index) = self.list.by_tag(tag) else { continue };
            let Some(origin) = self.list.origin(index) else { continue };
            for (first, many) in runs {
                for number in *first..first.saturating_add(*many) {
                    places.extend_from_slice(origin.places(number));
                }
            }
        }
        self.send_places(turn, conn, &places, false);
        true
    }

    /// Sends messages that the other side says it does not have, within the bounds of one answer;
    /// returns how many. What was sent before is left out, unless `lost` says that it is known not
    /// to have arrived.
    pub(super) fn send_places(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        places: &[u64],
        lost: bool,
    ) -> usize {
        let Some(link) = self.links.get_mut(&conn) else { return 0 };
        let (mut sent, mut bytes) = (0, 0);
        for place in places {
            if link.congested || sent >= ANSWER_MESSAGES || bytes >= ANSWER_BYTES {
                break;
            }
            let Some(entry) = self.list.entry(*place) else { continue };
            if link.sent.get(*place) && !lost {
                continue;
            }
            link.sent.set(*place);
            link.known.set(*place);
            link.unsettled.set(*place);
            sent += 1;
            bytes += entry.gossip.payload.len();
            turn.send(conn, Message::Gossip(entry.gossip.clone()));
        }
        self.counters.payloads_sent += sent as u64;
        sent
    }

    /// Sends the announcements that have gathered.
    fn announce(&mut self, turn: &mut Turn<'_>) {
        for (conn, link) in &mut self.links {
            let mut numbers: BTreeMap<Tag, Vec<u64>> = BTreeMap::new();
            for place in std::mem::take(&mut link.announce) {
                if link.known.get(place) {
                    continue;
                }
                let Some(entry) = self.list.entry(place) else { continue };
                let Some(origin) = self.list.origin(entry.origin) else { continue };
                numbers.entry(origin.tag).or_default().push(entry.gossip.number);
            }
            if numbers.is_empty() {
                continue;
            }
            let mut have = Vec::with_capacity(numbers.len());
            for (tag, mut numbers) in numbers {
                numbers.sort_unstable();
                numbers.dedup();
                self.counters.announced += numbers.len() as u64;
                have.push((tag, gather(numbers)));
            }
            turn.send(*conn, Message::Have(have));
        }
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        for index in self.list.expire(turn.now) {
            // The index may name another origin next.
            *self.parent(index) = Parent::default();
            for link in self.links.values_mut() {
                link.set_lazy(index, false);
                link.set_pruned(index, None);
            }
        }
        let first = self.list.first_place();
        for link in self.links.values_mut() {
            link.sent.forget_before(first);
            link.known.forget_before(first);
            link.unsettled.forget_before(first);
        }
        self.timers.set(Timer::Expire, turn.now + EXPIRE_INTERVAL);
    }

    /// Fires what is due.
    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>, rng: &mut SmallRng) {
        while let Some((_, timer)) = self.timers.due(turn.now) {
            match timer {
                Timer::Have => {
                    self.announce(turn);
                    // Neighbours that announce in step tell each other the same at the same time;
                    // out of step, one of the two finds that the other knows.
                    if self.links.values().any(|link| !link.announce.is_empty()) {
                        let pause = HAVE_INTERVAL.mul_f64(rng.random_range(0.5..1.0));
                        self.timers.set_if_unset(Timer::Have, turn.now + pause);
                    }
                }
                Timer::Want(tag, number) => self.ask(turn, (tag, number)),
                Timer::Expire => self.expire(turn),
            }
        }
    }
}

fn within_bounds(named: &[(Tag, Runs)]) -> bool {
    let mut total: u64 = 0;
    for (_, runs) in named {
        if !is_sane(runs) {
            return false;
        }
        for (_, many) in runs {
            total = total.saturating_add(*many);
        }
    }
    total <= MAX_NUMBERS
}
