//! The log of a node: where its lines go, and the lines of a turn that are not written yet.
//!
//! What must stay true: a line is written before anybody outside can see the event that it tells
//! of, and before anybody who follows the log hears of the line.

use std::sync::Arc;

use super::events::EventLog;
use crate::logging::{LogCrate, Sink};
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Role};

/// Where the lines of a node go; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub sink: Arc<dyn Sink>,
    /// The event log that also gets the lines, if somebody follows.
    pub followed: Option<EventLog>,
}

impl Default for Log {
    /// Lines go to the logger of the process.
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
    /// A log for the lines of the node at `me`.
    pub fn new(log: Log, role: Role, me: Addr) -> Self {
        Self { log, role, me }
    }

    /// Writes lines, and then hands them to those who follow.
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

    /// Writes a note, as [`NodeLog::say`] does.
    pub fn note(&self, severity: Severity, what: &'static str, keys: Vec<(&'static str, String)>) {
        self.say(Event::Note { severity, what, keys });
    }
}

/// The log of a node, which gathers the lines of a turn. To write each line by itself took a tenth
/// of what a registration costs its seeds.
#[derive(Debug)]
pub struct HostLog {
    to: NodeLog,
    waiting: Vec<Event>,
}

impl HostLog {
    /// Gathers lines for that log.
    pub(super) fn new(to: NodeLog) -> Self {
        Self { to, waiting: Vec::new() }
    }

    /// Takes a line, which waits for the next [`HostLog::catch_up`].
    pub(super) fn push(&mut self, event: Event) {
        self.waiting.push(event);
    }

    /// Writes the lines that wait, because somebody is about to see some of what they tell.
    pub(super) fn catch_up(&mut self) {
        if !self.waiting.is_empty() {
            self.to.write(&self.waiting);
            self.waiting.clear();
        }
    }
}

impl Drop for HostLog {
    /// Writes the lines that wait, also when a turn panics.
    fn drop(&mut self) {
        self.catch_up();
    }
}
