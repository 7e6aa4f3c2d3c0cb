//! What a peer of a network without seeds knows beside the list of members: whom it was told of, who
//! has been gone for how long, and how far its replica has caught up.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::kv::clock::Clock;
use crate::proto::machine::Conn;
use crate::proto::message::{Addr, Incarnation};
use crate::proto::time::Time;

/// What a peer without seeds keeps beside its list.
#[derive(Debug, Default)]
pub(super) struct Openness {
    /// Who was named at the start, or let in by an operator here: called for as long as it is no
    /// member.
    pub contacts: BTreeSet<Addr>,
    /// Contacts that have not answered, and may yet: they may have what this replica lacks.
    pub untried: BTreeSet<Addr>,
    /// What neighbours that have caught up had seen of the store when they said so.
    pub ahead: BTreeMap<Conn, Clock>,
    /// This replica has had what an existing one had, or it is the first of a new network.
    pub caught_up: bool,
    /// Alone and with nothing, it is no first one of a new network before then: it may have lost its
    /// disk, and the others call whoever they have lost.
    pub look_until: Time,
    /// An operator has removed this peer from the network.
    pub removed: bool,
    /// Who was named and has never been seen, and since when by our own stopwatch: times in records
    /// are by the clocks of others.
    pub awaited: BTreeMap<Addr, Time>,
    /// Members that are gone, and since when that is known here.
    pub gone: BTreeMap<Addr, Time>,
    /// Those of them whose records were dropped, up to which incarnation, and when: who still has
    /// one is not to bring it back.
    pub dropped: BTreeMap<Addr, (Incarnation, Time)>,
}
