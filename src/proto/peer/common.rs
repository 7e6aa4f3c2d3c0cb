//! What every routing file of a peer may use: it dials connections, looks up links and members, and
//! sends what a seed or the neighbours are told.
//!
//! What must stay true: nothing here knows why it is called, or calls any of the other routing
//! files.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::links::age;
use super::sessions::{CALL, Dial, Session};
use super::{PeerMachine, Timer};
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Hello, Incarnation, Members, Message, Purpose, Role};
use crate::proto::registry::{MAX_AHEAD_MILLIS, MAX_RISE_MILLIS, Record};
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// In a network of up to this many members, each tells what it has seen of a death. In a larger one
/// the peers that are nearest tell it and the others leave it to them: otherwise hundreds would
/// tell of one death.
const SMALL: usize = 16;

/// Changed links are reported after this delay, because a peer that starts makes several changes.
const REPORT_DELAY: Duration = Duration::from_millis(500);

/// Lines about peers that are no members that are told in one minute, far more than newcomers make.
const STRANGERS_A_MINUTE: u32 = 600;

impl PeerMachine {
    pub(super) fn hello(&self, purpose: Purpose) -> Hello {
        self.life.config.network.hello(
            Role::Peer,
            self.life.config.me,
            self.life.incarnation,
            purpose,
        )
    }

    pub(super) fn dial(
        &mut self,
        turn: &mut PeerTurn<'_>,
        to: Addr,
        purpose: Purpose,
        dial: Dial,
    ) -> Conn {
        let conn = self.sessions.dial(dial);
        let hello = self.hello(purpose);
        turn.open(conn, to, hello, self.life.config.detection.probe_timeout);
        conn
    }

    pub(super) fn jitter(&mut self, around: Duration) -> Duration {
        around.mul_f64(self.life.rng.random_range(0.75..1.25))
    }

    pub(super) fn is_departing(&self, now: Time, peer: &Addr) -> bool {
        self.suspicion.is_departing(now, &self.membership.members, peer)
    }

    /// Whether the network is so large that not every peer is to tell of a death.
    pub(super) fn is_large(&self) -> bool {
        self.membership.members.size() > SMALL
    }

    /// Whether it is a member or a neighbour: a neighbour may be a member of whose registration the
    /// news is still on its way.
    pub(super) fn is_peer(&self, other: &Addr) -> bool {
        self.membership.members.alive(other).is_some() || self.overlay.contains(other)
    }

    /// Whether a line of the log about a peer is worth being told. Whoever is no member may come
    /// and go as often as it likes.
    pub(super) fn is_told_of(&mut self, now: Time, peer: &Addr) -> bool {
        self.membership.members.get(peer).is_some()
            || self.told.strangers.allows(now, STRANGERS_A_MINUTE)
    }

    /// A member's place in the order of joining.
    pub(super) fn age(&self, peer: &Addr) -> (u64, Addr) {
        age(&self.membership.members, peer)
    }

    /// A caller came for one thing only: the connection must not stay open for longer than
    /// [`CALL`].
    pub(super) fn expect_end(&mut self, turn: &PeerTurn<'_>) {
        self.timers.set_if_unset(Timer::Dismiss, turn.now + CALL);
    }

    /// Links have come or gone: has them reported soon.
    pub(super) fn links_changed(&mut self, turn: &mut PeerTurn<'_>) {
        self.timers.set_if_unset(Timer::Report, turn.now + REPORT_DELAY);
    }

    pub(super) fn stop(&mut self, turn: &mut PeerTurn<'_>) {
        for conn in self.sessions.take_all() {
            turn.close(conn);
        }
        turn.stopped();
    }

    /// Sends a message to a seed, over a connection that is opened first if there is none.
    pub(super) fn say(&mut self, turn: &mut PeerTurn<'_>, seed: Addr, message: impl Into<Message>) {
        if self.registration.say(turn, seed, message.into()) {
            let conn = self.dial(turn, seed, Purpose::Membership, Dial::Seed(seed));
            self.registration.dialling(seed, conn);
        }
    }

    pub(super) fn tell_others(
        &self,
        turn: &mut PeerTurn<'_>,
        records: Vec<(Addr, Record)>,
        except: Option<Conn>,
    ) {
        if !records.is_empty() {
            let links = self.overlay.iter().map(|(_, neighbour)| neighbour.conn);
            let links = links.filter(|conn| Some(*conn) != except).collect();
            turn.send_many(links, Members::Changed(records));
        }
    }

    pub(super) fn call(&mut self, turn: &mut PeerTurn<'_>, peer: Addr) {
        let dial = Dial::Link(peer);
        if !self.overlay.contains(&peer) && !self.sessions.is_dialling(dial) {
            self.dial(turn, peer, Purpose::Link, dial);
        }
    }

    /// Addresses of this peer's neighbours.
    pub fn neighbours(&self) -> Vec<Addr> {
        self.overlay.peers().copied().collect()
    }

    /// Whether the connection is still a link: a message that came over it may have ended it.
    pub(super) fn is_neighbour(&self, conn: Conn) -> bool {
        matches!(self.sessions.get(conn), Some(Session::Neighbour(_)))
    }

    /// A member answers that it is leaving.
    pub(super) fn departs(&mut self, now: Time, peer: Addr) {
        let incarnation = self.membership.members.get(&peer).map_or(0, |record| record.incarnation);
        self.suspicion.departs(now, &self.membership.members, peer, incarnation);
    }

    pub(super) fn generate(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving || self.broadcast.generated >= self.life.config.broadcast.gossip_count
        {
            return;
        }
        self.broadcast.generated += 1;
        // Two peers on one host may speak in the same millisecond, and the text names no port: the
        // last three digits of the time are taken from the port, so that peers on one host say
        // different texts.
        let micros = turn.now.micros();
        let at = Time::from_micros(
            micros - micros % 1_000 + u64::from(self.life.config.me.port() % 1_000),
        );
        let ip = match self.life.config.me.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            // In brackets, because readers split the message at its colons.
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let text = format!("{at}:{ip}:{}", self.broadcast.generated);
        // The text is far below every limit, so it cannot be refused.
        let _ = self.broadcast.rumors.publish(turn, Bytes::from(text));
        if self.broadcast.generated < self.life.config.broadcast.gossip_count {
            self.timers.set(Timer::Gossip, turn.now + self.life.config.broadcast.gossip_interval);
        }
    }
}

/// Whether an incarnation that somebody names can be true. One far in the future can only be a lie.
pub(super) fn is_believable(incarnation: Incarnation, now: Time) -> bool {
    incarnation < now.millis().saturating_add(MAX_AHEAD_MILLIS)
}

/// Whether this peer may rise above an incarnation that somebody names. Above one far in the future
/// its own would be of no use for good.
pub(super) fn may_rise_above(incarnation: Incarnation, now: Time) -> bool {
    incarnation < now.millis().saturating_add(MAX_RISE_MILLIS)
}

/// Up to `many` distinct places below `len`, in random order.
pub(super) fn sample(rng: &mut SmallRng, len: usize, many: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..len).collect();
    let many = many.min(len);
    for place in 0..many {
        let other = rng.random_range(place..len);
        places.swap(place, other);
    }
    places.truncate(many);
    places
}
