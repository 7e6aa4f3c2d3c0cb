//! Accepts connections, and hears the hello of each.
//!
//! What must stay true: connections that say nothing take a bounded number of places and keep
//! nobody else out. When all places are taken, the connection that has been silent longest goes.
//! Otherwise silent strangers could fill all places, a probe would find none, and a living peer
//! would be voted dead.
//!
//! One port may serve links and something else, such as HTTP. A link begins with the length of its
//! hello, whose first byte is 0; no text protocol begins with that byte.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::crowd::{Crowd, Places};
use super::events::EventLog;
use super::hosted::Hosted;
use super::inbox::Inbound;
use super::log::{Log, NodeLog};
use crate::logging::Sink;
use crate::net::handshake::{self, AcceptError, Opened};
use crate::net::secure::Security;
use crate::proto::config::Network;
use crate::proto::event::Severity;
use crate::proto::limits::Limit;
use crate::proto::message::{Addr, Hello, Identity, Purpose, Refused};

/// Connections that may wait to say hello. A stranger takes such a place for nothing, so they are few;
/// whoever means it has said its hello within a round trip.
const MAX_HALF_OPEN: usize = 512;
/// Open connections from one address, probes not counted. A test may run a thousand peers on one
/// machine, and they must fit.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 4_096;
/// Open connections of one identity, probes not counted. A process has a link or a session with this
/// one, and while it looks after many deaths some errands beside it.
const MAX_CONNECTIONS_PER_IDENTITY: usize = 64;
/// Open connections in all; further ones are closed, except probes. As many as there may be members of
/// one source, each of which holds one connection to each seed.
const MAX_CONNECTIONS: usize = 16_384;
/// A lack of descriptors is logged this often. It lasts, and more lines would say nothing new.
const OUT_OF_FILES_TOLD: Duration = Duration::from_secs(60);
/// Pause before the next attempt to accept when the system has no more file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(50);
/// Lines a second about connections that came to nothing; further lines are only counted.
const LINES_A_SECOND: u32 = 500;

/// Connections that are no links and wait to be taken by whoever shares the port: as many as HTTP
/// serves at the same time.
const MAX_OTHERS: usize = 1_024;

/// How many connections a node lets in. A probe always gets in: it only asks whether this process
/// lives, and is gone with the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub of_address: usize,
    pub of_identity: usize,
    pub in_all: usize,
}

impl Default for Most {
    fn default() -> Self {
        Self {
            of_address: MAX_CONNECTIONS_PER_ADDRESS,
            of_identity: MAX_CONNECTIONS_PER_IDENTITY,
            in_all: MAX_CONNECTIONS,
        }
    }
}

/// Where a node listens.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    other: Option<mpsc::Sender<TcpStream>>,
    pub(super) security: Option<Security>,
    pub(super) log: Log,
    pub(super) most: Most,
}

impl From<TcpListener> for Port {
    /// A port for links alone, whose node logs to the logger of the process.
    fn from(listener: TcpListener) -> Self {
        Self { listener, other: None, security: None, log: Log::default(), most: Most::default() }
    }
}

impl Port {
    /// Also adds all lines of the node's log to this event log, from the first line on.
    #[must_use]
    pub fn with_log(mut self, log: EventLog) -> Self {
        self.log.followed = Some(log);
        self
    }

    /// Has the node's log written to this sink instead of the logger of the process.
    #[must_use]
    pub fn with_sink(mut self, sink: Arc<dyn Sink>) -> Self {
        self.log.sink = sink;
        self
    }

