//! The name of a process, which is its address, and the number of its life.

use std::net::SocketAddr;

/// Address at which a process listens; it identifies the process.
pub type Addr = SocketAddr;

/// A peer's count of its own lives: milliseconds since the Unix epoch when the life began, or more
/// if somebody knew a later life.
pub type Incarnation = u64;
