//! What each open connection of a seed is: who may say what over it follows from that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::machine::Conn;
use crate::proto::message::Addr;
use crate::proto::time::Time;
use crate::proto::turn::SeedTurn;

/// A peer asks some seed what is new every ten seconds; with seven seeds this one hears of it about
/// once a minute.
const IDLE: Duration = Duration::from_secs(180);

/// What an open connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Session {
    /// This seed dialled another: what comes over it is that seed's word, because this seed chose
    /// the address.
    ToSeed(Addr),
    /// Another seed, or somebody who says so, dialled this one: things may be said to it, and
    /// nothing that comes from it is believed.
    FromSeed(Addr),
    /// A peer.
    FromPeer { peer: Addr, heard: Time },
}

/// The open connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sessions {
    open: BTreeMap<Conn, Session>,
    conns_used: Conn,
}

impl Sessions {
    /// A number for a connection that is to be opened; this side's are even.
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
        self.open.remove(&conn)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Those of peers.
    pub fn peers(&self) -> impl Iterator<Item = Conn> {
        let of_peer = |session: &Session| matches!(session, Session::FromPeer { .. });
        self.open.iter().filter(move |(_, session)| of_peer(session)).map(|(conn, _)| *conn)
    }

    /// Closes connections of peers that have said nothing for long. A peer that wants something
    /// opens a new one.
    pub fn hang_up(&mut self, turn: &mut SeedTurn<'_>) {
        let quiet: Vec<Conn> = self
            .open
            .iter()
            .filter(|(_, session)| {
                matches!(session, Session::FromPeer { heard, .. } if turn.now.since(*heard) > IDLE)
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in quiet {
            self.open.remove(&conn);
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
            (1, Session::FromPeer { peer, heard: start }),
            (3, Session::FromPeer { peer, heard: late }),
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
