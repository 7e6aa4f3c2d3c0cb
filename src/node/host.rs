//! Runs one machine on tokio: inputs in, effects out, nothing decided.
//!
//! One task owns the machine and the queues of all its connections. It takes all
//! inputs that wait, lets the machine handle them, and only then writes each
//! connection's queue in one go: under load that is what a delivery costs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep_until, timeout};

use super::connection::Flushed;
use super::disk::Disk;
#[cfg(feature = "durable")]
use super::disk::Keeper;
use super::hosted::Hosted;
use super::inbox::Inbound;
use super::listener::{self, Port};
use super::log::{HostLog, NodeLog};
use crate::clock::Clock;
use crate::proto::config::Network;
use crate::proto::event::{Event, Severity};
use crate::proto::machine::{Conn, Effect, EffectOf, Input};
use crate::proto::message::{Addr, Message};
use crate::proto::time::Time;

mod conns;

use self::conns::Conns;

/// Batches of input that may wait; beyond, readers wait, and their senders with them.
const INBOX: usize = 1_024;
/// Batches handled before queues are flushed.
const TURN: usize = 64;
/// How long last words may take when the machine has stopped.
const FAREWELL: Duration = Duration::from_millis(300);

/// A machine at work.
pub(super) struct Host<M: Hosted> {
    machine: M,
    /// Who waits for its answers, and who listens.
    waiting: M::Waiting,
    clock: Clock,
    log: HostLog,
    inbox: mpsc::Receiver<Inbound<M>>,
    listener: AbortHandle,
    conns: Conns<M>,
    effects: Vec<EffectOf<M>>,
    /// Inputs that effects led to.
    follow_up: VecDeque<Input<M::Command>>,
    disk: Disk<M::Change>,
    /// Batches up to this one are on disk.
    durable: u64,
    ended: Option<Ended>,
}

/// A host that is ready to run, and what reaches it.
pub(super) struct Started<M: Hosted> {
    pub host: Host<M>,
    pub inbox: mpsc::Sender<Inbound<M>>,
    pub log: NodeLog,
}

/// How a host has ended.
enum Ended {
    /// The machine has stopped.
    Stopped,
    /// Something that it cannot do without has failed.
    Failed(String),
}

