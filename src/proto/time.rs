//! Time as a value.
//!
//! The machines never read a clock: whoever runs them hands the time in with every input
//! (DESIGN.md, section 2). One number serves as wall clock and as stopwatch, because the host takes
//! the wall clock once at start and adds a monotonic stopwatch to it, so that the number never goes
//! back within one life.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch; never goes back within one life of a process.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(u64);

impl Time {
    /// The time `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The time `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000
    }

    /// How long after `earlier` this time is; zero if it is not later.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, by: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Unix seconds with six decimals: the timestamp inside messages (CONTRACT.md, section 2).
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// How long to pause when `failures` attempts in a row have failed before this one: the first
/// pause, doubled for each failure, eight times at most, and never longer than the last pause.
pub(crate) fn backoff((first, last): (Duration, Duration), failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(8)).min(last)
}

/// In words, how far one clock is ahead of another one; `ahead` is in milliseconds.
pub fn offset_words(ahead: i64) -> String {
    let seconds = ahead.unsigned_abs() / 1_000;
    let size = match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    };
    format!("{size} {}", if ahead < 0 { "behind" } else { "ahead" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_unix_seconds_with_six_decimals() {
        let time = Time::from_micros(1_795_206_851_004_417);
        assert_eq!(time.to_string(), "1795206851.004417");
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let late = Time::from_micros(u64::MAX) + Duration::from_secs(1);
        assert_eq!(late.micros(), u64::MAX);
        assert_eq!(Time::from_micros(1).since(late), Duration::ZERO);
    }

    #[test]
    fn an_offset_reads_well() {
        assert_eq!(offset_words(600_000), "10 min ahead");
        assert_eq!(offset_words(-86_400_000), "24 h behind");
        assert_eq!(offset_words(-15_000), "15 s behind");
    }
}
