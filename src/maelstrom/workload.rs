//! The workload of Maelstrom that a node serves.
//!
//! Some workloads use the names `add` and `read` for different things, so a node has to know which
//! of them it serves. `--workload` says it, or else the first request that only one workload makes.

/// A workload, as `--workload` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)] // the names are Maelstrom's
pub enum Workload {
    Broadcast,
    GSet,
    GCounter,
    PnCounter,
    UniqueIds,
    Echo,
}

/// What clients put in and read, which is all of a workload that answers depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Messages of `broadcast`.
    Message,
    /// Elements of the g-set.
    Element,
    /// Deltas, of a counter.
    Counter {
        /// Whether it refuses negative deltas.
        grows_only: bool,
    },
    /// Nothing: `echo` and `unique-ids` keep no state.
    Nothing,
}

impl From<Workload> for Kind {
    fn from(workload: Workload) -> Self {
        match workload {
            Workload::Broadcast => Self::Message,
            Workload::GSet => Self::Element,
            Workload::GCounter => Self::Counter { grows_only: true },
            Workload::PnCounter => Self::Counter { grows_only: false },
            Workload::UniqueIds | Workload::Echo => Self::Nothing,
        }
    }
}
