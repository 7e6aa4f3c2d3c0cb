//! The border between what decides and what does.
//!
//! A machine takes one [`Input`] and the time, and returns [`Effect`]s. It has
//! no sockets, files, clocks, threads or global randomness, so that the same
//! code runs on tokio, in the simulator and in a model checker (DESIGN.md,
//! section 2). Connections are numbers: the machine picks even ones for those
//! that it opens, the host odd ones for those that come in, and neither uses
//! one twice.

use std::time::Duration;

use bytes::Bytes;

use super::event::Event;
use super::gossip::MessageId;
use super::kv::clock::Seen;
use super::kv::request::{Reply, Request, StoreChange};
use super::message::{
    Addr, Answer, Gossip, Hello, Incarnation, Message, Refusal, Standing, Welcome,
};
use super::order::{Order, Outcome};
use super::registry::Record;
use super::time::Time;

/// A connection, by number.
pub type Conn = u64;

/// What a machine is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The first input of a life: the process listens.
    Start,
    /// Somebody opened a connection and said hello. The host has already checked that network
    /// name and seed list are ours. To be answered with [`Effect::Answer`].
    Incoming {
        /// The new connection; odd.
        conn: Conn,
        /// What was said.
        hello: Hello,
    },
    /// A connection that this machine opened was welcomed.
    Opened {
        /// As in [`Effect::Open`].
        conn: Conn,
        /// What was answered.
        welcome: Welcome,
    },
    /// A connection that this machine opened came to nothing; its number is not used again.
    OpenFailed {
        /// As in [`Effect::Open`].
        conn: Conn,
        /// Why.
        error: OpenError,
    },
    /// A message came over an open connection.
    Received {
        /// Over which.
        conn: Conn,
        /// What it says.
        message: Message,
    },
    /// An open connection ended without this machine having closed it.
    Closed {
        /// Which.
        conn: Conn,
    },
    /// The queue of a connection has passed its high-water mark: eager traffic is to pass it by.
    Congested {
        /// Which.
        conn: Conn,
    },
    /// The queue of a congested connection has emptied.
    Relieved {
        /// Which.
        conn: Conn,
    },
    /// The time that `wake_at` asked for has come.
    Tick,
    /// What [`Effect::Persist`] asked for is durable.
    Persisted {
        /// As in the effect.
        batch: u64,
    },
    /// The embedding program or the operator wants something.
    Command(Command),
}

/// Changes to keep, and their number.
pub type Batch<C> = (u64, Vec<C>);

/// Why a connection could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OpenError {
    /// Nobody listens there: hard evidence.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The other side said no.
    Refused(Refusal),
    /// What answered does not speak this protocol.
    Garbage,
    /// This process could not even try, for want of descriptors or memory: that says nothing about
    /// the other side.
    Local,
}

/// What the operator or the embedding program asks of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Gossip a payload; answered with [`Effect::Published`].
    Publish {
        /// Brought back by the answer.
        token: u64,
        /// What to say.
        payload: Bytes,
    },
    /// Ask the store for something; answered with [`Effect::Stored`].
    Store {
        /// Brought back by the answer.
        token: u64,
        /// What.
        request: Request,
        /// What the client has seen; nothing said is whatever this replica has.
        seen: Option<Seen>,
    },
    /// Anything else that an operator wants; answered with [`Effect::Operated`].
    Operate {
        /// Brought back by the answer.
        token: u64,
        /// What.
        order: Order,
    },
    /// Leave the network and stop; ends in [`Effect::Stopped`].
    Leave,
}

/// What a machine wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Open a connection and say hello; answered with `Opened` or `OpenFailed`.
    Open {
        /// Its number; even.
        conn: Conn,
        /// Where to.
        to: Addr,
        /// What to say.
        hello: Hello,
        /// Bound on connecting and on the answer, together.
        within: Duration,
    },
    /// Answer an incoming connection; a refused one is then closed by the host.
    Answer {
        /// Which.
        conn: Conn,
        /// Welcome or refusal.
        answer: Answer,
    },
    /// Send a message over an open connection.
    Send {
        /// Which.
        conn: Conn,
        /// What.
        message: Message,
    },
    /// Send one message over several connections, encoded once.
    SendMany {
        /// Which.
        conns: Vec<Conn>,
        /// What.
        message: Message,
    },
    /// Close a connection, or give up opening it, after sending what is queued. No `Closed`
    /// follows.
    Close {
        /// Which.
        conn: Conn,
    },
    /// Make changes durable, then say `Persisted`.
    Persist {
        /// Brought back by `Persisted`; ascending.
        batch: u64,
        /// What to keep, in order.
        changes: Vec<Keep>,
    },
    /// Make changes of the store durable, then say `Persisted`.
    PersistStore {
        /// Brought back by `Persisted`; ascending.
        batch: u64,
        /// What to keep, in order.
        changes: Vec<StoreChange>,
    },
    /// Answer to [`Command::Store`].
    Stored {
        /// From the command.
        token: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something to log.
    Log(Event),
    /// A gossip message for the application; each once in a life.
    Deliver(Delivery),
    /// Membership or neighbourhood changed.
    Member(MemberEvent),
    /// Answer to [`Command::Publish`].
    Published {
        /// From the command.
        token: u64,
        /// The message's identity, or why not.
        result: Result<MessageId, PublishError>,
    },
    /// Answer to [`Command::Operate`].
    Operated {
        /// From the command.
        token: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// The machine has nothing more to do: the process may end.
    Stopped,
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

/// What both state machines are to those who run them: the tokio host and the simulator.
pub trait Machine {
    /// Takes one input at a time, and adds what is to be done to `effects`.
    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>);

    /// When the machine wants [`Input::Tick`] at the latest; asked again after every input.
    fn wake_at(&self) -> Option<Time>;
}
