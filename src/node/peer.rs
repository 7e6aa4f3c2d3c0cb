//! A peer to hold: start it, publish, receive, leave.

use std::any::Any;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::events::EventLog;
use super::host::Host;
use super::inbox::{Inbound, Inspection, Received};
use super::listener::Port;
use crate::proto::config::PeerConfig;
#[cfg(feature = "http")]
use crate::proto::event::Event;
use crate::proto::gossip::{Counters, MAX_PAYLOAD, MessageId};
use crate::proto::kv::clock::Seen;
use crate::proto::kv::replica::{Reply, Request};
use crate::proto::machine::{MemberEvent, PublishError};
use crate::proto::message::{Addr, Incarnation, Role};
use crate::proto::order::{Order, Outcome};
use crate::proto::peer::PeerMachine;
#[cfg(feature = "durable")]
use crate::storage::{OpenReplica, StorageError};

/// Messages that wait for a program that does not take them; further ones are counted instead.
const WAITING: usize = 65_536;

/// The peer has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer has stopped")]
pub struct PeerGone;

/// How it stands with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Whether a quorum of seeds has accepted it.
    pub registered: bool,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Members as it knows them, itself included, by address.
    pub members: Vec<Addr>,
    /// Its neighbours, by address.
    pub neighbours: Vec<Addr>,
    /// Gossip messages that it holds.
    pub messages: usize,
    /// What happened in the spreading of messages.
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
    /// The next one; none once the peer has stopped.
    pub async fn next(&mut self) -> Option<Received> {
        self.0.recv().await
    }

    /// Takes as many as wait, up to `limit`, after waiting for the first; none once the peer has
    /// stopped.
    pub async fn next_many(&mut self, into: &mut Vec<Received>, limit: usize) -> usize {
        self.0.recv_many(into, limit).await
    }
}

/// What a peer hears of its network.
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
pub struct Publisher(mpsc::Sender<Inbound>);

impl Publisher {
    /// As [`Peer::publish`].
    ///
    /// # Errors
    ///
    /// If the payload is too long, or the peer is leaving or has stopped.
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<MessageId, PublishError> {
        let (answer, result) = oneshot::channel();
        let publish = Inbound::Publish { payload: payload.into(), answer: Some(answer) };
        self.0.send(publish).await.map_err(|_| PublishError::Leaving)?;
        result.await.unwrap_or(Err(PublishError::Leaving))
    }

    /// Publishes without waiting to hear the message's identity.
    ///
    /// # Errors
    ///
    /// If the payload is too long, the peer has stopped, or too much waits for it already: then
    /// nothing was published, and the caller may try again.
    pub fn post(&self, payload: impl Into<Bytes>) -> Result<(), PublishError> {
        let payload = payload.into();
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLong(payload.len()));
        }
        let publish = Inbound::Publish { payload, answer: None };
        self.0.try_send(publish).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PublishError::Busy,
            mpsc::error::TrySendError::Closed(_) => PublishError::Leaving,
        })
    }
}

/// A peer to ask from anywhere; cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerHandle {
    address: Addr,
    inbox: mpsc::Sender<Inbound>,
    #[cfg_attr(not(feature = "http"), allow(dead_code))] // who else is asked from outside?
    log: Option<EventLog>,
}

impl PeerHandle {
    /// Logs what happened at this peer outside its own task, for those who follow its log, too.
    #[cfg(feature = "http")]
    pub(crate) fn say(&self, event: &Event) {
        EventLog::say(self.log.as_ref(), Role::Peer, self.address, event);
    }

    /// Where the peer listens.
    pub fn address(&self) -> Addr {
        self.address
    }

    /// A handle that publishes at this peer.
    pub fn publisher(&self) -> Publisher {
        Publisher(self.inbox.clone())
    }

