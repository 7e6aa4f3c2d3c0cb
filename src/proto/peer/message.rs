//! The messages with which peers end links, tell each other of suspects and, in a network without
//! seeds, tell each other who belongs to it.

use serde::{Deserialize, Serialize};

use crate::proto::address::{Addr, Incarnation};
use crate::proto::kv::clock::Clock;
use crate::proto::registry::Record;

/// How a link between neighbours ends, said before it does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Parting {
    /// The sender leaves the network by its own will and is not to be suspected.
    Leaving,
    /// The sender closes this link for a reason of its own and is alive.
    Unlink,
}

/// What peers tell each other of a member that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Detection {
    /// The sender suspects `peer` and asks the receiver to look for itself.
    SuspectNotice {
        /// The suspect.
        peer: Addr,
        /// The incarnation that is suspected.
        incarnation: Incarnation,
    },
    /// The sender looked for itself and did not find `peer` either.
    Witness {
        /// The suspect.
        peer: Addr,
        /// The incarnation that is suspected.
        incarnation: Incarnation,
    },
    /// `peer` is alive in `incarnation`: it said so to the sender, or is the sender.
    Refute {
        /// The peer that was suspected.
        peer: Addr,
        /// The incarnation in which it answered.
        incarnation: Incarnation,
    },
}

/// What peers of a network without seeds tell each other of who belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Members {
    /// Opens a link: who the sender is and whom it knows, the gone included.
    Handshake(Vec<(Addr, Record)>),
    /// Answers a handshake: whom the sender knows.
    Peers {
        /// All that the sender knows, itself and the gone included.
        records: Vec<(Addr, Record)>,
        /// What the sender has seen of the store. If the sender has caught up, a new replica has
        /// caught up as well once it has seen all of this.
        context: Clock,
        /// Whether the sender's own replica has caught up.
        caught_up: bool,
    },
    /// Records that changed.
    Changed(Vec<(Addr, Record)>),
    /// Digest of the records that the sender knows. The receiver answers with a handshake if its
    /// own digest differs.
    Digest([u8; 32]),
}
