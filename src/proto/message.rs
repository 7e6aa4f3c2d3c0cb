//! Everything that is ever said over a link.
//!
//! A connection opens with a [`Hello`] and is answered with an [`Answer`];
//! after a welcome, [`Message`]s flow both ways. How they become bytes is
//! `net::codec`'s business alone (DESIGN.md, section 6).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use super::address::{Addr, Incarnation};
pub use super::change::{
    CastVote, Change, ChangeKind, Decision, Fingerprint, LinkReport, Standing,
};
use super::kv::clock::{Clock, Replica};
use super::kv::store::{Version, Write};
use super::registry::Record;

/// Whether a process is a seed or a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Keeps the registry and votes.
    Seed,
    /// Registers, links, gossips.
    Peer,
}

/// What a connection is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// A liveness probe or dial-back: the answer is all that is wanted.
    Probe,
    /// A link of the overlay, between neighbours.
    Link,
    /// A peer talks to its seed: registration, refresh, reports, leave.
    Membership,
    /// A seed talks to a seed.
    Council,
    /// A peer brings a notice to a peer that is not its neighbour, and hears the answer.
    Errand,
    /// A peer compares its messages with those of a peer that is not its neighbour.
    Sync,
    /// Somebody asks a peer what its replica of the store holds.
    Ask,
}

/// The first words on a connection, said by the side that opened it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// Name of the network: two networks on one machine must not mix.
    pub network: String,
    /// SHA-256 over the sorted seed list: two seed lists are two networks.
    pub seeds: [u8; 32],
    /// Seed or peer.
    pub role: Role,
    /// Where the one who opens listens.
    pub from: Addr,
    /// Its incarnation; 0 for seeds.
    pub incarnation: Incarnation,
    /// What the connection is for.
    pub purpose: Purpose,
    /// What the clock of the one who opens says, Unix milliseconds; 0 if it does not say.
    pub clock: u64,
}

/// The reply to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// Come in.
    Welcome(Welcome),
    /// Stay out, and why.
    Refused(Refusal),
}

/// Who answered; this is what a dial-back proves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Welcome {
    /// Seed or peer.
    pub role: Role,
    /// Where it says it listens.
    pub from: Addr,
    /// Its incarnation; 0 for seeds.
    pub incarnation: Incarnation,
    /// It is about to leave by its own will.
    pub leaving: bool,
    /// What its clock says, Unix milliseconds; 0 if it does not say.
    pub clock: u64,
}

/// Why a connection was refused, and whom to ask instead.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason.
    pub reason: Refused,
    /// Others to try, when the one asked is full.
    pub others: Vec<Addr>,
}

/// Reasons for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refused {
    /// It speaks another version of the protocol.
    Version,
    /// It belongs to a network of another name.
    Network,
    /// It has a different seed list.
    SeedList,
    /// It has no free link.
    Full,
    /// The two are linked already.
    AlreadyLinked,
    /// It is leaving.
    Leaving,
    /// It does not do that: a seed takes no overlay link, a peer keeps no registry.
    WrongRole,
    /// The caller claims the address of the one it calls.
    Myself,
    /// The caller is dead or gone as far as is known here: it has to register again.
    NotMember,
}

impl Refused {
    /// The reason in words, for the log.
    pub const fn words(self) -> &'static str {
        match self {
            Refused::Version => "protocol version differs",
            Refused::Network => "network name differs",
            Refused::SeedList => "seed list differs",
            Refused::Full => "no free link",
            Refused::AlreadyLinked => "already linked",
            Refused::Leaving => "leaving",
            Refused::WrongRole => "wrong role",
            Refused::Myself => "own address",
            Refused::NotMember => "not a member",
        }
    }
}

/// A gossip message as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gossip {
    /// The peer that published it.
    pub origin: Addr,
    /// The origin's life in which it did (its incarnation at the start of that life).
    pub life: Incarnation,
    /// 1 for the first message of that life, then 2, and so on.
    pub number: u64,
    /// When it was published: milliseconds after `life`, which is itself in Unix milliseconds.
    pub offset: i64,
    /// How long ago that was when the sender sent it, milliseconds: the time for which it and those
    /// before it held the message, each by its own stopwatch, so that no two wall clocks have to
    /// agree. No part of what the message is.
    pub age: u64,
    /// What it says.
    pub payload: Bytes,
}

/// The short name of an origin in one life: the first 8 bytes of SHA-256 over both.
///
/// Announcements name messages by this and a number: some bytes where a SHA-256 each would cost 32.
pub type Tag = [u8; 8];