    /// Has all links encrypted, those that come in and those that the node opens.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn with_security(mut self, security: Security) -> Self {
        self.security = Some(security);
        self
    }

    /// A port for links and something else, told apart by their first bytes. Connections that are
    /// no links come out of the receiver.
    pub fn shared(listener: TcpListener) -> (Self, mpsc::Receiver<TcpStream>) {
        let (other, streams) = mpsc::channel(MAX_OTHERS);
        (Self { other: Some(other), ..Self::from(listener) }, streams)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections that have not said hello yet, in the order in which they came.
#[derive(Clone, Debug, Default)]
struct Silent(Arc<Mutex<BTreeMap<u64, AbortHandle>>>);

impl Silent {
    /// Lets a task run that ends its silence by removing its number from the list.
    fn begin(&self, number: u64, task: impl Future<Output = ()> + Send + 'static) {
        // The lock is held until the task is listed, or it could remove its entry before that.
        let mut list = lock(&self.0);
        list.insert(number, tokio::spawn(task).abort_handle());
    }

    /// Makes room for one more connection; true if the oldest one had to go for it.
    fn make_room(&self) -> bool {
        let mut waiting = lock(&self.0);
        let oldest = if waiting.len() >= MAX_HALF_OPEN { waiting.pop_first() } else { None };
        match oldest {
            Some((_, task)) => {
                task.abort();
                true
            }
            None => false,
        }
    }
}

/// Failed attempts to accept.
#[derive(Debug, Default)]
struct Failures {
    told: Option<Instant>,
    since: u64,
}

impl Failures {
    /// Counts one more failure. Returns the line to log, if it is time for one.
    fn told(&mut self, now: Instant, error: &std::io::Error) -> Option<String> {
        self.since += 1;
        if self.told.is_some_and(|told| now.duration_since(told) < OUT_OF_FILES_TOLD) {
            return None;
        }
        self.told = Some(now);
        let times = std::mem::take(&mut self.since);
        Some(format!("{error}; attempts={times} since this was last said; raise ulimit -n"))
    }
}

/// Logs connections that came to nothing, but only so many lines a second.
#[derive(Clone, Debug)]
struct Notes {
    log: NodeLog,
    /// Start of the present second, lines logged in it, lines left out so far.
    budget: Arc<Mutex<(Instant, u32, u64)>>,
}

impl Notes {
    fn note(&self, severity: Severity, what: &'static str, from: Option<Addr>, reason: String) {
        let mut budget = lock(&self.budget);
        let (second, lines, left_out) = &mut *budget;
        if second.elapsed() >= Duration::from_secs(1) {
            (*second, *lines) = (Instant::now(), 0);
        }
        *lines += 1;
        if *lines > LINES_A_SECOND {
            *left_out += 1;
            return;
        }
        let mut keys = vec![("reason", reason)];
        if let Some(from) = from {
            keys.insert(0, ("from", from.to_string()));
        }
        let more = std::mem::take(left_out);
        if more > 0 {
            keys.push(("left-out", more.to_string()));
        }
        drop(budget);
        self.log.note(severity, what, keys);
    }
}

/// Accepts connections until the host is gone or the task is aborted.
pub(super) async fn run<M: Hosted>(
    Port { listener, other, security, log, most }: Port,
    me: Addr,
    network: Network,
    inbox: mpsc::Sender<Inbound<M>>,
) {
    let log = NodeLog::new(log, M::ROLE, me);
    let notes = Notes { log, budget: Arc::new(Mutex::new((Instant::now(), 0, 0))) };
    let silent = Silent::default();
    let door = Door {
        network: Arc::new(network),
        security,
        inbox,
        addresses: Crowd::default(),
        identities: Crowd::default(),
        most,
        other,
        notes: notes.clone(),
    };
    let mut failures = Failures::default();
    for number in 0.. {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(reason) = failures.told(Instant::now(), &error) {
                    notes.note(Severity::Warn, "accept failed", None, reason);
                }
                // The system cannot tell when a descriptor becomes free, so the loop tries again
                // after a pause.
                tokio::time::sleep(OUT_OF_FILES).await;
                continue;
            }
        };
        if door.inbox.is_closed() {
            return;
        }
        if silent.make_room() {
            notes.log.over_limit(Limit::HalfOpen, None);
        }
        let waiting = silent.clone();
        let door = door.clone();
        silent.begin(number, async move {
            let said = door.hear(stream).await;
            lock(&waiting.0).remove(&number);
            door.let_in(from, said).await;
        });
    }
}

/// The first words of a connection.
enum Said {
    /// The hello of a link, or the reason why it was not accepted.
    Hello(Result<(Opened, Hello), AcceptError>),
    /// A connection that is no link, and where to send it.
    Other(TcpStream, mpsc::Sender<TcpStream>),
}

/// Lets connections in, or closes them and logs why.
struct Door<M: Hosted> {
    network: Arc<Network>,
    security: Option<Security>,
    inbox: mpsc::Sender<Inbound<M>>,
    addresses: Crowd<IpAddr>,
    identities: Crowd<Identity>,
    most: Most,
    other: Option<mpsc::Sender<TcpStream>>,
    notes: Notes,
}

impl<M: Hosted> Clone for Door<M> {
    fn clone(&self) -> Self {
        Self {
            network: Arc::clone(&self.network),
            security: self.security.clone(),
            inbox: self.inbox.clone(),
            addresses: self.addresses.clone(),
            identities: self.identities.clone(),
            most: self.most,
            other: self.other.clone(),
            notes: self.notes.clone(),
        }
    }
}

impl<M: Hosted> Door<M> {
    /// Waits for the first words of a connection.
    async fn hear(&self, stream: TcpStream) -> Said {
        match &self.other {
            Some(other) if !handshake::is_link(&stream).await => Said::Other(stream, other.clone()),
            _ => {
                Said::Hello(handshake::accept(stream, &self.network, self.security.as_ref()).await)
            }
        }
    }

    /// The places of a connection from that address, or the limit that keeps it out.
    fn places(&self, from: Addr, hello: &Hello) -> Result<Places, Limit> {
        if hello.purpose == Purpose::Probe {
            return Ok(Places::default());
        }
        let address = self.addresses.enter(from.ip().to_canonical(), self.most.of_address);
        let address = address.ok_or(Limit::OfAddress)?;
        let identity = hello.identity.map(|identity| {
            self.identities.enter(identity, self.most.of_identity).ok_or(Limit::OfIdentity)
        });
        Ok(Places::new(address, identity.transpose()?))
    }

    /// Hands the connection on, or closes it and logs why.
    async fn let_in(self, from: Addr, said: Said) {
        let closed = |severity, reason| {
            self.notes.note(severity, "link closed", Some(from), reason);
        };
        match said {
            Said::Other(stream, other) => {
                // The receiver has more connections waiting than it can serve, or has ended.
                if other.try_send(stream).is_err() {
                    self.notes.log.over_limit(Limit::Unserved, Some(from));
                }
            }
            Said::Hello(Ok((opened, hello))) => match self.places(from, &hello) {
                Ok(places) => {
                    let _ = self.inbox.send(Inbound::Incoming { opened, hello, places }).await;
                }
                Err(limit) => self.notes.log.over_limit(limit, Some(from)),
            },
            Said::Hello(Err(AcceptError::Refused(refused, who))) => {
                let severity = match refused {
                    // It calls again, and by then this process has reached it.
                    Refused::UnknownIdentity => Severity::Info,
                    _ => Severity::Warn,
                };
                let reason = refused.words().to_owned();
                self.notes.note(severity, "link refused", who.or(Some(from)), reason);
            }
            Said::Hello(Err(error)) => {
                let severity = if error.is_silent() { Severity::Info } else { Severity::Warn };
                closed(severity, error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests;
