//! A peer to hold: start it, publish, receive, leave.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

#[cfg(feature = "durable")]
use super::handle::StartError;
use super::handle::{Handle, Node, Stopped};
use super::hosted::Hosted;
use super::listener::Port;
use super::log::HostLog;
use super::store::Store;
use crate::proto::config::{InvalidConfig, PeerConfig};
use crate::proto::gossip::{Counters, MAX_PAYLOAD, MessageId};
use crate::proto::kv::clock::Seen;
use crate::proto::kv::replica::{Reply, Request};
use crate::proto::message::{Addr, Incarnation, Role};
use crate::proto::order::{Order, Outcome};
use crate::proto::peer::PeerMachine;
use crate::proto::roles::{Delivery, MemberEvent, PeerCommand, PeerReply, PublishError};
#[cfg(feature = "durable")]
use crate::storage::OpenReplica;

/// Messages that wait for a program that does not take them; further ones are counted instead.
const WAITING: usize = 65_536;

/// A leave takes no longer (CONTRACT.md, section 1).
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// A running peer.
pub type Peer = Node<PeerMachine>;

/// A peer to ask from anywhere; cheap to clone.
pub type PeerHandle = Handle<PeerMachine>;

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

/// What a program receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message, its own ones included; each once.
    Message(Delivery),
    /// The program did not keep up: that many messages were left out before the next one.
    Missed(u64),
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

/// A program that takes messages, and how many it has missed since its last one.
struct Subscriber {
    to: mpsc::Sender<Received>,
    missed: u64,
}

impl Subscriber {
    /// Hands it a message; false if it is gone.
    fn offer(&mut self, delivery: &Delivery) -> bool {
        use mpsc::error::TrySendError::{Closed, Full};
        if self.missed > 0 {
            match self.to.try_send(Received::Missed(self.missed)) {
                Ok(()) => self.missed = 0,
                Err(Full(_)) => {
                    self.missed += 1;
                    return true;
                }
                Err(Closed(_)) => return false,
            }
        }
        match self.to.try_send(Received::Message(delivery.clone())) {
            Ok(()) => true,
            Err(Full(_)) => {
                self.missed += 1;
                true
            }
            Err(Closed(_)) => false,
        }
    }
}

/// What is asked of a peer from within this process.
pub enum PeerAsk {
    /// Gossip this.
    Publish { payload: Bytes, answer: Option<oneshot::Sender<Published>> },
    /// Ask the store, as a client that has seen this.
    Store { request: Request, seen: Option<Seen>, answer: oneshot::Sender<Reply> },
    /// Something else that an operator wants.
    Operate { order: Order, answer: oneshot::Sender<Outcome> },
    /// Hand messages there from now on.
    Subscribe(mpsc::Sender<Received>, oneshot::Sender<()>),
    /// Tell membership events there from now on.
    Watch(mpsc::UnboundedSender<MemberEvent>, oneshot::Sender<()>),
}

/// What comes of publishing.
type Published = Result<MessageId, PublishError>;

/// Who waits for answers of a peer, by the token of what was asked, and who listens.
#[derive(Default)]
pub struct PeerWaiting {
    tokens_used: u64,
    published: HashMap<u64, oneshot::Sender<Published>>,
    stored: HashMap<u64, oneshot::Sender<Reply>>,
    operated: HashMap<u64, oneshot::Sender<Outcome>>,
    subscribers: Vec<Subscriber>,
    watchers: Vec<mpsc::UnboundedSender<MemberEvent>>,
}

impl PeerWaiting {
    fn next_token(&mut self) -> u64 {
        self.tokens_used += 1;
        self.tokens_used
    }
}

/// Answers whoever waits for it in this process.
fn answer<T>(
    waiting: &mut HashMap<u64, oneshot::Sender<T>>,
    log: &mut HostLog,
    token: u64,
    with: T,
) {
    if let Some(waiting) = waiting.remove(&token) {
        log.catch_up();
        let _ = waiting.send(with);
    }
}

impl Hosted for PeerMachine {
    const ROLE: Role = Role::Peer;
    type Ask = PeerAsk;
    type Waiting = PeerWaiting;

    fn stop() -> PeerCommand {
        PeerCommand::Leave
    }

