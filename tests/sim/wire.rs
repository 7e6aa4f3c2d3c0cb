//! The simulated network: dials, links, frames, and what the weather does to them.
//!
//! A link is a TCP connection: in order, until the weather says otherwise. It
//! loses, doubles, delays and overtakes single messages, which TCP would not
//! do, because a process that reads too slowly loses messages too.

use std::time::Duration;

use rand::RngExt;
use rumormill::proto::machine::{Conn, Input, OpenError};
use rumormill::proto::message::{Addr, Answer, Hello, Message, Refusal, Refused};
use rumormill::proto::time::Time;

use super::node::{Kind, NodeId, State};
use super::world::{Action, World};

/// What the network does to what is sent over it.
#[derive(Clone, Debug)]
pub struct Weather {
    pub latency: (Duration, Duration),
    pub disk: (Duration, Duration),
    /// Probability that a message is lost.
    pub loss: f64,
    /// Whether handshakes are lost as messages are.
    pub loses_handshakes: bool,
    /// Probability that it arrives twice.
    pub twice: f64,
    /// Probability that it is held back, up to [`HELD_BACK`], and overtaken.
    pub overtaken: f64,
    /// Cuts in force: two sides that cannot hear each other, as a bit for each node.
    pub cuts: Vec<(u64, u64)>,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(200), Duration::from_millis(2)),
            disk: (Duration::from_micros(100), Duration::from_millis(2)),
            loss: 0.0,
            loses_handshakes: true,
            twice: 0.0,
            overtaken: 0.0,
            cuts: Vec::new(),
        }
    }
}

impl Weather {
    /// Whether two nodes cannot hear each other.
    pub fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        let on = |side: u64, node: NodeId| (side >> node) & 1 == 1;
        let apart = |(one, other)| (on(one, a) && on(other, b)) || (on(one, b) && on(other, a));
        self.cuts.iter().any(|cut| apart(*cut))
    }
}

/// How long a message that others overtake may be held back.
pub const HELD_BACK: Duration = Duration::from_secs(1);

/// How long a silenced link lives before the kernel may give it up, and when it has at last.
const GIVES_UP: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(12));

/// How often a close that cannot get through is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The hello is on its way.
    Nobody,
    /// Has called and waits for the answer.
    Calling,
    /// Was called and has not answered.
    Called,
    Open,
    Gone,
}

/// One side of a link.
#[derive(Clone, Copy, Debug)]
struct End {
    node: NodeId,
    conn: Conn,
    phase: Phase,
}

/// A connection between two nodes; end 0 has called. Numbers of connections are not used twice in
/// a life, and all of a life's ends are gone when it ends.
pub struct Link {
    ends: [End; 2],
    to: Addr,
    /// When the last message in order arrives at each end: the next one does not come before it.
    floor: [Time; 2],
    /// When the last message at all arrives at each end: a close comes after it.
    last: [Time; 2],
    /// It has doubled a message or let others overtake it, as no TCP connection does.
    disorderly: bool,
}

impl World {
    pub(super) fn dial(
        &mut self,
        id: NodeId,
        conn: Conn,
        to: Addr,
        hello: Hello,
        within: Duration,
    ) {
        let hello = Hello { identity: self.identity(id), ..hello };
        let node = &mut self.nodes[id];
        assert!(
            conn.is_multiple_of(2) && conn > node.opened,
            "{} opens connection {conn}, which is not an even number that it never used",
            node.addr
        );
        node.opened = conn;
        let link = self.links.len();
        node.conns.insert(conn, (link, 0));
        let caller = End { node: id, conn, phase: Phase::Calling };
        let callee = End { node: id, conn: 0, phase: Phase::Nobody };
        let never = Time::default();
        let (floor, last) = ([never; 2], [never; 2]);
        self.links.push(Link { ends: [caller, callee], to, floor, last, disorderly: false });
        self.schedule(self.now + within, Action::GiveUp { link });
        let target = self.places.get(&to).copied();
        if target.is_some_and(|target| self.weather.is_cut(id, target)) || self.is_handshake_lost()
        {
            self.tally.one("lost frames");
            return;
        }
        let at = self.now + self.between(self.weather.latency);
        self.schedule(at, Action::Knock { link, hello });
    }

