//! How long nothing has come, and so how soon another comparison is worth its bytes.

/// In a calm the pause between two rounds doubles so many times: news that was lost on its way to a
/// node that nothing else reaches waits for the next round.
const MOST_CALM: u32 = 1;

/// How long it has been calm.
#[derive(Debug, Default)]
pub(super) struct Calm {
    /// The place of the next message when the last round began.
    held: u64,
    /// Rounds in a row that began in a calm.
    rounds: u32,
}

impl Calm {
    /// Whether nothing has come since the last round: `held` is the place of the next message.
    pub fn is_same(&mut self, held: u64) -> bool {
        std::mem::replace(&mut self.held, held) == held
    }

    /// Sync intervals until the next round.
    pub fn next_pause(&mut self, calm: bool) -> u32 {
        self.rounds = if calm { (self.rounds + 1).min(MOST_CALM) } else { 0 };
        1 << self.rounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_calm_rounds_are_twice_as_far_apart() {
        let mut calm = Calm::default();
        assert!(!calm.is_same(7) && calm.is_same(7) && !calm.is_same(8));
        assert_eq!([true, true, false, true].map(|is| calm.next_pause(is)), [2, 2, 1, 2]);
    }
}
