//! One Maelstrom node: the peer's machine on stdin and stdout (CONTRACT.md, section 5).
//!
//! [`Node`] is as pure as the machines: it takes lines and the time, and returns lines, so that
//! whole networks of it run in simulated time. It answers clients, and carries to other nodes what
//! its machine says (`links`); the machine alone decides what is sent to whom.
//!
//! What must stay true: stdout carries messages and nothing else, and each has the next `msg_id`;
//! the node goes on, whatever line comes.

mod body;
mod counter;
mod elements;
mod links;
mod node;
mod stdio;
mod workload;

pub use self::node::{DEFAULT_BATCH, Node, Options, Out};
pub use self::stdio::run;
pub use self::workload::Workload;
