//! What peers say to each other so that everybody has every message.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::proto::address::{Addr, Incarnation};

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

/// How messages spread over a link of the overlay.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Broadcast {
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
}

/// Two peers compare the messages that they hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AntiEntropy {
    /// An anti-entropy round: a digest of the messages that the sender holds.
    Digest {
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
    Ranges(Box<Ranges>),
    /// Peer to peer: the digests match, in answer to that question of the other side.
    Matched(u64),
}