impl<M: Hosted> Host<M> {
    /// Starts listening, and readies the machine; it runs once [`Host::run`] is awaited.
    pub fn start(machine: M, port: Port, me: Addr, network: Network) -> Started<M> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let log = NodeLog::new(port.log.clone(), M::ROLE, me);
        let listener = tokio::spawn(listener::run(port, me, network, sender.clone()));
        let host = Self {
            machine,
            waiting: M::Waiting::default(),
            clock: Clock::start(),
            log: HostLog::new(log.clone()),
            inbox,
            listener: listener.abort_handle(),
            conns: Conns::new(sender.clone()),
            effects: Vec::new(),
            follow_up: VecDeque::new(),
            disk: Disk::default(),
            durable: 0,
            ended: None,
        };
        Started { host, inbox: sender, log }
    }

    /// Has what the machine wants kept written to disk before it is told that it is.
    #[cfg(feature = "durable")]
    pub fn keep_with(&mut self, keeper: Box<dyn Keeper<M::Change>>) {
        self.disk.keep_with(keeper);
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
        while self.ended.is_none() {
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
            self.conns.forget_farewells();
        }
        self.end().await
    }

    async fn end(mut self) -> Option<String> {
        self.listener.abort();
        self.conns.close_all(&mut self.log);
        // The writer may be waiting to say that something is durable.
        self.inbox.close();
        let disk = std::mem::take(&mut self.disk);
        let _ = tokio::task::spawn_blocking(move || drop(disk)).await;
        let _ = timeout(FAREWELL, self.conns.farewells()).await;
        match self.ended.take() {
            Some(Ended::Failed(why)) => Some(why),
            Some(Ended::Stopped) | None => None,
        }
    }

    /// Handles a batch. What it logs is written when this returns, and so before its queues are; and
    /// before whatever leaves the machine by another way.
    fn turn(&mut self, now: Time, batch: &mut Vec<Inbound<M>>) {
        for inbound in batch.drain(..) {
            self.take(now, inbound);
        }
        if self.machine.wake_at().is_some_and(|at| at <= now) {
            self.handle(now, Input::Tick);
        }
        self.log.catch_up();
    }

    fn take(&mut self, now: Time, inbound: Inbound<M>) {
        match inbound {
            Inbound::Messages { conn, messages, turn: _turn } => self.hear(now, conn, messages),
            Inbound::Incoming { opened, hello, place } => {
                match self.conns.arrive(opened, &hello, place) {
                    Some(conn) => {
                        self.handle(now, Input::Incoming { conn, hello });
                        self.conns.listen(conn);
                    }
                    None => self.note(Severity::Warn, "link closed", "too many connections"),
                }
            }
            Inbound::Dialled { conn, result } => {
                if let Some(input) = self.conns.dialled(conn, result) {
                    self.handle(now, input);
                    self.conns.listen(conn);
                }
            }
            Inbound::Closed { conn, reason } => self.lose(now, conn, reason.as_deref()),
            Inbound::Writable { conn, write } => self.conns.writable(conn, write),
            Inbound::Ask(ask) => {
                if let Some(command) = M::ask(&mut self.waiting, ask) {
                    self.handle(now, Input::Command(command));
                }
            }
            Inbound::Look(look) => {
                self.log.catch_up();
                look(&self.machine);
            }
            Inbound::Stop => self.handle(now, Input::Command(M::stop())),
            Inbound::Durable(last) => {
                for batch in self.durable + 1..=last {
                    self.handle(now, Input::Persisted { batch });
                }
                self.durable = last;
            }
            Inbound::DiskFailed(error) => {
                // Nothing that is said from here on could be kept.
                self.note(Severity::Error, "disk failed", &error);
                self.ended = Some(Ended::Failed(error));
            }
        }
    }

    /// Messages that came together over one connection.
    fn hear(&mut self, now: Time, conn: Conn, messages: Vec<Message>) {
        // A connection that the machine has closed may still have said something.
        if self.conns.is_open(conn) {
            for message in messages {
                let input = Input::Received { conn, message };
                self.machine.handle(now, input, &mut self.effects);
            }
            self.perform(now);
        }
    }

    fn note(&mut self, severity: Severity, what: &'static str, reason: &str) {
        let keys = vec![("reason", reason.to_owned())];
        self.log.push(Event::Note { severity, what, keys });
    }

    fn handle(&mut self, now: Time, input: Input<M::Command>) {
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

    fn perform_one(&mut self, effect: EffectOf<M>) {
        match effect {
            Effect::Send { conn, message } => self.send(&[conn], &message),
            Effect::SendMany { conns, message } => self.send(&conns, &message),
            Effect::Log(event) => self.log.push(event),
            Effect::Reply(reply) => M::reply(&mut self.waiting, &mut self.log, reply),
            Effect::Open { conn, to, hello, within } => self.conns.open(conn, to, hello, within),
            Effect::Answer { conn, answer } => self.conns.answer(&mut self.log, conn, &answer),
            Effect::Close { conn } => self.conns.close(&mut self.log, conn),
            Effect::Persist { batch, changes } => {
                if !self.disk.take((batch, changes)) {
                    self.follow_up.push_back(Input::Persisted { batch });
                }
            }
            Effect::Stopped => self.ended = Some(Ended::Stopped),
        }
    }

    fn send(&mut self, conns: &[Conn], message: &Message) {
        if let Err(error) = self.conns.send(&mut self.log, conns, message) {
            self.note(Severity::Warn, "message not sent", &error.to_string());
        }
    }

    /// Ends a turn: hands over what is to be kept, and writes the queues of all connections that have
    /// something new.
    fn flush(&mut self, now: Time) {
        self.disk.flush();
        self.log.catch_up();
        while let Some((conn, flushed)) = self.conns.flush_next() {
            match flushed {
                Flushed::Quiet => {}
                Flushed::Congested => self.handle(now, Input::Congested { conn }),
                Flushed::Relieved => self.handle(now, Input::Relieved { conn }),
                Flushed::Broken(reason) => self.lose(now, conn, reason),
            }
            // What came of it, before the next connection can tell of it.
            self.log.catch_up();
        }
        self.disk.flush();
    }

    /// A connection has ended; why, if that is worth a line.
    fn lose(&mut self, now: Time, conn: Conn, reason: Option<&str>) {
        if let Some(reason) = reason
            && self.conns.is_open(conn)
        {
            let mut keys = vec![("reason", reason.to_owned())];
            if let Some(peer) = self.conns.peer(conn) {
                keys.insert(0, ("from", peer.to_string()));
            }
            self.log.push(Event::Note { severity: Severity::Warn, what: "link closed", keys });
        }
        if self.conns.lose(&mut self.log, conn) {
            self.handle(now, Input::Closed { conn });
        }
    }
}

impl<M: Hosted> Drop for Host<M> {
    /// Whoever drops a running host wants all of it gone, the listening socket first.
    fn drop(&mut self) {
        self.listener.abort();
    }
}
