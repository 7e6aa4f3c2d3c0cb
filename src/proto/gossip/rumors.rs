//! What a peer knows of gossip: the message list, and for each link which messages crossed it, wait
//! to be pushed or wait to be announced. `spread`, `announce` and `sync` act on this; nothing here
//! decides where a message goes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Counters;
use super::author::Author;
use super::early::Early;
use super::exchange::Exchange;
use super::list::MessageList;
use super::window::Window;
use crate::proto::config::{Overlay, PeerConfig};
use crate::proto::kv::replica::Paths;
use crate::proto::limits::Limit;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Broadcast, Incarnation, Tag};
use crate::proto::planted::Flaw;
use crate::proto::signature::Signing;
use crate::proto::time::Time;
use crate::proto::timers::Timers;
use crate::proto::turn::PeerTurn;

/// Announcements are gathered this long. After a lost push a peer waits for one announcement. The
/// usual cause is a lost link, which grafts repair at once, so saving bytes matters more than this
/// wait: at 100 messages a second ten announcements share one frame.
pub(super) const HAVE_INTERVAL: Duration = Duration::from_millis(100);

/// How often messages that are too old are dropped.
pub(super) const EXPIRE_INTERVAL: Duration = Duration::from_secs(30);

/// Payload bytes of this peer's own messages that are still pushed over a link after it has become
/// congested, where messages of others are only announced. Others may have theirs from elsewhere; its
/// own come from here. As much as makes a link congested: half of what waits for a slow reader may be
/// this peer's own.
const OWN_AHEAD: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Send the announcements that have gathered.
    Have,
    /// Ask for a missing message.
    Want(Tag, u64),
    /// Let links be lazy again that helped out for the parent.
    Regraft,
    /// Push the messages gathered.
    Push,
    /// Drop messages that are too old.
    Expire,
    /// Ask once more whether both sides hold the same after a comparison.
    Confirm(Conn),
}

/// What a peer remembers of one link.
#[derive(Debug)]
pub(super) struct Link {
    pub peer: Addr,
    /// Messages pushed or sent over this link, by place.
    pub sent: Window,
    /// Messages that the other side is known to have.
    pub known: Window,
    /// When the link came up.
    pub since: Time,
    /// The link is open for one comparison only: nothing is pushed or announced over it.
    pub guest: bool,
    /// The comparison under way.
    pub exchange: Exchange,
    /// Whether messages are pushed over the link.
    pub edge: Edge,
    /// Messages gathered to be pushed over the link, by place.
    pub gathered: Vec<u64>,
    /// Messages to announce.
    pub announce: Vec<Announcement>,
    pub slow: Slow,
    /// Messages that came over the link and were not their origin's.
    pub forged: u32,
    pub round_trip: Option<Duration>,
}

/// What becomes of pushes while the other side of a link reads slowly.
#[derive(Debug)]
pub(super) struct Slow {
    pub congested: bool,
    /// Payload bytes of own messages that are still pushed while the link is congested.
    pub own_ahead: usize,
    /// Messages announced over the link that would have been pushed, had it not been congested.
    pub withheld: Window,
    /// The other side has held all messages before this place, as the last comparison that found no
    /// difference has shown.
    pub agreed: u64,
}

impl Link {
    /// Whether a message has to be announced and not pushed, because the other side reads slowly; own
    /// messages go ahead of those of others.
    pub fn withholds(&mut self, is_own: bool, bytes: usize) -> bool {
        if self.slow.congested && is_own && bytes <= self.slow.own_ahead {
            self.slow.own_ahead -= bytes;
            return false;
        }
        self.slow.congested
    }

    /// Whether a message was withheld from the other side, which has not fetched it since.
    fn lacks(&self, place: u64) -> bool {
        self.slow.withheld.get(place) && !self.known.get(place) && place >= self.slow.agreed
    }
}

/// Whether messages are pushed over a link, either way.
#[derive(Debug)]
pub(super) struct Edge {
    /// The other side wants messages pushed.
    pub eager: bool,
    /// Whether we want messages pushed, as last told to the other side; it assumes yes until told.
    pub wish: bool,
    /// The other side helps out for the parent until then.
    pub grafted: Option<Time>,
    /// When the other side last sent a message.
    pub pushed: Time,
}

/// This peer's place in the tree along which messages are pushed.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The link towards the root of the tree.
    pub parent: Option<Conn>,
    /// This peer is the root.
    pub root: bool,
}

/// A message to announce, unless the other side turns out to have it before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Announcement {
    pub origin: usize,
    pub number: u64,
    pub place: u64,
}

/// A message that was announced and has not come.
#[derive(Clone, Debug, Default)]
pub(super) struct Missing {
    pub announcers: Vec<Conn>,
    pub asked: usize,
}

/// The gossip half of a peer: the message list, and what is known of each link.
#[derive(Debug)]
pub struct Rumors {
    pub(super) author: Author,
    pub(super) flaw: Flaw,
    /// How long messages are gathered before they are pushed over links other than the parent's.
    pub(super) gather: Duration,
    /// How long announcements gather before the next frame of them.
    pub(super) have_interval: Duration,
    /// Every peer is linked to every other and sends its own messages to all; nobody forwards.
    pub(super) direct: bool,
    pub(super) list: MessageList,
    pub(super) early: Early,
    pub(super) links: BTreeMap<Conn, Link>,
    pub(super) tree: Tree,
    pub(super) missing: BTreeMap<(Tag, u64), Missing>,
    pub(super) timers: Timers<Timer>,
    pub(super) counters: Counters,
}

