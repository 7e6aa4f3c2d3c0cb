//! What a machine is told about itself at construction, with the reasons behind the defaults.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::message::{Addr, Hello, Incarnation, Purpose, Role};
use super::registry::hash_addr;

/// The network that this process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// Its name; two networks of different names refuse each other.
    pub name: String,
    /// The configured seeds, sorted.
    seeds: Vec<Addr>,
    digest: [u8; 32],
}

/// The network's name unless an embedding program gives another.
pub const DEFAULT_NETWORK: &str = "rumormill";

impl Network {
    /// A network of that name with these seeds; their order does not matter.
    pub fn new(name: impl Into<String>, seeds: impl IntoIterator<Item = Addr>) -> Self {
        let mut seeds: Vec<Addr> = seeds.into_iter().collect();
        seeds.sort();
        seeds.dedup();
        let mut hash = Sha256::new();
        for seed in &seeds {
            hash_addr(&mut hash, seed);
        }
        Self { name: name.into(), seeds, digest: hash.finalize().into() }
    }

    /// A network without seeds: who belongs to it is said beforehand, or peers tell each other
    /// ([`PeerConfig::membership`]).
    pub fn without_seeds(name: impl Into<String>) -> Self {
        Self::new(name, [])
    }

    /// Whether seeds decide who belongs to it.
    pub fn has_seeds(&self) -> bool {
        !self.seeds.is_empty()
    }

    /// The seeds in sorted order: a seed's place here is its number in votes.
    pub fn seeds(&self) -> &[Addr] {
        &self.seeds
    }

    /// ⌊n/2⌋+1 of the n configured seeds, reachable or not.
    pub fn quorum(&self) -> usize {
        self.seeds.len() / 2 + 1
    }

    /// SHA-256 over the sorted seed list.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The hello of a process of this network.
    pub fn hello(
        &self,
        role: Role,
        from: Addr,
        incarnation: Incarnation,
        purpose: Purpose,
    ) -> Hello {
        let (network, seeds) = (self.name.clone(), self.digest);
        Hello { network, seeds, role, from, incarnation, purpose, clock: 0 }
    }
}

/// Which links peers keep, and so which way messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// Drawn so that few peers have many links and many have few, as large networks need it.
    #[default]
    ScaleFree,
    /// Everybody is linked with the oldest member that can be reached: the fewest messages.
    Hub,
    /// Everybody is linked with everybody, and nobody forwards what another one says: the shortest
    /// way. Of anti-entropy alone comes what was lost on it.
    Full,
}

/// How a peer knows who belongs to its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Membership {
    /// The seeds decide, and tell.
    #[default]
    Voted,
    /// Without seeds: these belong to it for good, this peer among them, the oldest first.
    Fixed(Vec<Addr>),
    /// Without seeds: whoever says hello belongs to it, and peers tell each other; these are where
    /// this peer begins.
    Open(Vec<Addr>),
}

/// A defect planted on purpose, for the self-tests of the checkers: a checker that cannot find it
/// is worth nothing. No option sets it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// None: what every real process runs with.
    #[default]
    None,
    /// A seed votes yes without judging.
    AlwaysYes,
    /// A seed takes a quorum of the seeds that it can reach for a quorum of all.
    ReachableQuorum,
    /// Records are not ordered by incarnation: the last one heard wins.
    UnversionedRegistry,
    /// A seed whose disk is empty votes at once.
    EmptyVoter,
    /// A peer forwards each message twice.
    ForwardTwice,
}

/// A seed's settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeedConfig {
    /// Where it listens and is known; one of the network's seeds.
    pub me: Addr,
    /// The network.
    pub network: Network,
    /// Bound on a dial-back or probe.
    pub probe_timeout: Duration,
    /// Silence after which the peers of this network suspect a neighbour: what goes wrong at one
    /// time is reported within so long.
    pub suspect_timeout: Duration,
    #[doc(hidden)]
    pub flaw: Flaw,
}

impl SeedConfig {
    /// Defaults of CONTRACT.md, section 1.
    pub fn new(me: Addr, network: Network) -> Self {
        Self {
            me,
            network,
            probe_timeout: Duration::from_secs(1),
            suspect_timeout: Duration::from_secs(15),
            flaw: Flaw::None,
        }
    }
}

/// A peer's settings.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Where it listens and is known.
    pub me: Addr,
    /// The network.
    pub network: Network,
    /// Bound on a probe.
    pub probe_timeout: Duration,
    /// One generated message each interval.
    pub gossip_interval: Duration,
    /// How many messages are generated; 0 for none.
    pub gossip_count: u64,
    /// PING to every neighbour.
    pub ping_interval: Duration,
    /// Silence after which a neighbour is suspected.
    pub suspect_timeout: Duration,
    /// One anti-entropy round each interval.
    pub sync_interval: Duration,
    /// Neighbours contacted in one anti-entropy round.
    pub fanout: usize,
    /// Neighbours that a joining peer picks.
    pub links: usize,
    /// Links that a peer accepts before it refuses more.
    pub max_links: usize,
    /// Whether it holds a replica of the store.
    pub replicates: bool,
    /// How long a request may wait for the writes that its metadata names.
    pub causal_wait: Duration,
    /// Lives of replicas that are ended together, once as many replicas are named in each clock.
    pub seal_from: usize,
    /// Exponent γ of the degree distribution that the choice of neighbours aims at.
    pub exponent: f64,
    /// Which links are kept.
    pub overlay: Overlay,
    /// How long messages may be gathered before they are pushed to anybody but the parent in the
    /// tree; zero pushes each at once.
    pub gather: Duration,
    /// Who belongs to the network; anything but [`Membership::Voted`] if it has no seeds.
    pub membership: Membership,
    #[doc(hidden)]
    pub flaw: Flaw,
}

impl PeerConfig {
    /// Defaults of CONTRACT.md, section 1.
    pub fn new(me: Addr, network: Network) -> Self {
        Self {
            me,
            network,
            probe_timeout: Duration::from_secs(1),
            gossip_interval: Duration::from_secs(5),
            gossip_count: 10,
            ping_interval: Duration::from_secs(5),
            suspect_timeout: Duration::from_secs(15),
            sync_interval: Duration::from_secs(10),
            fanout: 2,
            links: 3,
            max_links: 64,
            replicates: true,
            causal_wait: Duration::from_secs(1),
            seal_from: 64,
            exponent: 2.5,
            overlay: Overlay::ScaleFree,
            gather: Duration::ZERO,
            membership: Membership::Voted,
            flaw: Flaw::None,
        }
    }
}
