//! The shared log (CONTRACT.md, section 2): the same lines in a file, to which any number of
//! processes append, and on the console.
//!
//! What must stay true: each record is one line, and is written in one `write`, however many
//! processes write; and neither a full disk nor a stuck reader of the console stops the node.
//!
//! A node hands its lines to a [`Sink`]. The two programs give their nodes one; without it, lines
//! go under [`TARGET`] to the logger that an embedding program has installed for the `log` crate. A
//! record that nobody wants is not formatted.

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

/// Takes the lines that nodes log.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Writes what happened to `me`, in this order. All of it has to be written when this returns,
    /// because others may then see what the lines tell of.
    fn write(&self, role: Role, me: Addr, events: &[Event]);
}

/// Hands lines to the logger that the process has installed, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogCrate;

impl Sink for LogCrate {
    fn write(&self, role: Role, me: Addr, events: &[Event]) {
        for event in events {
            record(log::logger(), role, me, event);
        }
    }
}

/// Hands a record to a logger; formats nothing if the logger does not want it.
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
