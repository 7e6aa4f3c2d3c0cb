//! Actions that wait until the changes that they rest on are on disk.
//!
//! What must stay true: actions are done in the order in which they were asked for, and none before
//! all changes that had been given to the disk by then are durable.

use std::collections::VecDeque;
use std::sync::Arc;

use super::request::{Reply, StoreChange};
use super::write::Write;
use crate::proto::machine::Conn;
use crate::proto::message::{Message, StoreSync};
use crate::proto::order::Outcome;
use crate::proto::turn::PeerTurn;

/// The links that a replica may use at the moment.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Links over which gossip is pushed.
    pub eager: Vec<Conn>,
    /// Links to all neighbours.
    pub all: Vec<Conn>,
}

/// An action, done once the changes that it rests on are durable.
#[derive(Debug)]
pub(super) enum Later {
    Spread(Arc<Write>),
    Say(Conn, Message),
    SayAll(Vec<Conn>, StoreSync),
    Close(Conn),
    Answer(u64, Reply),
    Operated(u64, Outcome),
}

impl Later {
    fn perform(self, turn: &mut PeerTurn<'_>, paths: &Paths) {
        match self {
            Later::Spread(write) => turn.send_many(paths.eager.clone(), StoreSync::Write(write)),
            Later::Say(conn, message) => turn.send(conn, message),
            Later::SayAll(conns, message) => turn.send_many(conns, message),
            Later::Close(conn) => turn.close(conn),
            Later::Answer(token, reply) => turn.stored(token, reply),
            Later::Operated(token, outcome) => turn.operated(token, outcome),
        }
    }
}

/// How far the disk is, and the actions that wait for it.
#[derive(Debug, Default)]
pub(super) struct Durability {
    batches_used: u64,
    durable: u64,
    later: VecDeque<(u64, Later)>,
}

impl Durability {
    /// Gives changes to the disk as one batch.
    pub fn persist(&mut self, turn: &mut PeerTurn<'_>, changes: Vec<StoreChange>) {
        self.batches_used += 1;
        turn.persist(self.batches_used, changes);
    }

    /// All batches up to this one are on disk.
    pub fn persisted(&mut self, turn: &mut PeerTurn<'_>, batch: u64, paths: &Paths) {
        self.durable = self.durable.max(batch);
        while self.later.front().is_some_and(|(batch, _)| *batch <= self.durable) {
            if let Some((_, later)) = self.later.pop_front() {
                later.perform(turn, paths);
            }
        }
    }

    /// Does an action once all batches given to the disk so far are durable.
    pub fn when_durable(&mut self, turn: &mut PeerTurn<'_>, later: Later, paths: &Paths) {
        if self.durable == self.batches_used {
            later.perform(turn, paths);
        } else {
            self.later.push_back((self.batches_used, later));
        }
    }

    /// Sends a message over a link once all batches given to the disk so far are durable.
    pub fn say(&mut self, turn: &mut PeerTurn<'_>, conn: Conn, message: impl Into<Message>) {
        self.when_durable(turn, Later::Say(conn, message.into()), &Paths::default());
    }
}
