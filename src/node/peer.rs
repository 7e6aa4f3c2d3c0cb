//! The peer that a program holds: start it, publish, receive, ask it things, leave.
//!
//! [`Peer`] is the running node, and a [`PeerHandle`] asks it from anywhere. Both only pass on to
//! the machine what is asked. What must stay true: a program that does not take its messages does
//! not slow the peer down; it is told how many messages it missed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::asks::{PeerAsk, Received};
#[cfg(feature = "durable")]
use super::handle::StartError;
use super::handle::{Handle, Node, Stopped};
use super::listener::Port;
use super::store::Store;
use crate::proto::config::{InvalidConfig, PeerConfig};
use crate::proto::gossip::{Counters, MAX_PAYLOAD, MessageId};
use crate::proto::message::{Addr, Incarnation};
use crate::proto::order::{Order, Outcome};
use crate::proto::peer::PeerMachine;
use crate::proto::roles::{MemberEvent, PublishError};
#[cfg(feature = "durable")]
use crate::storage::OpenReplica;

/// Messages that wait for a program that does not take them; further ones are only counted.
const WAITING: usize = 65_536;

/// The longest time that leaving takes (CONTRACT.md, section 1).
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// A running peer.
pub type Peer = Node<PeerMachine>;

/// Asks a peer things from anywhere; cheap to clone.
pub type PeerHandle = Handle<PeerMachine>;

/// The state of a peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Whether a quorum of seeds has accepted it.
    pub registered: bool,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Members that the peer knows, itself included, by address.
    pub members: Vec<Addr>,
    /// Its neighbours, by address.
    pub neighbours: Vec<Addr>,
    /// Number of gossip messages that it holds.
    pub messages: usize,
    /// What it has counted while messages spread.
    pub counters: Counters,
}

impl PeerStatus {
    fn of(machine: &PeerMachine) -> Self {
        Self {
            registered: machine.is_registered(),
            incarnation: machine.incarnation(),
            members: machine.members().members().map(|(addr, _)| *addr).collect(),
            neighbours: machine.neighbours(),
            messages: machine.rumors().list().len(),
            counters: machine.counters().clone(),
        }
    }
}

/// The messages that a peer delivers.
#[derive(Debug)]
pub struct Messages(mpsc::Receiver<Received>);

impl Messages {
    /// The next message; none once the peer has stopped.
    pub async fn next(&mut self) -> Option<Received> {
        self.0.recv().await
    }

    /// Waits for one message, and takes as many as there are by then, up to `limit`. Returns how
    /// many: zero once the peer has stopped.
    pub async fn next_many(&mut self, into: &mut Vec<Received>, limit: usize) -> usize {
        self.0.recv_many(into, limit).await
    }
}

/// The membership events that a peer tells.
#[derive(Debug)]
pub struct MemberEvents(mpsc::UnboundedReceiver<MemberEvent>);

impl MemberEvents {
    /// The next event; none once the peer has stopped.
    pub async fn next(&mut self) -> Option<MemberEvent> {
        self.0.recv().await
    }
}

/// Publishes at a peer from anywhere; cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher(PeerHandle);

impl Publisher {
    /// As [`Peer::publish`].
    ///
    /// # Errors
    ///
    /// If the payload is too long, or the peer is leaving or has stopped.
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<MessageId, PublishError> {
        let payload = payload.into();
        let publish = |answer| PeerAsk::Publish { payload, answer: Some(answer) };
        self.0.ask(publish).await.unwrap_or(Err(PublishError::Leaving))
    }

    /// Publishes without waiting to hear the message's identity.
    ///
    /// # Errors
    ///
    /// If the payload is too long, the peer has stopped, or too much waits for it already. Nothing
    /// was published then, and the caller may try again. Beyond the rate that [`PublishError::Busy`]
    /// tells of, a message is dropped and counted (`rumormill_dropped_total`) without an error here.
    pub fn post(&self, payload: impl Into<Bytes>) -> Result<(), PublishError> {
        let payload = payload.into();
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLong(payload.len()));
        }
        let publish = PeerAsk::Publish { payload, answer: None };
        self.0.try_ask(publish).map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => PublishError::Busy,
            mpsc::error::TrySendError::Closed(()) => PublishError::Leaving,
        })
    }
}

