//! What a run did: as a hash always, and in words when somebody wants to read it.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use rumormill::proto::message::Addr;
use rumormill::proto::time::Time;

/// The trace of a run.
pub struct Trace {
    /// `DefaultHasher::new()` has fixed keys: two runs of one number agree.
    hash: DefaultHasher,
    hashing: bool,
    start: Time,
    words: Option<String>,
}

/// Bytes of one input or effect that a line of the trace shows.
const SHOWN: usize = 400;

impl Trace {
    pub fn new(start: Time) -> Self {
        Self { hash: DefaultHasher::new(), hashing: true, start, words: None }
    }

    /// Runs that nobody replays need no hash.
    pub fn off(&mut self) {
        self.hashing = false;
    }

    /// From here on the trace is also kept in words.
    pub fn in_words(&mut self) {
        self.words = Some(String::new());
    }

    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub fn feed(&mut self, what: impl Hash) {
        if self.hashing {
            what.hash(&mut self.hash);
        }
    }

    /// Writes a line, if anybody reads: it is only put into words then.
    pub fn line(&mut self, now: Time, who: &Addr, words: impl FnOnce() -> String) {
        let Some(lines) = &mut self.words else { return };
        let micros = now.since(self.start).as_micros();
        let mut words = words();
        if words.len() > SHOWN {
            let cut = (0..=SHOWN).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
            words.truncate(cut);
            words.push_str(" ...");
        }
        let _ =
            writeln!(lines, "{:>4}.{:06} {who} {words}", micros / 1_000_000, micros % 1_000_000);
    }

    /// The trace in words; empty if it was not kept.
    pub fn words(&self) -> &str {
        self.words.as_deref().unwrap_or_default()
    }
}