/// Runs of consecutive message numbers of one origin: `(first, how many)`, ascending.
pub type Runs = Vec<(u64, u64)>;

/// Parts into which a range of identities is split: one for each value of the next nibble.
pub const FANOUT: usize = 16;

/// Names an identity, or fingerprints a range, in one exchange: the first bytes of a salted
/// SHA-256. Two that look alike by chance, one pair in 10^14, look different in the next round.
pub type Print = [u8; 6];

/// What the prints of one exchange are salted with.
pub type Salt = [u8; 8];

/// A range of identities: those that begin with the same nibbles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prefix {
    depth: u8,
    nibbles: u64,
}

impl Prefix {
    /// All identities.
    pub const ALL: Self = Self { depth: 0, nibbles: 0 };
    /// Nibbles in a prefix at most: 60 bits, in which no two of a billion identities agree by chance.
    pub const DEEPEST: u8 = 15;

    /// Identities that begin with that many nibbles, which are given as a number; none if there is
    /// no such range.
    pub fn new(depth: u8, nibbles: u64) -> Option<Self> {
        let prefix = Self { depth, nibbles };
        prefix.range().map(|_| prefix)
    }

    /// How many nibbles it has.
    pub fn depth(self) -> u8 {
        self.depth
    }

    /// Its nibbles as a number.
    pub fn nibbles(self) -> u64 {
        self.nibbles
    }

    /// Its nibble at a place below `depth`, the first at 0.
    pub fn nibble(self, place: u8) -> usize {
        let after = u32::from(self.depth.saturating_sub(place).saturating_sub(1));
        let nibble = self.nibbles.checked_shr(4 * after).unwrap_or(0) & 15;
        usize::try_from(nibble).unwrap_or(0)
    }

    /// The part of it whose next nibble is that; none at the deepest.
    pub fn below(self, nibble: usize) -> Option<Self> {
        let nibble = u64::try_from(nibble).ok().filter(|nibble| *nibble < 16)?;
        Self::new(self.depth.checked_add(1)?, self.nibbles << 4 | nibble)
    }

    /// Where it starts and ends among all ranges of the greatest depth; none if it came from the
    /// wire and is no range.
    pub fn range(self) -> Option<(u64, u64)> {
        let below = Self::DEEPEST.checked_sub(self.depth)?;
        let width = 1_u64 << (4 * u32::from(below));
        let last = (1_u64 << (4 * u32::from(self.depth))) - 1;
        (self.nibbles <= last).then(|| (self.nibbles * width, (self.nibbles + 1) * width))
    }
}

/// What one step of a comparison says of ranges, each list in order of the ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parts {
    /// Fingerprints of the sixteen parts of a range.
    pub splits: Vec<(Prefix, [Print; FANOUT])>,
    /// All that the sender holds in a range.
    pub lists: Vec<(Prefix, Vec<Print>)>,
    /// What the receiver listed of a range and the sender does not have: send me these.
    pub wants: Vec<(Prefix, Vec<Print>)>,
}

impl Parts {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.splits.is_empty() && self.lists.is_empty() && self.wants.is_empty()
    }

    /// Whether an answer is expected, besides messages.
    pub fn is_question(&self) -> bool {
        !(self.splits.is_empty() && self.lists.is_empty())
    }
}

/// A step of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ranges {
    /// The other side's question that this answers.
    pub to: u64,
    /// The sender's number for this question, brought back by what answers it.
    pub round: u64,
    /// Drawn by the side that was asked first; the same in all steps of the exchange.
    pub salt: Salt,
    /// The sender has dropped messages for want of room, and takes only those that are younger than
    /// this, milliseconds; 0 if it has not.
    pub floor: u64,
    /// What is said.
    pub parts: Parts,
}

/// Records by address, shared by all who are sent the same ones.
pub type Records = Arc<[(Addr, Record)]>;

