//! The connections of a peer: what each is for, and those that are being opened.
//!
//! What must stay true: a connection is for one thing at a time, and those that others open for one
//! thing only end after a bounded time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Role};
use crate::proto::time::Time;

/// Whoever brings a notice may stay this long for the answer, which takes a probe.
pub(super) const CALL: Duration = Duration::from_secs(30);

/// What an open connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// To a seed.
    Seed(Addr),
    /// A link of the overlay.
    Neighbour(Addr),
    /// This peer brought a notice there, and waits for what the other says of this suspect.
    Errand { to: Addr, suspect: Addr },
    /// Another peer brought a notice here.
    Caller { from: Addr, since: Time },
    /// With a member that is no neighbour, for one comparison; `mine` if this peer called.
    Guest { peer: Addr, since: Time, mine: bool },
    /// To a peer that is asked something.
    Asking { to: Addr, token: u64 },
    /// Somebody asks something.
    Inquirer { since: Time },
}

impl Line {
    /// Who is at the other end, if that was said.
    pub fn with(self) -> Option<Addr> {
        match self {
            Line::Seed(addr)
            | Line::Neighbour(addr)
            | Line::Errand { to: addr, .. }
            | Line::Caller { from: addr, .. }
            | Line::Guest { peer: addr, .. }
            | Line::Asking { to: addr, .. } => Some(addr),
            Line::Inquirer { .. } => None,
        }
    }

    /// Since when somebody is here who called for one thing only.
    fn called_since(self) -> Option<Time> {
        match self {
            Line::Caller { since, .. }
            | Line::Inquirer { since }
            | Line::Guest { since, mine: false, .. } => Some(since),
            _ => None,
        }
    }
}

/// What a connection is being opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    Seed(Addr),
    Link(Addr),
    Probe(Addr),
    Errand { to: Addr, suspect: Addr },
    Sync(Addr),
    Ask { to: Addr, token: u64 },
}

impl Dial {
    /// Who is meant, and what it has to be.
    pub fn to(self) -> (Addr, Role) {
        match self {
            Dial::Seed(to) => (to, Role::Seed),
            Dial::Link(to)
            | Dial::Probe(to)
            | Dial::Errand { to, .. }
            | Dial::Sync(to)
            | Dial::Ask { to, .. } => (to, Role::Peer),
        }
    }
}

/// The connections, open and being opened.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    lines: BTreeMap<Conn, Line>,
    dials: BTreeMap<Conn, Dial>,
    conns_used: Conn,
}

impl Sessions {
    /// A connection is being opened; its number.
    pub fn dial(&mut self, dial: Dial) -> Conn {
        self.conns_used += 2;
        self.dials.insert(self.conns_used, dial);
        self.conns_used
    }

    /// An attempt has ended, or is given up: what it was for.
    pub fn end_dial(&mut self, conn: Conn) -> Option<Dial> {
        self.dials.remove(&conn)
    }

    /// Whether a connection is being opened for that.
    pub fn is_dialling(&self, dial: Dial) -> bool {
        self.dials.values().any(|other| *other == dial)
    }

    /// How many links are being opened.
    pub fn links_under_way(&self) -> usize {
        self.dials.values().filter(|dial| matches!(dial, Dial::Link(_))).count()
    }

    /// A connection is open for that.
    pub fn insert(&mut self, conn: Conn, line: Line) {
        self.lines.insert(conn, line);
    }

    /// What a connection is.
    pub fn get(&self, conn: Conn) -> Option<Line> {
        self.lines.get(&conn).copied()
    }

    /// A connection is gone; what it was.
    pub fn remove(&mut self, conn: Conn) -> Option<Line> {
        self.lines.remove(&conn)
    }

    /// The connections that are such.
    pub fn such(&self, is_such: impl Fn(Line) -> bool) -> Vec<Conn> {
        self.lines.iter().filter(|(_, line)| is_such(**line)).map(|(conn, _)| *conn).collect()
    }

    /// The connections of those who called for one question, notice or comparison, and have had the
    /// answer long since; and when the next one is.
    pub fn overdue(&self, now: Time) -> (Vec<Conn>, Option<Time>) {
        let calls = || self.lines.iter().filter_map(|(c, line)| Some((*c, line.called_since()?)));
        let over = |since: Time| now.since(since) >= CALL;
        let next = calls().filter(|(_, since)| !over(*since)).map(|(_, since)| since + CALL).min();
        (calls().filter(|(_, since)| over(*since)).map(|(conn, _)| conn).collect(), next)
    }

    /// Takes all that are open.
    pub fn take_all(&mut self) -> Vec<Conn> {
        std::mem::take(&mut self.lines).into_keys().collect()
    }

    /// Those that are being opened.
    #[cfg(test)]
    pub fn dials(&self) -> BTreeMap<Conn, Dial> {
        self.dials.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_called_for_one_thing_is_overdue_after_a_while_and_nobody_else_is() {
        let (start, peer) = (Time::from_millis(1), ([127, 0, 0, 1], 6000).into());
        let mut sessions = Sessions::default();
        let later = start + CALL / 2;
        let lines = [
            (1, Line::Caller { from: peer, since: start }),
            (3, Line::Inquirer { since: later }),
            (5, Line::Guest { peer, since: start, mine: false }),
            (6, Line::Guest { peer, since: start, mine: true }),
            (7, Line::Neighbour(peer)),
        ];
        lines.into_iter().for_each(|(conn, line)| sessions.insert(conn, line));
        assert_eq!(sessions.overdue(start + CALL), (vec![1, 5], Some(later + CALL)));
        assert_eq!(sessions.overdue(start), (vec![], Some(start + CALL)));
        assert_eq!(sessions.such(|line| matches!(line, Line::Guest { .. })), [5, 6]);
    }

    #[test]
    fn what_is_dialled_is_known_until_it_is_answered() {
        let peer = ([127, 0, 0, 1], 6000).into();
        let mut sessions = Sessions::default();
        let (link, probe) = (sessions.dial(Dial::Link(peer)), sessions.dial(Dial::Probe(peer)));
        assert_eq!((link, probe, sessions.links_under_way()), (2, 4, 1));
        assert!(sessions.is_dialling(Dial::Link(peer)));
        assert_eq!(sessions.end_dial(link), Some(Dial::Link(peer)));
        assert_eq!(
            (sessions.end_dial(link), sessions.is_dialling(Dial::Link(peer))),
            (None, false)
        );
    }
}
