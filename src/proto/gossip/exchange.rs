//! The state of the comparison over one link: which questions are open, and which messages were
//! sent since they were asked. What must stay true: a message is taken for lost only if it was sent
//! before the question whose answer lacks it.

use std::time::Duration;

use super::window::Window;
use crate::proto::time::Time;

/// A question that is not answered for so long is given up when the next one is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most questions open at once: each side asks one, and answers ask again.
const MAX_OPEN: usize = 8;

/// The state of the comparison over one link.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Number of the last question asked.
    round: u64,
    /// Questions without an answer so far, and when they were asked.
    open: Vec<(u64, Time)>,
    /// Messages sent since the first open question, or since earlier: its answer may not count
    /// them.
    pub unsettled: Window,
    /// Digests sent after the last round, to confirm it.
    pub confirmed: u8,
    pub compared: u64,
    pub sent: u64,
    pub bytes: u64,
}

impl Exchange {
    /// For a link on which no place before `start` matters.
    pub fn starting(start: u64) -> Self {
        let unsettled = Window::starting(start);
        let (round, open, confirmed) = (0, Vec::new(), 0);
        Self { round, open, unsettled, confirmed, compared: 0, sent: 0, bytes: 0 }
    }

    /// Opens a question to the other side and begins to remember what is sent after it; returns its
    /// number. Open questions stay open: both sides may ask at the same time.
    pub fn ask(&mut self, now: Time, start: u64) -> u64 {
        self.round += 1;
        self.open.retain(|(_, at)| now.since(*at) <= PATIENCE);
        if self.open.is_empty() {
            self.unsettled = Window::starting(start);
        } else if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push((self.round, now));
        self.round
    }

    /// Whether a question is open.
    pub fn is_asking(&self) -> bool {
        !self.open.is_empty()
    }

    /// Closes question `to`, now answered, and says when it was asked; none if it was not open.
    pub fn answered(&mut self, to: u64) -> Option<Time> {
        let place = self.open.iter().position(|(round, _)| *round == to)?;
        Some(self.open.remove(place).1)
    }
}
