//! The clock of a host, which gives its machine the time. What must stay true: it never goes back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::proto::time::Time;

/// The wall clock at the start, plus a stopwatch: so time never goes back, whoever sets the wall
/// clock. The stopwatch goes on while the computer sleeps, so that a process that wakes up knows
/// that it slept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: Time,
    start: Duration,
}

impl Clock {
    /// Reads the wall clock, and starts the stopwatch.
    pub fn start() -> Self {
        Self { wall: wall_clock(), start: stopwatch() }
    }

    /// The time now.
    pub fn now(&self) -> Time {
        self.wall + stopwatch().saturating_sub(self.start)
    }

    /// The instant at which a timer for that time has to go off. Instants stand still while the
    /// computer sleeps, so such a timer goes off late. The machine notices with its next input, or
    /// when the timer goes off.
    pub fn instant(&self, time: Time) -> Instant {
        Instant::now() + time.since(self.now())
    }
}

/// The time of the wall clock.
pub(crate) fn wall_clock() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// Time since some fixed moment, including the time in which the computer sleeps.
#[cfg(target_os = "linux")]
fn stopwatch() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    // Linux has this clock since 2.6.39. Where a sandbox forbids it, a stopwatch without sleep must
    // do.
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => Duration::from(time),
        Err(_) => since_first_use(),
    }
}

/// Time since some fixed moment.
#[cfg(not(target_os = "linux"))]
fn stopwatch() -> Duration {
    since_first_use()
}

fn since_first_use() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}
