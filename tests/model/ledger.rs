//! What the model remembers of a run in order to judge it: who saw what, and what was answered.

use std::collections::BTreeSet;

use rumormill::proto::machine::OpenError;
use rumormill::proto::message::{Addr, ChangeKind, Incarnation, Welcome};
use rumormill::proto::registry::{Record, Status};

use super::history::{Entry, History, Op, Ret};
use super::scenario::{Deed, PEERS, Scenario};

/// A reader's requests have numbers from here on, the script's count from 1.
pub const LISTS_FROM: u64 = 1_000;
/// A death has its incarnation above this as its asker.
const DEATHS_FROM: u64 = 1_000_000;

/// What a seed saw when it called a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub peer: usize,
    pub answer: Result<Welcome, OpenError>,
}

impl Sight {
    /// Whether it is a reason to vote for that change.
    fn supports(&self, kind: ChangeKind, incarnation: Incarnation) -> bool {
        match (kind, &self.answer) {
            (ChangeKind::Join, Ok(welcome)) => {
                welcome.incarnation == incarnation && !welcome.leaving
            }
            (ChangeKind::Leave, Ok(welcome)) => {
                welcome.incarnation == incarnation && welcome.leaving
            }
            (ChangeKind::Dead, answer) => answer.is_err(),
            (ChangeKind::Join | ChangeKind::Leave, Err(_)) => false,
        }
    }
}

/// An accept that rests on the voter's own probe.
type Accept = (ChangeKind, usize, Incarnation, u16);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    accepts: BTreeSet<Accept>,
    /// The latest of each peer that was answered for.
    granted: [Entry; PEERS],
    pub histories: [History; PEERS],
}

impl Ledger {
    pub fn new(granted: [Entry; PEERS]) -> Self {
        Self { accepts: BTreeSet::new(), granted, histories: granted.map(History::new) }
    }

    /// All that was answered before the run begins is its beginning.
    pub fn begin(&mut self, granted: [Entry; PEERS]) {
        self.granted = granted;
        self.histories = granted.map(History::new);
    }

    /// A seed votes yes, having just seen `sight`. Without a sight that supports it, the vote is
    /// none of its own judgement, and not counted.
    pub fn accepts(
        &mut self,
        seed: usize,
        kind: ChangeKind,
        peer: usize,
        incarnation: Incarnation,
        sight: Option<&Sight>,
    ) {
        if sight.is_some_and(|sight| sight.peer == peer && sight.supports(kind, incarnation)) {
            self.accepts.insert((kind, peer, incarnation, seed as u16));
        }
    }

    /// The seeds that accepted the change to this record by their own judgement.
    pub fn voted_for(&self, peer: usize, record: &Record) -> impl Fn(u16) -> bool {
        let kind = match record.status {
            Status::Alive => ChangeKind::Join,
            Status::Left => ChangeKind::Leave,
            Status::Dead => ChangeKind::Dead,
        };
        let incarnation = record.incarnation;
        move |seed| self.accepts.contains(&(kind, peer, incarnation, seed))
    }

    pub fn granted(&self, peer: usize) -> Entry {
        self.granted[peer]
    }

    pub fn asks(&mut self, place: usize, deed: &Deed) {
        let (peer, op) = match *deed {
            Deed::Register { peer, incarnation, .. } => (peer, Op::Register(incarnation)),
            Deed::Leave { peer, incarnation, .. } => (peer, Op::Leave(incarnation)),
            _ => return,
        };
        self.histories[peer].ask(request_of(place), op);
    }

    pub fn proposes_death(&mut self, peer: usize, incarnation: Incarnation) {
        self.histories[peer].ask(DEATHS_FROM + incarnation, Op::Dead(incarnation));
    }

    /// A request of the script is granted.
    pub fn grants(&mut self, scenario: &Scenario, request: u64) {
        let place = request.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        let line = place.and_then(|place| scenario.script.get(place));
        let (peer, entry) = match line.map(|line| line.deed) {
            Some(Deed::Register { peer, incarnation, .. }) => (peer, (incarnation, Status::Alive)),
            Some(Deed::Leave { peer, incarnation, .. }) => (peer, (incarnation, Status::Left)),
            _ => panic!("request {request} is granted, which nobody made"),
        };
        self.granted[peer] = self.granted[peer].max(Some(entry));
        self.histories[peer].answer(request, Ret::Done);
    }
}

/// The number of a line's request.
pub fn request_of(place: usize) -> u64 {
    place as u64 + 1
}

/// What the records that a seed lists, or holds, say of a peer.
pub fn entry(records: &[(Addr, Record)], peer: Addr) -> Entry {
    let found = records.iter().find(|(addr, _)| *addr == peer);
    found.map(|(_, record)| (record.incarnation, record.status))
}