    /// Asks the peer's replica of the store, as a client that has seen this; nothing said is
    /// whatever the replica has. What was answered is durable there.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn store(&self, request: Request, seen: Option<Seen>) -> Result<Reply, PeerGone> {
        let (answer, reply) = oneshot::channel();
        let ask = Inbound::Store { request, seen, answer };
        self.inbox.send(ask).await.map_err(|_| PeerGone)?;
        reply.await.map_err(|_| PeerGone)
    }

    /// Membership events from now on.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn member_events(&self) -> Result<MemberEvents, PeerGone> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (done, ready) = oneshot::channel();
        self.inbox.send(Inbound::Watch(sender, done)).await.map_err(|_| PeerGone)?;
        ready.await.map_err(|_| PeerGone)?;
        Ok(MemberEvents(receiver))
    }

    /// Waits until the peer is ready: [`PeerMachine::is_ready`].
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn ready(&self) -> Result<(), PeerGone> {
        let mut events = self.member_events().await?;
        while !self.look(PeerMachine::is_ready).await? {
            events.next().await.ok_or(PeerGone)?;
        }
        Ok(())
    }

    /// Has the peer do something else that an operator may want.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn operate(&self, order: Order) -> Result<Outcome, PeerGone> {
        let (answer, outcome) = oneshot::channel();
        self.inbox.send(Inbound::Operate { order, answer }).await.map_err(|_| PeerGone)?;
        outcome.await.map_err(|_| PeerGone)
    }

    /// Looks at the machine between two inputs.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&PeerMachine) -> T + Send + 'static,
    ) -> Result<T, PeerGone> {
        let (answer, seen) = oneshot::channel();
        let look = move |machine: &dyn Any| {
            if let Some(machine) = machine.downcast_ref::<PeerMachine>() {
                let _ = answer.send(look(machine));
            }
        };
        let inspect = Inbound::Inspect(Inspection(Box::new(look)));
        self.inbox.send(inspect).await.map_err(|_| PeerGone)?;
        seen.await.map_err(|_| PeerGone)
    }

    /// How it stands with the peer right now.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn status(&self) -> Result<PeerStatus, PeerGone> {
        self.look(PeerStatus::of).await
    }
}

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    address: Addr,
    inbox: mpsc::Sender<Inbound>,
    log: Option<EventLog>,
    task: JoinHandle<Option<String>>,
}

impl Peer {
    /// Starts a peer on the current tokio runtime. `config.me` is the address that others are
    /// told; the port's own, unless it listens on all addresses.
    pub fn start(port: impl Into<Port>, config: PeerConfig) -> Self {
        let (address, network, port) = (config.me, config.network.clone(), port.into());
        let log = port.log.clone();
        let machine = PeerMachine::new(config, super::chance());
        let (host, inbox) = Host::new(machine, port, Role::Peer, address, network);
        Self { address, inbox, log, task: tokio::spawn(host.run()) }
    }

    /// Starts a peer that keeps its replica of the store on disk, and begins with what is there.
    ///
    /// # Errors
    ///
    /// If the writer cannot be started.
    #[cfg(feature = "durable")]
    pub fn start_durable(
        port: impl Into<Port>,
        config: PeerConfig,
        mut replica: OpenReplica,
    ) -> Result<Self, StorageError> {
        let (address, network, port) = (config.me, config.network.clone(), port.into());
        let log = port.log.clone();
        let machine = PeerMachine::new(config, super::chance());
        let machine = machine.recovered(replica.take_store());
        let (mut host, inbox) = Host::new(machine, port, Role::Peer, address, network);
        host.keep_replica_in(replica)?;
        Ok(Self { address, inbox, log, task: tokio::spawn(host.run()) })
    }

    /// Where it listens.
    pub fn address(&self) -> Addr {
        self.address
    }

    /// A handle to ask it from anywhere.
    pub fn handle(&self) -> PeerHandle {
        PeerHandle { address: self.address, inbox: self.inbox.clone(), log: self.log.clone() }
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
        Publisher(self.inbox.clone())
    }

    /// Messages from now on.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn messages(&self) -> Result<Messages, PeerGone> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let (done, ready) = oneshot::channel();
        let subscribe = Inbound::Subscribe(sender, done);
        self.inbox.send(subscribe).await.map_err(|_| PeerGone)?;
        ready.await.map_err(|_| PeerGone)?;
        Ok(Messages(receiver))
    }

    /// Membership events from now on.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn events(&self) -> Result<MemberEvents, PeerGone> {
        self.handle().member_events().await
    }

    /// How it stands with the peer right now.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn status(&self) -> Result<PeerStatus, PeerGone> {
        self.handle().status().await
    }

    /// Leaves the network and stops; at most 2 s.
    pub async fn leave(self) {
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
