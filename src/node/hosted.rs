//! The trait of a machine that a host can run: what the host has to know beside [`Machine`].

use super::log::HostLog;
use crate::proto::machine::Machine;
use crate::proto::message::Role;

/// A machine that a host can run. Only the two machines of this crate implement it; its module is
/// private, so that nobody else can add one.
pub trait Hosted: Machine<Command: Send, Reply: Send, Change: Send> + Send + 'static {
    /// The kind of process that the machine makes.
    const ROLE: Role;

    /// A question or a wish from within this process.
    type Ask: Send + 'static;

    /// Those who wait for an answer, and those who listen.
    type Waiting: Default + Send + 'static;

    /// The command that ends the machine.
    fn stop() -> Self::Command;

    /// Takes a wish in. Returns the command for the machine, unless the wish concerns only
    /// `waiting`.
    fn ask(waiting: &mut Self::Waiting, ask: Self::Ask) -> Option<Self::Command>;

    /// Passes a reply on to whoever waits for it. Lines of the log that tell of the same thing are
    /// written before.
    fn reply(waiting: &mut Self::Waiting, log: &mut HostLog, reply: Self::Reply);
}
