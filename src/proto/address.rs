//! Who a process is, and in which of its lives.

use std::net::SocketAddr;

/// Where a process listens, and therefore who it is.
pub type Addr = SocketAddr;

/// A peer's count of its own lives; milliseconds since the Unix epoch at its start, raised when
/// somebody knows of a later one.
pub type Incarnation = u64;
