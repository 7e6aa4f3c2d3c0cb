//! What seeds decide and remember: changes, votes, decisions, and how far a seed can be relied on.

use serde::{Deserialize, Serialize};

use super::address::{Addr, Incarnation};
use super::registry::Status;

/// How far a seed can be relied on to know what was answered for. It is durable; a seed whose disk
/// was lost is [`Standing::Fresh`] again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Standing {
    /// It knows nothing, and cannot tell whether it ever did.
    #[default]
    Fresh,
    /// It has met a quorum of seeds, itself included, none of which had ever voted.
    Founding,
    /// It holds what was answered for, and votes.
    Voting,
}

impl Standing {
    /// The standing in one word.
    pub const fn words(self) -> &'static str {
        match self {
            Standing::Fresh => "fresh",
            Standing::Founding => "founding",
            Standing::Voting => "voting",
        }
    }
}

/// The first 12 bytes of a SHA-256 over a record, or over the fingerprints below a node of the hash
/// tree: two in a tree of a hundred thousand are equal by chance once in 10^19.
pub type Fingerprint = [u8; 12];

/// How a proposal was decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// What was proposed, and who reported.
    pub change: Change,
    /// The seed that proposed it.
    pub proposer: Addr,
    /// When it was decided, Unix milliseconds by the proposer's clock.
    pub decided: u64,
    /// The votes that had come by then.
    pub votes: Vec<CastVote>,
    /// Whether it was committed.
    pub committed: bool,
}

/// One seed's vote, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CastVote {
    /// The seed.
    pub seed: Addr,
    /// Yes or no.
    pub accept: bool,
    /// Why.
    pub reason: String,
}

/// What a peer said of its links.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkReport {
    /// The peer.
    pub peer: Addr,
    /// In that incarnation.
    pub incarnation: Incarnation,
    /// Its number for the report.
    pub number: u64,
    /// Its neighbours.
    pub neighbours: Vec<Addr>,
}

/// The kind of a change of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChangeKind {
    /// The peer joins, or rejoins.
    Join,
    /// The peer leaves by its own will.
    Leave,
    /// The peer is dead.
    Dead,
}

impl ChangeKind {
    /// The word behind `on=` in the log.
    pub const fn words(self) -> &'static str {
        match self {
            ChangeKind::Join => "registration",
            ChangeKind::Leave => "leave",
            ChangeKind::Dead => "dead-node",
        }
    }

    /// The kind of change that leads to a record that says so.
    pub const fn to(status: Status) -> Self {
        match status {
            Status::Alive => ChangeKind::Join,
            Status::Left => ChangeKind::Leave,
            Status::Dead => ChangeKind::Dead,
        }
    }

    /// What a record says once a change of this kind is committed.
    pub const fn status(self) -> Status {
        match self {
            ChangeKind::Join => Status::Alive,
            ChangeKind::Leave => Status::Left,
            ChangeKind::Dead => Status::Dead,
        }
    }
}

/// A proposed change of one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// Join, leave or dead.
    pub kind: ChangeKind,
    /// Whose record.
    pub peer: Addr,
    /// Of which incarnation.
    pub incarnation: Incarnation,
    /// When the proposer was asked, Unix milliseconds; of a join this becomes the time of joining.
    pub at: u64,
    /// Of a dead-node proposal: who reported it.
    pub reporters: Vec<Addr>,
}
