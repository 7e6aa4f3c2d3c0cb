//! The invariants of DESIGN.md, section 7, that can be checked at every step: all but 8, which a panic is.
//! What a client was shown too late (9) is told as 7, whose other half it is.
//!
//! The checker believes no machine's word about another: it knows from the
//! wire who probed whom and what came back, which life of a process had which
//! incarnation, and which message was lost on which link.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use rumormill::proto::event::Event;
use rumormill::proto::gossip::{MessageId, message_id};
use rumormill::proto::kv::clock::Clock;
use rumormill::proto::kv::replica::StoreChange;
use rumormill::proto::machine::{Conn, OpenError};
use rumormill::proto::message::{Addr, Broadcast, ChangeKind, Incarnation, Message, Standing};
use rumormill::proto::roles::{Delivery, MemberEvent, PeerReply};
use rumormill::proto::time::Time;

use super::disk::{Disk, SeedState};
use super::node::{Change, Effect, Input, Node, NodeId};
use super::stores::Stores;
use super::tally::Tally;

/// What a change does to the store, if it is one of the store.
fn write_of(change: &Change) -> Option<StoreChange> {
    match change {
        Change::Store(change) => Some(change.clone()),
        Change::Registry(_) => None,
    }
}

/// Something that must never be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Its number in DESIGN.md, section 7.
    pub invariant: u8,
    /// Who did it, or whom it is about.
    pub whose: Addr,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}: {}", self.invariant, self.whose, self.what)
    }
}

/// A change of one record, as seeds log it.
pub type Transition = (ChangeKind, Addr, Incarnation);

/// A life of a process: where it runs, and which start it is.
pub type Life = (NodeId, u32);

/// A link, and the end of it that sends.
pub type Side = (usize, usize);

/// What a seed saw when it called a peer.
#[derive(Clone, Copy, Debug)]
enum Sight {
    Answered { incarnation: Incarnation, leaving: bool },
    Refused,
    Nothing,
}

/// A probe's result is the base of a vote for this long. A vote follows its probe at once; the
/// margin is for a seed that waits for something else as well.
const FRESH: Duration = Duration::from_secs(2);

/// After the weather has cleared, a commit may still rest on probes made before.
const AFTERMATH: Duration = Duration::from_secs(3);

/// Violations of one invariant that are kept of a run: the first ones tell the story.
const KEPT: usize = 5;

/// A published message, and when it was first heard of.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    pub at: Time,
    pub origin: Addr,
    pub number: u64,
}

/// What is remembered of a run in order to judge it.
pub struct Checks {
    quorum: usize,
    /// There are no seeds: peers drop each other.
    pub open: bool,
    pub violations: Vec<Violation>,
    seen: usize,
    /// From when on nothing disturbs the network any more.
    pub calm_since: Option<Time>,
    dials: BTreeMap<(NodeId, Conn), Addr>,
    sights: HashMap<(NodeId, Addr), Vec<(Time, Sight)>>,
    /// First-hand accepts of each change.
    votes: HashMap<Transition, BTreeSet<NodeId>>,
    logged: HashSet<(Life, Transition)>,
    committed: HashSet<Transition>,
    /// The last life of each peer that a quorum of seeds has answered for.
    answered: BTreeMap<Addr, Incarnation>,
    /// Which life of the process at an address had which incarnation, and which one runs there.
    lives: HashMap<(Addr, Incarnation), u32>,
    running: HashMap<Addr, (u32, Incarnation)>,
    /// Messages sent over each link and direction, and whether the last copy was lost.
    sent: HashMap<(Side, MessageId), bool>,
    pub published: BTreeMap<MessageId, Publication>,
    pub delivered: HashMap<Life, BTreeSet<MessageId>>,
    /// When each life was first registered.
    pub registered: HashMap<Life, Time>,
    /// What was written to the store.
    pub stores: Stores,
}

