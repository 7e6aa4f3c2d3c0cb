//! What a host has to know of the machine that it runs, beside [`Machine`].

use super::log::HostLog;
use crate::proto::machine::Machine;
use crate::proto::message::Role;

/// A machine that a host can run. Only this crate's two machines are; the module is private, so that
/// nobody else can add one.
pub trait Hosted: Machine<Command: Send, Reply: Send, Change: Send> + Send + 'static {
    /// What kind of process it makes.
    const ROLE: Role;

    /// What is asked of it from within this process.
    type Ask: Send + 'static;

    /// Who waits for an answer, and who listens.
    type Waiting: Default + Send + 'static;

    /// The command that ends it.
    fn stop() -> Self::Command;

    /// Takes a wish; what the machine is to be told, if it concerns the machine.
    fn ask(waiting: &mut Self::Waiting, ask: Self::Ask) -> Option<Self::Command>;

    /// Passes a reply on to whoever waits for it. Lines of the log that tell of the same are
    /// written before.
    fn reply(waiting: &mut Self::Waiting, log: &mut HostLog, reply: Self::Reply);
}
