//! What seeds decide and remember: changes, votes, decisions, and how far a seed can be relied on.

use serde::{Deserialize, Serialize};

use super::address::{Addr, Incarnation};
use super::identity::Identity;
use super::registry::Status;

/// How far a seed can be relied on to know every change that was answered for. It is durable; a
/// seed that has lost its disk is [`Standing::Fresh`] again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Standing {
    /// It knows nothing, and cannot tell whether it ever did.
    #[default]
    Fresh,
    /// It has met a quorum of seeds, itself included, none of which had ever voted.
    Founding,
    /// It holds every change that was answered for, and votes.
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

/// How a proposal was decided, and by which votes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// The change that was proposed; it names the reporters.
    pub change: Change,
    /// The seed that proposed it.
    pub proposer: Addr,
    /// When it was decided, Unix milliseconds by the proposer's clock.
    pub decided: u64,
    /// The votes that had arrived by then.
    pub votes: Vec<CastVote>,
    /// Whether it was committed.
    pub committed: bool,
}

/// The vote of one seed, and its reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CastVote {
    /// The seed.
    pub seed: Addr,
    /// Whether the seed accepts the change.
    pub accept: bool,
    /// The seed's reason.
    pub reason: String,
}

/// The links that a peer has reported.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkReport {
    /// The peer.
    pub peer: Addr,
    /// The incarnation that reports.
    pub incarnation: Incarnation,
    /// Number of the report: it rises with each report of one life.
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

    /// The kind of change that leads to a record with this status.
    pub const fn to(status: Status) -> Self {
        match status {
            Status::Alive => ChangeKind::Join,
            Status::Left => ChangeKind::Leave,
            Status::Dead => ChangeKind::Dead,
        }
    }

    /// The status that a record has once a change of this kind is committed.
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
    /// The peer whose record changes.
    pub peer: Addr,
    /// The incarnation of that peer.
    pub incarnation: Incarnation,
    /// When the proposer was asked, Unix milliseconds; for a join this becomes the time of joining.
    pub at: u64,
    /// The peers that reported the death, in a dead-node proposal.
    pub reporters: Vec<Addr>,
    /// Who joins, in a registration over an encrypted link; else none.
    pub identity: Option<Identity>,
}