impl Checks {
    pub fn new(quorum: usize) -> Self {
        Self {
            quorum,
            open: false,
            violations: Vec::new(),
            seen: 0,
            calm_since: None,
            dials: BTreeMap::new(),
            sights: HashMap::new(),
            votes: HashMap::new(),
            logged: HashSet::new(),
            committed: HashSet::new(),
            answered: BTreeMap::new(),
            lives: HashMap::new(),
            running: HashMap::new(),
            sent: HashMap::new(),
            published: BTreeMap::new(),
            delivered: HashMap::new(),
            registered: HashMap::new(),
            stores: Stores::default(),
        }
    }

    /// Violations since the last call.
    pub fn unseen(&mut self) -> Vec<Violation> {
        let new = self.violations.get(self.seen..).unwrap_or_default().to_vec();
        self.seen = self.violations.len();
        new
    }

    pub fn violate(&mut self, invariant: u8, whose: Addr, what: String) {
        let same = self.violations.iter().filter(|violation| violation.invariant == invariant);
        if same.count() < KEPT {
            self.violations.push(Violation { invariant, whose, what });
        }
    }

    /// Whether that change was ever logged as committed.
    pub fn was_committed(&self, kind: ChangeKind, peer: &Addr) -> bool {
        self.committed.iter().any(|(committed, whose, _)| *committed == kind && whose == peer)
    }

    /// An input is about to be handled.
    pub fn before(&mut self, now: Time, id: NodeId, node: &Node, input: &Input) {
        if !node.is_seed() {
            return;
        }
        let (conn, sight) = match input {
            Input::Start => {
                self.dials.retain(|(seed, _), _| *seed != id);
                return;
            }
            Input::Opened { conn, welcome } => {
                let (incarnation, leaving) = (welcome.incarnation, welcome.leaving);
                (conn, Sight::Answered { incarnation, leaving })
            }
            Input::OpenFailed { conn, error: OpenError::Refused(_) } => (conn, Sight::Refused),
            Input::OpenFailed { conn, .. } => (conn, Sight::Nothing),
            _ => return,
        };
        if let Some(peer) = self.dials.remove(&(id, *conn)) {
            let sights = self.sights.entry((id, peer)).or_default();
            sights.retain(|(at, _)| now.since(*at) <= FRESH);
            sights.push((now, sight));
        }
    }

