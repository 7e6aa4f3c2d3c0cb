//! Which lines of the log would only repeat what was said a moment ago.
//!
//! While there is no quorum, or a link is down, the same thing is tried again and again and ends
//! the same way. A line for each attempt would bury what is new; so a line is written when the
//! outcome changes, and once a minute.
//!
//! What must stay true: memory is bounded, and what cannot be remembered is told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::Addr;
use super::time::Time;

/// The same is told again after this long.
const AGAIN: Duration = Duration::from_secs(60);
/// Old entries are looked for this often at most.
const SWEEP: Duration = Duration::from_secs(1);
/// Most entries remembered: what cannot be remembered is told again.
const MAX_TOLD: usize = 8_192;

/// What was told lately: the words about each peer, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeats {
    told: BTreeMap<(&'static str, Addr), (String, Time)>,
    /// When old entries were last forgotten: to look for them each time would cost too much in a
    /// crowd.
    swept: Time,
}

impl Repeats {
    /// Whether these words are news about a peer. If so, they count as told from now on.
    pub fn is_news(&mut self, now: Time, what: &'static str, peer: Addr, words: &str) -> bool {
        let key = (what, peer);
        if let Some((told, at)) = self.told.get(&key)
            && told == words
            && now.since(*at) < AGAIN
        {
            return false;
        }
        if self.told.len() >= MAX_TOLD && !self.told.contains_key(&key) {
            if now.since(self.swept) >= SWEEP {
                self.swept = now;
                self.told.retain(|_, (_, at)| now.since(*at) < AGAIN);
            }
            if self.told.len() >= MAX_TOLD {
                return true;
            }
        }
        self.told.insert(key, (words.to_owned(), now));
        true
    }
}

/// How many more lines of one kind may be written in this minute, where each of them is news and
/// somebody else decides how many there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    used: u32,
    since: Time,
}

impl Allowance {
    /// Whether one more line may be written, of at most `most` a minute.
    pub fn allows(&mut self, now: Time, most: u32) -> bool {
        if now.since(self.since) >= AGAIN {
            *self = Self { used: 0, since: now };
        }
        self.used = self.used.saturating_add(1);
        self.used <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_minute_and_no_more() {
        let start = Time::from_millis(1_800_000_000_000);
        let mut allowance = Allowance::default();
        let seconds = (0..120_u64).map(|second| start + Duration::from_secs(second));
        let allowed: Vec<bool> = seconds.map(|now| allowance.allows(now, 3)).collect();
        let told: Vec<usize> = (0..120).filter(|second| allowed[*second]).collect();
        assert_eq!(told, [0, 1, 2, 60, 61, 62]);
    }

    #[test]
    fn the_same_is_told_when_it_changes_and_once_a_minute() {
        let start = Time::from_millis(1_800_000_000_000);
        let peer = |port| ([127, 0, 0, 1], port).into();
        let mut repeats = Repeats::default();
        let mut news = |second, words| {
            repeats.is_news(start + Duration::from_secs(second), "denied", peer(1), words)
        };
        let told: Vec<u64> = (0..150).filter(|second| news(*second, "no quorum")).collect();
        assert_eq!(told, [0, 60, 120]);
        assert!(news(150, "it is leaving") && !news(151, "it is leaving"));
        assert!(news(152, "no quorum"));
        for port in 0..20_000 {
            assert!(repeats.is_news(start, "denied", peer(port), "many"));
        }
        assert!(repeats.told.len() <= MAX_TOLD);
    }
}
