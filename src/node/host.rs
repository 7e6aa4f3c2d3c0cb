//! Runs one machine on tokio: inputs in, effects out, nothing decided.
//!
//! One task owns the machine and the queues of all its links. It takes all
//! inputs that wait, lets the machine handle them, and only then writes each
//! link's queue in one go: under load that is what a delivery costs.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout};

use super::clock::Clock;
use super::crowd::Place;
use super::disk::Disk;
use super::events::EventLog;
use super::inbox::{Inbound, Inspection, Received};
use super::link::Link;
use super::listener::{self, Port};
use crate::logging;
use crate::net::codec::Encoder;
use crate::net::handshake::Opened;
use crate::proto::config::Network;
use crate::proto::event::{Event, Severity};
use crate::proto::gossip::MessageId;
use crate::proto::kv::replica::{Reply, StoreChange};
use crate::proto::machine::{
    Command, Conn, Effect, Input, Keep, Machine, MemberEvent, PublishError,
};
use crate::proto::message::{Addr, Purpose, Role};
use crate::proto::order::Outcome;
use crate::proto::time::Time;
#[cfg(feature = "durable")]
use crate::storage::{OpenReplica, OpenStore, StorageError};

mod perform;

/// Batches of input that may wait; beyond, readers wait, and their senders with them.
const INBOX: usize = 1_024;
/// Batches handled before queues are flushed.
const TURN: usize = 64;
/// How long last words may take when the machine has stopped.
const FAREWELL: Duration = Duration::from_millis(300);
/// Open connections in all; more are refused.
const MAX_LINKS: usize = 16_384;

/// A machine at work.
pub(super) struct Host<M> {
    machine: M,
    role: Role,
    me: Addr,
    clock: Clock,
    sender: mpsc::Sender<Inbound>,
    inbox: mpsc::Receiver<Inbound>,
    listener: AbortHandle,
    links: HashMap<Conn, Link>,
    /// Incoming connections that the machine has not answered yet.
    arriving: HashMap<Conn, (Opened, Addr, Option<Place>)>,
    dialling: HashMap<Conn, AbortHandle>,
    incoming_used: Conn,
    effects: Vec<Effect>,
    /// Inputs that effects led to.
    follow_up: VecDeque<Input>,
    dirty: Vec<Conn>,
    encoder: Encoder,
    farewells: JoinSet<()>,
    answers: HashMap<u64, oneshot::Sender<Result<MessageId, PublishError>>>,
    stored: HashMap<u64, oneshot::Sender<Reply>>,
    operated: HashMap<u64, oneshot::Sender<Outcome>>,
    tokens_used: u64,
    subscribers: Vec<(mpsc::Sender<Received>, u64)>,
    watchers: Vec<mpsc::UnboundedSender<MemberEvent>>,
    /// Durable state of a seed, and of a peer.
    registry: Disk<Keep>,
    replica: Disk<StoreChange>,
    /// Whoever follows the log.
    events: Option<EventLog>,
    /// Lines of this turn that they have not been told yet.
    to_tell: Vec<Event>,
    /// Batches up to this one are on disk.
    durable: u64,
    stopped: bool,
    /// Why it stopped by itself.
    failure: Option<String>,
}

