//! The sessions of a seed: what each open connection is for, and so who may say what over it.
//!
//! What must stay true: only what comes over a connection that this seed dialled counts as the word
//! of another seed, since anybody may dial this seed and claim to be one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Identity};
use crate::proto::time::Time;
use crate::proto::turn::SeedTurn;

/// Silence after which a peer's connection is closed. A peer asks one seed or another for news
/// every ten seconds, so with seven seeds each hears it about once a minute.
const IDLE: Duration = Duration::from_secs(180);

/// A caller that has had the list is not sent it again within this time, unless it has changed. A
/// peer that asks again sooner has no use for a second one.
const LIST_AGAIN: Duration = Duration::from_millis(300);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Session {
    /// This seed dialled another one. What comes over it is that seed's word, because this seed
    /// chose the address.
    ToSeed(Addr),
    /// Another seed, or somebody who claims to be one, dialled this seed. This seed speaks over it,
    /// and believes nothing that comes over it.
    FromSeed(Addr),
    /// A peer dialled this seed.
    FromPeer(Caller),
}

/// A peer that dialled this seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    /// The address that it says is its own.
    pub peer: Addr,
    /// Who it has proven to be, if the link is encrypted.
    pub identity: Option<Identity>,
    /// When it last said anything but a ping.
    pub heard: Time,
}

/// The open connections, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sessions {
    open: BTreeMap<Conn, Session>,
    conns_used: Conn,
    /// When the list, as it is now, was last sent over a connection.
    listed: BTreeMap<Conn, Time>,
}

impl Sessions {
    /// Returns a number for a connection that this seed is about to open. Such numbers are even.
    pub fn next_conn(&mut self) -> Conn {
        self.conns_used += 2;
        self.conns_used
    }

    pub fn get(&self, conn: Conn) -> Option<Session> {
        self.open.get(&conn).copied()
    }

    pub fn insert(&mut self, conn: Conn, session: Session) {
        self.open.insert(conn, session);
    }

    pub fn remove(&mut self, conn: Conn) -> Option<Session> {
        self.listed.remove(&conn);
        self.open.remove(&conn)
    }

    /// Whether the list may be sent over a connection now; if so, notes that it is.
    pub fn takes_list(&mut self, now: Time, conn: Conn) -> bool {
        let listed = self.listed.get(&conn).is_some_and(|at| now.since(*at) < LIST_AGAIN);
        if !listed && self.open.contains_key(&conn) {
            self.listed.insert(conn, now);
        }
        !listed
    }

    /// The list has changed, so everybody may be sent it.
    pub fn list_changed(&mut self) {
        self.listed.clear();
    }

    /// Number of open connections that have a session.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Connections of peers.
    pub fn peers(&self) -> impl Iterator<Item = Conn> {
        let of_peer = |session: &Session| matches!(session, Session::FromPeer(_));
        self.open.iter().filter(move |(_, session)| of_peer(session)).map(|(conn, _)| *conn)
    }

    /// The peers that have a connection here, and when they last said anything but a ping over it.
    pub fn callers(&self) -> impl Iterator<Item = &Caller> {
        self.open.values().filter_map(|session| match session {
            Session::FromPeer(caller) => Some(caller),
            Session::ToSeed(_) | Session::FromSeed(_) => None,
        })
    }

    /// Closes connections of peers that have been silent too long. A peer that wants something
    /// later opens a new one.
    pub fn hang_up(&mut self, turn: &mut SeedTurn<'_>) {
        let quiet: Vec<Conn> = self
            .open
            .iter()
            .filter(|(_, session)| {
                matches!(session, Session::FromPeer(caller) if turn.now.since(caller.heard) > IDLE)
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in quiet {
            self.remove(conn);
            turn.close(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_have_said_nothing_for_long_are_hung_up_on_and_seeds_are_not() {
        let (start, peer) = (Time::from_millis(1), ([127, 0, 0, 1], 6000).into());
        let mut sessions = Sessions::default();
        assert_eq!((sessions.next_conn(), sessions.next_conn()), (2, 4));
        let late = start + IDLE + Duration::from_secs(1);
        let open = [
            (1, Session::FromPeer(Caller { peer, identity: None, heard: start })),
            (3, Session::FromPeer(Caller { peer, identity: None, heard: late })),
            (5, Session::FromSeed(peer)),
            (2, Session::ToSeed(peer)),
        ];
        open.into_iter().for_each(|(conn, session)| sessions.insert(conn, session));
        let mut effects = Vec::new();
        sessions.hang_up(&mut SeedTurn { now: late, effects: &mut effects });
        assert_eq!(sessions.get(1), None);
        assert_eq!(sessions.peers().collect::<Vec<_>>(), [3]);
        assert_eq!((sessions.len(), effects.len()), (3, 1));
    }
}
