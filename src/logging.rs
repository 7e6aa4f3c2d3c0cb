//! The shared log (CONTRACT.md, section 2): the same lines in a file that any number of processes
//! append to, and on the console.
//!
//! What must stay true: a record is one line and in one `write`, however many processes write, and
//! neither a full disk nor a stuck reader of the console stops the node. A node hands its lines to a
//! [`Sink`]: to that of its program, or else, under [`TARGET`], to whatever logger a program that
//! embeds it has installed for the `log` crate. Where nobody wants a record nothing is formatted.

use std::fmt;

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
pub use shared::{
    CONSOLE_LINE_LIMIT, FILE_LINE_LIMIT, LogError, LogHandle, LogOptions, Screen, init,
};

/// The `log` target of every record of this crate.
pub const TARGET: &str = "rumormill::event";

/// Takes what nodes log.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Writes what happened to `me`, in this order. When it returns all of it is written: others may
    /// see at once what the lines tell of.
    fn write(&self, role: Role, me: Addr, events: &[Event]);
}

/// The logger of the process, whoever has installed one.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogCrate;

impl Sink for LogCrate {
    fn write(&self, role: Role, me: Addr, events: &[Event]) {
        for event in events {
            record(log::logger(), role, me, event);
        }
    }
}

/// Hands a logger one record; nothing is formatted if nobody wants to read it.
fn record(to: &dyn log::Log, role: Role, me: Addr, event: &Event) {
    let level = match event.severity() {
        Severity::Error => log::Level::Error,
        Severity::Warn => log::Level::Warn,
        Severity::Info => log::Level::Info,
        Severity::Debug => log::Level::Debug,
    };
    let metadata = log::Metadata::builder().target(TARGET).level(level).build();
    if !to.enabled(&metadata) {
        return;
    }
    let who = match role {
        Role::Seed => "seed",
        Role::Peer => "peer",
    };
    let mut record = log::Record::builder();
    to.log(&record.metadata(metadata).args(format_args!("{who} {me} {event}")).build());
}
