//! What was said of the store over each link, and when. What must stay true: no neighbour can make
//! this replica say the same over and over.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Clock;
use crate::proto::machine::Conn;
use crate::proto::repeats::Allowance;
use crate::proto::time::Time;

/// Least time between two questions to one neighbour because something is missing, and between two
/// repairs for it.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Bytes of a repair for which the next one waits a millisecond more. A neighbour says in a few
/// bytes that it has nothing, and each time is sent all that is kept for that.
const BYTES_A_MILLISECOND: u64 = 16 << 10;
/// Least time between telling one neighbour twice of lives that are ended here.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// So long after it was told what has been seen here, a neighbour may offer a snapshot: longer than
/// any link takes to bring the answer.
const OFFER_AWAITED: Duration = Duration::from_secs(10);
/// Neighbours that lacked what they were told so long ago have asked for it by now.
const SETTLED: Duration = Duration::from_secs(1);

/// What was said over one link.
#[derive(Debug, Default)]
struct Talk {
    /// When the neighbour was last asked what it has seen.
    asked: Option<Time>,
    /// From when it may be sent again what it lacks.
    may_repair: Option<Time>,
    /// The context that it has told since, and what had been seen here at that moment.
    owed: Option<(Clock, Clock)>,
    /// When it was last told the last writes of lives that it names and that are ended here.
    told: Option<Time>,
    /// When it was last told what has been seen here, if it has not offered a snapshot since.
    may_offer: Option<Time>,
}

/// What is done only so often in a minute, whoever asks for it.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Names that this replica has taken because others knew more of it than it did.
    pub names: Allowance,
}

/// What was said over all links.
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

    /// A neighbour is asked now.
    pub fn asks(&mut self, now: Time, conn: Conn) {
        self.of(conn).asked = Some(now);
    }

    /// A neighbour is told what has been seen here: if it has more, it may offer a snapshot.
    pub fn tells_context(&mut self, now: Time, conn: Conn) {
        self.of(conn).may_offer = Some(now);
    }

    /// Whether a neighbour that offers a snapshot was told lately what has been seen here. One
    /// offer answers that.
    pub fn takes_offer(&mut self, now: Time, conn: Conn) -> bool {
        let told = self.0.get_mut(&conn).and_then(|talk| talk.may_offer.take());
        told.is_some_and(|at| now.since(at) < OFFER_AWAITED)
    }

    /// Whether a neighbour was asked just now.
    pub fn has_just_asked(&self, now: Time, conn: Conn) -> bool {
        let asked = self.0.get(&conn).and_then(|talk| talk.asked);
        asked.is_some_and(|at| now.since(at) < ASK_AGAIN)
    }

    /// A neighbour says that it lacks something. None if it may be sent that now; else the time at
    /// which it may, until when its context and ours are remembered.
    pub fn repair_later(
        &mut self,
        now: Time,
        conn: Conn,
        theirs: &Clock,
        ours: &Clock,
    ) -> Option<Time> {
        let talk = self.of(conn);
        let next = talk.may_repair.filter(|at| now < *at)?;
        talk.owed = Some((theirs.clone(), ours.clone()));
        Some(next)
    }

    /// A neighbour is sent what it lacks, so many bytes.
    pub fn repairs(&mut self, now: Time, conn: Conn, bytes: usize) {
        let pause = Duration::from_millis(bytes as u64 / BYTES_A_MILLISECOND);
        self.of(conn).may_repair = Some(now + ASK_AGAIN + pause);
    }

    /// Takes what was remembered for a later repair: the neighbour's context, and ours.
    pub fn take_owed(&mut self, conn: Conn) -> Option<(Clock, Clock)> {
        self.0.get_mut(&conn)?.owed.take()
    }

    /// Whether a neighbour may be told of ended lives; if so, notes that it is told now.
    pub fn tells_of_ended(&mut self, now: Time, conn: Conn) -> bool {
        let talk = self.of(conn);
        let is_told = talk.told.is_some_and(|at| now.since(at) < TELL_AGAIN);
        if !is_told {
            talk.told = Some(now);
        }
        !is_told
    }
}

/// What all neighbours have been told of the writes seen here.
#[derive(Debug, Default)]
pub(super) struct Announced {
    last: (Time, Clock),
    /// An earlier context: neighbours have what is in it, or it is on its way to them.
    settled: Clock,
}

impl Announced {
    /// All neighbours are told now.
    pub fn tell(&mut self, now: Time, context: &Clock) {
        if now.since(self.last.0) >= SETTLED {
            self.settled = std::mem::replace(&mut self.last, (now, context.clone())).1;
        }
    }

    /// Writes that neighbours have, or that are on their way to them.
    pub fn settled(&self, now: Time) -> &Clock {
        if now.since(self.last.0) >= SETTLED { &self.last.1 } else { &self.settled }
    }
}
