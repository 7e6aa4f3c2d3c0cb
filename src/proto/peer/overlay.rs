//! What a peer does about its links: who may open one, whom the peer dials, and what follows when a
//! link is up, replaced or gone (`links` says whom it wants links with).
//!
//! What must stay true: whoever follows the links hears of each one that comes and each one that
//! goes; a link that is replaced by a newer one counts as both.

use std::time::Duration;

use super::common::sample;
use super::links::{Links, Neighbour};
use super::sessions::{Dial, Session, Sessions};
use super::suspicions::Suspicions;
use super::{PeerMachine, Timer};
use crate::proto::config::Overlay;
use crate::proto::event::{Event, Severity};
use crate::proto::limits::Limit;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Hello, Incarnation, Message, Parting, Purpose, Refused};
use crate::proto::registry::{Registry, Status};
use crate::proto::roles::MemberEvent;
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// A link to a member that has left is closed after this long, if the member has not closed it by
/// then: a leave takes less.
const FAREWELL: Duration = Duration::from_secs(2);
/// A newcomer is known as a member within this time: it links once it is registered, and the seeds
/// tell of it within milliseconds.
const NEWCOMER: Duration = Duration::from_secs(5);
/// A peer looks again after this long for the links that it is missing.
const FILL_AGAIN: Duration = Duration::from_secs(1);
/// A full peer that refuses a link names at most this many others.
pub(super) const OTHERS: usize = 8;
/// Peers of which there is no record and that are looked at at the same time, because a link to
/// them was lost.
const MAX_STRANGERS: usize = 16;

/// All that is needed to say whether a member may be linked with.
struct Choice<'a> {
    now: Time,
    me: Addr,
    members: &'a Registry,
    suspicion: &'a Suspicions,
    sessions: &'a Sessions,
}

impl Choice<'_> {
    fn may_link(&self, links: &Links, peer: &Addr) -> bool {
        *peer != self.me
            && self.members.alive(peer).is_some()
            && !links.contains(peer)
            && !self.suspicion.contains(peer)
            && !self.suspicion.is_departing(self.now, self.members, peer)
            && !self.sessions.is_dialling(Dial::Link(*peer))
            && !links.is_avoided(self.now, peer)
    }
}

impl PeerMachine {
    /// Why this peer refuses the link that somebody asks for, and whom to ask instead. If only room
    /// is missing, a member gets the place of a neighbour that is none.
    pub(super) fn objection_to_link(
        &mut self,
        turn: &mut PeerTurn<'_>,
        hello: &Hello,
    ) -> Option<(Refused, Vec<Addr>)> {
        let plain = |reason| Some((reason, Vec::new()));
        if self.life.leaving {
            return plain(Refused::Leaving);
        }
        let is_gone = self.membership.members.get(&hello.from).is_some_and(|record| {
            record.status != Status::Alive && record.incarnation >= hello.incarnation
        });
        if is_gone && !self.membership.kind.links_the_gone() {
            return plain(Refused::NotMember);
        }
        if self.overlay.is_brief(turn.now, &hello.from) {
            turn.over_limit(Limit::Brief, Some(hello.from));
            return plain(Refused::Full);
        }
        // Both sides dial at once: the link that the smaller address opened is the one that stays.
        let dialling = self.sessions.is_dialling(Dial::Link(hello.from));
        if dialling && self.life.config.me < hello.from {
            return plain(Refused::AlreadyLinked);
        }
        if let Some(neighbour) = self.overlay.get(&hello.from) {
            // By opening a link the caller says that it has none. But anybody could say so in its
            // name, and a link over which its owner has just spoken is not given up for that.
            let fresh =
                turn.now.since(neighbour.heard) < self.life.config.detection.ping_interval * 2;
            if fresh && hello.incarnation <= neighbour.incarnation {
                return plain(Refused::AlreadyLinked);
            }
            return None;
        }
        if self.overlay.is_full() && !self.make_room(turn, hello) {
            let all: Vec<Addr> = self.overlay.peers().copied().collect();
            let others = sample(&mut self.life.rng, all.len(), OTHERS);
            let others = others.into_iter().filter_map(|place| all.get(place).copied()).collect();
            return Some((Refused::Full, others));
        }
        None
    }

