//! What a host does for its machine: one effect at a time, and what ends a turn.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::Host;
use crate::logging;
use crate::net::handshake::{self, Opened};
use crate::node::inbox::{Inbound, Received};
use crate::node::link::{Flushed, Link};
use crate::proto::event::Severity;
use crate::proto::machine::{Conn, Effect, Input, Machine};
use crate::proto::message::{Answer, Message};
use crate::proto::time::Time;

/// Answers whoever waits for it in this process.
fn answer<T>(waiting: &mut HashMap<u64, oneshot::Sender<T>>, token: u64, with: T) {
    if let Some(waiting) = waiting.remove(&token) {
        logging::catch_up();
        let _ = waiting.send(with);
    }
}

impl<M: Machine + Send + 'static> Host<M> {
    pub(super) fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, message } => self.send(&[conn], &message),
            Effect::SendMany { conns, message } => self.send(&conns, &message),
            Effect::Log(event) => self.log(event),
            Effect::Deliver(delivery) => {
                if !self.subscribers.is_empty() {
                    logging::catch_up();
                }
                self.subscribers.retain_mut(|(subscriber, missed)| {
                    Received::offer(subscriber, missed, &delivery)
                });
            }
            Effect::Member(event) => {
                if !self.watchers.is_empty() {
                    logging::catch_up();
                }
                self.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
            }
            Effect::Open { conn, to, hello, within } => {
                let sender = self.sender.clone();
                let task = tokio::spawn(async move {
                    let result = handshake::open(to, &hello, within).await;
                    let _ = sender.send(Inbound::Dialled { conn, result }).await;
                });
                self.dialling.insert(conn, task.abort_handle());
            }
            Effect::Answer { conn, answer } => self.answer(conn, &answer),
            Effect::Close { conn } => {
                if let Some(task) = self.dialling.remove(&conn) {
                    task.abort();
                }
                if let Some(link) = self.links.remove(&conn) {
                    self.part_from(link);
                }
            }
            Effect::Persist { batch, changes } => {
                if !self.registry.take((batch, changes)) {
                    self.follow_up.push_back(Input::Persisted { batch });
                }
            }
            Effect::PersistStore { batch, changes } => {
                if !self.replica.take((batch, changes)) {
                    self.follow_up.push_back(Input::Persisted { batch });
                }
            }
            Effect::Stored { token, reply } => answer(&mut self.stored, token, reply),
            Effect::Operated { token, outcome } => answer(&mut self.operated, token, outcome),
            Effect::Published { token, result } => answer(&mut self.answers, token, result),
            Effect::Stopped => self.stopped = true,
        }
    }

    fn answer(&mut self, conn: Conn, answer: &Answer) {
        let Some((opened, peer, place)) = self.arriving.remove(&conn) else { return };
        let Opened { stream, rest } = opened;
        let Ok(bytes) = handshake::answer_bytes(answer) else { return };
        let mut link = Link::new(conn, stream, rest, self.sender.clone(), place);
        link.peer = Some(peer);
        link.queue_answer(&bytes, matches!(answer, Answer::Welcome(_)));
        match answer {
            Answer::Welcome(_) => {
                self.links.insert(conn, link);
                self.mark(conn);
            }
            Answer::Refused(_) => self.part_from(link),
        }
    }

    /// Queues a message, encoded once, for however many links.
    fn send(&mut self, conns: &[Conn], message: &Message) {
        match self.encoder.encode(message) {
            Ok(frame) => {
                for conn in conns {
                    if let Some(link) = self.links.get_mut(conn) {
                        link.queue(&frame);
                        if link.mark() {
                            self.dirty.push(*conn);
                        }
                    }
                }
            }
            Err(error) => self.note(Severity::Warn, "message not sent", &error.to_string()),
        }
    }

    pub(super) fn mark(&mut self, conn: Conn) {
        if let Some(link) = self.links.get_mut(&conn)
            && link.mark()
        {
            self.dirty.push(conn);
        }
    }

    /// Hands over what is to be kept.
    fn keep(&mut self) {
        self.registry.flush();
        self.replica.flush();
    }

    /// Ends a turn: hands over what is to be kept, and writes the queues of all links that have
    /// something new.
    pub(super) fn flush(&mut self, now: Time) {
        self.keep();
        while let Some(conn) = self.dirty.pop() {
            let Some(link) = self.links.get_mut(&conn) else { continue };
            match link.flush() {
                Flushed::Quiet => {}
                Flushed::Congested => self.handle(now, Input::Congested { conn }),
                Flushed::Relieved => self.handle(now, Input::Relieved { conn }),
                Flushed::Broken(reason) => {
                    if let Some(reason) = reason {
                        self.note_link(conn, reason);
                    }
                    self.lose(now, conn);
                }
            }
        }
        // What came of a link that broke.
        self.keep();
        self.tell();
    }

    pub(super) fn part_from(&mut self, link: Link) {
        // Who is told that it is over may look for the reason. To have been probed says nothing.
        if !link.is_silent() {
            logging::catch_up();
        }
        if let Some(farewell) = link.close() {
            self.farewells.spawn(farewell);
        }
    }
}
