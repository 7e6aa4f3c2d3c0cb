//! The newest lines of one node's log, for those who follow it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::logging;
use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Role};

/// Lines kept for whoever resumes.
const KEPT: usize = 1_024;

/// A line's number, and the line.
type Line = (u64, Arc<str>);

/// The newest lines as JSON, numbered; cheap to clone.
#[derive(Clone, Debug)]
pub struct EventLog {
    lines: Arc<Mutex<VecDeque<Line>>>,
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begin = u64::try_from(now.as_micros()).unwrap_or(0);
        Self { lines: Arc::default(), newest: watch::Sender::new(begin), least }
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Line>> {
        // Nothing that holds it can panic half way through a change.
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a line.
    pub(super) fn add(&self, role: Role, me: Addr, event: &Event) {
        if event.severity() > self.least {
            return;
        }
        let line = to_json(role, me, event);
        let mut lines = self.lines();
        let id = *self.newest.borrow() + 1;
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        lines.push_back((id, line.to_string().into()));
        // Told before the next line may take its number from it: two lines of one number would be one
        // to whoever follows.
        self.newest.send_replace(id);
    }

    /// Logs what happened to a node outside its own task, and tells those who follow.
    pub(crate) fn say(log: Option<&Self>, role: Role, me: Addr, event: &Event) {
        logging::event(role, me, event);
        if let Some(log) = log {
            log.add(role, me, event);
        }
    }

    /// The number of the next line.
    pub fn next(&self) -> u64 {
        *self.newest.borrow() + 1
    }

    /// The lines from that number on that are still kept.
    pub fn from(&self, first: u64) -> Vec<(u64, Arc<str>)> {
        self.lines().iter().filter(|(id, _)| *id >= first).cloned().collect()
    }

    /// Waits until there is a line of that number.
    pub async fn after(&self, number: u64) {
        // The sender lives as long as this does.
        let _ = self.newest.subscribe().wait_for(|newest| *newest >= number).await;
    }
}

/// A line of the log as JSON: the words of the event, and each key with its value as text.
fn to_json(role: Role, me: Addr, event: &Event) -> Value {
    let mut object = Map::new();
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    object.insert("time".to_owned(), now.into());
    object.insert("level".to_owned(), format!("{:?}", event.severity()).to_uppercase().into());
    object.insert("who".to_owned(), if role == Role::Seed { "seed" } else { "peer" }.into());
    object.insert("address".to_owned(), me.to_string().into());
    let text = event.to_string();
    let (words, keys) = split(&text);
    object.insert("event".to_owned(), words.into());
    for (key, value) in keys {
        object.insert(key, value.into());
    }
    Value::Object(object)
}

/// The words of an event, and its keys with their values, unquoted.
fn split(line: &str) -> (String, Vec<(String, String)>) {
    let mut words = Vec::new();
    let mut keys = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(' ').unwrap_or(rest.len());
        let (Some((key, _)), false) = (rest[..end].split_once('='), rest.starts_with('"')) else {
            words.push(&rest[..end]);
            rest = rest[end..].trim_start();
            continue;
        };
        let value = &rest[key.len() + 1..];
        let (text, used) = unquote(value);
        keys.push((key.to_owned(), text));
        rest = value[used..].trim_start();
    }
    (words.join(" "), keys)
}

/// A value as it was before it was quoted, and the bytes that it took.
fn unquote(value: &str) -> (String, usize) {
    let end = value.find(' ').unwrap_or(value.len());
    let Some(quoted) = value.strip_prefix('"') else { return (value[..end].to_owned(), end) };
    let mut text = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (text, at + 2),
            '\\' => match letters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, '0')) => text.push('\0'),
                // As `\u{1b}`, which is how what cannot be printed is written.
                Some((at, 'u')) => {
                    let rest = quoted.get(at + 1..).and_then(|rest| rest.strip_prefix('{'));
                    let hex = rest.and_then(|rest| rest.split_once('}')).map(|(hex, _)| hex);
                    let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
                    let (Some(hex), Some(letter)) = (hex, code.and_then(char::from_u32)) else {
                        text.push('u');
                        continue;
                    };
                    text.push(letter);
                    letters.by_ref().nth(hex.len() + 1);
                }
                Some((_, other)) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    (text, value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_words_and_keys() {
        let event = Event::Note {
            severity: Severity::Warn,
            what: "link refused",
            keys: vec![
                ("from", "127.0.0.1:1".to_owned()),
                ("reason", "it says \"a=b\" twice".to_owned()),
                ("n", "1".to_owned()),
            ],
        };
        let json = to_json(Role::Seed, ([127, 0, 0, 1], 5000).into(), &event);
        assert_eq!(json["event"], "link refused");
        assert_eq!(json["reason"], "it says \"a=b\" twice");
        assert_eq!((json["n"].as_str(), json["who"].as_str()), (Some("1"), Some("seed")));
        assert_eq!(json["level"], "WARN");
    }

    proptest::proptest! {
        #[test]
        fn a_value_arrives_as_it_was(value in "[\\PC\u{0}-\u{1f}\u{7f}-\u{9f}\"\\\\ =\u{200b}\u{202e}]{0,20}") {
            let keys = vec![("key", value.clone()), ("next", "1".to_owned())];
            let event = Event::Note { severity: Severity::Info, what: "two words", keys };
            let json = to_json(Role::Peer, ([127, 0, 0, 1], 1).into(), &event);
            proptest::prop_assert_eq!(json["key"].as_str(), Some(value.as_str()));
            proptest::prop_assert_eq!(&json["next"], "1");
            proptest::prop_assert_eq!(&json["event"], "two words");
        }
    }

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