    /// A hello arrives: what the host does before the machine hears of it.
    pub(super) fn knock(&mut self, link: usize, hello: Hello) {
        if self.links[link].ends[0].phase != Phase::Calling {
            return;
        }
        let target = self.places.get(&self.links[link].to).copied();
        let Some(target) = target.filter(|target| self.nodes[*target].state != State::Down) else {
            let at = self.now + self.between(self.weather.latency);
            self.schedule(at, Action::Unreachable { link });
            return;
        };
        let network = match &self.nodes[target].kind {
            Kind::Seed(config) => Some(&config.network),
            Kind::Peer(config) => Some(&config.network),
            Kind::Script => None,
        };
        let refused = network.and_then(|network| {
            if network.name != hello.network {
                Some(Refused::Network)
            } else {
                (network.digest() != hello.seeds).then_some(Refused::SeedList)
            }
        });
        let node = &mut self.nodes[target];
        let conn = node.incoming;
        node.incoming += 2;
        node.conns.insert(conn, (link, 1));
        self.links[link].ends[1] = End { node: target, conn, phase: Phase::Called };
        match refused {
            Some(reason) => {
                let refusal = Refusal { reason, others: Vec::new() };
                self.answer(target, conn, Answer::Refused(refusal));
            }
            None => self.give(target, Input::Incoming { conn, hello }),
        }
    }

    pub(super) fn answer(&mut self, id: NodeId, conn: Conn, mut answer: Answer) {
        if let Answer::Welcome(welcome) = &mut answer {
            welcome.identity = self.identity(id);
        }
        let Some(&(link, end)) = self.nodes[id].conns.get(&conn) else { return };
        if end != 1 || self.links[link].ends[1].phase != Phase::Called {
            return;
        }
        match answer {
            Answer::Welcome(_) => self.links[link].ends[1].phase = Phase::Open,
            Answer::Refused(_) => {
                self.links[link].ends[1].phase = Phase::Gone;
                self.nodes[id].conns.remove(&conn);
            }
        }
        if self.is_cut(link) || self.is_handshake_lost() {
            self.tally.one("lost frames");
            return;
        }
        let at = self.now + self.between(self.weather.latency);
        let link_ends = &mut self.links[link];
        link_ends.floor[0] = at;
        link_ends.last[0] = at;
        self.schedule(at, Action::Answered { link, answer });
    }

    pub(super) fn answered(&mut self, link: usize, answer: Answer) {
        let End { node, conn, phase } = self.links[link].ends[0];
        if phase != Phase::Calling {
            return;
        }
        match answer {
            Answer::Welcome(welcome) => {
                self.links[link].ends[0].phase = Phase::Open;
                self.meet(node, &welcome);
                self.give(node, Input::Opened { conn, welcome });
            }
            Answer::Refused(refusal) => self.dial_failed(link, OpenError::Refused(refusal)),
        }
    }

    pub(super) fn unreachable(&mut self, link: usize) {
        if self.links[link].ends[0].phase == Phase::Calling {
            self.dial_failed(link, OpenError::Unreachable);
        }
    }

    pub(super) fn give_up(&mut self, link: usize) {
        if self.links[link].ends[0].phase == Phase::Calling {
            self.dial_failed(link, OpenError::TimedOut);
            self.tell_other_end(link, 0);
        }
    }

    fn dial_failed(&mut self, link: usize, error: OpenError) {
        let End { node, conn, .. } = self.links[link].ends[0];
        self.links[link].ends[0].phase = Phase::Gone;
        self.nodes[node].conns.remove(&conn);
        self.give(node, Input::OpenFailed { conn, error });
    }

    pub(super) fn send(&mut self, id: NodeId, conn: Conn, message: Message) {
        // Whatever is not open on this side any more goes nowhere, as in any host.
        let Some(&(link, from)) = self.nodes[id].conns.get(&conn) else { return };
        if self.links[link].ends[from].phase != Phase::Open {
            return;
        }
        let lost = self.is_cut(link) || self.is_lost();
        if let Some(checks) = &mut self.checks {
            let excused = self.links[link].disorderly;
            checks.sent(&self.nodes[id], (link, from), &message, lost, excused);
        }
        if lost {
            self.tally.one("lost frames");
            return;
        }
        let end = 1 - from;
        if self.chance(self.weather.twice) {
            self.tally.one("doubled frames");
            self.links[link].disorderly = true;
            self.post(link, end, message.clone());
        }
        self.post(link, end, message);
    }

