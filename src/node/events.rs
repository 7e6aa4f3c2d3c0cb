//! The newest lines of one node's log, for those who follow it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::clock::wall_clock;
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Role};
use crate::proto::time::Time;

/// Lines kept for whoever resumes.
const KEPT: usize = 1_024;

/// One line of the log, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// When it was told, by the wall clock.
    pub at: Time,
    /// What kind of process tells it.
    pub role: Role,
    /// Where that process listens.
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
    /// Of what is logged by default.
    fn default() -> Self {
        Self::new(Severity::Info)
    }
}

impl EventLog {
    /// An empty one, for what matters at least that much. Numbers begin with the time, microseconds
    /// since the Unix epoch, so that those of a former life are lower, and whoever resumes with one
    /// gets all of this one.
    pub fn new(least: Severity) -> Self {
        let newest = watch::Sender::new(wall_clock().micros());
        Self { lines: Arc::default(), newest, least }
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Numbered>> {
        // Nothing that holds it can panic half way through a change.
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
        // Told before the next line may take its number from it: two lines of one number would be one
        // to whoever follows.
        self.newest.send_replace(id);
    }

    /// The number of the next line.
    pub fn next(&self) -> u64 {
        *self.newest.borrow() + 1
    }

    /// The lines from that number on that are still kept.
    pub fn from(&self, first: u64) -> Vec<(u64, Arc<Logged>)> {
        self.lines().iter().filter(|(id, _)| *id >= first).cloned().collect()
    }

    /// Waits until there is a line of that number.
    pub async fn after(&self, number: u64) {
        // The sender lives as long as this does.
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