    /// A link is up, whichever side opened it.
    pub(super) fn link_up(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        peer: Addr,
        incarnation: Incarnation,
        picked: bool,
    ) {
        // The other side opened a new link, so it has lost the old one; our end has not noticed
        // yet. Drop ours.
        if let Some(old) = self.forget_link(turn, peer) {
            self.sessions.remove(old.conn);
            turn.close(old.conn);
        }
        let neighbour =
            Neighbour { conn, incarnation, heard: turn.now, stranger_since: turn.now, picked };
        self.overlay.insert(peer, neighbour);
        self.sessions.insert(conn, Session::Neighbour(peer));
        self.suspicion.forget_departure(&peer);
        let told = self.is_told_of(turn.now, &peer);
        turn.log(Event::NeighbourUp { peer, degree: self.overlay.len() }.told_if(told));
        turn.member(MemberEvent::NeighbourUp(peer));
        self.broadcast.rumors.link_up(turn.now, conn, peer, false);
        self.links_changed(turn);
        self.arrange(turn);
        self.timers
            .set(Timer::Silence(peer), turn.now + self.life.config.detection.suspect_timeout);
        turn.send(conn, Message::Ping(turn.now.micros()));
        self.greet(turn, conn, picked);
        if picked {
            // Fetches what was said before this link was up.
            self.broadcast.rumors.begin_sync(turn, conn, true);
            self.replica.begin_sync(turn, conn);
        }
        if self.broadcast.generated == 0 {
            self.generate(turn);
        }
    }

    /// Tells everybody who follows the links that this one is gone: it was closed, or a newer one
    /// replaces it.
    fn forget_link(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) -> Option<Neighbour> {
        let old = self.overlay.remove(&peer)?;
        self.timers.cancel(&Timer::Silence(peer));
        self.timers.cancel(&Timer::Farewell(peer));
        let told = self.is_told_of(turn.now, &peer);
        turn.log(Event::NeighbourDown { peer, degree: self.overlay.len() }.told_if(told));
        turn.member(MemberEvent::NeighbourDown(peer));
        self.broadcast.rumors.link_down(old.conn);
        self.replica.link_down(old.conn);
        self.lost_sight_of(turn, old.conn);
        Some(old)
    }

    /// A link is gone.
    pub(super) fn link_down(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        peer: Addr,
        unexpected: bool,
    ) {
        let Some(neighbour) = self.overlay.get(&peer) else { return };
        if neighbour.conn != conn {
            return;
        }
        let (incarnation, since) = (neighbour.incarnation, neighbour.stranger_since);
        self.forget_link(turn, peer);
        self.links_changed(turn);
        self.arrange(turn);
        if self.life.leaving {
            return;
        }
        if unexpected && !self.is_departing(turn.now, &peer) {
            let members = &self.membership.members;
            if members.alive(&peer).is_some() {
                // It is not dialled for a new link before it is known whether it lives.
                self.overlay.avoid(turn.now, peer);
                self.overlay.broke(turn.now, peer, since);
            }
            // A newcomer may die before the news of it is here, so a stranger is looked at as well.
            // But whoever opens and breaks links in names of its choice must not have this peer
            // dial any number of addresses: the others are looked at once there is news of them.
            if members.get(&peer).is_some() || self.prober.strangers(members) < MAX_STRANGERS {
                self.look_when_lost(turn, peer, incarnation);
            } else {
                self.suspicion.add_ghost(peer);
            }
        }
        self.fill(turn);
    }

    /// Tells the gossip half which link leads to the parent in the tree: the one to the oldest
    /// neighbour. Links to older peers can form no circle, and they all end at the oldest member.
    pub(super) fn arrange(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.config.topology.overlay == Overlay::Full {
            // In a full overlay there is no tree: each peer sends its own messages to all.
            self.broadcast.rumors.set_parent(turn, None, false);
            return;
        }
        let members = &self.membership.members;
        let parent = self.overlay.senior(members).map(|(_, conn)| conn);
        let root = parent.is_none() && self.overlay.is_oldest(members);
        self.broadcast.rumors.set_parent(turn, parent, root);
    }

    /// Closes the links to neighbours that have not become members. The link of a newcomer may be
    /// faster than the news of it, but a process that never registers must not take the places of
    /// members.
    pub(super) fn unlink_strangers(&mut self, turn: &mut PeerTurn<'_>) {
        let strangers = self.overlay.strangers(turn.now, &self.membership.members);
        for peer in strangers {
            let keys = vec![("from", peer.to_string()), ("reason", "it is no member".to_owned())];
            turn.note(Severity::Warn, "link closed", keys);
            self.unlink(turn, peer);
        }
    }

    /// Frees a place for a member that calls: that of the neighbour that has been no member for
    /// longest. False if none can be freed. Anybody can call in the name of a member, so a newcomer
    /// keeps its place while the news of it may still be on its way, and a call in a life that is
    /// over frees none.
    fn make_room(&mut self, turn: &mut PeerTurn<'_>, hello: &Hello) -> bool {
        let members = &self.membership.members;
        let is_present =
            members.alive(&hello.from).is_some_and(|r| r.incarnation <= hello.incarnation);
        let longest = self.overlay.longest_stranger(turn.now, NEWCOMER, members);
        match longest.filter(|_| is_present) {
            Some(stranger) => {
                self.unlink(turn, stranger);
                true
            }
            None => false,
        }
    }

