//! Messages between seeds, and between a seed and a peer.
//!
//! What must stay true: a list too long for one frame is sent in several, and says whether more
//! follow; an answer carries the number of the request that it answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::proto::address::{Addr, Incarnation};
use crate::proto::change::{Change, Decision, Fingerprint, LinkReport, Standing};
use crate::proto::registry::Record;
use crate::proto::signature::Signature;

/// Records by address. Peers that are sent the same records share one copy in memory.
pub type Records = Arc<[(Addr, Record)]>;

/// Most members in one frame of a list.
pub(super) const MEMBERS_A_FRAME: usize = 4_096;

/// Message from a peer to a seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToSeed {
    /// Peer to seed: register me.
    Register {
        /// Number of the request; the answer carries it too.
        request: u64,
        /// The incarnation to register.
        incarnation: Incarnation,
    },
    /// Peer to seed: I am leaving.
    Leave {
        /// Number of the request; the answer carries it too.
        request: u64,
        /// The incarnation that leaves.
        incarnation: Incarnation,
    },
    /// Peer to seed: send me what is new. The answer is a [`ToPeer::List`] if the digest differs,
    /// else [`ToPeer::Unchanged`]; or [`ToPeer::Denied`] if the seed does not vote yet.
    Refresh {
        /// Number of the request; the answer carries it too.
        request: u64,
        /// Digest of the records as the peer knows them.
        digest: [u8; 32],
    },
    /// Peer to seed: suspicions and their witnesses show that `peer` is dead.
    DeadNode {
        /// The dead peer.
        peer: Addr,
        /// Its incarnation that is dead.
        incarnation: Incarnation,
        /// The message that CONTRACT.md, section 2 asks for, as the peer logged it.
        text: String,
    },
    /// Peer to seed: the sender's links.
    Links {
        /// The sender's number for this report; a report with a higher number replaces this one.
        number: u64,
        /// Its neighbours.
        neighbours: Vec<Addr>,
    },
}

/// Message from a seed to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToPeer {
    /// Seed to peer: your request succeeded.
    Granted {
        /// Number of the request answered.
        request: u64,
        /// Number of seeds that accepted.
        votes: u32,
    },
    /// Seed to peer: your request failed.
    Denied {
        /// Number of the request answered.
        request: u64,
        /// Number of seeds that accepted.
        votes: u32,
        /// Why it failed.
        reason: String,
        /// The greatest incarnation that the seed knows of the asker; 0 if none.
        known: Incarnation,
    },
    /// Seed to peer: the registry in frames, with members that died or left. Follows `Granted` of a
    /// registration, and answers `Refresh`.
    List {
        /// Number of the request answered.
        request: u64,
        /// Records, by address.
        records: Records,
        /// Whether more frames of the same list follow.
        more: bool,
    },
    /// Seed to peer: your list is up to date.
    Unchanged {
        /// Number of the request answered.
        request: u64,
    },
    /// Seed to peer: records that changed.
    Update(Vec<(Addr, Record)>),
    /// Seed to peer: this seed knows nobody at the address whose death you report.
    NoMember {
        /// The address.
        peer: Addr,
    },
}

/// Message from a seed to a seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Council {
    /// Seed to seed: vote on this change.
    Propose {
        /// The proposer's number for the ballot.
        ballot: u64,
        /// The change that is proposed.
        change: Change,
    },
    /// Seed to seed: my own judgement of the change.
    Vote {
        /// The proposer's number for the ballot.
        ballot: u64,
        /// Whether the voter accepts.
        accept: bool,
        /// Why it does or does not.
        reason: String,
        /// The greatest incarnation of the peer that the voter knows; 0 if none.
        known: Incarnation,
        /// The voter's signature under an accept; none over plain links.
        signature: Option<Signature>,
    },
    /// Seed to seed: a quorum has accepted. The record names its voters.
    Commit {
        /// The proposer's number for the ballot.
        ballot: u64,
        /// The peer whose record it is.
        peer: Addr,
        /// The new record.
        record: Record,
        /// The reporters, the votes and their reasons, for the member's history.
        decision: Box<Decision>,
    },
    /// Seed to seed: I have the record of that ballot on disk.
    Committed {
        /// The proposer's number for the ballot.
        ballot: u64,
    },
    /// Seed to seed: this is the digest of my registry; compare it with yours.
    Compare {
        /// Number of records that the sender holds.
        count: u64,
        /// Root of the sender's hash tree.
        digest: [u8; 32],
        /// How far the sender's registry can be relied on to hold what was answered for.
        standing: Standing,
        /// Marks of the founding that the sender's registry goes back to: one of each seed that
        /// took part, as far as it knows. Two quorums share a seed, so two such sets of one
        /// founding share a mark. Empty if the sender has nothing new to tell.
        founders: Vec<u64>,
    },
    /// Seed to seed: the digests differ. These are the fingerprints of my branches.
    Branches(Vec<Fingerprint>),
    /// Seed to seed: for each branch that differs, the fingerprints of my leaves.
    Leaves(Vec<(u16, Vec<Fingerprint>)>),
    /// Seed to seed: the fingerprints of my records in the leaves that differ.
    Holdings {
        /// Fingerprints by leaf.
        leaves: Vec<(u16, Vec<Fingerprint>)>,
        /// Whether more frames of the same kind follow.
        more: bool,
    },
    /// Seed to seed: these are records that you lack.
    Records {
        /// The records.
        records: Vec<(Addr, Record)>,
        /// Fingerprints by leaf of records that the sender lacks in turn.
        wanted: Vec<(u16, Vec<Fingerprint>)>,
        /// The sender's standing, if with this frame the receiver has all that the sender held when
        /// the comparison began.
        done: Option<Standing>,
    },
    /// Seed to seed: these members are long gone. Say so when you have these records on disk.
    Expire {
        /// The sender's number for this round.
        round: u64,
        /// Their records.
        records: Vec<(Addr, Record)>,
    },
    /// Seed to seed: I have the records of that round on disk.
    Expired {
        /// The asking seed's number for the round.
        round: u64,
    },
    /// Seed to seed: drop the records of these lives. All seeds have had them on disk, so nobody
    /// can bring these members back.
    Forget(Vec<(Addr, Incarnation)>),
    /// Seed to seed: these are links that peers have reported.
    LinkReports(Vec<LinkReport>),
}
