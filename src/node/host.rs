//! Runs one machine on tokio: hands inputs to it and performs its effects. Nothing is decided here.
//!
//! One task owns the machine and the queues of all its connections. The task takes all inputs that
//! wait, lets the machine handle them, and only then writes the queue of each connection in one go:
//! under load the writes are what a delivery costs, so one write must carry many messages.
//!
//! What must stay true: a line of the log is written before anything leaves the host by which
//! others could know what the line tells.

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
use crate::proto::limits::Limit;
use crate::proto::machine::{Conn, Effect, EffectOf, Input};
use crate::proto::message::{Addr, Message};
use crate::proto::time::Time;

mod conns;

use self::conns::Conns;

/// Batches of input that may wait. When the inbox is full, readers wait, and so do those who send.
const INBOX: usize = 1_024;
/// Batches that one turn handles before the queues are flushed.
const TURN: usize = 64;
/// How long the last words to all connections may take once the machine has stopped.
const FAREWELL: Duration = Duration::from_millis(300);

/// A machine at work.
pub(super) struct Host<M: Hosted> {
    machine: M,
    /// Those in this process who wait for an answer, and those who listen.
    waiting: M::Waiting,
    clock: Clock,
    log: HostLog,
    inbox: mpsc::Receiver<Inbound<M>>,
    listener: AbortHandle,
    conns: Conns<M>,
    effects: Vec<EffectOf<M>>,
    /// Inputs that came of performing effects; the machine handles them next.
    follow_up: VecDeque<Input<M::Command>>,
    disk: Disk<M::Change>,
    /// The last batch that is known to be on disk.
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
    /// Something that the host cannot do without has failed, and why.
    Failed(String),
}

impl<M: Hosted> Host<M> {
    /// Starts to listen, and readies the machine, which runs once [`Host::run`] is awaited.
    pub fn start(machine: M, port: Port, me: Addr, network: Network) -> Started<M> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let log = NodeLog::new(port.log.clone(), M::ROLE, me);
        let (security, most) = (port.security.clone(), port.most.in_all);
        let listener = tokio::spawn(listener::run(port, me, network, sender.clone()));
        let host = Self {
            machine,
            waiting: M::Waiting::default(),
            clock: Clock::start(),
            log: HostLog::new(log.clone()),
            inbox,
            listener: listener.abort_handle(),
            conns: Conns::new(sender.clone(), security, most),
            effects: Vec::new(),
            follow_up: VecDeque::new(),
            disk: Disk::default(),
            durable: 0,
            ended: None,
        };
        Started { host, inbox: sender, log }
    }

    /// From now on, changes are written to disk before the machine is told that they are durable.
    #[cfg(feature = "durable")]
    pub fn keep_with(&mut self, keeper: Box<dyn Keeper<M::Change>>) {
        self.disk.keep_with(keeper);
    }

    /// Runs the machine until it has stopped or something failed; returns why it failed.
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
                // An alarm that is set for too early is left: to set it anew for each message would
                // cost more than the message, and when it goes off it is only set again.
                alarm = at;
                sleep.as_mut().reset(self.clock.instant(at).into());
            }
            // Both branches may be cancelled: the messages stay in the inbox, and the alarm stays
            // set.
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
        // The disk's writer may wait for room in the inbox, to say what is durable. It has to be
        // let go, or the drop of the disk would wait for it for ever.
        self.inbox.close();
        let disk = std::mem::take(&mut self.disk);
        let _ = tokio::task::spawn_blocking(move || drop(disk)).await;
        let _ = timeout(FAREWELL, self.conns.farewells()).await;
        match self.ended.take() {
            Some(Ended::Failed(why)) => Some(why),
            Some(Ended::Stopped) | None => None,
        }
    }

    /// Handles a batch. What it logs is written when this returns, and so before the queues of the
    /// connections are, and before anything leaves the machine by another way.
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
            Inbound::Incoming { opened, hello, places } => {
                match self.conns.arrive(opened, &hello, places) {
                    Some(conn) => {
                        self.handle(now, Input::Incoming { conn, hello });
                        self.conns.listen(conn);
                    }
                    None => self.over_limit(Limit::Connections, Some(hello.from)),
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
                // What is said from here on could not be kept, so the host ends.
                self.note(Severity::Error, "disk failed", &error);
                self.ended = Some(Ended::Failed(error));
            }
        }
    }

    /// Has the machine handle messages that came together over one connection.
    fn hear(&mut self, now: Time, conn: Conn, messages: Vec<Message>) {
        // The machine may have closed the connection while these were on their way.
        if self.conns.is_open(conn) {
            for message in messages {
                let input = Input::Received { conn, message };
                self.machine.handle(now, input, &mut self.effects);
            }
            self.perform(now);
        }
    }

    fn over_limit(&mut self, limit: Limit, from: Option<Addr>) {
        self.log.push(Event::OverLimit { limit, from, times: 1 });
    }

    fn note(&mut self, severity: Severity, what: &'static str, reason: &str) {
        let keys = vec![("reason", reason.to_owned())];
        self.log.push(Event::Note { severity, what, keys });
    }

    fn handle(&mut self, now: Time, input: Input<M::Command>) {
        self.machine.handle(now, input, &mut self.effects);
        self.perform(now);
    }

    /// Performs what the machine wants, and then what follows from that, until nothing is left.
    fn perform(&mut self, now: Time) {
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.perform_one(effect);
            }
            // The emptied vector goes back, so that its memory is used again.
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

    /// Ends a turn: hands changes to the disk, and writes the queues of all connections that have
    /// something new.
    fn flush(&mut self, now: Time) {
        self.disk.flush();
        self.log.catch_up();
        while let Some((conn, flushed)) = self.conns.flush_next() {
            match flushed {
                Flushed::Quiet => {}
                Flushed::Congested => self.handle(now, Input::Congested { conn }),
                Flushed::Relieved => self.handle(now, Input::Relieved { conn }),
                Flushed::Broken(reason) => {
                    if reason.is_some() {
                        self.over_limit(Limit::Queue, self.conns.peer(conn));
                    }
                    self.lose(now, conn, reason);
                }
            }
            // Lines that came of this connection are written before the next one can tell of them.
            self.log.catch_up();
        }
        self.disk.flush();
    }

    /// Ends a connection that was lost; logs the reason, if there is one.
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
    /// Stops listening: whoever drops a running host wants all of it gone, also its socket.
    fn drop(&mut self) {
        self.listener.abort();
    }
}
