//! What peers say to each other of links and of members.

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
        /// In that incarnation.
        incarnation: Incarnation,
    },
    /// The sender looked for itself and did not find `peer` either.
    Witness {
        /// The suspect.
        peer: Addr,
        /// In that incarnation.
        incarnation: Incarnation,
    },
    /// `peer` is alive in `incarnation`: it said so to the sender, or is the sender.
    Refute {
        /// Who was suspected.
        peer: Addr,
        /// The incarnation in which it answered.
        incarnation: Incarnation,
    },
}

/// Peers of a network without seeds tell each other who belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Members {
    /// Peer to peer, without seeds: opens a link. Who I am, and whom I know, the gone included.
    Handshake(Vec<(Addr, Record)>),
    /// Peer to peer, without seeds: whom I know, in answer to a handshake.
    Peers {
        /// All that the sender knows, itself and the gone included.
        records: Vec<(Addr, Record)>,
        /// What it has seen of the store: whoever is new has caught up once it has seen that, if the
        /// sender has itself.
        context: Clock,
        /// The sender has what the replicas before it had.
        caught_up: bool,
    },
    /// Peer to peer, without seeds: records that changed.
    Changed(Vec<(Addr, Record)>),
    /// Peer to peer, without seeds: digest of the records that the sender knows. Answered with a
    /// handshake if the receiver knows others.
    Digest([u8; 32]),
}
