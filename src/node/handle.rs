//! A running node, and the handles to it. Both are the same for seeds and peers.
//!
//! A handle sends what is asked to the host's inbox, and waits for the answer. It never touches the
//! machine, so any task of the process may hold one.

use std::fmt;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

#[cfg(feature = "durable")]
use super::disk::Keeper;
use super::host::{Host, Started};
use super::hosted::Hosted;
use super::inbox::Inbound;
use super::listener::Port;
use super::log::NodeLog;
#[cfg(feature = "durable")]
use crate::proto::config::InvalidConfig;
use crate::proto::config::Network;
use crate::proto::message::Addr;
#[cfg(feature = "durable")]
use crate::storage::StorageError;

/// The node has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// The reason why a node cannot be started.
#[cfg(feature = "durable")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its settings cannot be used.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// Its disk cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Asks a node things from anywhere; cheap to clone.
pub struct Handle<M: Hosted> {
    address: Addr,
    inbox: mpsc::Sender<Inbound<M>>,
    log: NodeLog,
}

impl<M: Hosted> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self { address: self.address, inbox: self.inbox.clone(), log: self.log.clone() }
    }
}

impl<M: Hosted> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("address", &self.address).finish_non_exhaustive()
    }
}

impl<M: Hosted> Handle<M> {
    /// Where the node listens.
    pub fn address(&self) -> Addr {
        self.address
    }

    /// The node's log, for events outside of the node's own task.
    #[cfg(feature = "http")]
    pub(crate) fn log(&self) -> &NodeLog {
        &self.log
    }

    /// Looks at the machine between two inputs.
    ///
    /// # Errors
    ///
    /// If the node has stopped.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, seen) = oneshot::channel();
        let look = Box::new(move |machine: &M| {
            let _ = answer.send(look(machine));
        });
        self.inbox.send(Inbound::Look(look)).await.map_err(|_| Stopped)?;
        seen.await.map_err(|_| Stopped)
    }

    /// Asks something, and waits for the answer.
    pub(super) async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<T>) -> M::Ask,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Inbound::Ask(ask(answer))).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Asks something, without waiting for room in the inbox or for an answer.
    pub(super) fn try_ask(&self, ask: M::Ask) -> Result<(), mpsc::error::TrySendError<()>> {
        self.inbox.try_send(Inbound::Ask(ask)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => mpsc::error::TrySendError::Full(()),
            mpsc::error::TrySendError::Closed(_) => mpsc::error::TrySendError::Closed(()),
        })
    }
}

/// A running node. It goes on running if this is dropped, until its runtime ends; to end it, ask
/// for that.
pub struct Node<M: Hosted> {
    handle: Handle<M>,
    task: JoinHandle<Option<String>>,
}

impl<M: Hosted> fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("address", &self.handle.address).finish_non_exhaustive()
    }
}

/// The two ways in which a disk's writer reports to its host: a batch is durable, or the disk
/// failed.
#[cfg(feature = "durable")]
pub(super) type DiskReports = (Box<dyn FnMut(u64) + Send>, Box<dyn FnOnce(String) + Send>);

impl<M: Hosted> Node<M> {
    /// Starts a machine on the current tokio runtime.
    pub(super) fn run(machine: M, port: Port, me: Addr, network: Network) -> Self {
        Self::begin(me, Host::start(machine, port, me, network))
    }

    /// As [`Node::run`], but changes are on disk before the machine is told that they are durable.
    ///
    /// # Errors
    ///
    /// If the disk's writer cannot be started.
    #[cfg(feature = "durable")]
    pub(super) fn run_durable<K, E>(
        machine: M,
        port: Port,
        me: Addr,
        network: Network,
        start: impl FnOnce(DiskReports) -> Result<K, E>,
    ) -> Result<Self, E>
    where
        K: Keeper<M::Change> + 'static,
    {
        let mut started = Host::start(machine, port, me, network);
        let (durable, failed) = (started.inbox.clone(), started.inbox.clone());
        let keeper = start((
            Box::new(move |batch| {
                let _ = durable.blocking_send(Inbound::Durable(batch));
            }),
            Box::new(move |error| {
                let _ = failed.blocking_send(Inbound::DiskFailed(error));
            }),
        ))?;
        started.host.keep_with(Box::new(keeper));
        Ok(Self::begin(me, started))
    }

    fn begin(address: Addr, Started { host, inbox, log }: Started<M>) -> Self {
        Self { handle: Handle { address, inbox, log }, task: tokio::spawn(host.run()) }
    }

    /// The address at which the node listens.
    pub fn address(&self) -> Addr {
        self.handle.address
    }

    /// A handle, which asks the node things from anywhere.
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }

    /// Aborts the node's task.
    pub(super) fn abort_handle(&self) -> AbortHandle {
        self.task.abort_handle()
    }

    /// Has the node stop by itself, and waits until it has.
    pub(super) async fn end(self) {
        let _ = self.handle.inbox.send(Inbound::Stop).await;
        let _ = self.task.await;
    }

    /// Ends the node at once, as a crash would: nobody is told.
    pub fn kill(self) {
        self.task.abort();
    }

    /// Waits until the node has ended by itself, which it does only if it fails. Returns the
    /// reason, if it is known.
    pub async fn ended(&mut self) -> Option<String> {
        (&mut self.task).await.ok().flatten()
    }
}
