//! What peers say to each other so that every peer has every message: `Broadcast` spreads messages
//! over the links of the overlay, `AntiEntropy` compares those that two peers hold. The layout of
//! these types is part of the protocol (PROTOCOL.md).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::proto::address::{Addr, Incarnation};
use crate::proto::signature::Signature;

/// A gossip message as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gossip {
    /// The peer that published it.
    pub origin: Addr,
    /// The origin's life in which it did so: its incarnation at the start of that life.
    pub life: Incarnation,
    /// 1 for the first message of that life, then 2, and so on.
    pub number: u64,
    /// Time of publication: milliseconds after `life`, which is itself in Unix milliseconds.
    pub offset: i64,
    /// Age when the sender sent it, milliseconds: the time for which the sender and the peers
    /// before it held the message, each by its own stopwatch, so that no two wall clocks have to
    /// agree. Not part of the message's identity.
    pub age: u64,
    /// What the message says.
    pub payload: Bytes,
    /// The origin's signature; none over plain links. Not part of the message's identity.
    pub signature: Option<Box<Signature>>,
}

/// The short name of an origin in one life: the first 8 bytes of SHA-256 over both.
///
/// Announcements name a message by this and its number, which takes some bytes; a SHA-256 for each
/// message would take 32.
pub type Tag = [u8; 8];

/// Runs of consecutive message numbers of one origin: `(first, how many)`, ascending.
pub type Runs = Vec<(u64, u64)>;

/// Parts into which a range of identities is split: one for each value of the next nibble.
pub const FANOUT: usize = 16;

/// Names an identity, or fingerprints a range, in one exchange: the first bytes of a salted
/// SHA-256. Two that look alike by chance, one pair in 10^14, look different in the next round.
pub type Print = [u8; 6];

/// The salt of all prints of one exchange.
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
    /// Most nibbles in a prefix: 60 bits, so even of a billion identities hardly two share a prefix
    /// by chance.
    pub const DEEPEST: u8 = 15;

    /// The range of identities that begin with `depth` nibbles, given as the number `nibbles`. None
    /// if `depth` is greater than [`Self::DEEPEST`] or the number has more nibbles than `depth`.
    pub fn new(depth: u8, nibbles: u64) -> Option<Self> {
        let prefix = Self { depth, nibbles };
        prefix.range().map(|_| prefix)
    }

    /// Number of nibbles in the prefix.
    pub fn depth(self) -> u8 {
        self.depth
    }

    /// The nibbles as one number.
    pub fn nibbles(self) -> u64 {
        self.nibbles
    }

    /// The nibble at `place`, counted from 0 for the first; `place` is below `depth`.
    pub fn nibble(self, place: u8) -> usize {
        let after = u32::from(self.depth.saturating_sub(place).saturating_sub(1));
        let nibble = self.nibbles.checked_shr(4 * after).unwrap_or(0) & 15;
        usize::try_from(nibble).unwrap_or(0)
    }

    /// The part of this range in which the next nibble is `nibble`; none at the greatest depth.
    pub fn below(self, nibble: usize) -> Option<Self> {
        let nibble = u64::try_from(nibble).ok().filter(|nibble| *nibble < 16)?;
        Self::new(self.depth.checked_add(1)?, self.nibbles << 4 | nibble)
    }

    /// Start and end (excluded) of this range, counted in ranges of the greatest depth. None if
    /// this is no range, which only a prefix from the wire can be.
    pub fn range(self) -> Option<(u64, u64)> {
        let below = Self::DEEPEST.checked_sub(self.depth)?;
        let width = 1_u64 << (4 * u32::from(below));
        let last = (1_u64 << (4 * u32::from(self.depth))) - 1;
        (self.nibbles <= last).then(|| (self.nibbles * width, (self.nibbles + 1) * width))
    }
}

/// What one step of a comparison says of ranges. Each list is in order of the ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parts {
    /// Fingerprints of the sixteen parts of a range.
    pub splits: Vec<(Prefix, [Print; FANOUT])>,
    /// Everything that the sender holds in a range.
    pub lists: Vec<(Prefix, Vec<Print>)>,
    /// Messages of a range that the receiver listed and the sender lacks: send me these.
    pub wants: Vec<(Prefix, Vec<Print>)>,
}

impl Parts {
    /// Whether the step says nothing.
    pub fn is_empty(&self) -> bool {
        self.splits.is_empty() && self.lists.is_empty() && self.wants.is_empty()
    }

    /// Whether the sender expects a step in answer. Messages may come in answer to any step.
    pub fn is_question(&self) -> bool {
        !(self.splits.is_empty() && self.lists.is_empty())
    }
}

/// A step of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ranges {
    /// Number of the receiver's question that this answers.
    pub to: u64,
    /// The sender's number for this question; the answer repeats it.
    pub round: u64,
    /// Salt of the prints, drawn by the side that was asked first; the same in all steps of an
    /// exchange.
    pub salt: Salt,
    /// Age in milliseconds of the youngest message that the sender dropped for want of room: send
    /// it only younger ones. 0 if it dropped none.
    pub floor: u64,
    /// Fingerprints, lists and requests.
    pub parts: Parts,
}

/// What goes over a link of the overlay so that messages spread.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Broadcast {
    /// A message, pushed or asked for.
    Gossip(Gossip),
    /// Messages that the sender has and did not push over this link.
    Have(Vec<(Tag, Runs)>),
    /// Do not push messages over this link, only announce them: they come to me another way.
    Prune,
    /// Push messages over this link.
    Graft,
    /// Send me these messages.
    Want(Vec<(Tag, Runs)>),
}

/// What two peers say to compare the messages that they hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AntiEntropy {
    /// Begins an anti-entropy round with a digest of the messages that the sender holds.
    Digest {
        /// The sender's number for this question; the answer repeats it.
        round: u64,
        /// Number of messages compared.
        count: u64,
        /// Digest of their identities.
        digest: [u8; 32],
        /// Compare the newest messages as well, which are usually left to gossip.
        fresh: bool,
    },
    /// A step of the comparison, which follows if the digests differ.
    Ranges(Box<Ranges>),
    /// The digests match. Answers the receiver's question of this number.
    Matched(u64),
}
