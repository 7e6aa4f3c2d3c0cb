//! The newest lines of one node's log, kept for those who follow it.
//!
//! What must stay true: each line has a number of its own, so that a follower who resumes misses no
//! line that is still kept, and gets none twice.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::clock::wall_clock;
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Role};
use crate::proto::time::Time;

/// Lines kept for followers who resume.
const KEPT: usize = 1_024;

/// One line of the log, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Wall-clock time at which it was logged.
    pub at: Time,
    /// The kind of process that logged it.
    pub role: Role,
    /// The address at which that process listens.
    pub me: Addr,
    /// What happened.
    pub event: Event,
}

/// A line's number, and the line.
type Numbered = (u64, Arc<Logged>);

/// The newest lines, numbered; cheap to clone.
#[derive(Clone, Debug)]
pub struct EventLog {
    lines: Arc<Mutex<VecDeque<Numbered>>>,
    newest: watch::Sender<u64>,
    least: Severity,
}

impl Default for EventLog {
    /// Keeps the lines that are logged by default.
    fn default() -> Self {
        Self::new(Severity::Info)
    }
}

impl EventLog {
    /// An empty one, for lines that matter at least as much as `least`. Numbers begin with the
    /// time, microseconds since the Unix epoch. So numbers of a former life are lower, and a
    /// follower who resumes with one gets all lines of this life.
    pub fn new(least: Severity) -> Self {
        let newest = watch::Sender::new(wall_clock().micros());
        Self { lines: Arc::default(), newest, least }
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Numbered>> {
        // No thread can panic half way through a change while it holds the lock.
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a line.
    pub(super) fn add(&self, role: Role, me: Addr, event: &Event) {
        if event.severity() > self.least {
            return;
        }
        let line = Logged { at: wall_clock(), role, me, event: event.clone() };
        let mut lines = self.lines();
        let id = *self.newest.borrow() + 1;
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        lines.push_back((id, line.into()));
        // The number is published under the lock. Otherwise the next line could get the same
        // number, and a follower would take the two lines for one.
        self.newest.send_replace(id);
    }

    /// The number of the next line.
    pub fn next(&self) -> u64 {
        *self.newest.borrow() + 1
    }

    /// The lines that are still kept, from that number on.
    pub fn from(&self, first: u64) -> Vec<(u64, Arc<Logged>)> {
        self.lines().iter().filter(|(id, _)| *id >= first).cloned().collect()
    }

    /// Waits until a line has that number.
    pub async fn after(&self, number: u64) {
        // The sender is a field of `self`, so the wait cannot fail.
        let _ = self.newest.subscribe().wait_for(|newest| *newest >= number).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lines_share_a_number_and_who_follows_misses_none() {
        let log = EventLog::default();
        let first = log.next();
        let me = ([127, 0, 0, 1], 5000).into();
        let (threads, lines) = (4, 200);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for size in 0..lines {
                        log.add(Role::Seed, me, &Event::PeerList { size });
                    }
                });
            }
        });
        let numbers: Vec<u64> = log.from(first).into_iter().map(|(id, _)| id).collect();
        let all: Vec<u64> = (first..).take(threads * lines).collect();
        assert_eq!(numbers, all);
    }

    #[tokio::test]
    async fn whoever_resumes_gets_what_is_still_kept() {
        let log = EventLog::default();
        let first = log.next();
        let event = Event::PeerList { size: 1 };
        let detail = Event::Note { severity: Severity::Debug, what: "detail", keys: Vec::new() };
        let me = ([127, 0, 0, 1], 5000).into();
        (0..KEPT + 10).for_each(|_| log.add(Role::Seed, me, &event));
        log.add(Role::Seed, me, &detail);
        assert_eq!(log.from(1).len(), KEPT, "also for one of a former life");
        assert_eq!(log.next(), first + KEPT as u64 + 10, "what is not logged is not there");
        assert_eq!(log.from(log.next() - 2).len(), 2);
        let (follower, next) = (log.clone(), log.next());
        let waiting = tokio::spawn(async move { follower.after(next).await });
        log.add(Role::Seed, me, &event);
        waiting.await.unwrap();
    }
}
