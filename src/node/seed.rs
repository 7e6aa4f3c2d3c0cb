//! The seed that a program holds: start it, ask it things, stop it.
//!
//! [`Seed`] is the running node, and a [`SeedHandle`] asks it from anywhere. What must stay true: a
//! program can look at its seed and stop it, and can change nothing that the seeds decide.

use std::convert::Infallible;
use std::sync::Arc;

#[cfg(feature = "durable")]
use super::handle::StartError;
use super::handle::{Handle, Node, Stopped};
use super::hosted::Hosted;
use super::listener::Port;
use super::log::HostLog;
use crate::proto::config::{InvalidConfig, SeedConfig};
use crate::proto::message::{Addr, Decision, Role, Standing};
use crate::proto::registry::Record;
use crate::proto::roles::SeedCommand;
use crate::proto::seed::SeedMachine;
use crate::proto::topology::Topology;
#[cfg(feature = "durable")]
use crate::storage::OpenStore;

/// A running seed.
pub type Seed = Node<SeedMachine>;

/// Asks a seed things from anywhere; cheap to clone.
pub type SeedHandle = Handle<SeedMachine>;

/// The state of a seed at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedStatus {
    /// Whether it is connected to a quorum of seeds, itself included.
    pub has_quorum: bool,
    /// How far it can be relied on to hold every change that was confirmed.
    pub standing: Standing,
    /// Whether it votes.
    pub voting: bool,
    /// Number of members.
    pub members: usize,
    /// Number of records, also of those that are gone.
    pub records: usize,
}

impl Hosted for SeedMachine {
    const ROLE: Role = Role::Seed;
    type Ask = Infallible;
    type Waiting = ();

    fn stop() -> SeedCommand {
        SeedCommand::Stop
    }

    fn ask((): &mut (), ask: Infallible) -> Option<SeedCommand> {
        match ask {}
    }

    fn reply((): &mut (), _: &mut HostLog, reply: Infallible) {
        match reply {}
    }
}

/// Has a seed sign its votes if the links of this port are encrypted.
fn signing(machine: SeedMachine, port: &Port) -> SeedMachine {
    match &port.security {
        Some(security) => machine.signing(Arc::new(security.clone()), security.known_seeds()),
        None => machine,
    }
}

impl Seed {
    /// Starts a seed on the current tokio runtime. `config.me` is the address that others know, and
    /// has to be one of the network's seeds.
    ///
    /// # Errors
    ///
    /// If a seed cannot run with these settings, above all if `config.me` is not one of the seeds.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(port: impl Into<Port>, config: SeedConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        let (me, network, port) = (config.me, config.network.clone(), port.into());
        let machine = signing(SeedMachine::new(config, super::chance()), &port);
        Ok(Self::run(machine, port, me, network))
    }

    /// Starts a seed that keeps its registry on disk, and begins with what the disk holds.
    ///
    /// # Errors
    ///
    /// If a seed cannot run with these settings, or the disk's writer cannot be started.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[cfg(feature = "durable")]
    pub fn start_durable(
        port: impl Into<Port>,
        config: SeedConfig,
        store: OpenStore,
    ) -> Result<Self, StartError> {
        config.check()?;
        let (me, network, port) = (config.me, config.network.clone(), port.into());
        let machine = signing(SeedMachine::new(config, super::chance()), &port);
        let founders = store.founders().iter().copied();
        let records = store.records().iter().cloned();
        let machine = machine.recovered(store.standing(), founders, records);
        Ok(Self::run_durable(machine, port, me, network, |(durable, failed)| {
            store.start(durable, failed)
        })?)
    }

    /// The state of the seed right now.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn status(&self) -> Result<SeedStatus, Stopped> {
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

    /// All records, also of those that are gone, by address.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn records(&self) -> Result<Vec<(Addr, Record)>, Stopped> {
        self.handle()
            .look(|machine| {
                machine.registry().iter().map(|(peer, record)| (*peer, record.clone())).collect()
            })
            .await
    }

    /// The record of one peer, and the decisions about it while this seed ran, oldest first: who
    /// proposed, who reported, who voted what and why.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn member(&self, peer: Addr) -> Result<Option<(Record, Vec<Decision>)>, Stopped> {
        self.handle()
            .look(move |machine| {
                let record = machine.registry().get(&peer)?.clone();
                Some((record, machine.history(&peer).cloned().collect()))
            })
            .await
    }

    /// The overlay as peers report it; a link counts when both of its ends name it.
    ///
    /// # Errors
    ///
    /// If the seed has stopped.
    pub async fn topology(&self) -> Result<Topology, Stopped> {
        self.handle().look(SeedMachine::topology).await
    }

    /// Stops the seed: what is queued goes out, then the connections close.
    pub async fn stop(self) {
        self.end().await;
    }
}