    /// An input was handled, and had these effects.
    pub fn after(
        &mut self,
        now: Time,
        id: NodeId,
        node: &Node,
        effects: &[Effect],
        disk: Option<&Clock>,
        tally: &mut Tally,
    ) {
        if let Some(incarnation) = node.incarnation()
            && self.running.get(&node.addr) != Some(&(node.life, incarnation))
        {
            self.running.insert(node.addr, (node.life, incarnation));
            if let Some(life) = self.lives.insert((node.addr, incarnation), node.life)
                && life != node.life
            {
                let what = format!("takes incarnation {incarnation}, which life {life} had");
                self.violate(3, node.addr, what);
            }
        }
        for effect in effects {
            match effect {
                Effect::Open { conn, to, .. } if node.is_seed() => {
                    self.dials.insert((id, *conn), *to);
                }
                Effect::Log(event) => self.logs(now, id, node, event, tally),
                Effect::Reply(PeerReply::Deliver(delivery)) => {
                    self.delivers(now, id, node, delivery, tally)
                }
                Effect::Reply(PeerReply::Member(MemberEvent::Registered)) => {
                    self.registered.entry((id, node.life)).or_insert(now);
                    let incarnation = node.incarnation().unwrap_or_default();
                    self.answered.insert(node.addr, incarnation);
                }
                Effect::Reply(PeerReply::Member(MemberEvent::Dead(peer))) => {
                    let is_calm = self.calm_since.is_some_and(|since| now > since + AFTERMATH);
                    if is_calm && self.open && self.running.contains_key(peer) {
                        let what = format!("drops {peer}, which runs and can be reached");
                        self.violate(4, node.addr, what);
                    }
                }
                Effect::Persist { changes, .. } => {
                    let writes: Vec<StoreChange> = changes.iter().filter_map(write_of).collect();
                    let store = node.peer().map(|peer| peer.replica().store());
                    if let Some(what) = store.and_then(|store| self.stores.keeps(store, &writes)) {
                        self.violate(7, node.addr, what);
                    }
                }
                Effect::Reply(PeerReply::Stored { token, reply }) => {
                    if let (Some(peer), Some(disk)) = (node.peer(), disk) {
                        let store = peer.replica().store();
                        let wrong = self.stores.answers(*token, reply, store, disk);
                        if let Some(what) = wrong.or_else(|| self.stores.judge(store)) {
                            self.violate(7, node.addr, what);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// What was answered for is known to whoever asks any quorum of the seeds that may answer, also
    /// after the loss of a minority of disks (invariant 2).
    pub fn disks(&mut self, disks: &BTreeMap<NodeId, Disk<SeedState>>) {
        let mut forgotten = Vec::new();
        for (peer, incarnation) in &self.answered {
            let voting = disks
                .values()
                .map(|disk| &disk.kept)
                .filter(|kept| kept.standing == Standing::Voting);
            let ignorant = voting.filter(|kept| !kept.knows(peer, *incarnation)).count();
            let known = disks.values().any(|disk| disk.kept.knows(peer, *incarnation));
            if ignorant >= self.quorum || !known {
                forgotten.push((*peer, *incarnation, ignorant));
            }
        }
        for (peer, incarnation, ignorant) in forgotten {
            let what = format!(
                "was answered for in incarnation {incarnation}, and {ignorant} seeds that vote know \
                 nothing of it"
            );
            self.violate(2, peer, what);
            self.answered.remove(&peer);
        }
    }

    /// A process has ended.
    pub fn ended(&mut self, addr: &Addr) {
        self.running.remove(addr);
    }

    fn logs(&mut self, now: Time, id: NodeId, node: &Node, event: &Event, tally: &mut Tally) {
        // Whether it is worth a line in the log does not matter here.
        let event = if let Event::Aside(event) = event { event } else { event };
        match event {
            Event::Vote { on, peer, accept: true, incarnation, .. } => {
                self.votes_yes(now, id, node, (*on, *peer, *incarnation));
            }
            Event::Vote { .. } => tally.one("votes against"),
            Event::RegistrationCommitted { peer, incarnation, votes, .. } => {
                self.commits(now, id, node, (ChangeKind::Join, *peer, *incarnation), *votes, tally);
            }
            Event::DeadNodeCommitted { peer, incarnation, votes, .. } => {
                self.commits(now, id, node, (ChangeKind::Dead, *peer, *incarnation), *votes, tally);
            }
            Event::LeaveCommitted { peer, incarnation, votes, .. } => {
                self.commits(
                    now,
                    id,
                    node,
                    (ChangeKind::Leave, *peer, *incarnation),
                    *votes,
                    tally,
                );
            }
            Event::RegistrationRejected { .. } => tally.one("rejected registrations"),
            Event::DeadNodeRejected { .. } => tally.one("rejected deaths"),
            Event::LeaveRejected { .. } => tally.one("rejected leaves"),
            Event::Suspected { .. } => tally.one("suspicions"),
            Event::SuspicionRefuted { .. } => tally.one("refutations"),
            Event::PeerLevelConsensus { .. } => tally.one("peer-level consensus"),
            Event::DeadNodeConfirmed { .. } => tally.one("confirmed deaths"),
            _ => {}
        }
    }

    /// A yes must rest on what this seed itself saw shortly before (invariants 1 and 4).
    fn votes_yes(&mut self, now: Time, id: NodeId, node: &Node, change: Transition) {
        let (kind, peer, incarnation) = change;
        if self.logged.contains(&((id, node.life), change)) {
            return; // it has been judged by a quorum already
        }
        let sights: Vec<Sight> = self.sights.get(&(id, peer)).map_or_else(Vec::new, |sights| {
            let fresh = sights.iter().filter(|(at, _)| now.since(*at) <= FRESH);
            fresh.map(|(_, sight)| *sight).collect()
        });
        let life = self.lives.get(&(peer, incarnation));
        let supports = |sight: &Sight| match (kind, *sight) {
            (ChangeKind::Join, Sight::Answered { incarnation: said, leaving }) => {
                said == incarnation && !leaving
            }
            (ChangeKind::Leave, Sight::Answered { incarnation: said, leaving }) => {
                said == incarnation && leaving
            }
            // Another life of the peer answers: the accused one is over.
            (ChangeKind::Dead, Sight::Answered { incarnation: said, .. }) => {
                said != incarnation && self.lives.get(&(peer, said)) != life
            }
            (ChangeKind::Dead, Sight::Nothing) => true,
            (_, Sight::Nothing | Sight::Refused) => false,
        };
        if sights.iter().any(supports) {
            self.votes.entry(change).or_default().insert(id);
            return;
        }
        // A death voted against one's own eyes is the graver of the two.
        let invariant = if kind == ChangeKind::Dead && !sights.is_empty() { 4 } else { 1 };
        let what = format!(
            "votes for the {} of {peer} in incarnation {incarnation}, having seen {sights:?}",
            kind.words()
        );
        self.violate(invariant, node.addr, what);
    }

    fn commits(
        &mut self,
        now: Time,
        id: NodeId,
        node: &Node,
        change: Transition,
        said: usize,
        tally: &mut Tally,
    ) {
        let (kind, peer, incarnation) = change;
        let whose = format!("the {} of {peer} in incarnation {incarnation}", kind.words());
        if !self.logged.insert(((id, node.life), change)) {
            self.violate(1, node.addr, format!("logs {whose} twice"));
        }
        let votes = self.votes.get(&change).map_or(0, BTreeSet::len).min(said);
        if votes < self.quorum {
            let quorum = self.quorum;
            self.violate(1, node.addr, format!("has {whose} with {votes} of {quorum} votes"));
        }
        if !self.committed.insert(change) {
            return;
        }
        tally.one(match kind {
            ChangeKind::Join => "registrations",
            ChangeKind::Leave => "leaves",
            ChangeKind::Dead => "deaths",
        });
        let runs = self.running.get(&peer).map(|(life, _)| life);
        let is_calm = self.calm_since.is_some_and(|since| now > since + AFTERMATH);
        if kind == ChangeKind::Dead
            && is_calm
            && runs.is_some()
            && runs == self.lives.get(&(peer, incarnation))
        {
            self.violate(4, node.addr, format!("has {whose}, which runs and can be reached"));
        }
    }

    /// Each message once in a life, and only what somebody has published (invariant 5).
    fn delivers(
        &mut self,
        now: Time,
        id: NodeId,
        node: &Node,
        delivery: &Delivery,
        tally: &mut Tally,
    ) {
        let gossip = &delivery.gossip;
        let what = || format!("message {} of {}", gossip.number, gossip.origin);
        if message_id(gossip) != delivery.id {
            self.violate(5, node.addr, format!("delivers {} under a wrong identity", what()));
        }
        if delivery.from.is_none() {
            tally.one("published");
            let publication = Publication { at: now, origin: gossip.origin, number: gossip.number };
            if gossip.origin != node.addr
                || self.published.insert(delivery.id, publication).is_some()
            {
                self.violate(5, node.addr, format!("publishes {} again", what()));
            }
        } else if !self.published.contains_key(&delivery.id) {
            self.violate(5, node.addr, format!("delivers {}, which nobody published", what()));
        }
        tally.one("deliveries");
        if !self.delivered.entry((id, node.life)).or_default().insert(delivery.id) {
            self.violate(5, node.addr, format!("delivers {} twice", what()));
        }
    }

    /// A message goes out over a link, from that end (invariant 6). A second copy is excused where
    /// the first was lost, and on a link that doubles messages or changes their order: a peer must
    /// conclude there that something was lost, and being wrong is better than being silent.
    pub fn sent(&mut self, node: &Node, from: Side, message: &Message, lost: bool, excused: bool) {
        let Message::Broadcast(Broadcast::Gossip(gossip)) = message else { return };
        let before = self.sent.insert((from, message_id(gossip)), lost);
        if before == Some(false) && !excused {
            let what = format!(
                "sends message {} of {} over one link twice, and the first was not lost",
                gossip.number, gossip.origin
            );
            self.violate(6, node.addr, what);
        }
    }

    /// A message that was sent over a link, from that end, did not arrive after all.
    pub fn lost(&mut self, from: Side, message: &Message) {
        if let Message::Broadcast(Broadcast::Gossip(gossip)) = message {
            self.sent.insert((from, message_id(gossip)), true);
        }
    }
}
