//! The time that a host hands to its machine.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::proto::time::Time;

/// Wall clock at start plus a stopwatch, so that it never goes back, whoever sets the clock. The
/// stopwatch goes on while the machine sleeps, so that a process that wakes up knows that it slept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: Time,
    start: Duration,
}

impl Clock {
    /// Begins to count.
    pub fn start() -> Self {
        Self { wall: wall_clock(), start: stopwatch() }
    }

    /// The time now.
    pub fn now(&self) -> Time {
        self.wall + stopwatch().saturating_sub(self.start)
    }

    /// When a timer that is due then has to go off. It stands still while the machine sleeps; what is
    /// late by then is seen as late when the next input comes, or when it goes off.
    pub fn instant(&self, time: Time) -> Instant {
        Instant::now() + time.since(self.now())
    }
}

/// What the wall clock says.
pub(crate) fn wall_clock() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// Time since some moment in the past, in which the sleep of the machine counts.
#[cfg(target_os = "linux")]
fn stopwatch() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    // Linux has this clock since 2.6.39; where it is not let through, the other one must do.
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => Duration::from(time),
        Err(_) => since_first_use(),
    }
}

/// Time since some moment in the past.
#[cfg(not(target_os = "linux"))]
fn stopwatch() -> Duration {
    since_first_use()
}

fn since_first_use() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}
