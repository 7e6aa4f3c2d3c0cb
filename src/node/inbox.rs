//! The inbox of a host: everything that reaches it, from its connections, from its disk, and from
//! those in this process who hold a handle.

use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::OwnedSemaphorePermit;

use super::crowd::Places;
use super::hosted::Hosted;
use crate::net::handshake::Opened;
use crate::proto::machine::{Conn, OpenError};
use crate::proto::message::{Hello, Message, Welcome};

/// What reaches the host of a machine.
pub enum Inbound<M: Hosted> {
    /// Somebody has connected, and said hello.
    Incoming { opened: Opened, hello: Hello, places: Places },
    /// An attempt to open a connection is over.
    Dialled { conn: Conn, result: Result<(Opened, Welcome), OpenError> },
    /// Messages came over a connection; its reader may hand over one more batch once `turn` is
    /// dropped.
    Messages { conn: Conn, messages: Vec<Message>, turn: OwnedSemaphorePermit },
    /// A connection has ended.
    Closed { conn: Conn, reason: Option<String> },
    /// A connection that was blocked takes bytes again.
    Writable { conn: Conn, write: OwnedWriteHalf },
    /// Somebody in this process asks the machine for something.
    Ask(M::Ask),
    /// Somebody wants to look at the machine between two inputs.
    Look(Look<M>),
    /// The node is to end by itself.
    Stop,
    /// All batches up to this one are on disk.
    #[cfg_attr(not(feature = "durable"), allow(dead_code))] // nothing else says so
    Durable(u64),
    /// The disk failed.
    #[cfg_attr(not(feature = "durable"), allow(dead_code))]
    DiskFailed(String),
}

/// A look at a machine.
pub type Look<M> = Box<dyn FnOnce(&M) + Send>;
