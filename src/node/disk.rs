//! What a host keeps: changes wait for the end of its turn, and go to disk together.

use std::fmt;

use crate::proto::machine::Batch;

/// Makes changes durable, on a thread of its own, and says so; dropped, it first writes all that it was
/// given.
pub(super) trait Keeper<C>: fmt::Debug + Send {
    /// Has batches written in one commit.
    fn keep(&self, group: Vec<Batch<C>>);
}

#[cfg(feature = "durable")]
impl<C: fmt::Debug + Send + 'static> Keeper<C> for crate::storage::Writer<C> {
    fn keep(&self, group: Vec<Batch<C>>) {
        // Without the writer the host hears of its failure.
        let _ = self.submit_together(group);
    }
}

/// Durable state of one kind; without a keeper, memory is all there is.
#[derive(Debug)]
pub(super) struct Disk<C> {
    keeper: Option<Box<dyn Keeper<C>>>,
    /// What is to be written at the end of the turn. A commit costs much and a change in it little; with
    /// the first change of a turn alone in one there would be twice as many.
    waiting: Vec<Batch<C>>,
}

impl<C> Default for Disk<C> {
    fn default() -> Self {
        Self { keeper: None, waiting: Vec::new() }
    }
}

impl<C> Disk<C> {
    /// Has all that follows kept.
    #[cfg(feature = "durable")]
    pub fn keep_with(&mut self, keeper: Box<dyn Keeper<C>>) {
        self.keeper = Some(keeper);
    }

    /// Takes changes to keep; false if nothing is kept here.
    pub fn take(&mut self, batch: Batch<C>) -> bool {
        if self.keeper.is_some() {
            self.waiting.push(batch);
        }
        self.keeper.is_some()
    }

    /// Hands over what waits.
    pub fn flush(&mut self) {
        if let (Some(keeper), false) = (&self.keeper, self.waiting.is_empty()) {
            keeper.keep(std::mem::take(&mut self.waiting));
        }
    }
}
