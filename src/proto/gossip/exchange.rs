//! How it stands with the comparison over one link: which questions are open, and what was sent since.

use std::time::Duration;

use super::window::Window;
use crate::proto::time::Time;

/// A question that is not answered for so long is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions open at the same time at most: each side asks one, and answers to it ask again.
const MAX_OPEN: usize = 8;

/// How it stands with the comparison over one link.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Number of the last question asked.
    round: u64,
    /// Questions that nothing has answered yet, and when they were asked.
    open: Vec<(u64, Time)>,
    /// Messages sent since the first of them, of which an answer cannot tell.
    pub unsettled: Window,
    /// Digests that followed the last round.
    pub confirmed: u8,
    pub compared: u64,
    pub sent: u64,
    pub bytes: u64,
}

impl Exchange {
    /// Of a link on which nothing before that place matters.
    pub fn starting(start: u64) -> Self {
        let unsettled = Window::starting(start);
        let (round, open, confirmed) = (0, Vec::new(), 0);
        Self { round, open, unsettled, confirmed, compared: 0, sent: 0, bytes: 0 }
    }

    /// Begins to remember what is sent after a question to the other side; returns its number.
    /// Questions that are open stay so: both sides may ask at the same time.
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

    /// Closes a question that is answered, and says when it was asked; none if it is not open.
    pub fn answered(&mut self, to: u64) -> Option<Time> {
        let place = self.open.iter().position(|(round, _)| *round == to)?;
        Some(self.open.remove(place).1)
    }
}
