//! One turn of a machine: the time, and the effects gathered so far.

use std::convert::Infallible;
use std::time::Duration;

use super::event::{Event, Severity};
use super::gossip::MessageId;
use super::kv::request::{Reply, StoreChange};
use super::limits::Limit;
use super::machine::{Conn, Effect};
use super::message::{Addr, Answer, Hello, Message, Refusal, Refused, Welcome};
use super::order::Outcome;
use super::roles::{Delivery, Keep, MemberEvent, PeerReply, PublishError};
use super::time::Time;

/// A turn of a machine that answers `R` and keeps `K`.
pub(crate) struct Turn<'a, R, K> {
    pub now: Time,
    pub effects: &'a mut Vec<Effect<R, K>>,
}

/// A turn of a peer.
pub(crate) type PeerTurn<'a> = Turn<'a, PeerReply, StoreChange>;

/// A turn of a seed. A seed has no replies: it answers over its links alone.
pub(crate) type SeedTurn<'a> = Turn<'a, Infallible, Keep>;

impl<R, K> Turn<'_, R, K> {
    pub fn send(&mut self, conn: Conn, message: impl Into<Message>) {
        self.effects.push(Effect::Send { conn, message: message.into() });
    }

    /// Sends one message over several connections; does nothing if there are none.
    pub fn send_many(&mut self, mut conns: Vec<Conn>, message: impl Into<Message>) {
        match conns.len() {
            0 => {}
            1 => {
                if let Some(conn) = conns.pop() {
                    self.send(conn, message);
                }
            }
            _ => self.effects.push(Effect::SendMany { conns, message: message.into() }),
        }
    }

    /// Opens a connection; puts the time into the hello.
    pub fn open(&mut self, conn: Conn, to: Addr, mut hello: Hello, within: Duration) {
        hello.clock = self.now.millis();
        self.effects.push(Effect::Open { conn, to, hello, within });
    }

    pub fn close(&mut self, conn: Conn) {
        self.effects.push(Effect::Close { conn });
    }

    /// Closes a connection over which a message came that does not belong there. `from` is who is
    /// at the other end, if that was said.
    pub fn close_for_breach(&mut self, conn: Conn, from: Option<Addr>) {
        let from = from.map(|from| ("from", from.to_string()));
        let reason = ("reason", "message not allowed on this link".to_owned());
        self.note(Severity::Warn, "link closed", from.into_iter().chain([reason]).collect());
        self.close(conn);
    }

    /// Welcomes a caller; puts the time into the welcome.
    pub fn welcome(&mut self, conn: Conn, mut welcome: Welcome) {
        welcome.clock = self.now.millis();
        self.effects.push(Effect::Answer { conn, answer: Answer::Welcome(welcome) });
    }

    pub fn refuse(&mut self, conn: Conn, reason: Refused, others: Vec<Addr>) {
        let answer = Answer::Refused(Refusal { reason, others });
        self.effects.push(Effect::Answer { conn, answer });
    }

    /// Has changes made durable; `Input::Persisted` brings back the number of the batch.
    pub fn persist(&mut self, batch: u64, changes: Vec<K>) {
        self.effects.push(Effect::Persist { batch, changes });
    }

    /// Says that the machine has nothing more to do.
    pub fn stopped(&mut self) {
        self.effects.push(Effect::Stopped);
    }

    pub fn log(&mut self, event: Event) {
        self.effects.push(Effect::Log(event));
    }

    /// Something was dropped because of a limit; `from` is whose it was, if that is known.
    pub fn over_limit(&mut self, limit: Limit, from: Option<Addr>) {
        self.over_limit_times(limit, from, 1);
    }

    /// As [`Turn::over_limit`], so often.
    pub fn over_limit_times(&mut self, limit: Limit, from: Option<Addr>, times: u64) {
        if times > 0 {
            self.log(Event::OverLimit { limit, from, times });
        }
    }

    pub fn note(
        &mut self,
        severity: Severity,
        what: &'static str,
        keys: Vec<(&'static str, String)>,
    ) {
        self.log(Event::Note { severity, what, keys });
    }
}

impl PeerTurn<'_> {
    fn reply(&mut self, reply: PeerReply) {
        self.effects.push(Effect::Reply(reply));
    }

    /// Answers a request to the store.
    pub fn stored(&mut self, token: u64, reply: Reply) {
        self.reply(PeerReply::Stored { token, reply });
    }

    /// Answers a command to publish.
    pub fn published(&mut self, token: u64, result: Result<MessageId, PublishError>) {
        self.reply(PeerReply::Published { token, result });
    }

    /// Answers an order of an operator.
    pub fn operated(&mut self, token: u64, outcome: Outcome) {
        self.reply(PeerReply::Operated { token, outcome });
    }

    /// Hands a gossip message to the application.
    pub fn deliver(&mut self, delivery: Delivery) {
        self.reply(PeerReply::Deliver(delivery));
    }

    /// Tells the application of a change of the membership or the neighbourhood.
    pub fn member(&mut self, event: MemberEvent) {
        self.reply(PeerReply::Member(event));
    }
}
