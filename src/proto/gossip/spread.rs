//! Over which links a message goes: along a tree, and announced beside it.
//!
//! As in Plumtree (Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees",
//! SRDS 2007) a message is pushed along eager links and only announced along
//! lazy ones, and what is missing is asked for from an announcer. What differs
//! is which links are eager. There the first copies decide, so that messages of
//! many senders prune each other's tree to pieces. Here the tree follows from
//! the membership alone: each peer's parent is its oldest neighbour. Links to
//! older peers make no circle and end at the oldest member, so the tree is
//! there without a message and stands still however many send; it runs over the
//! best linked peers, which are the oldest, so it is flat; and because all
//! senders share it, messages that go the same way share a write.
//!
//! A peer whose parent is lost takes the next oldest neighbour at once, or, if
//! it has no older one, has everything pushed to it until it has found one. All
//! links start eager: a small or new network floods. A parent that is silent
//! while others announce is helped out by grafting an announcer for a while.
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
/// A parent that has pushed nothing for so long, while others announce what is missing, is helped
/// out by an announcer: some times the wait for an announcement.
const PARENT_SILENT: Duration = Duration::from_millis(400);
/// An announcer that was grafted stays eager this long.
const GRAFTED_FOR: Duration = Duration::from_secs(10);
/// How often what is too old is dropped.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Send the announcements that have gathered.
    Have,
    /// Ask for a missing message.
    Want(Tag, u64),
    /// Links that helped out for the parent may be lazy again.
    Regraft,
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
    /// Number of the last digest or summary that asked the other side for its summary.
    pub round: u64,
    /// Of those sent: the ones sent after that, of which the summary cannot tell.
    pub unsettled: Window,
    /// The other side wants messages pushed.
    eager: bool,
    /// What we have last told it that we want; eager unless told otherwise.
    wish: bool,
    /// It helps out for the parent until then.
    grafted: Option<Time>,
    /// When it last pushed something.
    pushed: Time,
    /// Messages to announce.
    announce: Vec<Announcement>,
    pub congested: bool,
    round_trip: Option<Duration>,
    /// A summary that comes in several frames.
    pub summary: BTreeMap<Tag, Runs>,
}

/// A message to announce, if the other side has not told of it by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Announcement {
    origin: usize,
    number: u64,
    place: u64,
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
    parent: Option<Conn>,
    /// This peer is the root of the tree.
    root: bool,
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
            parent: None,
            root: false,
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

    /// A link is up. It starts eager.
    pub(crate) fn link_up(&mut self, conn: Conn, peer: Addr) {
        let start = self.list.first_place();
        self.links.insert(
            conn,
            Link {
                peer,
                sent: Window::starting(start),
                known: Window::starting(start),
                round: 0,
                unsettled: Window::starting(start),
                eager: true,
                wish: true,
                grafted: None,
                pushed: Time::default(),
                announce: Vec::new(),
                congested: false,
                round_trip: None,
                summary: BTreeMap::new(),
            },
        );
    }

    /// A link is gone.
    pub(crate) fn link_down(&mut self, conn: Conn) {
        self.links.remove(&conn);
        if self.parent == Some(conn) {
            self.parent = None;
        }
    }

    /// Takes a link as the parent, or none; `root` if this peer is the oldest member. The other
    /// sides are told what changes for them.
    pub(crate) fn set_parent(&mut self, turn: &mut Turn<'_>, parent: Option<Conn>, root: bool) {
        self.parent = parent;
        self.root = root;
        self.tell_wishes(turn);
    }

    fn tell_wishes(&mut self, turn: &mut Turn<'_>) {
        let orphan = self.parent.is_none() && !self.root;
        for (conn, link) in &mut self.links {
            link.grafted = link.grafted.filter(|until| *until > turn.now);
            let wish = orphan || self.parent == Some(*conn) || link.grafted.is_some();
            if wish == link.wish {
                continue;
            }
            link.wish = wish;
            if wish {
                self.counters.grafts += 1;
                turn.send(*conn, Message::Graft);
            } else {
                self.counters.prunes += 1;
                turn.send(*conn, Message::Prune);
            }
        }
    }

    /// The other side of a link wants messages pushed, or only announced.
    pub(crate) fn set_eager(&mut self, conn: Conn, eager: bool) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.eager = eager;
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
        let (id, origin) = match self.list.entry(place) {
            Some(entry) => (entry.id, entry.origin),
            None => (super::message_id(&gossip), usize::MAX),
        };
        let announcement = Announcement { origin, number: gossip.number, place };
        let mut push = Vec::with_capacity(self.links.len());
        let mut announced = false;
        for (conn, link) in &mut self.links {
            if Some(*conn) == from || link.known.get(place) {
                continue;
            }
            let eager = link.eager || self.parent == Some(*conn);
            if !eager || link.congested {
                link.announce.push(announcement);
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
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.pushed = turn.now;
        match self.list.offer(turn.now, &gossip) {
            Offer::New(place) => {
                link.known.set(place);
                if !self.missing.is_empty()
                    && let Some(entry) = self.list.entry(place)
                    && let Some(origin) = self.list.origin(entry.origin)
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
                link.known.set(place);
                self.counters.duplicates += 1;
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
        let silent = self
            .parent
            .and_then(|parent| self.links.get(&parent))
            .is_none_or(|parent| turn.now.since(parent.pushed) > PARENT_SILENT);
        for (conn, wanted) in wants {
            let mut want = Vec::new();
            for (tag, mut numbers) in wanted {
                numbers.sort_unstable();
                self.counters.wants += numbers.len() as u64;
                want.push((tag, gather(numbers)));
            }
            turn.send(conn, Message::Want(want));
            if silent && let Some(link) = self.links.get_mut(&conn) {
                link.grafted = Some(turn.now + GRAFTED_FOR);
                self.timers.set(Timer::Regraft, turn.now + GRAFTED_FOR);
            }
        }
        self.tell_wishes(turn);
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
            let mut announce = std::mem::take(&mut link.announce);
            announce.retain(|announcement| !link.known.get(announcement.place));
            announce.sort_unstable();
            let mut have = Vec::new();
            for of_origin in announce.chunk_by(|one, other| one.origin == other.origin) {
                let origin = of_origin.first().and_then(|first| self.list.origin(first.origin));
                let Some(origin) = origin else { continue };
                self.counters.announced += of_origin.len() as u64;
                have.push((origin.tag, gather(of_origin.iter().map(|a| a.number))));
            }
            if have.is_empty() {
                continue;
            }
            turn.send(*conn, Message::Have(have));
        }
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        self.list.expire(turn.now);
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
                Timer::Regraft => self.tell_wishes(turn),
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
