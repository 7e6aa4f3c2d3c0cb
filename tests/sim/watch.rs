//! What a spectator of a run remembers: lines of the log by their words, and when each message was where.

use std::collections::BTreeMap;
use std::time::Duration;

use rumormill::proto::event::Event;
use rumormill::proto::gossip::MessageId;
use rumormill::proto::time::Time;

/// Where a message has come.
#[derive(Clone, Debug)]
pub struct Spread {
    pub published: Time,
    /// For each peer that has it, how long that took.
    pub took: Vec<Duration>,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// How often each was told.
    pub lines: BTreeMap<String, u64>,
    pub messages: BTreeMap<MessageId, Spread>,
}

impl Watch {
    /// A line of some node's log.
    pub fn log(&mut self, event: &Event) {
        let line = event.to_string();
        // A Dead Node message goes on with a colon, the keys of the others with an equals sign.
        let words = line.split(':').next().unwrap_or_default();
        let words = words.split(' ').take_while(|word| !word.contains('='));
        *self.lines.entry(words.collect::<Vec<_>>().join(" ")).or_default() += 1;
    }

    /// A message has come to one more peer; the first is its origin.
    pub fn deliver(&mut self, now: Time, id: MessageId) {
        let spread = self.messages.entry(id);
        let spread = spread.or_insert(Spread { published: now, took: Vec::new() });
        spread.took.push(now.since(spread.published));
    }
}
