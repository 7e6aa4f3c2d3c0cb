//! The shared log (CONTRACT.md, section 2): the same lines in a file that any number of processes
//! append to, and on the console.
//!
//! What must stay true: a record is one line and in one `write`, however many processes write, and
//! neither a full disk nor a stuck reader of the console stops the node. Everything goes through
//! the `log` crate under [`TARGET`]; a program that embeds a node and installs its own logger gets
//! the same records, and with no logger at all a record costs one comparison.

use crate::proto::event::{Event, Severity};
use crate::proto::message::{Addr, Role};

#[cfg(feature = "programs")]
mod console;
#[cfg(feature = "programs")]
mod cut;
#[cfg(feature = "programs")]
mod file;
#[cfg(feature = "programs")]
mod gather;
#[cfg(feature = "programs")]
mod shared;

#[cfg(feature = "programs")]
pub(crate) use gather::{catch_up, together};
#[cfg(feature = "programs")]
pub use shared::{
    CONSOLE_LINE_LIMIT, FILE_LINE_LIMIT, LogError, LogHandle, LogOptions, Screen, init,
};

/// The `log` target of every record of this crate.
pub const TARGET: &str = "rumormill::event";

/// Logs what happened to `me`; nothing is formatted if nobody wants to read it.
pub fn event(role: Role, me: Addr, event: &Event) {
    let level = match event.severity() {
        Severity::Error => log::Level::Error,
        Severity::Warn => log::Level::Warn,
        Severity::Info => log::Level::Info,
        Severity::Debug => log::Level::Debug,
    };
    if !log::log_enabled!(target: TARGET, level) {
        return;
    }
    let who = match role {
        Role::Seed => "seed",
        Role::Peer => "peer",
    };
    log::log!(target: TARGET, level, "{who} {me} {event}");
}

/// A turn, whose records may be written together.
#[cfg(not(feature = "programs"))]
#[must_use]
pub(crate) struct Together;

/// Begins a turn; without the programs' log there is nothing to gather.
#[cfg(not(feature = "programs"))]
pub(crate) fn together() -> Together {
    Together
}

/// Writes what the turn has logged so far.
#[cfg(not(feature = "programs"))]
pub(crate) fn catch_up() {}