impl PeerHandle {
    /// A handle that publishes at this peer.
    pub fn publisher(&self) -> Publisher {
        Publisher(self.clone())
    }

    /// The key-value store, as this peer's replica has it.
    pub fn store(&self) -> Store {
        Store::new(self.clone())
    }

    /// Gives membership events, from now on.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn member_events(&self) -> Result<MemberEvents, Stopped> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.ask(|done| PeerAsk::Watch(sender, done)).await?;
        Ok(MemberEvents(receiver))
    }

    /// Waits until the peer is ready: [`PeerMachine::is_ready`].
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn ready(&self) -> Result<(), Stopped> {
        let mut events = self.member_events().await?;
        while !self.look(PeerMachine::is_ready).await? {
            events.next().await.ok_or(Stopped)?;
        }
        Ok(())
    }

    /// Has the peer do what an operator orders.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn operate(&self, order: Order) -> Result<Outcome, Stopped> {
        self.ask(|answer| PeerAsk::Operate { order, answer }).await
    }

    /// The state of the peer right now.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn status(&self) -> Result<PeerStatus, Stopped> {
        self.look(PeerStatus::of).await
    }
}

/// Has a peer sign what it publishes if the links of this port are encrypted.
fn signing(machine: PeerMachine, port: &Port) -> PeerMachine {
    match &port.security {
        Some(security) => machine.signing(Arc::new(security.clone())),
        None => machine,
    }
}

impl Peer {
    /// Starts a peer on the current tokio runtime. `config.me` is the address that others are told:
    /// that of the port, unless the port listens on all addresses.
    ///
    /// # Errors
    ///
    /// If a peer cannot run with these settings.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(port: impl Into<Port>, config: PeerConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        let (me, network, port) = (config.me, config.network.clone(), port.into());
        let machine = signing(PeerMachine::new(config, super::chance()), &port);
        Ok(Self::run(machine, port, me, network))
    }

    /// Starts a peer that keeps its replica of the store on disk, and begins with what the disk
    /// holds.
    ///
    /// # Errors
    ///
    /// If a peer cannot run with these settings, or the disk's writer cannot be started.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[cfg(feature = "durable")]
    pub fn start_durable(
        port: impl Into<Port>,
        config: PeerConfig,
        mut replica: OpenReplica,
    ) -> Result<Self, StartError> {
        config.check()?;
        let (me, network, port) = (config.me, config.network.clone(), port.into());
        let machine = signing(PeerMachine::new(config, super::chance()), &port);
        let machine = machine.recovered(replica.take_store());
        Ok(Self::run_durable(machine, port, me, network, |(durable, failed)| {
            replica.start(durable, failed)
        })?)
    }

    /// Gossips a payload to everybody, and returns the message's identity.
    ///
    /// # Errors
    ///
    /// If the payload is too long, or the peer is leaving or has stopped.
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<MessageId, PublishError> {
        self.publisher().publish(payload).await
    }

    /// A handle that publishes at this peer.
    pub fn publisher(&self) -> Publisher {
        self.handle().publisher()
    }

    /// The key-value store, as this peer's replica has it.
    pub fn store(&self) -> Store {
        self.handle().store()
    }

    /// Gives messages, from now on.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn messages(&self) -> Result<Messages, Stopped> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.handle().ask(|done| PeerAsk::Subscribe(sender, done)).await?;
        Ok(Messages(receiver))
    }

    /// Gives membership events, from now on.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn events(&self) -> Result<MemberEvents, Stopped> {
        self.handle().member_events().await
    }

    /// The state of the peer right now.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn status(&self) -> Result<PeerStatus, Stopped> {
        self.handle().status().await
    }

    /// Leaves the network and stops. After 2 s at most the peer is gone, even if not all have heard
    /// of it.
    pub async fn leave(self) {
        let abort = self.abort_handle();
        if timeout(LEAVE_LIMIT, self.end()).await.is_err() {
            abort.abort();
        }
    }
}
