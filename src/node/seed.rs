//! A seed to hold: start it, stop it.

use std::any::Any;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::host::Host;
use super::inbox::{Inbound, Inspection};
use super::listener::Port;
use crate::proto::config::SeedConfig;
use crate::proto::message::{Addr, Decision, Role, Standing};
use crate::proto::registry::Record;
use crate::proto::seed::SeedMachine;
use crate::proto::topology::Topology;
#[cfg(feature = "durable")]
use crate::storage::{OpenStore, StorageError};

/// The seed has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the seed has stopped")]
pub struct SeedGone;

/// How it stands with a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedStatus {
    /// Whether it is connected to a quorum of seeds, itself included.
    pub has_quorum: bool,
    /// How far it can be relied on to know what was answered for.
    pub standing: Standing,
    /// Whether it votes.
    pub voting: bool,
    /// Members, and records in all.
    pub members: usize,
    /// Records, of the living and the gone.
    pub records: usize,
}

/// A seed to ask from anywhere; cheap to clone.
#[derive(Clone, Debug)]
pub struct SeedHandle {
    inbox: mpsc::Sender<Inbound>,
}

impl SeedHandle {
    /// Looks at the machine between two inputs.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&SeedMachine) -> T + Send + 'static,
    ) -> Result<T, SeedGone> {
        let (answer, seen) = oneshot::channel();
        let look = move |machine: &dyn Any| {
            if let Some(machine) = machine.downcast_ref::<SeedMachine>() {
                let _ = answer.send(look(machine));
            }
        };
        let inspect = Inbound::Inspect(Inspection(Box::new(look)));
        self.inbox.send(inspect).await.map_err(|_| SeedGone)?;
        seen.await.map_err(|_| SeedGone)
    }
}

/// A running seed.
#[derive(Debug)]
pub struct Seed {
    address: Addr,
    inbox: mpsc::Sender<Inbound>,
    task: JoinHandle<Option<String>>,
}

impl Seed {
    /// Starts a seed on the current tokio runtime. `config.me` is the address that others know,
    /// and one of the network's seeds.
    pub fn start(port: impl Into<Port>, config: SeedConfig) -> Self {
        let (address, network) = (config.me, config.network.clone());
        let machine = SeedMachine::new(config, super::chance());
        let (host, inbox) = Host::new(machine, port.into(), Role::Seed, address, network);
        Self { address, inbox, task: tokio::spawn(host.run()) }
    }

    /// Starts a seed that keeps its registry on disk, and begins with what is there.
    ///
    /// # Errors
    ///
    /// If the writer cannot be started.
    #[cfg(feature = "durable")]
    pub fn start_durable(
        port: impl Into<Port>,
        config: SeedConfig,
        store: OpenStore,
    ) -> Result<Self, StorageError> {
        let (address, network) = (config.me, config.network.clone());
        let machine = SeedMachine::new(config, super::chance());
        let founders = store.founders().iter().copied();
        let records = store.records().iter().cloned();
        let machine = machine.recovered(store.standing(), founders, records);
        let (mut host, inbox) = Host::new(machine, port.into(), Role::Seed, address, network);
        host.keep_in(store)?;
        Ok(Self { address, inbox, task: tokio::spawn(host.run()) })
    }

    /// Where it listens.
    pub fn address(&self) -> Addr {
        self.address
    }

    /// A handle to ask it from anywhere.
    pub fn handle(&self) -> SeedHandle {
        SeedHandle { inbox: self.inbox.clone() }
    }

    /// How it stands with the seed right now.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn status(&self) -> Result<SeedStatus, SeedGone> {
        self.handle()
            .look(|machine| SeedStatus {
                has_quorum: machine.has_quorum(),
                standing: machine.standing(),
                voting: machine.is_voting(),
                members: machine.registry().size(),
                records: machine.registry().len(),
            })
            .await
    }

    /// All that it knows, the gone included, by address.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn records(&self) -> Result<Vec<(Addr, Record)>, SeedGone> {
        self.handle()
            .look(|machine| {
                machine.registry().iter().map(|(peer, record)| (*peer, record.clone())).collect()
            })
            .await
    }

    /// The record of one peer, and what was decided about it while this seed ran: who proposed, who
    /// reported, who voted what and why, oldest first.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn member(&self, peer: Addr) -> Result<Option<(Record, Vec<Decision>)>, SeedGone> {
        self.handle()
            .look(move |machine| {
                let record = machine.registry().get(&peer)?.clone();
                Some((record, machine.history(&peer).cloned().collect()))
            })
            .await
    }

    /// The overlay, as both ends of each link reported it.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn topology(&self) -> Result<Topology, SeedGone> {
        self.handle().look(SeedMachine::topology).await
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

    /// Waits until it has ended by itself, which it does only if it fails; why, if that is known.
    pub async fn ended(&mut self) -> Option<String> {
        (&mut self.task).await.ok().flatten()
    }
}
