//! The questions that a peer has asked others about their replicas, and the answers as far as they
//! have come. Each question of an operator is one entry; `ask` routes them.
//!
//! What must stay true: however much another peer answers, the memory for it is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::proto::kv::store::Version;
use crate::proto::machine::Conn;
use crate::proto::message::{Breach, Inspection};
use crate::proto::order::Holding;

/// Questions of this peer under way at once: operators ask them, and no program does.
const MAX_QUESTIONS: usize = 256;
/// Most keys in one answer. A longer answer is a breach, since all of it is held until it is whole.
const MAX_KEYS: usize = 1 << 20;
/// Most versions in one answer: many times what one key may have.
const MAX_VERSIONS: usize = 4_096;

/// A question to another peer.
#[derive(Debug)]
struct Question {
    conn: Conn,
    key: Option<Arc<str>>,
    keys: Vec<Arc<str>>,
    versions: Vec<Version>,
}

impl Question {
    fn new(conn: Conn, key: Option<Arc<str>>) -> Self {
        Self { conn, key, keys: Vec::new(), versions: Vec::new() }
    }
}

/// How a question ends: with what the other peer holds, or with why that is not known.
type Inspected = Result<Holding, String>;

/// The questions under way, by the token of the order.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<u64, Question>);

impl Questions {
    /// Whether there is no room for one more.
    pub fn are_full(&self) -> bool {
        self.0.len() >= MAX_QUESTIONS
    }

    /// Notes that a question goes out over this connection: what is held under `key`, or all keys.
    pub fn ask(&mut self, token: u64, conn: Conn, key: Option<Arc<str>>) {
        self.0.insert(token, Question::new(conn, key));
    }

    /// What a question asked: under which key, or `Some(None)` for all keys; `None` if it is over.
    pub fn key(&self, token: u64) -> Option<Option<Arc<str>>> {
        self.0.get(&token).map(|question| question.key.clone())
    }

    /// A question has ended. Returns the connection over which it went.
    pub fn end(&mut self, token: u64) -> Option<Conn> {
        self.0.remove(&token).map(|question| question.conn)
    }

    /// Takes in what a peer that was asked says. Returns the answer once it is whole. A breach if
    /// what it says is no answer to the question.
    pub fn hear(&mut self, token: u64, message: Inspection) -> Result<Option<Inspected>, Breach> {
        let Some(question) = self.0.get_mut(&token) else { return Err(Breach) };
        match (message, &question.key) {
            (Inspection::Versions { versions, more }, Some(_)) => {
                if versions.iter().any(|version| version.value.check().is_err()) {
                    let what = "it showed a version whose cid does not match its value";
                    return Ok(Some(Err(what.to_owned())));
                }
                if question.versions.len() + versions.len() > MAX_VERSIONS {
                    return Err(Breach);
                }
                question.versions.extend(versions);
                if more {
                    return Ok(None);
                }
                Ok(Some(Ok(Holding::Versions(std::mem::take(&mut question.versions)))))
            }
            (Inspection::Keys { keys, more }, None) => {
                if question.keys.len() + keys.len() > MAX_KEYS {
                    return Err(Breach);
                }
                question.keys.extend(keys);
                if more {
                    return Ok(None);
                }
                Ok(Some(Ok(Holding::Keys(std::mem::take(&mut question.keys)))))
            }
            // Each kind by its name, so that a new one does not compile without a place here.
            (Inspection::Versions { .. }, None)
            | (Inspection::Keys { .. }, Some(_))
            | (Inspection::Ask(_), _) => Err(Breach),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_frame_and_has_to_be_one_to_the_question() {
        let mut questions = Questions::default();
        questions.ask(1, 2, None);
        let keys = |more| Inspection::Keys { keys: vec!["k".into()], more };
        assert_eq!(questions.hear(1, keys(true)), Ok(None));
        let all = Holding::Keys(vec!["k".into(), "k".into()]);
        assert_eq!(questions.hear(1, keys(false)), Ok(Some(Ok(all))));
        let versions = Inspection::Versions { versions: Vec::new(), more: false };
        assert_eq!(questions.hear(1, versions), Err(Breach), "keys were asked for");
        assert_eq!(questions.hear(9, keys(false)), Err(Breach), "nothing was");
        assert_eq!((questions.end(1), questions.end(1)), (Some(2), None));
    }
}
