//! Defects planted on purpose, to test the checkers: a checker that cannot find them is worth
//! nothing. Only a build with the feature `planted`, which the tests of this crate have, can set
//! one.

/// A defect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(not(feature = "planted"), allow(dead_code))] // nothing else makes one
pub enum Flaw {
    /// No defect, which is what every real process runs with.
    #[default]
    None,
    /// A seed votes yes without judging.
    AlwaysYes,
    /// A seed counts a quorum of the seeds that it can reach, instead of a quorum of all.
    ReachableQuorum,
    /// Records are not ordered by incarnation: the last one heard wins.
    UnversionedRegistry,
    /// A seed whose disk is empty votes at once.
    EmptyVoter,
    /// A peer forwards each message twice.
    ForwardTwice,
}