    fn ask(waiting: &mut PeerWaiting, ask: PeerAsk) -> Option<PeerCommand> {
        match ask {
            PeerAsk::Publish { payload, answer } => {
                let token = waiting.next_token();
                if let Some(answer) = answer {
                    waiting.published.insert(token, answer);
                }
                Some(PeerCommand::Publish { token, payload })
            }
            PeerAsk::Store { request, seen, answer } => {
                let token = waiting.next_token();
                waiting.stored.insert(token, answer);
                Some(PeerCommand::Store { token, request, seen })
            }
            PeerAsk::Operate { order, answer } => {
                let token = waiting.next_token();
                waiting.operated.insert(token, answer);
                Some(PeerCommand::Operate { token, order })
            }
            PeerAsk::Subscribe(to, done) => {
                waiting.subscribers.push(Subscriber { to, missed: 0 });
                let _ = done.send(());
                None
            }
            PeerAsk::Watch(watcher, done) => {
                waiting.watchers.push(watcher);
                let _ = done.send(());
                None
            }
        }
    }

    fn reply(waiting: &mut PeerWaiting, log: &mut HostLog, reply: PeerReply) {
        match reply {
            PeerReply::Published { token, result } => {
                answer(&mut waiting.published, log, token, result);
            }
            PeerReply::Stored { token, reply } => answer(&mut waiting.stored, log, token, reply),
            PeerReply::Operated { token, outcome } => {
                answer(&mut waiting.operated, log, token, outcome);
            }
            PeerReply::Deliver(delivery) => {
                if !waiting.subscribers.is_empty() {
                    log.catch_up();
                }
                waiting.subscribers.retain_mut(|subscriber| subscriber.offer(&delivery));
            }
            PeerReply::Member(event) => {
                if !waiting.watchers.is_empty() {
                    log.catch_up();
                }
                waiting.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
            }
        }
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
    /// If the payload is too long, the peer has stopped, or too much waits for it already: then
    /// nothing was published, and the caller may try again.
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

    /// The store, as this peer's replica has it.
    pub fn store(&self) -> Store {
        Store::new(self.clone())
    }

    /// Asks the peer's replica of the store, as a client that has seen this.
    pub(super) async fn request(
        &self,
        request: Request,
        seen: Option<Seen>,
    ) -> Result<Reply, Stopped> {
        self.ask(|answer| PeerAsk::Store { request, seen, answer }).await
    }

    /// Membership events from now on.
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

    /// Has the peer do something else that an operator may want.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn operate(&self, order: Order) -> Result<Outcome, Stopped> {
        self.ask(|answer| PeerAsk::Operate { order, answer }).await
    }

    /// How it stands with the peer right now.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn status(&self) -> Result<PeerStatus, Stopped> {
        self.look(PeerStatus::of).await
    }
}

impl Peer {
    /// Starts a peer on the current tokio runtime. `config.me` is the address that others are
    /// told; the port's own, unless it listens on all addresses.
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
        let (me, network) = (config.me, config.network.clone());
        Ok(Self::run(PeerMachine::new(config, super::chance()), port.into(), me, network))
    }

    /// Starts a peer that keeps its replica of the store on disk, and begins with what is there.
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
        let (me, network) = (config.me, config.network.clone());
        let machine = PeerMachine::new(config, super::chance());
        let machine = machine.recovered(replica.take_store());
        Ok(Self::run_durable(machine, port.into(), me, network, |(durable, failed)| {
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

    /// The store, as this peer's replica has it.
    pub fn store(&self) -> Store {
        self.handle().store()
    }

    /// Messages from now on.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn messages(&self) -> Result<Messages, Stopped> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.handle().ask(|done| PeerAsk::Subscribe(sender, done)).await?;
        Ok(Messages(receiver))
    }

    /// Membership events from now on.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn events(&self) -> Result<MemberEvents, Stopped> {
        self.handle().member_events().await
    }

    /// How it stands with the peer right now.
    ///
    /// # Errors
    ///
    /// If the peer has stopped.
    pub async fn status(&self) -> Result<PeerStatus, Stopped> {
        self.handle().status().await
    }

    /// Leaves the network and stops; at most 2 s, after which it is gone whoever has heard of it.
    pub async fn leave(self) {
        let abort = self.abort_handle();
        if timeout(LEAVE_LIMIT, self.end()).await.is_err() {
            abort.abort();
        }
    }
}
