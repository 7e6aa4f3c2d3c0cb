//! What a process asks of the peer that it holds, who waits for the answers, and who listens to it.
//!
//! What must stay true: the log is written before an answer, a message or an event leaves that
//! tells of the same thing; and a program that does not take its messages delays nobody.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::hosted::Hosted;
use super::log::HostLog;
use crate::proto::gossip::MessageId;
use crate::proto::kv::clock::Seen;
use crate::proto::kv::replica::{Reply, Request};
use crate::proto::message::Role;
use crate::proto::order::{Order, Outcome};
use crate::proto::peer::PeerMachine;
use crate::proto::roles::{Delivery, MemberEvent, PeerCommand, PeerReply, PublishError};

/// A message for a program, or the number of those that it has missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message. Each comes once, and the peer's own ones come, too.
    Message(Delivery),
    /// The program did not keep up: so many messages were left out before the next one.
    Missed(u64),
}

/// A program that takes messages, and how many messages it has missed since its last one.
struct Subscriber {
    to: mpsc::Sender<Received>,
    missed: u64,
}

impl Subscriber {
    /// Hands the program a message, or counts it as missed; false if the program is gone.
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

/// A question or a wish of this process to its peer.
pub enum PeerAsk {
    /// Gossip this payload.
    Publish { payload: Bytes, answer: Option<oneshot::Sender<Published>> },
    /// Ask the store, as a client that has seen this much.
    Store { request: Request, seen: Option<Seen>, answer: oneshot::Sender<Reply> },
    /// Do something else that an operator wants.
    Operate { order: Order, answer: oneshot::Sender<Outcome> },
    /// Hand messages to this channel from now on.
    Subscribe(mpsc::Sender<Received>, oneshot::Sender<()>),
    /// Tell membership events to this channel from now on.
    Watch(mpsc::UnboundedSender<MemberEvent>, oneshot::Sender<()>),
}

/// The result of publishing.
type Published = Result<MessageId, PublishError>;

/// Those who wait for answers of a peer, by the token of their question, and those who listen.
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

/// Answers whoever waits for this token, once the log has caught up.
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
