//! What seeds say to each other, and what is said between a seed and a peer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::proto::address::{Addr, Incarnation};
use crate::proto::change::{Change, Decision, Fingerprint, LinkReport, Standing};
use crate::proto::registry::Record;

/// Records by address, shared by all who are sent the same ones.
pub type Records = Arc<[(Addr, Record)]>;

/// Members in one frame of a list.
pub(super) const MEMBERS_A_FRAME: usize = 4_096;

/// What a peer says to a seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToSeed {
    /// Peer to seed: let me in.
    Register {
        /// Number of the request, brought back by the answer.
        request: u64,
        /// The incarnation to register.
        incarnation: Incarnation,
    },
    /// Peer to seed: I go.
    Leave {
        /// Number of the request, brought back by the answer.
        request: u64,
        /// The incarnation that leaves.
        incarnation: Incarnation,
    },
    /// Peer to seed: what is new? Answered with a [`ToPeer::List`] if the digest differs, else
    /// with [`ToPeer::Unchanged`].
    Refresh {
        /// Number of the request, brought back by the answer.
        request: u64,
        /// Digest of the records as the peer knows them.
        digest: [u8; 32],
    },
    /// Peer to seed: peer-level consensus says that `peer` is dead.
    DeadNode {
        /// Who is dead.
        peer: Addr,
        /// In that incarnation.
        incarnation: Incarnation,
        /// The message of CONTRACT.md, section 2, as logged.
        text: String,
    },
    /// Peer to seed: the sender's links.
    Links {
        /// The sender's number for this report; a later one replaces an earlier one.
        number: u64,
        /// Its neighbours.
        neighbours: Vec<Addr>,
    },
}

/// What a seed says to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToPeer {
    /// Seed to peer: a request succeeded, with so many accepting votes.
    Granted {
        /// The request answered.
        request: u64,
        /// Accepting seeds.
        votes: u32,
    },
    /// Seed to peer: a request failed.
    Denied {
        /// The request answered.
        request: u64,
        /// Accepting seeds.
        votes: u32,
        /// Why.
        reason: String,
        /// The greatest incarnation that the seed knows of the asker; 0 if none.
        known: Incarnation,
    },
    /// Seed to peer: the registry, the gone included, in frames; follows `Granted` of a
    /// registration and answers `Refresh`.
    List {
        /// The request answered.
        request: u64,
        /// Records, by address.
        records: Records,
        /// More frames of the same list follow.
        more: bool,
    },
    /// Seed to peer: your list is up to date.
    Unchanged {
        /// The request answered.
        request: u64,
    },
    /// Seed to peer: records that changed.
    Update(Vec<(Addr, Record)>),
    /// Seed to peer: nobody at that address is known here, in answer to a report of its death.
    NoMember {
        /// The address.
        peer: Addr,
    },
}

/// What seeds say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Council {
    /// Seed to seed: judge this change.
    Propose {
        /// The proposer's number for the ballot.
        ballot: u64,
        /// What is proposed.
        change: Change,
    },
    /// Seed to seed: the sender's own judgement.
    Vote {
        /// The proposer's number for the ballot.
        ballot: u64,
        /// Yes or no.
        accept: bool,
        /// Why.
        reason: String,
        /// The greatest incarnation of the peer that the voter knows; 0 if none.
        known: Incarnation,
    },
    /// Seed to seed: a quorum has accepted; the record names its voters.
    Commit {
        /// The proposer's number for the ballot.
        ballot: u64,
        /// Whose record.
        peer: Addr,
        /// The new record.
        record: Record,
        /// Who reported, who voted what, and why: for the member's history.
        decision: Decision,
    },
    /// Seed to seed: the commit is durable here.
    Committed {
        /// The proposer's number for the ballot.
        ballot: u64,
    },
    /// Seed to seed: digest of the sender's registry.
    Compare {
        /// Records held.
        count: u64,
        /// The root of its hash tree.
        digest: [u8; 32],
        /// How far the sender can be relied on to know what was answered for.
        standing: Standing,
        /// Which founding of the network its registry goes back to: the marks of those who took part
        /// as far as it knows. Two quorums share a seed, so two sets of one founding share a mark.
        founders: Vec<u64>,
    },
    /// Seed to seed: the digests differ; these are the branches of the sender's hash tree.
    Branches(Vec<Fingerprint>),
    /// Seed to seed: the sender's leaves below each branch that differs.
    Leaves(Vec<(u16, Vec<Fingerprint>)>),
    /// Seed to seed: fingerprints of the sender's records in leaves that differ.
    Holdings {
        /// By leaf.
        leaves: Vec<(u16, Vec<Fingerprint>)>,
        /// More frames of the same follow.
        more: bool,
    },
    /// Seed to seed: records that the receiver lacks.
    Records {
        /// The records.
        records: Vec<(Addr, Record)>,
        /// By leaf, fingerprints of records that the sender lacks in turn.
        wanted: Vec<(u16, Vec<Fingerprint>)>,
        /// With this the receiver has all that the sender held when the comparison began, and the
        /// sender stood like that.
        done: Option<Standing>,
    },
    /// Seed to seed: these members are long gone; tell me when you have that on disk.
    Expire {
        /// The sender's number for this question.
        round: u64,
        /// Their records.
        records: Vec<(Addr, Record)>,
    },
    /// Seed to seed: they are on disk.
    Expired {
        /// The question's number.
        round: u64,
    },
    /// Seed to seed: all seeds have had these on disk, so nobody can bring their members back: they
    /// may be dropped.
    Forget(Vec<(Addr, Incarnation)>),
    /// Seed to seed: what peers reported of their links.
    LinkReports(Vec<LinkReport>),
}
