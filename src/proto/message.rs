//! All that is ever said over a link.
//!
//! A connection opens with a [`Hello`] and is answered with an [`Answer`]; after a welcome,
//! [`Message`]s flow both ways. Only `net::codec` knows how they become bytes (DESIGN.md, section
//! 6).

use serde::{Deserialize, Serialize};

pub use super::address::{Addr, Incarnation};
pub use super::change::{
    CastVote, Change, ChangeKind, Decision, Fingerprint, LinkReport, Standing,
};
pub use super::gossip::message::{
    AntiEntropy, Broadcast, FANOUT, Gossip, Parts, Prefix, Print, Ranges, Runs, Salt, Tag,
};
pub use super::identity::Identity;
pub use super::kv::message::{Inspection, StoreSync};
pub use super::peer::message::{Detection, Members, Parting};
pub use super::seed::message::{Council, Records, ToPeer, ToSeed};

/// Whether a process is a seed or a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A seed keeps the registry and votes.
    Seed,
    /// A peer registers, links up and gossips.
    Peer,
}

/// What a connection is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// A liveness probe or dial-back: the caller wants nothing but the answer.
    Probe,
    /// A link of the overlay, between neighbours.
    Link,
    /// A peer talks to its seed: registration, refresh, reports, leave.
    Membership,
    /// A seed talks to a seed.
    Council,
    /// A peer brings a notice to a peer that is not its neighbour, and waits for the answer.
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
    /// Address at which the caller listens.
    pub from: Addr,
    /// The caller's incarnation; 0 for seeds.
    pub incarnation: Incarnation,
    /// What the connection is for.
    pub purpose: Purpose,
    /// The caller's clock, Unix milliseconds; 0 if it does not say.
    pub clock: u64,
    /// Who the caller is, as an encrypted link has proven; none over a plain link. It is not part of
    /// the message: whoever runs the machine that hears the hello puts it in.
    #[serde(skip)]
    pub identity: Option<Identity>,
}

/// The reply to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// The caller may come in.
    Welcome(Welcome),
    /// The caller must stay out; the reason.
    Refused(Refusal),
}

/// Who answered. A dial-back proves this.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Welcome {
    /// Seed or peer.
    pub role: Role,
    /// Address at which it says that it listens.
    pub from: Addr,
    /// Its incarnation; 0 for seeds.
    pub incarnation: Incarnation,
    /// Whether it is about to leave by its own will.
    pub leaving: bool,
    /// Its clock, Unix milliseconds; 0 if it does not say.
    pub clock: u64,
    /// Who it is, as an encrypted link has proven; not part of the message, as in a [`Hello`].
    #[serde(skip)]
    pub identity: Option<Identity>,
}

impl Welcome {
    /// Whether the process that answered has this role and address, and is not another one that
    /// listens there now.
    pub fn is_of(&self, role: Role, address: Addr) -> bool {
        self.role == role && self.from == address
    }
}

/// Why a connection was refused, and whom to ask instead.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason.
    pub reason: Refused,
    /// Others to call instead, if the one called is full.
    pub others: Vec<Addr>,
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refused {
    /// The two speak different versions of the protocol.
    Version,
    /// The two belong to networks of different names.
    Network,
    /// The two have different seed lists.
    SeedList,
    /// The one called has no free link.
    Full,
    /// The two are linked already.
    AlreadyLinked,
    /// The one called is leaving.
    Leaving,
    /// The one called does not do that: a seed takes no overlay link, a peer keeps no registry.
    WrongRole,
    /// The caller claims the address of the one it calls.
    Myself,
    /// The caller is dead or gone as far as the one called knows: it has to register again.
    NotMember,
    /// The caller's link is plain, and the one called takes encrypted links alone.
    Plain,
    /// The caller's link is encrypted, and the one called has no key.
    Encrypted,
    /// The caller has no key that the one called accepts.
    WrongKey,
    /// The caller is not the process that its address is known for.
    WrongIdentity,
    /// The caller says that it is a seed which the one called has not reached at that address yet.
    UnknownIdentity,
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
            Refused::Plain => "the link is not encrypted: start it with the network's --key-file",
            Refused::Encrypted => "the link is encrypted, and this process has no --key-file",
            Refused::WrongKey => "no key in common: compare the key files",
            Refused::WrongIdentity => "another process is known at that address",
            Refused::UnknownIdentity => "the seed at that address has to be reached first",
        }
    }
}

/// What is said over an open connection: an envelope around the messages of each protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Asks whether the other side is there; the number comes back with [`Message::Pong`].
    Ping(u64),
    /// Answers a ping.
    Pong(u64),
    /// Says how a link between neighbours ends, before it does.
    Parting(Parting),
    /// Spreads messages over a link of the overlay.
    Broadcast(Broadcast),
    /// Two peers compare the messages that they hold.
    AntiEntropy(AntiEntropy),
    /// What peers tell each other of a member that does not answer.
    Detection(Detection),
    /// What a peer says to a seed.
    ToSeed(ToSeed),
    /// What a seed says to a peer.
    ToPeer(ToPeer),
    /// What seeds say to each other.
    Council(Council),
    /// Keeps replicas of the store up to date.
    StoreSync(StoreSync),
    /// Peers of a network without seeds tell each other who belongs to it.
    Members(Members),
    /// Asks a peer what its replica of the store holds, or answers that.
    Inspection(Inspection),
}

/// A message that may not be said on this connection, or not in this form: the connection is closed
/// for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach;

macro_rules! envelope {
    ($($protocol:ident)*) => {$(
        impl From<$protocol> for Message {
            fn from(said: $protocol) -> Self {
                Message::$protocol(said)
            }
        }
    )*};
}

envelope! {
    Parting Broadcast AntiEntropy Detection ToSeed ToPeer Council StoreSync Members Inspection
}

impl Message {
    /// Whether it may go ahead of data that waits for the same connection: what tells who lives and
    /// who belongs to the network. A farewell is not of these, because it ends the connection, and
    /// all that was said before has to be heard.
    pub fn goes_ahead(&self) -> bool {
        match self {
            Message::Ping(_)
            | Message::Pong(_)
            | Message::Detection(_)
            | Message::Members(_)
            | Message::ToSeed(_)
            | Message::ToPeer(_)
            | Message::Council(_) => true,
            Message::Parting(_)
            | Message::Broadcast(_)
            | Message::AntiEntropy(_)
            | Message::StoreSync(_)
            | Message::Inspection(_) => false,
        }
    }
}
