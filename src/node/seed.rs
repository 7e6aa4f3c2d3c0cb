//! A seed to hold: start it, stop it.

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::host::{Host, Inbound};
use crate::proto::config::SeedConfig;
use crate::proto::message::{Addr, Role};
use crate::proto::seed::SeedMachine;
use crate::storage::{OpenStore, StorageError};

/// A running seed.
#[derive(Debug)]
pub struct Seed {
    address: Addr,
    inbox: mpsc::Sender<Inbound>,
    task: JoinHandle<()>,
}

impl Seed {
    /// Starts a seed on the current tokio runtime. `config.me` is the address that others know,
    /// and one of the network's seeds.
    pub fn start(listener: TcpListener, config: SeedConfig) -> Self {
        let (address, network) = (config.me, config.network.clone());
        let machine = SeedMachine::new(config, super::chance());
        let (host, inbox) = Host::new(machine, listener, Role::Seed, address, network);
        Self { address, inbox, task: tokio::spawn(host.run()) }
    }

    /// Starts a seed that keeps its registry on disk, and begins with what is there.
    ///
    /// # Errors
    ///
    /// If the writer cannot be started.
    pub fn start_durable(
        listener: TcpListener,
        config: SeedConfig,
        store: OpenStore,
    ) -> Result<Self, StorageError> {
        let (address, network) = (config.me, config.network.clone());
        let machine = SeedMachine::new(config, super::chance());
        let machine = machine.recovered(store.records().iter().cloned());
        let (mut host, inbox) = Host::new(machine, listener, Role::Seed, address, network);
        host.keep_in(store)?;
        Ok(Self { address, inbox, task: tokio::spawn(host.run()) })
    }

    /// Where it listens.
    pub fn address(&self) -> Addr {
        self.address
    }

    /// Stops it: what is queued goes out, then the connections close.
    pub async fn stop(self) {
        let _ = self.inbox.send(Inbound::Leave).await;
        let _ = self.task.await;
    }

    /// Ends it at once, as a crash would: nobody is told.
    pub fn kill(self) {
        self.task.abort();
    }

    /// Waits until it has ended by itself, which it does only if it fails.
    pub async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}
