//! What was asked and answered, and whether one registry without seeds could have answered so.
//!
//! One history for each peer, because no decision spans two of them. A request
//! that was denied, or never answered, may have taken effect all the same: it
//! stays open. A death is asked for when a seed first proposes it, and nobody
//! is answered; what shows that it happened is a list.

use std::collections::BTreeSet;

use rumormill::proto::message::Incarnation;
use rumormill::proto::registry::Status;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

/// What a registry says of one peer. The greater one is the later one.
pub type Entry = Option<(Incarnation, Status)>;

/// The registry of one peer as it should look from outside: a single place, one thing at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Membership(pub Entry);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Register(Incarnation),
    Leave(Incarnation),
    Dead(Incarnation),
    List,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ret {
    Done,
    Refused,
    Is(Entry),
}

impl SequentialSpec for Membership {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        let after = match *op {
            Op::List => return Ret::Is(self.0),
            Op::Register(incarnation) => (incarnation, Status::Alive),
            Op::Leave(incarnation) => match self.0 {
                Some((known, status)) if known >= incarnation && status != Status::Alive => {
                    return Ret::Done; // it is gone, which is what was asked for
                }
                _ => (incarnation, Status::Left),
            },
            // Only who is, or was, a member in that life can die in it.
            Op::Dead(incarnation) => match self.0 {
                Some((known, _)) if known == incarnation => (incarnation, Status::Dead),
                _ => return Ret::Refused,
            },
        };
        if self.0 > Some(after) {
            return Ret::Refused;
        }
        self.0 = Some(after);
        Ret::Done
    }
}

/// Who asked: a line of the script, a reader, or the seeds for a death.
pub type Asker = u64;

/// All that was asked and answered about one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct History {
    tester: LinearizabilityTester<Asker, Membership>,
    open: BTreeSet<Asker>,
    begun: BTreeSet<Asker>,
    pub linearizable: bool,
}

impl History {
    pub fn new(start: Entry) -> Self {
        Self {
            tester: LinearizabilityTester::new(Membership(start)),
            open: BTreeSet::new(),
            begun: BTreeSet::new(),
            linearizable: true,
        }
    }

    /// Something is asked; a second time by the same asker is the same question.
    pub fn ask(&mut self, asker: Asker, op: Op) {
        if self.begun.insert(asker) {
            self.open.insert(asker);
            self.tester.on_invoke(asker, op).expect("each asker asks once");
        }
    }

    /// It is answered; only the first answer counts.
    pub fn answer(&mut self, asker: Asker, ret: Ret) {
        if self.open.remove(&asker) {
            self.tester.on_return(asker, ret).expect("it was asked");
            self.linearizable &= self.tester.is_consistent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_forgets_what_was_granted_is_no_history_of_one_registry() {
        let mut history = History::new(None);
        history.ask(1, Op::Register(7));
        history.ask(2, Op::List);
        history.answer(2, Ret::Is(None));
        history.answer(1, Ret::Done);
        assert!(history.linearizable, "the list may have come first");
        history.ask(3, Op::List);
        history.answer(3, Ret::Is(None));
        assert!(!history.linearizable);
    }

    #[test]
    fn a_member_seen_dead_is_not_seen_alive_again_in_that_life() {
        let alive = Some((7, Status::Alive));
        let mut history = History::new(alive);
        history.ask(1, Op::Dead(7));
        history.ask(2, Op::List);
        history.answer(2, Ret::Is(Some((7, Status::Dead))));
        assert!(history.linearizable);
        history.ask(3, Op::List);
        history.answer(3, Ret::Is(alive));
        assert!(!history.linearizable);
    }
}
