//! The log of a node: where its lines go, and the lines of a turn that are not written yet.
//!
//! What must stay true: a line is written before anybody outside can see the event that it tells
//! of, and before anybody who follows the log hears of the line. What was dropped because of a limit
//! is counted here, and most of it gets no line.

use std::sync::{Arc, Mutex, PoisonError};

use super::events::EventLog;
use crate::clock::Clock;
use crate::logging::{LogCrate, Sink};
use crate::proto::event::{Event, Severity};
use crate::proto::limits::{Drops, Limit};
use crate::proto::message::{Addr, Role};

/// Where the lines of a node go; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub sink: Arc<dyn Sink>,
    /// The event log that also gets the lines, if somebody follows.
    pub followed: Option<EventLog>,
    /// What was dropped because of a limit.
    pub dropped: Dropped,
}

/// Counts what a node drops because of a limit, wherever in the process that happens; cheap to
/// clone.
#[derive(Clone, Debug)]
pub(crate) struct Dropped(Arc<(Clock, Mutex<Drops>)>);

impl Default for Dropped {
    fn default() -> Self {
        Self(Arc::new((Clock::start(), Mutex::default())))
    }
}

impl Dropped {
    /// The line for an event: [`Event::counted`].
    fn count(&self, event: &Event) -> Option<Event> {
        let (clock, drops) = &*self.0;
        let now = clock.now();
        event.clone().counted(now, &mut drops.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How much was dropped of each kind so far.
    #[cfg_attr(not(feature = "http"), allow(dead_code))] // only the metrics show it
    pub fn all(&self) -> Vec<(Limit, u64)> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).all().collect()
    }
}

impl Default for Log {
    /// Lines go to the logger of the process.
    fn default() -> Self {
        Self { sink: Arc::new(LogCrate), followed: None, dropped: Dropped::default() }
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
        if events.iter().any(|event| matches!(event, Event::OverLimit { .. })) {
            let told: Vec<Event> =
                events.iter().filter_map(|event| self.log.dropped.count(event)).collect();
            self.write_all(&told);
        } else {
            self.write_all(events);
        }
    }

    fn write_all(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
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

    /// Counts something that was dropped because of a limit, and writes a line if it is time for one.
    pub fn over_limit(&self, limit: Limit, from: Option<Addr>) {
        self.say(Event::OverLimit { limit, from, times: 1 });
    }

    /// What was dropped because of a limit.
    #[cfg(feature = "http")]
    pub fn dropped(&self) -> Vec<(Limit, u64)> {
        self.log.dropped.all()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_all_counted_and_told_once() {
        let followed = EventLog::default();
        let log = Log { followed: Some(followed.clone()), ..Log::default() };
        let me = ([127, 0, 0, 1], 6000).into();
        let (first, from) = (followed.next(), Some(([127, 0, 0, 2], 7).into()));
        // The host and the listener of a node have logs of their own, which count together.
        let (host, listener) =
            (NodeLog::new(log.clone(), Role::Peer, me), NodeLog::new(log.clone(), Role::Peer, me));
        let mut lines = HostLog::new(host.clone());
        for _ in 0..1_000 {
            lines.push(Event::OverLimit { limit: Limit::Held, from, times: 2 });
            listener.over_limit(Limit::Held, None);
            listener.over_limit(Limit::HalfOpen, None);
        }
        lines.push(Event::Note { severity: Severity::Warn, what: "other", keys: Vec::new() });
        lines.catch_up();
        let told: Vec<String> =
            followed.from(first).into_iter().map(|(_, line)| line.event.to_string()).collect();
        let reasons = [Limit::Held, Limit::HalfOpen].map(|limit| format!("{:?}", limit.words()));
        let held = format!("over the limit limit=held_writes times=1 reason={}", reasons[0]);
        let half = format!("over the limit limit=half_open times=1 reason={}", reasons[1]);
        assert_eq!(told, [held, half, "other".to_owned()]);
        let counted: Vec<_> =
            log.dropped.all().into_iter().filter(|(_, times)| *times > 0).collect();
        assert_eq!(counted, [(Limit::HalfOpen, 1_000), (Limit::Held, 3_000)]);
    }
}
