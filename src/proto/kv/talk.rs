//! What was said of the store over each link, and when, so that no neighbour makes this replica say the
//! same over and over.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Clock;
use crate::proto::machine::Conn;
use crate::proto::time::Time;

/// Between two questions to one neighbour because something is missing, and between two repairs.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Between two times that one neighbour is told of lives that are ended here.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Whatever neighbours were told so long ago they have asked for, if they lacked it.
const SETTLED: Duration = Duration::from_secs(1);

/// One link's.
#[derive(Debug, Default)]
struct Talk {
    /// When it was last asked what it has seen.
    asked: Option<Time>,
    /// When it was last sent what it lacks.
    repaired: Option<Time>,
    /// What it has said since that it has, with what was here by then.
    owed: Option<(Clock, Clock)>,
    /// When it was last told how far lives came that it names and that are ended here.
    told: Option<Time>,
}

/// That of all links.
#[derive(Debug, Default)]
pub(super) struct Talks(BTreeMap<Conn, Talk>);

impl Talks {
    fn of(&mut self, conn: Conn) -> &mut Talk {
        self.0.entry(conn).or_default()
    }

    /// A link is gone.
    pub fn link_down(&mut self, conn: Conn) {
        self.0.remove(&conn);
    }

    /// It is asked now.
    pub fn asks(&mut self, now: Time, conn: Conn) {
        self.of(conn).asked = Some(now);
    }

    /// Whether it was asked just now.
    pub fn has_just_asked(&self, now: Time, conn: Conn) -> bool {
        let asked = self.0.get(&conn).and_then(|talk| talk.asked);
        asked.is_some_and(|at| now.since(at) < ASK_AGAIN)
    }

    /// It lacks something, by what it says: none if it may be sent that now, else when, and what it says
    /// and what is here are remembered until then.
    pub fn repair_later(
        &mut self,
        now: Time,
        conn: Conn,
        theirs: &Clock,
        ours: &Clock,
    ) -> Option<Time> {
        let talk = self.of(conn);
        let next = talk.repaired.filter(|at| now.since(*at) < ASK_AGAIN)? + ASK_AGAIN;
        talk.owed = Some((theirs.clone(), ours.clone()));
        Some(next)
    }

    /// It is sent what it lacks.
    pub fn repairs(&mut self, now: Time, conn: Conn) {
        self.of(conn).repaired = Some(now);
    }

    /// What it was to be sent later: what it had, and what was here.
    pub fn take_owed(&mut self, conn: Conn) -> Option<(Clock, Clock)> {
        self.0.get_mut(&conn)?.owed.take()
    }

    /// Whether it may be told of ended lives, which it then is.
    pub fn tells_of_ended(&mut self, now: Time, conn: Conn) -> bool {
        let talk = self.of(conn);
        let is_told = talk.told.is_some_and(|at| now.since(at) < TELL_AGAIN);
        if !is_told {
            talk.told = Some(now);
        }
        !is_told
    }
}

/// What all neighbours have been told that was seen here.
#[derive(Debug, Default)]
pub(super) struct Announced {
    last: (Time, Clock),
    /// The one before it, or an earlier one: neighbours have what is in it, or it is on its way.
    settled: Clock,
}

impl Announced {
    /// All neighbours are told now.
    pub fn tell(&mut self, now: Time, context: &Clock) {
        if now.since(self.last.0) >= SETTLED {
            self.settled = std::mem::replace(&mut self.last, (now, context.clone())).1;
        }
    }

    /// What they have, or what is on its way to them.
    pub fn settled(&self, now: Time) -> &Clock {
        if now.since(self.last.0) >= SETTLED { &self.last.1 } else { &self.settled }
    }
}
