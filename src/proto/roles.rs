//! What each of the two machines can be asked, what it answers, and what it keeps: the types that the
//! border between machine and host ([`Machine`](super::machine::Machine)) leaves open.

use bytes::Bytes;

use super::gossip::MessageId;
use super::kv::clock::Seen;
use super::kv::request::{Reply, Request};
use super::message::{Addr, Gossip, Incarnation, Standing};
use super::order::{Order, Outcome};
use super::registry::Record;

/// What a peer can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerCommand {
    /// Gossip a payload; answered with [`PeerReply::Published`].
    Publish {
        /// Brought back by the answer.
        token: u64,
        /// What to say.
        payload: Bytes,
    },
    /// Ask the store for something; answered with [`PeerReply::Stored`].
    Store {
        /// Brought back by the answer.
        token: u64,
        /// What.
        request: Request,
        /// What the client has seen; nothing said is whatever this replica has.
        seen: Option<Seen>,
    },
    /// Anything else that an operator wants; answered with [`PeerReply::Operated`].
    Operate {
        /// Brought back by the answer.
        token: u64,
        /// What.
        order: Order,
    },
    /// Leave the network and stop; ends in [`Effect::Stopped`](super::machine::Effect::Stopped).
    Leave,
}

/// What a peer answers, and what it tells whoever embeds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerReply {
    /// Answer to [`PeerCommand::Publish`].
    Published {
        /// From the command.
        token: u64,
        /// The message's identity, or why not.
        result: Result<MessageId, PublishError>,
    },
    /// Answer to [`PeerCommand::Store`].
    Stored {
        /// From the command.
        token: u64,
        /// The answer.
        reply: Reply,
    },
    /// Answer to [`PeerCommand::Operate`].
    Operated {
        /// From the command.
        token: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// A gossip message for the application; each once in a life.
    Deliver(Delivery),
    /// Membership or neighbourhood changed.
    Member(MemberEvent),
}

/// What a seed can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeedCommand {
    /// Stop; ends in [`Effect::Stopped`](super::machine::Effect::Stopped).
    Stop,
}

/// One change of a seed's durable state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// A record, unless what is kept of the peer wins over it ([`Registry::merge`]).
    ///
    /// [`Registry::merge`]: super::registry::Registry::merge
    Record(Addr, Record),
    /// Nothing more of that peer, unless it is known in a later incarnation.
    Forget(Addr, Incarnation),
    /// How far the seed can be relied on.
    Standing(Standing),
    /// Marks of a founding that the registry goes back to, beside those kept.
    Founders(Vec<u64>),
    /// A copy of all that is kept, under a name with this number: the network was founded anew
    /// without it.
    SetAside(u64),
}

/// Why a payload could not be published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PublishError {
    /// Longer than a message may be.
    #[error("payload of {0} bytes is over the limit of {limit}", limit = super::gossip::MAX_PAYLOAD)]
    TooLong(usize),
    /// The peer is leaving.
    #[error("the peer is leaving the network")]
    Leaving,
    /// Too much waits to be published already.
    #[error("the peer is busy; try again")]
    Busy,
}

/// A gossip message handed to the application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// SHA-256 over origin, life, number, time and payload.
    pub id: MessageId,
    /// The message.
    pub gossip: Gossip,
    /// The neighbour that brought it; none for the peer's own.
    pub from: Option<Addr>,
}

/// What an embedding program hears of the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MemberEvent {
    /// A quorum of seeds has this peer in its registry; without seeds, its replica has what an
    /// existing one had.
    Registered,
    /// A member joined, or came back in a later incarnation.
    Joined(Addr, Incarnation),
    /// A member left by its own will.
    Left(Addr),
    /// The seeds committed a member dead.
    Dead(Addr),
    /// No quorum of seeds knows this member any more: they lost what they knew.
    Forgotten(Addr),
    /// This peer suspects a member.
    Suspected(Addr),
    /// A suspected member turned out to be alive.
    Refuted(Addr),
    /// A link is up.
    NeighbourUp(Addr),
    /// A link is down.
    NeighbourDown(Addr),
}
