//! One Maelstrom node: the peer's machine on stdin and stdout (CONTRACT.md, section 5).
//!
//! [`Node`] is as pure as the machines: lines and the time in, lines out, so
//! that whole networks of it run in simulated time. It answers clients and
//! carries what the machine says to other nodes (`links`); what a message is
//! worth and whither it goes is the machine's business alone. What must stay
//! true: stdout carries messages and nothing else, and each carries the next
//! `msg_id`; whatever line comes, the node goes on.

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