impl<M: Machine + Send + 'static> Host<M> {
    /// Starts listening, and readies the machine; it runs once [`Host::run`] is awaited.
    pub fn new(
        machine: M,
        port: Port,
        role: Role,
        me: Addr,
        network: Network,
    ) -> (Self, mpsc::Sender<Inbound>) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let events = port.log.clone();
        let listener = tokio::spawn(listener::run(port, role, me, network, sender.clone()));
        let host = Self {
            machine,
            role,
            me,
            clock: Clock::start(),
            sender: sender.clone(),
            inbox,
            listener: listener.abort_handle(),
            links: HashMap::new(),
            arriving: HashMap::new(),
            dialling: HashMap::new(),
            // Odd numbers are the host's.
            incoming_used: 1,
            effects: Vec::new(),
            follow_up: VecDeque::new(),
            dirty: Vec::new(),
            encoder: Encoder::default(),
            farewells: JoinSet::new(),
            answers: HashMap::new(),
            stored: HashMap::new(),
            operated: HashMap::new(),
            tokens_used: 0,
            subscribers: Vec::new(),
            watchers: Vec::new(),
            registry: Disk::default(),
            replica: Disk::default(),
            events,
            to_tell: Vec::new(),
            durable: 0,
            stopped: false,
            failure: None,
        };
        (host, sender)
    }

    /// Has what the machine wants kept written to disk before it is told that it is.
    ///
    /// # Errors
    ///
    /// If the writer cannot be started.
    #[cfg(feature = "durable")]
    pub fn keep_in(&mut self, store: OpenStore) -> Result<(), StorageError> {
        let (durable, failed) = self.disk_listeners();
        self.registry.keep_with(Box::new(store.start(durable, failed)?));
        Ok(())
    }

    /// Has the changes of a peer's replica of the store written to disk before the machine is told
    /// that they are.
    ///
    /// # Errors
    ///
    /// If the writer cannot be started.
    #[cfg(feature = "durable")]
    pub fn keep_replica_in(&mut self, replica: OpenReplica) -> Result<(), StorageError> {
        let (durable, failed) = self.disk_listeners();
        self.replica.keep_with(Box::new(replica.start(durable, failed)?));
        Ok(())
    }

    /// Brings what a writer says into the inbox.
    #[cfg(feature = "durable")]
    fn disk_listeners(
        &self,
    ) -> (impl FnMut(u64) + Send + 'static, impl FnOnce(String) + Send + 'static) {
        let (durable, failed) = (self.sender.clone(), self.sender.clone());
        (
            move |batch| {
                let _ = durable.blocking_send(Inbound::Durable(batch));
            },
            move |error| {
                let _ = failed.blocking_send(Inbound::DiskFailed(error));
            },
        )
    }

    /// Runs the machine until it has stopped; why, if nobody wanted it.
    pub async fn run(mut self) -> Option<String> {
        let mut now = self.clock.now();
        self.handle(now, Input::Start);
        self.flush(now);
        let mut batch = Vec::with_capacity(TURN);
        let sleep = sleep_until(Instant::now().into());
        tokio::pin!(sleep);
        let mut alarm = Time::default();
        while !self.stopped {
            let wake = self.machine.wake_at();
            if let Some(at) = wake
                && (at < alarm || alarm <= now)
            {
                // Setting the alarm anew for each message would cost more than the message; one
                // that goes off early is only set again.
                alarm = at;
                sleep.as_mut().reset(self.clock.instant(at).into());
            }
            // Both branches may be cancelled: messages stay in the inbox, the alarm stays set.
            tokio::select! {
                biased;
                _ = self.inbox.recv_many(&mut batch, TURN) => {}
                () = &mut sleep, if wake.is_some() => {}
            }
            now = self.clock.now();
            self.turn(now, &mut batch);
            self.flush(now);
            while self.farewells.try_join_next().is_some() {}
        }
        let failure = self.failure.take();
        self.end().await;
        failure
    }

    async fn end(mut self) {
        self.listener.abort();
        for handle in self.dialling.values() {
            handle.abort();
        }
        for link in std::mem::take(&mut self.links).into_values() {
            self.part_from(link);
        }
        // The writer may be waiting to say that something is durable.
        self.inbox.close();
        let kept = (std::mem::take(&mut self.registry), std::mem::take(&mut self.replica));
        let _ = tokio::task::spawn_blocking(move || drop(kept)).await;
        let all = async { while self.farewells.join_next().await.is_some() {} };
        let _ = timeout(FAREWELL, all).await;
    }

    /// Handles a batch. What it logs is written when this returns, and so before its queues are; and
    /// before whatever leaves the machine by another way.
    fn turn(&mut self, now: Time, batch: &mut Vec<Inbound>) {
        let lines = logging::together();
        for inbound in batch.drain(..) {
            self.take(now, inbound);
        }
        if self.machine.wake_at().is_some_and(|at| at <= now) {
            self.handle(now, Input::Tick);
        }
        drop(lines);
        self.tell();
    }

    fn take(&mut self, now: Time, inbound: Inbound) {
        match inbound {
            Inbound::Messages { conn, messages, turn: _turn } => {
                // A connection that the machine has closed may still have said something.
                if self.links.contains_key(&conn) {
                    for message in messages {
                        self.machine.handle(
                            now,
                            Input::Received { conn, message },
                            &mut self.effects,
                        );
                    }
                    self.perform(now);
                }
            }
            Inbound::Incoming { opened, hello, place } => {
                // A probe asks whether this process lives, and is gone with the answer.
                if self.links.len() >= MAX_LINKS && hello.purpose != Purpose::Probe {
                    self.note(Severity::Warn, "link closed", "too many connections");
                    return;
                }
                self.incoming_used += 2;
                let conn = self.incoming_used;
                self.arriving.insert(conn, (opened, hello.from, place));
                self.handle(now, Input::Incoming { conn, hello });
                self.listen(conn);
            }
            Inbound::Dialled { conn, result } => {
                if self.dialling.remove(&conn).is_none() {
                    return;
                }
                match result {
                    Ok((Opened { stream, rest }, welcome)) => {
                        let mut link = Link::new(conn, stream, rest, self.sender.clone(), None);
                        link.peer = Some(welcome.from);
                        self.links.insert(conn, link);
                        self.handle(now, Input::Opened { conn, welcome });
                        self.listen(conn);
                    }
                    Err(error) => self.handle(now, Input::OpenFailed { conn, error }),
                }
            }
            Inbound::Closed { conn, reason } => {
                if self.links.contains_key(&conn) {
                    if let Some(reason) = reason {
                        self.note_link(conn, &reason);
                    }
                    self.lose(now, conn);
                }
            }
            Inbound::Writable { conn, write } => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.writable(write);
                    self.mark(conn);
                }
            }
            Inbound::Publish { payload, answer } => {
                self.tokens_used += 1;
                let token = self.tokens_used;
                if let Some(answer) = answer {
                    self.answers.insert(token, answer);
                }
                self.handle(now, Input::Command(Command::Publish { token, payload }));
            }
            Inbound::Store { request, seen, answer } => {
                self.tokens_used += 1;
                let token = self.tokens_used;
                self.stored.insert(token, answer);
                self.handle(now, Input::Command(Command::Store { token, request, seen }));
            }
            Inbound::Operate { order, answer } => {
                self.tokens_used += 1;
                let token = self.tokens_used;
                self.operated.insert(token, answer);
                self.handle(now, Input::Command(Command::Operate { token, order }));
            }
            Inbound::Durable(last) => {
                for batch in self.durable + 1..=last {
                    self.handle(now, Input::Persisted { batch });
                }
                self.durable = last;
            }
            Inbound::DiskFailed(error) => {
                // Nothing that is said from here on could be kept.
                self.note(Severity::Error, "disk failed", &error);
                self.failure = Some(error);
                self.stopped = true;
            }
            Inbound::Leave => self.handle(now, Input::Command(Command::Leave)),
            Inbound::Subscribe(subscriber, done) => {
                self.subscribers.push((subscriber, 0));
                let _ = done.send(());
            }
            Inbound::Inspect(Inspection(look)) => {
                logging::catch_up();
                look(&self.machine);
            }
            Inbound::Watch(watcher, done) => {
                self.watchers.push(watcher);
                let _ = done.send(());
            }
        }
    }

    /// Listens to a connection that the machine has kept: most, opened as a probe, it has closed by
    /// now, and a reader would cost more than the probe.
    fn listen(&mut self, conn: Conn) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.listen();
        }
    }

    fn note(&mut self, severity: Severity, what: &'static str, reason: &str) {
        let keys = vec![("reason", reason.to_owned())];
        self.log(Event::Note { severity, what, keys });
    }

    fn log(&mut self, event: Event) {
        logging::event(self.role, self.me, &event);
        if self.events.is_some() {
            self.to_tell.push(event);
        }
    }

    /// Tells whoever follows the log what is written by now.
    fn tell(&mut self) {
        for event in self.to_tell.drain(..) {
            if let Some(events) = &self.events {
                events.add(self.role, self.me, &event);
            }
        }
    }

    fn note_link(&mut self, conn: Conn, reason: &str) {
        let mut keys = vec![("reason", reason.to_owned())];
        if let Some(peer) = self.links.get(&conn).and_then(|link| link.peer) {
            keys.insert(0, ("from", peer.to_string()));
        }
        self.log(Event::Note { severity: Severity::Warn, what: "link closed", keys });
    }

    fn handle(&mut self, now: Time, input: Input) {
        self.machine.handle(now, input, &mut self.effects);
        self.perform(now);
    }

    /// Performs what the machine wants, and what follows from that.
    fn perform(&mut self, now: Time) {
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.perform_one(effect);
            }
            // The vector's memory is used again.
            if self.effects.is_empty() {
                self.effects = effects;
            }
            let Some(input) = self.follow_up.pop_front() else { return };
            self.machine.handle(now, input, &mut self.effects);
        }
    }

    fn lose(&mut self, now: Time, conn: Conn) {
        if let Some(link) = self.links.remove(&conn) {
            // The other side may look for the reason.
            logging::catch_up();
            drop(link);
            self.handle(now, Input::Closed { conn });
        }
    }
}

impl<M> Drop for Host<M> {
    /// Whoever drops a running host wants all of it gone, the listening socket first.
    fn drop(&mut self) {
        self.listener.abort();
        for handle in self.dialling.values() {
            handle.abort();
        }
    }
}
