//! The border between what decides and what does.
//!
//! A machine takes one [`Input`] and the time, and returns [`Effect`]s. It has no sockets, files,
//! clocks, threads or global randomness, so that the same code runs on tokio, in the simulator and
//! in a model checker (DESIGN.md, section 2). Connections are numbers: the machine picks even ones
//! for those that it opens, the host odd ones for those that come in, and neither uses one twice.

use std::time::Duration;

use super::event::Event;
use super::message::{Addr, Answer, Hello, Message, Refusal, Welcome};
use super::time::Time;

/// The number of a connection.
pub type Conn = u64;

/// What a machine is told; `C` is what it can be asked to do ([`Machine::Command`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input<C> {
    /// The first input of a life: the process listens.
    Start,
    /// Somebody opened a connection and said hello. The host has checked already that the network
    /// name and the seed list are ours. The machine has to answer with [`Effect::Answer`].
    Incoming {
        /// The new connection; odd.
        conn: Conn,
        /// The hello of the caller.
        hello: Hello,
    },
    /// A connection that this machine opened was welcomed.
    Opened {
        /// As in [`Effect::Open`].
        conn: Conn,
        /// The answer of the other side.
        welcome: Welcome,
    },
    /// A connection that this machine wanted to open failed; its number is not used again.
    OpenFailed {
        /// As in [`Effect::Open`].
        conn: Conn,
        /// The reason.
        error: OpenError,
    },
    /// A message came over an open connection.
    Received {
        /// The connection.
        conn: Conn,
        /// The message.
        message: Message,
    },
    /// An open connection ended without this machine having closed it.
    Closed {
        /// The connection.
        conn: Conn,
    },
    /// The queue of a connection has passed its high-water mark: eager traffic should avoid it.
    Congested {
        /// The connection.
        conn: Conn,
    },
    /// The queue of a congested connection has fallen below its low-water mark.
    Relieved {
        /// The connection.
        conn: Conn,
    },
    /// The time that [`Machine::wake_at`] named has come.
    Tick,
    /// The changes of an [`Effect::Persist`] are durable.
    Persisted {
        /// The number of the batch, as in the effect.
        batch: u64,
    },
    /// The embedding program or the operator wants something.
    Command(C),
}

/// The number of a batch, and the changes to keep.
pub type Batch<C> = (u64, Vec<C>);

/// Why a connection could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OpenError {
    /// Nobody listens there, which is hard evidence.
    Unreachable,
    /// No answer came in time.
    TimedOut,
    /// The other side refused the connection.
    Refused(Refusal),
    /// The process that answered does not speak this protocol.
    Garbage,
    /// This process could not even try, because it has no descriptors or memory left. That says
    /// nothing of the other side.
    Local,
}

/// What a machine wants done; `R` is what it answers ([`Machine::Reply`]), `K` what it keeps
/// ([`Machine::Change`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect<R, K> {
    /// Open a connection and say hello; answered with [`Input::Opened`] or [`Input::OpenFailed`].
    Open {
        /// Its number, which is even.
        conn: Conn,
        /// The address to dial.
        to: Addr,
        /// The hello to say.
        hello: Hello,
        /// Bound on connecting and answering together.
        within: Duration,
    },
    /// Answer an incoming connection. The host then closes it if it was refused.
    Answer {
        /// The connection.
        conn: Conn,
        /// Welcome or refusal.
        answer: Answer,
    },
    /// Send a message over an open connection.
    Send {
        /// The connection.
        conn: Conn,
        /// The message.
        message: Message,
    },
    /// Send one message over several connections; it is encoded once.
    SendMany {
        /// The connections.
        conns: Vec<Conn>,
        /// The message.
        message: Message,
    },
    /// Close a connection after sending what is queued, or give up opening it. No [`Input::Closed`]
    /// follows.
    Close {
        /// The connection.
        conn: Conn,
    },
    /// Make changes durable, then say [`Input::Persisted`].
    Persist {
        /// Number of the batch, which `Persisted` brings back; it rises.
        batch: u64,
        /// The changes to keep, in order.
        changes: Vec<K>,
    },
    /// An answer or a message for whoever runs the machine.
    Reply(R),
    /// An event to log.
    Log(Event),
    /// The machine has nothing more to do: the process may end.
    Stopped,
}

/// The effects of a machine of type `M`.
pub type EffectOf<M> = Effect<<M as Machine>::Reply, <M as Machine>::Change>;

/// What both machines have in common for those who run them: the tokio host and the simulator.
pub trait Machine {
    /// What the machine can be asked to do.
    type Command;
    /// What the machine answers, and what it tells without being asked.
    type Reply;
    /// What the machine keeps on disk.
    type Change;

    /// Takes one input, and adds to `effects` what is to be done.
    fn handle(
        &mut self,
        now: Time,
        input: Input<Self::Command>,
        effects: &mut Vec<Effect<Self::Reply, Self::Change>>,
    );

    /// When the machine needs [`Input::Tick`] at the latest. It is asked again after every input.
    fn wake_at(&self) -> Option<Time>;
}
