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

use super::announce::Missing;
use super::list::{MessageList, Offer, Refusal};
use super::sync::Exchange;
use super::window::Window;
use super::{Counters, MAX_PAYLOAD, MessageId};
use crate::proto::config::{Flaw, Overlay, PeerConfig};
use crate::proto::event::{Event, Severity};
use crate::proto::kv::replica::Paths;
use crate::proto::machine::{Conn, Delivery, Effect, PublishError};
use crate::proto::message::{Addr, Gossip, Incarnation, Message, Tag};
use crate::proto::time::Time;
use crate::proto::timers::Timers;
use crate::proto::turn::Turn;

/// Announcements gather this long. A lost push waits for one announcement; lost links, the usual
/// cause, are answered by grafts at once, so bytes decide: at 100 messages a second this makes one
/// frame of ten announcements.
const HAVE_INTERVAL: Duration = Duration::from_millis(100);
/// Announcements that wait for one link before they are sent early.
const HAVE_BATCH: usize = 4_096;
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
    /// Push what has been gathered.
    Push,
    /// Drop what is too old.
    Expire,
    /// Ask whether a comparison has ended well.
    Confirm(Conn),
}

/// What is remembered of one link.
#[derive(Debug)]
pub(super) struct Link {
    pub peer: Addr,
    /// Messages pushed or sent over this link, by place.
    pub sent: Window,
    /// Messages that the other side is known to have.
    pub known: Window,
    /// When it came up.
    pub since: Time,
    /// It is open for one comparison only: nothing is pushed or announced over it.
    pub guest: bool,
    /// The comparison that is under way.
    pub exchange: Exchange,
    /// The other side wants messages pushed.
    eager: bool,
    /// What we have last told it that we want; eager unless told otherwise.
    wish: bool,
    /// It helps out for the parent until then.
    pub grafted: Option<Time>,
    /// When it last pushed something.
    pub pushed: Time,
    /// Messages gathered for it, by place.
    gathered: Vec<u64>,
    /// Messages to announce.
    pub announce: Vec<Announcement>,
    pub congested: bool,
    pub round_trip: Option<Duration>,
}

/// A message to announce, if the other side has not told of it by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Announcement {
    pub origin: usize,
    pub number: u64,
    pub place: u64,
}

/// The gossip half of a peer: the message list, and what is known of each link.
#[derive(Debug)]
pub struct Rumors {
    me: Addr,
    life: Incarnation,
    numbers_used: u64,
    flaw: Flaw,
    /// How long messages are gathered before they are pushed to others than the parent.
    gather: Duration,
    /// Everybody says what it has to say to everybody itself.
    direct: bool,
    pub(super) list: MessageList,
    pub(super) links: BTreeMap<Conn, Link>,
    pub(super) parent: Option<Conn>,
    /// This peer is the root of the tree.
    root: bool,
    pub(super) missing: BTreeMap<(Tag, u64), Missing>,
    pub(super) timers: Timers<Timer>,
    pub(super) counters: Counters,
}

impl Rumors {
    /// Of a peer with these settings; not started.
    pub fn new(config: &PeerConfig) -> Self {
        Self {
            me: config.me,
            life: 0,
            numbers_used: 0,
            flaw: config.flaw,
            gather: config.gather,
            direct: config.overlay == Overlay::Full,
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

    /// A link is up. It starts eager, unless it is open for one comparison only.
    pub(crate) fn link_up(&mut self, now: Time, conn: Conn, peer: Addr, guest: bool) {
        let start = self.list.first_place();
        self.links.insert(
            conn,
            Link {
                peer,
                sent: Window::starting(start),
                known: Window::starting(start),
                since: now,
                guest,
                exchange: Exchange::starting(start),
                eager: true,
                wish: true,
                grafted: None,
                pushed: Time::default(),
                gathered: Vec::new(),
                announce: Vec::new(),
                congested: false,
                round_trip: None,
            },
        );
    }

    /// A link is gone.
    pub(crate) fn link_down(&mut self, conn: Conn) {
        self.links.remove(&conn);
        self.timers.cancel(&Timer::Confirm(conn));
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

    pub(super) fn tell_wishes(&mut self, turn: &mut Turn<'_>) {
        let orphan = self.parent.is_none() && !self.root;
        for (conn, link) in self.links.iter_mut().filter(|(_, link)| !link.guest) {
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

    /// The links over which messages are pushed, and all links between neighbours.
    pub(crate) fn paths(&self) -> Paths {
        let links = self.links.iter().filter(|(_, link)| !link.guest);
        let eager = |(conn, link): &(&Conn, &Link)| {
            (link.eager || self.parent == Some(**conn)) && !link.congested
        };
        Paths {
            eager: links.clone().filter(eager).map(|(conn, _)| *conn).collect(),
            all: links.map(|(conn, _)| *conn).collect(),
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
            age: 0,
            payload,
        };
        match self.list.offer(turn.now, &gossip, |_, _| true) {
            Offer::New(place) => Ok(self.accepted(turn, None, gossip, place)),
            // A number of our own is used once, so it can be neither known nor dropped, and it is
            // young: what is left is a list of origins that is full.
            Offer::Known(_) | Offer::Refused(_) => Err(PublishError::Busy),
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
        let is_said = self.direct && from.is_some();
        for (conn, link) in self.links.iter_mut().filter(|_| !is_said) {
            if Some(*conn) == from || link.known.get(place) || link.guest {
                continue;
            }
            let eager = link.eager || self.parent == Some(*conn);
            if !eager || link.congested {
                link.announce.push(announcement);
                announced = true;
                if link.announce.len() >= HAVE_BATCH {
                    self.timers.set(Timer::Have, turn.now);
                }
            } else if !self.gather.is_zero() && self.parent != Some(*conn) {
                link.gathered.push(place);
                self.timers.set_if_unset(Timer::Push, turn.now + self.gather);
            } else {
                link.sent.set(place);
                link.known.set(place);
                link.exchange.unsettled.set(place);
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
    pub(crate) fn on_gossip(
        &mut self,
        turn: &mut Turn<'_>,
        conn: Conn,
        gossip: Gossip,
        is_member: impl Fn(&Addr, Incarnation) -> bool,
    ) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.pushed = turn.now;
        if gossip.origin == self.me && gossip.life == self.life {
            // What this peer has not said itself it cannot hear of itself.
            self.counters.duplicates += 1;
            return;
        }
        match self.list.offer(turn.now, &gossip, is_member) {
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

    fn push_gathered(&mut self, turn: &mut Turn<'_>) {
        for (conn, link) in &mut self.links {
            for place in std::mem::take(&mut link.gathered) {
                // What was told or sent meanwhile is left out.
                let Some(entry) = self.list.entry(place).filter(|_| !link.known.get(place)) else {
                    continue;
                };
                link.sent.set(place);
                link.known.set(place);
                link.exchange.unsettled.set(place);
                self.counters.payloads_sent += 1;
                turn.send(*conn, Message::Gossip(self.list.outgoing(turn.now, entry)));
            }
        }
    }

    /// Whether messages wait to be pushed.
    pub fn is_gathering(&self) -> bool {
        self.links.values().any(|link| !link.gathered.is_empty())
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        self.list.expire(turn.now);
        let first = self.list.first_place();
        for link in self.links.values_mut() {
            link.sent.forget_before(first);
            link.known.forget_before(first);
            link.exchange.unsettled.forget_before(first);
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
                Timer::Push => self.push_gathered(turn),
                Timer::Expire => self.expire(turn),
                Timer::Confirm(conn) => self.confirm_sync(turn, conn),
            }
        }
    }
}
