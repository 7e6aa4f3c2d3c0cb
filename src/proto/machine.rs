//! The border between what decides and what does.
//!
//! A machine takes one [`Input`] and the time, and returns [`Effect`]s. It has
//! no sockets, files, clocks, threads or global randomness, so that the same
//! code runs on tokio, in the simulator and in a model checker (DESIGN.md,
//! section 2). Connections are numbers: the machine picks even ones for those
//! that it opens, the host odd ones for those that come in, and neither uses
//! one twice.

use std::time::Duration;

use super::event::Event;
use super::message::{Addr, Answer, Hello, Message, Refusal, Welcome};
use super::time::Time;

/// A connection, by number.
pub type Conn = u64;

/// What a machine is told; `C` is what it can be asked ([`Machine::Command`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input<C> {
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
    Command(C),
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

/// What a machine wants done; `R` is what it answers ([`Machine::Reply`]), `K` what it keeps
/// ([`Machine::Change`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect<R, K> {
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
        changes: Vec<K>,
    },
    /// Something for whoever runs or asks the machine.
    Reply(R),
    /// Something to log.
    Log(Event),
    /// The machine has nothing more to do: the process may end.
    Stopped,
}

/// The effects that a machine has.
pub type EffectOf<M> = Effect<<M as Machine>::Reply, <M as Machine>::Change>;

/// What both state machines are to those who run them: the tokio host and the simulator.
pub trait Machine {
    /// What it can be asked.
    type Command;
    /// What it answers, and tells without being asked.
    type Reply;
    /// What it keeps on disk.
    type Change;

    /// Takes one input at a time, and adds what is to be done to `effects`.
    fn handle(
        &mut self,
        now: Time,
        input: Input<Self::Command>,
        effects: &mut Vec<Effect<Self::Reply, Self::Change>>,
    );

    /// When the machine wants [`Input::Tick`] at the latest; asked again after every input.
    fn wake_at(&self) -> Option<Time>;
}
