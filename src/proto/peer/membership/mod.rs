//! Who decides who belongs to the network: the seeds, nobody once it has begun, or the peers
//! themselves.
//!
//! Each kind keeps what only it needs, and answers the questions in which the kinds differ, so that
//! a caller need not know which kind it has.

pub(super) mod openness;
mod testimony;
pub(super) mod voted;

use self::openness::Openness;
use self::voted::Voted;
use crate::proto::config::{Membership, PeerConfig};
use crate::proto::message::Addr;
use crate::proto::registry::{Record, Registry};

/// Who enters in the list of members that a member is dead, once a peer and its witnesses found it
/// so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuriedBy {
    /// The seeds, by vote; the peer reports to them.
    Seeds,
    /// The peer itself; it tells the others.
    Peers,
    /// Nobody: a member stays a member.
    Nobody,
}

/// Who decides who belongs to the network, and what is kept for that beside the list of members.
#[derive(Debug)]
pub(super) enum Kind {
    /// The seeds.
    Voted(Voted),
    /// Nobody: the members were named for good.
    Fixed,
    /// The peers, by telling each other.
    Open(Openness),
}

impl Kind {
    /// The kind that the settings name, with nothing heard yet.
    pub fn new(config: &PeerConfig) -> Self {
        match config.membership {
            Membership::Voted => {
                Kind::Voted(Voted::new(config.network.seeds().len(), config.network.quorum()))
            }
            Membership::Fixed(_) => Kind::Fixed,
            Membership::Open(_) => Kind::Open(Openness::default()),
        }
    }

    /// Who enters deaths in the list of members.
    pub fn buried_by(&self) -> BuriedBy {
        match self {
            Kind::Voted(_) => BuriedBy::Seeds,
            Kind::Fixed => BuriedBy::Nobody,
            Kind::Open(_) => BuriedBy::Peers,
        }
    }

    /// Whether a peer that is known as gone in its present life may have a link. Where peers tell
    /// each other who belongs to the network, it hears over that link that it is gone, and rises
    /// above it.
    pub fn links_the_gone(&self) -> bool {
        matches!(self, Kind::Open(_))
    }

    /// Whether an operator has removed this peer.
    pub fn is_removed(&self) -> bool {
        self.open().is_some_and(Openness::is_removed)
    }

    /// What is kept where peers tell each other who belongs to the network; none elsewhere.
    pub fn open(&self) -> Option<&Openness> {
        match self {
            Kind::Open(open) => Some(open),
            Kind::Voted(_) | Kind::Fixed => None,
        }
    }

    /// The same as `open`, for whoever has to change it.
    pub fn open_mut(&mut self) -> Option<&mut Openness> {
        match self {
            Kind::Open(open) => Some(open),
            Kind::Voted(_) | Kind::Fixed => None,
        }
    }

    /// What a seed has said of a member, where seeds decide: `None` if it has not spoken of the
    /// member, `Some(None)` if it knows no record of it.
    pub fn word<'a>(
        &'a self,
        members: &'a Registry,
        seed: &Addr,
        peer: &Addr,
    ) -> Option<Option<&'a Record>> {
        match self {
            Kind::Voted(voted) => voted.word(members, seed, peer),
            Kind::Fixed | Kind::Open(_) => None,
        }
    }
}
