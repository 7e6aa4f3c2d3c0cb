//! Copies of what a machine knows, for HTTP and the console to show. A node can hear nobody while
//! its machine is being looked at, so only the copy is made then; the caller turns it into text
//! afterwards.

use bytes::Bytes;

use crate::proto::gossip::MessageId;
use crate::proto::message::{Addr, Decision, Identity};
use crate::proto::peer::PeerMachine;
use crate::proto::registry::{Record, Status};
use crate::proto::seed::SeedMachine;
use crate::proto::signature::Signature;
use crate::proto::time::Time;

/// A member, or a peer that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Address of the member.
    pub address: Addr,
    /// The record of it.
    pub record: Record,
    /// Whether the peer that was asked suspects it.
    pub suspected: bool,
    /// Whether the peer that was asked has a link to it.
    pub neighbour: bool,
}

impl MemberView {
    fn of_record((address, record): (&Addr, &Record)) -> Self {
        Self { address: *address, record: record.clone(), suspected: false, neighbour: false }
    }
}

/// A gossip message that a peer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageView {
    /// Identity of the message.
    pub id: MessageId,
    /// The bytes that were published.
    pub payload: Bytes,
    /// The peer that published it.
    pub origin: Addr,
    /// The time at which it came.
    pub received: Time,
}

/// The members as a peer knows them, and the peers that are gone.
pub fn members(machine: &PeerMachine) -> Vec<MemberView> {
    let neighbours = machine.neighbours();
    let views = machine.members().iter().map(|(address, record)| MemberView {
        suspected: record.status == Status::Alive && machine.suspects(address),
        neighbour: neighbours.binary_search(address).is_ok(),
        ..MemberView::of_record((address, record))
    });
    views.collect()
}

/// The newest messages that a peer holds, at most `most` of them, oldest first.
pub fn messages(machine: &PeerMachine, most: usize) -> Vec<MessageView> {
    let list = machine.rumors().list();
    let views = list.iter().skip(list.len().saturating_sub(most)).map(|(_, entry)| MessageView {
        id: entry.id,
        payload: entry.gossip.payload.clone(),
        origin: entry.gossip.origin,
        received: entry.received,
    });
    views.collect()
}

/// The registry of a seed.
pub fn registry(machine: &SeedMachine) -> Vec<MemberView> {
    machine.registry().iter().map(MemberView::of_record).collect()
}

/// What a seed knows of one address.
#[derive(Clone, Debug)]
pub struct HistoryView {
    /// The record.
    pub member: MemberView,
    /// Who it is or was, if it registered over an encrypted link.
    pub identity: Option<Identity>,
    /// The seeds that accepted the record, and their signatures.
    pub votes: Vec<(Addr, Option<Signature>)>,
    /// What was decided about the address while the seed ran.
    pub history: Vec<Decision>,
}

/// The record of one address, and what was decided about it while the seed ran.
pub fn history(machine: &SeedMachine, address: &Addr) -> Option<HistoryView> {
    let record = machine.registry().get(address)?;
    Some(HistoryView {
        member: MemberView::of_record((address, record)),
        identity: record.identity,
        votes: machine.votes_for(record),
        history: machine.history(address).cloned().collect(),
    })
}

/// How many seeds a seed reaches, itself included, how many there are, and whether it has a quorum.
pub fn seed_readiness(machine: &SeedMachine) -> (usize, usize, bool) {
    (machine.seeds_reachable(), machine.seeds_configured(), machine.has_quorum())
}
