//! One turn of a machine: the time, and the effects gathered so far.

use super::event::{Event, Severity};
use super::machine::{Conn, Effect};
use super::message::{Addr, Answer, Hello, Message, Refusal, Refused, Welcome};
use super::time::Time;
use std::time::Duration;

pub(crate) struct Turn<'a> {
    pub now: Time,
    pub effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    pub fn send(&mut self, conn: Conn, message: impl Into<Message>) {
        self.effects.push(Effect::Send { conn, message: message.into() });
    }

    /// One message over several connections; nothing if there are none.
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

    /// Opens a connection; the hello tells the time.
    pub fn open(&mut self, conn: Conn, to: Addr, mut hello: Hello, within: Duration) {
        hello.clock = self.now.millis();
        self.effects.push(Effect::Open { conn, to, hello, within });
    }

    pub fn close(&mut self, conn: Conn) {
        self.effects.push(Effect::Close { conn });
    }

    /// Welcomes whoever has called; the welcome tells the time.
    pub fn welcome(&mut self, conn: Conn, mut welcome: Welcome) {
        welcome.clock = self.now.millis();
        self.effects.push(Effect::Answer { conn, answer: Answer::Welcome(welcome) });
    }

    pub fn refuse(&mut self, conn: Conn, reason: Refused, others: Vec<Addr>) {
        let answer = Answer::Refused(Refusal { reason, others });
        self.effects.push(Effect::Answer { conn, answer });
    }

    pub fn log(&mut self, event: Event) {
        self.effects.push(Effect::Log(event));
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
