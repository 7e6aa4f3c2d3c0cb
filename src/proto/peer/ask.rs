//! Orders of an operator, and the questions of one peer to another about what its replica holds.
//!
//! Each question goes over a connection of its own, so that it waits behind nothing, and the
//! connection ends with it.
//!
//! What must stay true: a peer that asks takes part in nothing else, and there is a bounded number
//! of places for such peers.

use std::time::Duration;

use super::requests::open_error_words;
use super::sessions::{Dial, Session};
use super::{PeerMachine, Timer};
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Addr, Breach, Inspection, Purpose, Refused, Welcome};
use crate::proto::order::{Holding, Order, Outcome};
use crate::proto::turn::PeerTurn;

/// A peer that has not answered a question after this long is not expected to.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections for questions that others have opened, at once: operators ask, and no program does.
const MAX_INQUIRERS: usize = 16;

impl PeerMachine {
    /// Does what an operator orders.
    pub(super) fn operate(&mut self, turn: &mut PeerTurn<'_>, token: u64, order: Order) {
        let outcome = match order {
            Order::Ask { peer, key } if peer == self.life.config.me => {
                let holding = self.replica.holding(key.as_deref());
                self.replica.operated(turn, token, Outcome::Asked(Ok(holding)));
                return;
            }
            Order::Ask { .. } if self.questions.are_full() => {
                Outcome::Asked(Err("too many questions are under way".to_owned()))
            }
            Order::Ask { peer, key } => {
                let conn = self.dial(turn, peer, Purpose::Ask, Dial::Ask { to: peer, token });
                self.questions.ask(token, conn, key);
                self.timers.set(Timer::Question(token), turn.now + PATIENCE);
                return;
            }
            Order::Sync => Outcome::Synced(self.begin_sync_round(turn)),
            Order::Admit(peer) => self.admit(turn, peer),
            Order::Remove(peer) => self.remove(turn, peer),
        };
        turn.operated(token, outcome);
    }

    /// A peer that is to be asked a question has answered the call, or has not.
    pub(super) fn asked_answers(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        (to, token): (Addr, u64),
        result: Result<Welcome, OpenError>,
    ) {
        let question = self.questions.key(token);
        match (result, question) {
            (Ok(_), Some(key)) => {
                self.sessions.insert(conn, Session::Asking { to, token });
                turn.send(conn, Inspection::Ask(key));
            }
            (Ok(_), None) => turn.close(conn),
            (Err(error), _) => self.end_question(turn, token, Err(open_error_words(&error))),
        }
    }

    /// Takes in what a peer that was asked says. A breach if it is no answer.
    pub(super) fn hear_answer(
        &mut self,
        turn: &mut PeerTurn<'_>,
        token: u64,
        message: Inspection,
    ) -> Result<(), Breach> {
        if let Some(answer) = self.questions.hear(token, message)? {
            self.end_question(turn, token, answer);
        }
        Ok(())
    }

    /// A question has been answered, or never will be: tells the operator.
    fn end_question(
        &mut self,
        turn: &mut PeerTurn<'_>,
        token: u64,
        answer: Result<Holding, String>,
    ) {
        self.timers.cancel(&Timer::Question(token));
        if let Some(conn) = self.questions.end(token) {
            self.sessions.remove(conn);
            self.sessions.end_dial(conn);
            turn.close(conn);
            turn.operated(token, Outcome::Asked(answer));
        }
    }

    /// The peer that was asked is gone, or has not answered in time.
    pub(super) fn question_failed(&mut self, turn: &mut PeerTurn<'_>, token: u64, why: &str) {
        self.end_question(turn, token, Err(why.to_owned()));
    }

    /// Why this peer refuses somebody who wants to ask a question.
    pub(super) fn objection_to_inquirer(&self) -> Option<Refused> {
        let inquirers =
            self.sessions.such(|session| matches!(session, Session::Inquirer { .. })).len();
        if self.life.leaving {
            Some(Refused::Leaving)
        } else {
            (inquirers >= MAX_INQUIRERS).then_some(Refused::Full)
        }
    }

    /// Somebody asks what this replica holds. A breach if it says anything but a question.
    pub(super) fn hear_inquirer(
        &mut self,
        turn: &mut PeerTurn<'_>,
        conn: Conn,
        message: Inspection,
    ) -> Result<(), Breach> {
        let key = match message {
            Inspection::Ask(key) => key,
            Inspection::Versions { .. } | Inspection::Keys { .. } => return Err(Breach),
        };
        // A connection is for one question; it is closed after the answer, which may be long.
        self.sessions.remove(conn);
        self.replica.tell_holding(turn, conn, key.as_deref());
        Ok(())
    }
}
