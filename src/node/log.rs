//! The log of a node: where its lines go, and those of a turn that have not been written yet.
//!
//! What must stay true: what a turn logs is written before anybody outside can see what the line
//! tells of; and nobody who follows the log hears of a line before it is written.

use std::sync::Arc;

use super::events::EventLog;
use crate::logging::{LogCrate, Sink};
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Role};

/// Where the lines of a node go; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub sink: Arc<dyn Sink>,
    /// Whoever follows.
    pub followed: Option<EventLog>,
}

impl Default for Log {
    /// To the logger of the process.
    fn default() -> Self {
        Self { sink: Arc::new(LogCrate), followed: None }
    }
}

/// The log of one node.
#[derive(Clone, Debug)]
pub(crate) struct NodeLog {
    log: Log,
    role: Role,
    me: Addr,
}

impl NodeLog {
    /// What that node logs goes there.
    pub fn new(log: Log, role: Role, me: Addr) -> Self {
        Self { log, role, me }
    }

    /// Writes lines, and tells those who follow.
    fn write(&self, events: &[Event]) {
        self.log.sink.write(self.role, self.me, events);
        if let Some(followed) = &self.log.followed {
            for event in events {
                followed.add(self.role, self.me, event);
            }
        }
    }

    /// Writes one line at once.
    pub fn say(&self, event: Event) {
        self.write(&[event]);
    }

    /// As [`NodeLog::say`], of a note.
    pub fn note(&self, severity: Severity, what: &'static str, keys: Vec<(&'static str, String)>) {
        self.say(Event::Note { severity, what, keys });
    }
}

/// The log of a node that gathers the lines of a turn: a write a line was a tenth of what a
/// registration cost its seeds.
#[derive(Debug)]
pub struct HostLog {
    to: NodeLog,
    waiting: Vec<Event>,
}

impl HostLog {
    /// Gathers for that log.
    pub(super) fn new(to: NodeLog) -> Self {
        Self { to, waiting: Vec::new() }
    }

    /// Takes a line.
    pub(super) fn push(&mut self, event: Event) {
        self.waiting.push(event);
    }

    /// Writes what has been taken: somebody is about to see something of it.
    pub(super) fn catch_up(&mut self) {
        if !self.waiting.is_empty() {
            self.to.write(&self.waiting);
            self.waiting.clear();
        }
    }
}

impl Drop for HostLog {
    /// Also a turn that panics has written what it logged.
    fn drop(&mut self) {
        self.catch_up();
    }
}
