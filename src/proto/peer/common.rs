//! What every routing file of a peer may use: connections are dialled, links and members looked up, and
//! what a seed or the neighbours are told is sent.
//!
//! What must stay true: nothing here knows why it is called, and calls nothing of the files above it.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::links::age;
use super::sessions::{CALL, Dial, Line};
use super::{PeerMachine, Timer};
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Hello, Incarnation, Members, Message, Purpose, Role};
use crate::proto::registry::{MAX_AHEAD_MILLIS, Record};
use crate::proto::time::Time;
use crate::proto::turn::PeerTurn;

/// Members among whom each may tell of a death what it has seen of it. In a larger network those who
/// are nearest tell, and the others leave it to them: else one death would be told by hundreds.
const SMALL: usize = 16;

/// Changes of links gather this long before they are reported: a peer that starts makes several.
const REPORT_DELAY: Duration = Duration::from_millis(500);

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

    /// Whether the network is so large that not everybody is to tell of a death.
    pub(super) fn is_large(&self) -> bool {
        self.membership.members.size() > SMALL
    }

    /// A member, or a neighbour: the news of its registration may still be on its way.
    pub(super) fn is_peer(&self, other: &Addr) -> bool {
        self.membership.members.alive(other).is_some() || self.overlay.contains(other)
    }

    /// A member's place in the order of joining.
    pub(super) fn age(&self, peer: &Addr) -> (u64, Addr) {
        age(&self.membership.members, peer)
    }

    /// Somebody called for one thing only: the connection is not to outlast [`CALL`].
    pub(super) fn expect_end(&mut self, turn: &PeerTurn<'_>) {
        self.timers.set_if_unset(Timer::Dismiss, turn.now + CALL);
    }

    /// Links have come or gone.
    pub(super) fn links_changed(&mut self, turn: &mut PeerTurn<'_>) {
        self.timers.set_if_unset(Timer::Report, turn.now + REPORT_DELAY);
    }

    pub(super) fn stop(&mut self, turn: &mut PeerTurn<'_>) {
        for conn in self.sessions.take_all() {
            turn.close(conn);
        }
        turn.stopped();
    }

    /// Says something to a seed, over a connection that is opened if there is none.
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

    /// Its neighbours.
    pub fn neighbours(&self) -> Vec<Addr> {
        self.overlay.peers().copied().collect()
    }

    /// Whether the link is still there: what was heard over it may have ended it.
    pub(super) fn is_neighbour(&self, conn: Conn) -> bool {
        matches!(self.sessions.get(conn), Some(Line::Neighbour(_)))
    }

    /// A member answers that it is leaving.
    pub(super) fn departs(&mut self, now: Time, peer: Addr) {
        let incarnation = self.membership.members.get(&peer).map_or(0, |record| record.incarnation);
        self.suspicion.departs(now, peer, incarnation);
    }

    pub(super) fn generate(&mut self, turn: &mut PeerTurn<'_>) {
        if self.life.leaving || self.broadcast.generated >= self.life.config.broadcast.gossip_count
        {
            return;
        }
        self.broadcast.generated += 1;
        // Two peers on one host may speak in the same millisecond, and the text has no port: the
        // last three digits of the time are the port's, so that no two say the same.
        let micros = turn.now.micros();
        let at = Time::from_micros(
            micros - micros % 1_000 + u64::from(self.life.config.me.port() % 1_000),
        );
        let ip = match self.life.config.me.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            // In brackets, so that the message still splits at its colons.
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let text = format!("{at}:{ip}:{}", self.broadcast.generated);
        // Far below any limit: it cannot be refused.
        let _ = self.broadcast.rumors.publish(turn, Bytes::from(text));
        if self.broadcast.generated < self.life.config.broadcast.gossip_count {
            self.timers.set(Timer::Gossip, turn.now + self.life.config.broadcast.gossip_interval);
        }
    }
}

/// Whether an incarnation that somebody names can be true. Far in the future it can only be a lie,
/// which must not make this peer's own incarnation useless for good.
pub(super) fn is_believable(incarnation: Incarnation, now: Time) -> bool {
    incarnation < now.millis().saturating_add(MAX_AHEAD_MILLIS)
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
