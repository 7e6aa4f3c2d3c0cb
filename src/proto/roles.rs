//! What each of the two machines can be asked, what it answers, and what it keeps: the types that
//! the border between machine and host ([`Machine`](super::machine::Machine)) leaves open.

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
        /// Number that the answer brings back.
        token: u64,
        /// The payload.
        payload: Bytes,
    },
    /// Read or write the store; answered with [`PeerReply::Stored`].
    Store {
        /// Number that the answer brings back.
        token: u64,
        /// The request.
        request: Request,
        /// What the client has seen; `None` counts as having seen whatever this replica has.
        seen: Option<Seen>,
    },
    /// Anything else that an operator wants; answered with [`PeerReply::Operated`].
    Operate {
        /// Number that the answer brings back.
        token: u64,
        /// The order.
        order: Order,
    },
    /// Leave the network and stop; ends in [`Effect::Stopped`](super::machine::Effect::Stopped).
    Leave,
}

/// What a peer answers, and what it tells the program in which it is embedded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerReply {
    /// Answer to [`PeerCommand::Publish`].
    Published {
        /// Number from the command.
        token: u64,
        /// The message's identity, or why it was not published.
        result: Result<MessageId, PublishError>,
    },
    /// Answer to [`PeerCommand::Store`].
    Stored {
        /// Number from the command.
        token: u64,
        /// The answer.
        reply: Reply,
    },
    /// Answer to [`PeerCommand::Operate`].
    Operated {
        /// Number from the command.
        token: u64,
        /// What came of the order.
        outcome: Outcome,
    },
    /// A gossip message for the application; each message comes once in a life.
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
    /// Keep this record, unless the record that is kept of the peer wins over it
    /// ([`Registry::merge`]).
    ///
    /// [`Registry::merge`]: super::registry::Registry::merge
    Record(Addr, Record),
    /// Forget the record of this peer, unless it is of a later incarnation.
    Forget(Addr, Incarnation),
    /// Keep how far the seed can be relied on.
    Standing(Standing),
    /// Add these marks to those kept: they name the foundings that the registry goes back to.
    Founders(Vec<u64>),
    /// Copy all that is kept to a file with this number in its name: the network was founded anew
    /// without this seed.
    SetAside(u64),
}

/// Why a payload could not be published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PublishError {
    /// It is longer than a message may be.
    #[error("payload of {0} bytes is over the limit of {limit}", limit = super::gossip::MAX_PAYLOAD)]
    TooLong(usize),
    /// The peer is leaving.
    #[error("the peer is leaving the network")]
    Leaving,
    /// Too many messages wait to be published already, or this peer publishes more than 5,000 messages
    /// a second (1,000 where they are signed), which others would not take in.
    #[error("the peer is busy; try again")]
    Busy,
}

/// A gossip message handed to the application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// SHA-256 over origin, life, number, time and payload.
    pub id: MessageId,
    /// The message itself.
    pub gossip: Gossip,
    /// The neighbour that brought it; none for this peer's own message.
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
    /// A member left by its own will or, without seeds, was removed by an operator.
    Left(Addr),
    /// The seeds committed a member dead or, without seeds, peers found it dead.
    Dead(Addr),
    /// No quorum of seeds knows this member any more, because they lost or dropped its record.
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