    fn post(&mut self, link: usize, end: usize, message: Message) {
        let held_back = self.chance(self.weather.overtaken);
        let mut at = self.now + self.between(self.weather.latency);
        at = at.max(self.links[link].floor[end]);
        if held_back {
            self.tally.one("overtaken frames");
            self.links[link].disorderly = true;
            at = at + self.between((Duration::ZERO, HELD_BACK));
        } else {
            self.links[link].floor[end] = at;
        }
        let last = &mut self.links[link].last[end];
        *last = at.max(*last);
        self.schedule(at, Action::Frame { link, end, message });
    }

    pub(super) fn arrive(&mut self, link: usize, end: usize, message: Message) {
        let End { node, conn, phase } = self.links[link].ends[end];
        if phase == Phase::Open {
            self.give(node, Input::Received { conn, message });
        } else if let Some(checks) = &mut self.checks {
            checks.lost((link, 1 - end), &message);
        }
    }

    /// One side is done with a link: its process closed it, or ended.
    pub(super) fn hang_up(&mut self, link: usize, end: usize) {
        self.links[link].ends[end].phase = Phase::Gone;
        self.tell_other_end(link, end);
    }

    fn tell_other_end(&mut self, link: usize, end: usize) {
        let other = 1 - end;
        let at = self.now + self.between(self.weather.latency);
        match self.links[link].ends[other].phase {
            Phase::Gone | Phase::Nobody => {}
            // The caller learns at once that there will be no answer, or waits in vain.
            Phase::Calling if self.links[link].last[0] == Time::default() => {
                if !self.is_cut(link) {
                    self.schedule(at, Action::Unreachable { link });
                }
            }
            Phase::Calling | Phase::Called | Phase::Open => {
                let at = at.max(self.links[link].last[other]);
                self.schedule(at, Action::Close { link, end: other });
            }
        }
    }

    pub(super) fn close_arrives(&mut self, link: usize, end: usize) {
        let End { node, conn, phase } = self.links[link].ends[end];
        if !matches!(phase, Phase::Called | Phase::Open) {
            return;
        }
        if self.is_cut(link) {
            self.schedule(self.now + RETRY, Action::Close { link, end });
            return;
        }
        self.links[link].ends[end].phase = Phase::Gone;
        self.nodes[node].conns.remove(&conn);
        self.give(node, Input::Closed { conn });
    }

    /// Cuts the nodes in `side` off from the others, until [`World::heal`].
    pub fn cut(&mut self, side: u64) {
        self.cut_between(side, !side);
    }

    /// Cuts the nodes in `one` and those in `other` off from each other, until [`World::heal`].
    pub fn cut_between(&mut self, one: u64, other: u64) {
        self.tally.one("cuts");
        self.weather.cuts.push((one, other));
        for link in 0..self.links.len() {
            let open = self.links[link].ends.iter().any(|end| end.phase == Phase::Open);
            if open && self.is_cut(link) {
                let at = self.now + self.between(GIVES_UP);
                self.schedule(at, Action::Break { link });
            }
        }
    }

    /// Ends the oldest cut.
    pub fn heal(&mut self) {
        if !self.weather.cuts.is_empty() {
            self.weather.cuts.remove(0);
        }
    }

    pub(super) fn break_if_cut(&mut self, link: usize) {
        if self.is_cut(link) {
            self.break_link(link);
        }
    }

    /// Resets a link: both ends learn of it.
    pub fn break_link(&mut self, link: usize) {
        if self.links[link].ends[0].phase == Phase::Calling {
            return; // that end has its own deadline
        }
        for end in 0..2 {
            let End { node, conn, phase } = self.links[link].ends[end];
            if phase == Phase::Open {
                self.links[link].ends[end].phase = Phase::Gone;
                self.nodes[node].conns.remove(&conn);
                self.give(node, Input::Closed { conn });
            }
        }
    }

    /// A node's open connections.
    pub fn open_conns(&self, id: NodeId) -> Vec<Conn> {
        let is_open =
            |(link, end): &(usize, usize)| self.links[*link].ends[*end].phase == Phase::Open;
        let conns = self.nodes[id].conns.iter();
        conns.filter(|(_, place)| is_open(place)).map(|(conn, _)| *conn).collect()
    }

    /// Whether the two ends of a link cannot hear each other.
    fn is_cut(&self, link: usize) -> bool {
        let [a, b] = &self.links[link].ends;
        self.weather.is_cut(a.node, b.node)
    }

    fn is_handshake_lost(&mut self) -> bool {
        self.weather.loses_handshakes && self.is_lost()
    }

    fn is_lost(&mut self) -> bool {
        self.chance(self.weather.loss)
    }

    /// Draws only where there is something to decide.
    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability)
    }
}