impl Rumors {
    /// Makes the gossip half of a peer with these settings; it is not started.
    pub fn new(config: &PeerConfig) -> Self {
        Self {
            author: Author::new(config),
            flaw: config.flaw(),
            gather: config.broadcast.gather,
            have_interval: HAVE_INTERVAL,
            direct: config.topology.overlay == Overlay::Full,
            list: MessageList::default(),
            early: Early::default(),
            links: BTreeMap::new(),
            tree: Tree::default(),
            missing: BTreeMap::new(),
            timers: Timers::default(),
            counters: Counters::default(),
        }
    }

    /// Begins a life of this peer.
    pub fn start(&mut self, now: Time, life: Incarnation) {
        self.author.begin(life);
        self.timers.set(Timer::Expire, now + EXPIRE_INTERVAL);
    }

    /// Has messages signed by their origins, and those of others checked.
    pub(crate) fn sign_with(&mut self, signing: Signing) {
        self.author.sign_with(signing);
    }

    /// The counts so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The messages held.
    pub fn list(&self) -> &MessageList {
        &self.list
    }

    /// When the next timer is due.
    pub fn wake_at(&self) -> Option<Time> {
        self.timers.next()
    }

    /// A link is up. It starts eager; but a guest link is open for one comparison only, and nothing
    /// is pushed over it.
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
                edge: Edge { eager: true, wish: true, grafted: None, pushed: Time::default() },
                gathered: Vec::new(),
                announce: Vec::new(),
                slow: Slow {
                    congested: false,
                    own_ahead: 0,
                    withheld: Window::starting(start),
                    agreed: start,
                },
                forged: 0,
                round_trip: None,
            },
        );
    }

    /// A link is gone.
    pub(crate) fn link_down(&mut self, conn: Conn) {
        self.links.remove(&conn);
        self.timers.cancel(&Timer::Confirm(conn));
        if self.tree.parent == Some(conn) {
            self.tree.parent = None;
        }
    }

    /// Makes a link the parent, or none; `root` if this peer is the oldest member. Tells the other
    /// sides of links what changes for them.
    pub(crate) fn set_parent(&mut self, turn: &mut PeerTurn<'_>, parent: Option<Conn>, root: bool) {
        self.tree.parent = parent;
        self.tree.root = root;
        self.tell_wishes(turn);
    }

    pub(super) fn tell_wishes(&mut self, turn: &mut PeerTurn<'_>) {
        let orphan = self.tree.parent.is_none() && !self.tree.root;
        for (conn, link) in self.links.iter_mut().filter(|(_, link)| !link.guest) {
            link.edge.grafted = link.edge.grafted.filter(|until| *until > turn.now);
            let wish = orphan || self.tree.parent == Some(*conn) || link.edge.grafted.is_some();
            if wish == link.edge.wish {
                continue;
            }
            link.edge.wish = wish;
            if wish {
                self.counters.grafts += 1;
                turn.send(*conn, Broadcast::Graft);
            } else {
                self.counters.prunes += 1;
                turn.send(*conn, Broadcast::Prune);
            }
        }
    }

    /// The other side of a link wants messages pushed (`eager`), or only announced.
    pub(crate) fn set_eager(&mut self, conn: Conn, eager: bool) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.edge.eager = eager;
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
            link.slow.congested = congested;
            link.slow.own_ahead = OWN_AHEAD;
        }
    }

    /// The links over which messages are pushed, and all links, both without guest links.
    pub(crate) fn paths(&self) -> Paths {
        let links = self.links.iter().filter(|(_, link)| !link.guest);
        let eager = |(conn, link): &(&Conn, &Link)| {
            (link.edge.eager || self.tree.parent == Some(**conn)) && !link.slow.congested
        };
        Paths {
            eager: links.clone().filter(eager).map(|(conn, _)| *conn).collect(),
            all: links.map(|(conn, _)| *conn).collect(),
        }
    }

    /// Tells of own messages that the list has dropped before a neighbour that reads slowly could fetch
    /// them: nobody else may have them for it.
    pub(super) fn tell_unfetched(&mut self, turn: &mut PeerTurn<'_>) {
        while let Some(place) = self.author.places.front().copied()
            && self.list.entry(place).is_none()
        {
            self.author.places.pop_front();
            if let Some(link) = self.links.values().find(|link| link.lacks(place)) {
                turn.over_limit(Limit::Unfetched, Some(link.peer));
            }
        }
    }

    /// Both sides of a link hold the same messages but for the freshest.
    pub(super) fn agree(&mut self, conn: Conn) {
        let settled = self.list.settled_before();
        if let Some(link) = self.links.get_mut(&conn) {
            link.slow.agreed = link.slow.agreed.max(settled);
        }
    }

    /// Whether messages wait to be pushed.
    pub fn is_gathering(&self) -> bool {
        self.links.values().any(|link| !link.gathered.is_empty())
    }
}

#[cfg(test)]
mod tests;
