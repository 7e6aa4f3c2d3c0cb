//! How long nothing new has come, and so how soon another comparison is worth its bytes: a round in
//! a calm finds nothing, so the next one may wait. It must not wait for long, because until then
//! nothing else may bring what was lost.

/// The pause between two rounds doubles at most this often: news that was lost on its way to a peer
/// that nothing else reaches waits for the next round.
const MOST_CALM: u32 = 1;

/// How long it has been calm.
#[derive(Debug, Default)]
pub(super) struct Calm {
    /// The place that the next message had when the last round began.
    held: u64,
    /// Rounds in a row that began in a calm, `MOST_CALM` at most.
    rounds: u32,
}

impl Calm {
    /// Whether nothing has come since the last round; `held` is the place that the next message has
    /// now.
    pub fn is_same(&mut self, held: u64) -> bool {
        std::mem::replace(&mut self.held, held) == held
    }

    /// The pause until the next round, in sync intervals.
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