    /// Closes the link to a neighbour, and tells it first that this is no death.
    pub(super) fn unlink(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        if let Some(conn) = self.overlay.get(&peer).map(|neighbour| neighbour.conn) {
            turn.send(conn, Parting::Unlink);
            turn.close(conn);
            self.sessions.remove(conn);
            self.link_down(turn, conn, peer, false);
        }
    }

    pub(super) fn may_link(&self, now: Time, peer: &Addr) -> bool {
        let Self { overlay, membership, sessions, suspicion, life, .. } = self;
        let (me, members) = (life.config.me, &membership.members);
        Choice { now, me, members, suspicion, sessions }.may_link(overlay, peer)
    }

    /// How many more links to dial, beside those that are being opened.
    pub(super) fn links_wanted(&mut self) -> usize {
        let under_way = self.sessions.links_under_way();
        self.overlay.wanted(&self.membership.members, under_way)
    }

    /// Dials as many members as links are missing.
    pub(super) fn fill(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving || !self.registration.is_registered() {
            return;
        }
        self.overlay.forgive_the_old(turn.now);
        if self.life.config.topology.overlay != Overlay::ScaleFree {
            self.fill_in_order(turn);
            return;
        }
        let mut wanted = self.links_wanted();
        // A peer that has lost all its links may have had them from one place; one uniform choice
        // keeps the overlay connected when hubs die.
        let mut uniform = self.overlay.has_lost_all();
        while wanted > 0 {
            let Some(peer) = self.draw(turn.now, uniform) else { break };
            uniform = false;
            self.dial(turn, peer, Purpose::Link, Dial::Link(peer));
            wanted -= 1;
        }
        if self.links_wanted() > 0 {
            let again = self.jitter(FILL_AGAIN);
            self.timers.set_if_unset(Timer::Fill, turn.now + again);
        }
    }

    /// Keeps the links of an overlay that is not drawn at random: to the oldest member that can be
    /// reached, or to all members.
    fn fill_in_order(&mut self, turn: &mut PeerTurn<'_>) {
        let (me, hub) = (self.life.config.me, self.life.config.topology.overlay == Overlay::Hub);
        let mut older: Vec<Addr> = self.overlay.ranking(&self.membership.members).to_vec();
        if let Some(mine) = older.iter().position(|member| *member == me) {
            // The younger members link with this peer; it need not dial them as well.
            older.truncate(mine);
        }
        // The oldest member is tried alone. When it cannot be reached, several are tried at a time,
        // because nobody knows where the network is cut.
        let first = older.first().copied();
        let mut at_once = usize::MAX;
        if hub {
            let linked = |peer: &Addr| self.overlay.contains(peer);
            let best = older.iter().position(linked).unwrap_or(older.len());
            older.truncate(best);
            let is_first = first.is_some_and(|first| self.may_link(turn.now, &first));
            at_once = if is_first { 1 } else { self.life.config.topology.links };
        }
        at_once = at_once.saturating_sub(if hub { self.sessions.links_under_way() } else { 0 });
        let wanted: Vec<Addr> = older.into_iter().filter(|p| self.may_link(turn.now, p)).collect();
        for peer in wanted.into_iter().take(at_once) {
            self.dial(turn, peer, Purpose::Link, Dial::Link(peer));
        }
        let parent = self.overlay.senior(&self.membership.members).map(|(peer, _)| peer);
        if hub && let Some(parent) = parent {
            let spare: Vec<Addr> = self
                .overlay
                .iter()
                .filter(|(peer, neighbour)| neighbour.picked && **peer != parent)
                .map(|(peer, _)| *peer)
                .collect();
            for peer in spare {
                self.unlink(turn, peer);
            }
        }
        // The timer is set even while a link is up: an older member may have come back.
        let again = self.jitter(FILL_AGAIN);
        self.timers.set_if_unset(Timer::Fill, turn.now + again);
    }

    /// Draws a member to link with.
    pub(super) fn draw(&mut self, now: Time, uniform: bool) -> Option<Addr> {
        let Self { overlay, membership, sessions, suspicion, life, .. } = self;
        let me = life.config.me;
        let choice = Choice { now, me, members: &membership.members, suspicion, sessions };
        let may_link = |links: &Links, peer: &Addr| choice.may_link(links, peer);
        overlay.draw(&mut life.rng, &membership.members, uniform, may_link)
    }

    /// A member that has left closes its link itself; if it does not, this peer does so a little
    /// later.
    pub(super) fn expect_farewell(&mut self, turn: &PeerTurn<'_>, peer: Addr) {
        self.timers.set_if_unset(Timer::Farewell(peer), turn.now + FAREWELL);
    }

    /// The time in which a neighbour that has left had to close its link is over.
    pub(super) fn unlink_if_gone(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        let record =
            self.membership.members.get(&peer).filter(|record| record.status == Status::Left);
        if record.is_some_and(|record| self.overlay.is_linked_up_to(&peer, record.incarnation)) {
            self.unlink(turn, peer);
        }
    }
}
