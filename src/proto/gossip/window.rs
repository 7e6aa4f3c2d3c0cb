//! One bit for each message, in order of arrival. The oldest bits are dropped as messages are.

use std::collections::VecDeque;

/// Bits from some place on. Bits before it are gone and read as unset.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// Place of the first bit of the first word; a multiple of 64.
    base: u64,
    words: VecDeque<u64>,
}

impl Window {
    /// A window in which nobody asks for bits before `start`.
    pub fn starting(start: u64) -> Self {
        Self { base: start & !63, words: VecDeque::new() }
    }

    fn word(&self, place: u64) -> Option<usize> {
        usize::try_from(place.checked_sub(self.base)? / 64).ok()
    }

    pub fn get(&self, place: u64) -> bool {
        let word = self.word(place).and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    pub fn set(&mut self, place: u64) {
        let Some(word) = self.word(place) else { return };
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (place % 64);
    }

    /// Forgets the bits before `start`.
    pub fn forget_before(&mut self, start: u64) {
        while self.base + 64 <= start {
            self.base += 64;
            if self.words.pop_front().is_none() {
                self.base = start & !63;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_stay_until_they_are_forgotten() {
        let mut window = Window::starting(70);
        for place in [70, 128, 1_000] {
            window.set(place);
        }
        assert!(window.get(70) && window.get(128) && window.get(1_000));
        assert!(!window.get(71) && !window.get(5) && !window.get(100_000));
        window.forget_before(129);
        assert!(!window.get(70) && window.get(128), "whole words are forgotten");
        window.forget_before(5_000);
        assert!(!window.get(1_000));
        window.set(5_001);
        assert!(window.get(5_001));
        window.set(3);
        assert!(!window.get(3), "before the window nothing is kept");
    }
}
