//! The changes that a host has to keep. They wait for the end of the turn and go to disk together,
//! because a commit costs much and one more change in it costs little.
//!
//! What must stay true: changes reach the disk in the order in which the machine gave them.

use std::fmt;

use crate::proto::machine::Batch;

/// Makes changes durable on a thread of its own, and reports to the host. When it is dropped it
/// first writes all that it was given.
pub(super) trait Keeper<C>: fmt::Debug + Send {
    /// Has these batches written in one commit.
    fn keep(&self, group: Vec<Batch<C>>);
}

#[cfg(feature = "durable")]
impl<C: fmt::Debug + Send + 'static> Keeper<C> for crate::storage::Writer<C> {
    fn keep(&self, group: Vec<Batch<C>>) {
        // If the writer is gone, the host has heard of its failure already.
        let _ = self.submit_together(group);
    }
}

/// The changes of one machine on their way to disk; without a keeper nothing is kept.
#[derive(Debug)]
pub(super) struct Disk<C> {
    keeper: Option<Box<dyn Keeper<C>>>,
    /// Batches for the end of the turn. The first change of a turn is not written alone, because
    /// that would double the number of commits, and a commit costs much.
    waiting: Vec<Batch<C>>,
}

impl<C> Default for Disk<C> {
    fn default() -> Self {
        Self { keeper: None, waiting: Vec::new() }
    }
}

impl<C> Disk<C> {
    /// Has all changes from now on kept.
    #[cfg(feature = "durable")]
    pub fn keep_with(&mut self, keeper: Box<dyn Keeper<C>>) {
        self.keeper = Some(keeper);
    }

    /// Takes changes to keep; false if there is no keeper.
    pub fn take(&mut self, batch: Batch<C>) -> bool {
        if self.keeper.is_some() {
            self.waiting.push(batch);
        }
        self.keeper.is_some()
    }

    /// Hands the waiting batches to the keeper.
    pub fn flush(&mut self) {
        if let (Some(keeper), false) = (&self.keeper, self.waiting.is_empty()) {
            keeper.keep(std::mem::take(&mut self.waiting));
        }
    }
}
