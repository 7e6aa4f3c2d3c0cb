//! What reaches a host: from its links, from its disk, and from those who hold it.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::crowd::Place;
use crate::net::handshake::Opened;
use crate::proto::gossip::MessageId;
use crate::proto::kv::clock::Seen;
use crate::proto::kv::replica::{Reply, Request};
use crate::proto::machine::{Conn, Delivery, MemberEvent, OpenError, PublishError};
use crate::proto::message::{Hello, Message, Welcome};
use crate::proto::order::{Order, Outcome};

/// What reaches the host.
#[derive(Debug)]
pub(super) enum Inbound {
    Incoming {
        opened: Opened,
        hello: Hello,
        place: Option<Place>,
    },
    Dialled {
        conn: Conn,
        result: Result<(Opened, Welcome), OpenError>,
    },
    Messages {
        conn: Conn,
        messages: Vec<Message>,
        turn: OwnedSemaphorePermit,
    },
    Closed {
        conn: Conn,
        reason: Option<String>,
    },
    Writable {
        conn: Conn,
        write: OwnedWriteHalf,
    },
    Publish {
        payload: Bytes,
        answer: Option<oneshot::Sender<Result<MessageId, PublishError>>>,
    },
    /// Asks the store, as a client that has seen this.
    Store {
        request: Request,
        seen: Option<Seen>,
        answer: oneshot::Sender<Reply>,
    },
    /// Something else that an operator wants.
    Operate {
        order: Order,
        answer: oneshot::Sender<Outcome>,
    },
    Leave,
    Subscribe(mpsc::Sender<Received>, oneshot::Sender<()>),
    Watch(mpsc::UnboundedSender<MemberEvent>, oneshot::Sender<()>),
    /// Looks at the machine between two inputs.
    Inspect(Inspection),
    /// All batches up to this one are on disk.
    #[cfg_attr(not(feature = "durable"), allow(dead_code))] // nothing else says so
    Durable(u64),
    /// The disk failed.
    #[cfg_attr(not(feature = "durable"), allow(dead_code))]
    DiskFailed(String),
}

/// A look at a machine, which is named by its type.
pub(super) struct Inspection(pub Look);

type Look = Box<dyn FnOnce(&dyn Any) + Send>;

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inspection")
    }
}

/// What a program receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message, its own ones included; each once.
    Message(Delivery),
    /// The program did not keep up: that many messages were left out before the next one.
    Missed(u64),
}

impl Received {
    /// Hands a message to a subscriber; false if it is gone.
    pub(super) fn offer(
        subscriber: &mpsc::Sender<Received>,
        missed: &mut u64,
        delivery: &Delivery,
    ) -> bool {
        if *missed > 0 {
            match subscriber.try_send(Received::Missed(*missed)) {
                Ok(()) => *missed = 0,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    *missed += 1;
                    return true;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
        }
        match subscriber.try_send(Received::Message(delivery.clone())) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                *missed += 1;
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}
