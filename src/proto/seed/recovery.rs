//! Probes the members that a seed recovered from its disk, and those that it has not heard of for
//! long.
//!
//! The former may have died while nobody watched. So the seed looks at each of them, and proposes
//! the death of one that has not answered three looks, on the seeds' own evidence (DESIGN.md,
//! section 3). The latter have been silent for long, so one look is enough.
//!
//! What must stay true: this needs no reporter, but each seed still votes by its own probe, so a
//! member that answers is not removed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Incarnation};
use crate::proto::registry::Registry;
use crate::proto::time::Time;

/// Members looked at at the same time; when one look ends, the next begins. A hundred thousand
/// connections at once would be too many for any process; with fewer than this, ten thousand members
/// whose hosts are gone, so that each look takes all of its time, would take minutes.
const LOOKS: usize = 512;
/// Pause before members that did not answer are looked at again: long enough for a process to
/// start.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Looks without an answer after which a member's death is proposed.
const MAX_LOOKS: u32 = 3;

/// A recovered member that is being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Look {
    pub peer: Addr,
    incarnation: Incarnation,
    failed: u32,
}

/// Recovered members: still to be looked at, being looked at, and those that did not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Recovery {
    to_look: Vec<Look>,
    looks: BTreeMap<Conn, Look>,
    unanswered: Vec<Look>,
    /// Members not heard of for long, still to be looked at.
    absent: BTreeMap<Addr, Incarnation>,
    /// When the unanswered are looked at again.
    due: Option<Time>,
}

impl Recovery {
    /// Begins to look at all members of the registry.
    pub fn begin(&mut self, registry: &Registry) {
        let look = |(peer, record): (&Addr, &crate::proto::registry::Record)| Look {
            peer: *peer,
            incarnation: record.incarnation,
            failed: 0,
        };
        self.to_look = registry.members().map(look).collect();
    }

    /// Looks once at a member that was not heard of for long.
    pub fn look_once(&mut self, peer: Addr, incarnation: Incarnation) {
        self.absent.insert(peer, incarnation);
    }

    /// This seed could not even look: it looks again later, and nothing is held against the member.
    pub fn look_later(&mut self, now: Time, conn: Conn) {
        if let Some(look) = self.looks.remove(&conn) {
            self.unanswered.push(look);
            self.due.get_or_insert(now + LOOK_AGAIN);
        }
    }

    /// When members are to be looked at again.
    pub fn wake_at(&self) -> Option<Time> {
        self.due
    }

    /// Puts the members that did not answer back among those to look at.
    pub fn look_again(&mut self) {
        self.due = None;
        self.to_look.append(&mut self.unanswered);
    }

    /// Takes the member to look at next, if there is room for one more look.
    pub fn next(&mut self) -> Option<Look> {
        if self.looks.len() >= LOOKS {
            return None;
        }
        self.to_look.pop().or_else(|| {
            let (peer, incarnation) = self.absent.pop_first()?;
            Some(Look { peer, incarnation, failed: MAX_LOOKS - 1 })
        })
    }

    /// Notes that a look goes out over that connection.
    pub fn looks(&mut self, conn: Conn, look: Look) {
        self.looks.insert(conn, look);
    }

    /// Whether a connection is a look at a member.
    pub fn is_look(&self, conn: Conn) -> bool {
        self.looks.contains_key(&conn)
    }

    /// Notes that a look has ended. Returns the life whose death is to be proposed, if this was the
    /// last look at it without an answer.
    pub fn looked(
        &mut self,
        now: Time,
        conn: Conn,
        answered: impl Fn(&Addr) -> bool,
        registry: &Registry,
    ) -> Option<(Addr, Incarnation)> {
        let mut look = self.looks.remove(&conn)?;
        let member =
            registry.alive(&look.peer).is_some_and(|record| record.incarnation == look.incarnation);
        if answered(&look.peer) || !member {
            return None;
        }
        look.failed += 1;
        if look.failed >= MAX_LOOKS {
            return Some((look.peer, look.incarnation));
        }
        self.unanswered.push(look);
        self.due.get_or_insert(now + LOOK_AGAIN);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::{Record, Status};

    #[test]
    fn a_member_that_never_answers_is_proposed_dead_after_three_looks() {
        let peer = ([127, 0, 0, 1], 6000).into();
        let mut registry = Registry::new();
        let record = Record::plain(7, Status::Alive, 1, vec![0]);
        registry.merge(peer, record);
        for answers_at in [None, Some(2)] {
            let (mut recovery, mut now) = (Recovery::default(), Time::from_millis(1));
            recovery.begin(&registry);
            let mut proposed = None;
            for look in 1..=MAX_LOOKS {
                let Some(next) = recovery.next() else { break };
                recovery.looks(u64::from(look), next);
                let answered = |_: &Addr| answers_at == Some(look);
                proposed = recovery.looked(now, u64::from(look), answered, &registry);
                now = recovery.wake_at().unwrap_or(now);
                recovery.look_again();
            }
            assert_eq!(proposed.is_some(), answers_at.is_none(), "{answers_at:?}");
            assert_eq!(proposed.unwrap_or((peer, 7)), (peer, 7));
        }
    }
}