/// What is said over an open connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Are you there? Carries a number that the [`Message::Pong`] brings back.
    Ping(u64),
    /// I am.
    Pong(u64),
    /// The sender leaves the network by its own will and is not to be suspected.
    Leaving,
    /// The sender closes this link for a reason of its own and is alive.
    Unlink,

    /// A gossip message, pushed or asked for.
    Gossip(Gossip),
    /// Messages that the sender has and did not push over this link.
    Have(Vec<(Tag, Runs)>),
    /// Do not push messages over this link, only announce them: they come another way.
    Prune,
    /// Push messages over this link.
    Graft,
    /// Send me these.
    Want(Vec<(Tag, Runs)>),

    /// An anti-entropy round: a digest of the messages that the sender holds.
    SyncDigest {
        /// The sender's number for this question, brought back by what answers it.
        round: u64,
        /// Number of messages compared.
        count: u64,
        /// Digest of their SHA-256.
        digest: [u8; 32],
        /// The newest messages are compared as well, which else are left to gossip.
        fresh: bool,
    },
    /// A step of the comparison that follows if the digests differ.
    SyncRanges(Box<Ranges>),

    /// The sender suspects `peer` and asks the receiver to look for itself.
    SuspectNotice {
        /// The suspect.
        peer: Addr,
        /// In that incarnation.
        incarnation: Incarnation,
    },
    /// The sender looked for itself and did not find `peer` either.
    Witness {
        /// The suspect.
        peer: Addr,
        /// In that incarnation.
        incarnation: Incarnation,
    },
    /// `peer` is alive in `incarnation`: it said so to the sender, or is the sender.
    Refute {
        /// Who was suspected.
        peer: Addr,
        /// The incarnation in which it answered.
        incarnation: Incarnation,
    },

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
    /// Peer to seed: what is new? Answered with a [`Message::List`] if the digest differs, else
    /// with [`Message::Unchanged`].
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
    /// Peer to seed: the sender's links.
    Links {
        /// The sender's number for this report; a later one replaces an earlier one.
        number: u64,
        /// Its neighbours.
        neighbours: Vec<Addr>,
    },
    /// Seed to seed: what peers reported of their links.
    LinkReports(Vec<LinkReport>),

    /// Peer to peer: the digests match, in answer to that question of the other side.
    SyncMatched(u64),

    /// Peer to peer: a write to the store, pushed.
    Write(Arc<Write>),
    /// Peer to peer: what the sender has seen of the store.
    StoreContext {
        /// Writes seen.
        context: Clock,
        /// The receiver is to tell its own, if the sender lacks nothing that it knows of.
        answer: bool,
    },
    /// Peer to peer: writes that the receiver lacks, in an order in which they can be applied.
    Writes(Vec<Arc<Write>>),
    /// Peer to peer: the receiver lacks more than there are single writes of; it may ask for all.
    SnapshotOffer,
    /// Peer to peer: send what a replica that has seen this lacks; or, with none, more of it.
    SnapshotAsk {
        /// The sender's number for this question, the same until it has all.
        round: u64,
        /// What the sender has seen.
        seen: Option<Clock>,
    },
    /// Peer to peer: a part of the store as it was at one moment.
    SnapshotPart {
        /// The question's number: what stands is told of what the receiver had seen when it asked.
        round: u64,
        /// Which part it is, from 0: none may be missing.
        part: u64,
        /// What the sender had seen at that moment.
        context: Clock,
        /// Its Lamport time.
        lamport: u64,
        /// Seals that the receiver has not seen, each after those that it rests on.
        seals: Vec<Arc<Write>>,
        /// Of the writes that the receiver has seen: those whose versions stand, by replica.
        standing: Vec<(Replica, Runs)>,
        /// Keys and their versions, beyond those.
        entries: Vec<(Arc<str>, Vec<Version>)>,
        /// More parts follow.
        more: bool,
    },

    /// Peer to peer, without seeds: opens a link. Who I am, and whom I know, the gone included.
    Handshake(Vec<(Addr, Record)>),
    /// Peer to peer, without seeds: whom I know, in answer to a handshake.
    Peers {
        /// All that the sender knows, itself and the gone included.
        records: Vec<(Addr, Record)>,
        /// What it has seen of the store: whoever is new has caught up once it has seen that, if the
        /// sender has itself.
        context: Clock,
        /// The sender has what the replicas before it had.
        caught_up: bool,
    },
    /// Peer to peer, without seeds: records that changed.
    PeersChanged(Vec<(Addr, Record)>),
    /// Peer to peer, without seeds: digest of the records that the sender knows. Answered with a
    /// handshake if the receiver knows others.
    PeersDigest([u8; 32]),

    /// What do you hold under this key, or which keys?
    StoreAsk(Option<Arc<str>>),
    /// The versions of the key that was asked for, in frames.
    StoreVersions {
        /// The one to show first, first.
        versions: Vec<Version>,
        /// More follow.
        more: bool,
    },
    /// The keys, in frames.
    StoreKeys {
        /// In order.
        keys: Vec<Arc<str>>,
        /// More follow.
        more: bool,
    },

    /// Seed to peer: nobody at that address is known here, in answer to a report of its death.
    NoMember {
        /// The address.
        peer: Addr,
    },
}
