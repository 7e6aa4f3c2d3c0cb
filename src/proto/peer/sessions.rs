//! The connections of a peer: what each open one is for, and which ones are being opened.
//!
//! What must stay true: a connection is for one thing at a time; and a connection that another
//! process opened for one thing only is closed after a bounded time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Identity, Role};
use crate::proto::time::Time;

/// A caller that came for one thing only may stay this long: the answer to a notice takes a probe.
pub(super) const CALL: Duration = Duration::from_secs(30);

/// What an open connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// With a seed.
    Seed(Addr),
    /// A link of the overlay.
    Neighbour(Addr),
    /// This peer brought a notice to `to`, and waits for what `to` finds out about `suspect`.
    Errand { to: Addr, suspect: Addr },
    /// Another peer brought a notice here.
    Caller { from: Addr, since: Time },
    /// With a member that is no neighbour, for one comparison; `mine` if this peer called.
    Guest { peer: Addr, since: Time, mine: bool },
    /// This peer asks `to` what its replica holds.
    Asking { to: Addr, token: u64 },
    /// Somebody asks this peer what its replica holds.
    Inquirer { since: Time },
}

impl Session {
    /// Who is at the other end, if that was said.
    pub fn with(self) -> Option<Addr> {
        match self {
            Session::Seed(addr)
            | Session::Neighbour(addr)
            | Session::Errand { to: addr, .. }
            | Session::Caller { from: addr, .. }
            | Session::Guest { peer: addr, .. }
            | Session::Asking { to: addr, .. } => Some(addr),
            Session::Inquirer { .. } => None,
        }
    }

    /// When the caller came, if it called for one thing only.
    fn called_since(self) -> Option<Time> {
        match self {
            Session::Caller { since, .. }
            | Session::Inquirer { since }
            | Session::Guest { since, mine: false, .. } => Some(since),
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
    /// Whom this peer means to reach, and which role the answer has to name.
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

/// All connections: those that are open and those that are being opened.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: BTreeMap<Conn, Session>,
    /// Who has proven to be at the other end, of those over encrypted links.
    proven: BTreeMap<Conn, Identity>,
    dials: BTreeMap<Conn, Dial>,
    conns_used: Conn,
}

impl Sessions {
    /// Notes that a connection is being opened. Returns its number: even, as the machine's own are.
    pub fn dial(&mut self, dial: Dial) -> Conn {
        self.conns_used += 2;
        self.dials.insert(self.conns_used, dial);
        self.conns_used
    }

    /// An attempt has ended or was given up. Returns what it was for.
    pub fn end_dial(&mut self, conn: Conn) -> Option<Dial> {
        self.dials.remove(&conn)
    }

    /// Whether a connection is being opened for exactly this.
    pub fn is_dialling(&self, dial: Dial) -> bool {
        self.dials.values().any(|other| *other == dial)
    }

    /// How many links are being opened.
    pub fn links_under_way(&self) -> usize {
        self.dials.values().filter(|dial| matches!(dial, Dial::Link(_))).count()
    }

    /// Notes that a connection is open, and what for.
    pub fn insert(&mut self, conn: Conn, session: Session) {
        self.open.insert(conn, session);
    }

    /// Notes who has proven to be at the other end of a connection, if it is open.
    pub fn prove(&mut self, conn: Conn, identity: Option<Identity>) {
        if let Some(identity) = identity.filter(|_| self.open.contains_key(&conn)) {
            self.proven.insert(conn, identity);
        }
    }

    /// Who has proven to be at the other end of a connection.
    pub fn proven(&self, conn: Conn) -> Option<Identity> {
        self.proven.get(&conn).copied()
    }

    /// What a connection is for.
    pub fn get(&self, conn: Conn) -> Option<Session> {
        self.open.get(&conn).copied()
    }

    /// A connection is gone. Returns what it was for.
    pub fn remove(&mut self, conn: Conn) -> Option<Session> {
        self.proven.remove(&conn);
        self.open.remove(&conn)
    }

    /// The connections for which `is_such` holds.
    pub fn such(&self, is_such: impl Fn(Session) -> bool) -> Vec<Conn> {
        self.open.iter().filter(|(_, session)| is_such(**session)).map(|(conn, _)| *conn).collect()
    }

    /// The connections of callers that came for one thing only and have been here for `CALL` or
    /// longer; and when the next such connection will have been.
    pub fn overdue(&self, now: Time) -> (Vec<Conn>, Option<Time>) {
        let calls =
            || self.open.iter().filter_map(|(c, session)| Some((*c, session.called_since()?)));
        let over = |since: Time| now.since(since) >= CALL;
        let next = calls().filter(|(_, since)| !over(*since)).map(|(_, since)| since + CALL).min();
        (calls().filter(|(_, since)| over(*since)).map(|(conn, _)| conn).collect(), next)
    }

    /// Takes out all open connections.
    pub fn take_all(&mut self) -> Vec<Conn> {
        self.proven.clear();
        std::mem::take(&mut self.open).into_keys().collect()
    }

    /// The connections that are being opened.
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
        let open = [
            (1, Session::Caller { from: peer, since: start }),
            (3, Session::Inquirer { since: later }),
            (5, Session::Guest { peer, since: start, mine: false }),
            (6, Session::Guest { peer, since: start, mine: true }),
            (7, Session::Neighbour(peer)),
        ];
        open.into_iter().for_each(|(conn, session)| sessions.insert(conn, session));
        assert_eq!(sessions.overdue(start + CALL), (vec![1, 5], Some(later + CALL)));
        assert_eq!(sessions.overdue(start), (vec![], Some(start + CALL)));
        assert_eq!(sessions.such(|session| matches!(session, Session::Guest { .. })), [5, 6]);
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
