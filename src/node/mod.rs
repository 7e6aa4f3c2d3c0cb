//! The tokio hosts that run a machine over TCP. They decide nothing.
//!
//! `host` runs either machine, `connection` is one of its connections, and `listener` accepts
//! connections. Programs hold a [`Peer`] or a [`Seed`].

mod asks;
mod connection;
mod crowd;
mod disk;
mod events;
mod handle;
mod host;
mod hosted;
mod inbox;
mod listener;
mod log;
mod peer;
mod queue;
mod seed;
mod store;

use std::io;
use std::net::SocketAddr;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::net::{TcpListener, TcpSocket};

pub use asks::Received;
pub use events::{EventLog, Logged};
#[cfg(feature = "durable")]
pub use handle::StartError;
pub use handle::{Handle, Node, Stopped};
#[cfg(feature = "http")]
pub(crate) use hosted::Hosted;
pub use listener::Port;
#[cfg(feature = "programs")]
pub(crate) use log::{Log, NodeLog};
pub use peer::{MemberEvents, Messages, Peer, PeerHandle, PeerStatus, Publisher};
pub use seed::{Seed, SeedHandle, SeedStatus};
pub use store::{Found, Store, Written};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Listens on an address; port 0 takes any free port.
///
/// # Errors
///
/// If the address cannot be listened on, for example because the port is taken.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted node must be able to take its port while connections of its former life run out.
    // On Linux this does not let two processes listen on one port.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
}

/// The seed of a machine's random numbers.
pub(crate) fn chance() -> u64 {
    // Without the system's randomness any number will do: only jitter and choices depend on it, and
    // nothing secret does.
    SysRng.try_next_u64().unwrap_or_else(|_| u64::from(std::process::id()))
}
