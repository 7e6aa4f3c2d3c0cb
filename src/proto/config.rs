//! The settings with which a machine is constructed, and the reasons for their defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::kv::store::MAX_KEY;
use super::message::{Addr, Hello, Identity, Incarnation, Purpose, Role};
use super::planted::Flaw;
use super::registry::hash_addr;

/// The network that this process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// Its name; networks with different names refuse each other.
    pub name: String,
    /// The configured seeds, sorted.
    seeds: Vec<Addr>,
    digest: [u8; 32],
    /// Who the seeds are, as far as the settings say.
    identities: BTreeMap<Addr, Identity>,
}

/// The name of a network for which an embedding program gives no other.
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
        let (name, digest) = (name.into(), hash.finalize().into());
        Self { name, seeds, digest, identities: BTreeMap::new() }
    }

    /// A network without seeds: its members are named beforehand, or peers tell each other who
    /// belongs to it ([`PeerConfig::membership`]).
    pub fn without_seeds(name: impl Into<String>) -> Self {
        Self::new(name, [])
    }

    /// Says who the seed at this address is, so that nobody else is taken for it.
    #[must_use]
    pub fn with_identity(mut self, seed: Addr, identity: Identity) -> Self {
        self.identities.insert(seed, identity);
        self
    }

    /// Who the seed at this address is, if the settings say.
    pub fn identity(&self, seed: &Addr) -> Option<Identity> {
        self.identities.get(seed).copied()
    }

    /// Whether seeds decide who belongs to the network.
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

    /// The hello with which a process of this network opens a connection.
    pub fn hello(
        &self,
        role: Role,
        from: Addr,
        incarnation: Incarnation,
        purpose: Purpose,
    ) -> Hello {
        let (network, seeds) = (self.name.clone(), self.digest);
        Hello { network, seeds, role, from, incarnation, purpose, clock: 0, identity: None }
    }
}

/// Which links peers keep, and so which paths messages take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlay {
    /// Links are drawn so that few peers have many links and many have few, as large networks need
    /// it.
    #[default]
    ScaleFree,
    /// Every peer links with the oldest member that it can reach, which takes the fewest messages.
    Hub,
    /// Every peer links with every other, and nobody forwards what another says, which is the
    /// shortest path. A message that is lost on it comes by anti-entropy alone.
    Full,
}

/// How a peer knows who belongs to its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Membership {
    /// The seeds decide, and tell the peers.
    #[default]
    Voted,
    /// Without seeds: these peers belong to it for good, this peer among them, the oldest first.
    Fixed(Vec<Addr>),
    /// Without seeds: whoever says hello belongs to it, and peers tell each other. This peer calls
    /// these first.
    Open(Vec<Addr>),
}

/// The longest interval or timeout. A longer one is a mistake in the unit, and a time so far away
/// would overflow.
pub const MAX_WAIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Most seeds of a network: a vote names its seed by a number of 16 bits.
pub const MAX_SEEDS: usize = 65_535;

/// Why settings cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// Nobody can be reached at this address.
    #[error("nobody can be reached at {0}; give the IP address and port that others are to dial")]
    Address(Addr),
    /// The address of a seed is not in the list of seeds.
    #[error(
        "{0} is not in the network's list of seeds; add it at every node, or start the seed where it is listed"
    )]
    NotASeed(Addr),
    /// The address of a peer is in the list of seeds.
    #[error("{0} is in the network's list of seeds; give the peer another port")]
    IsSeed(Addr),
    /// The seeds are to decide who belongs to the network, and there are none.
    #[error(
        "the network has no seeds, and membership is voted; list seeds, or choose another membership"
    )]
    NoSeeds,
    /// There are seeds, and they are not to decide who belongs to the network.
    #[error(
        "the network has seeds, and membership is not voted; leave the seeds out, or let them decide"
    )]
    SeedsUnasked,
    /// More seeds than votes can name.
    #[error("{0} seeds are more than {MAX_SEEDS}; three to seven are enough for any network")]
    TooManySeeds(usize),
    /// A time that is zero, or longer than [`MAX_WAIT`].
    #[error("{what} is {given:?}; give more than nothing and at most 30 days")]
    Duration {
        /// Name of the setting.
        what: &'static str,
        /// The value given.
        given: Duration,
    },
    /// The ping interval is not shorter than the silence that makes a suspect.
    #[error("ping_interval ({ping:?}) has to be shorter than suspect_timeout ({suspect:?})")]
    Ping {
        /// Time between two pings.
        ping: Duration,
        /// Silence after which a neighbour is suspected.
        suspect: Duration,
    },
    /// A peer is to pick no links at all, or more than it may have.
    #[error(
        "links is {links} and max_links {max_links}; give at least 1, and no more links than max_links"
    )]
    Links {
        /// Links to pick.
        links: usize,
        /// Links that it may have.
        max_links: usize,
    },
    /// A number that has to be at least 1.
    #[error("{0} is 0; give at least 1")]
    Zero(&'static str),
    /// Clients may write keys that no other replica would take.
    #[error("max_key is {0}; replicas take keys of at most {MAX_KEY} characters from each other")]
    Key(usize),
    /// An exponent that the choice of neighbours cannot aim at.
    #[error("exponent is {0}; give more than 2 and at most 3")]
    Exponent(f64),
}

/// Refuses a time that is zero, or so long that it must be a mistake in the unit.
fn check_times(times: &[(&'static str, Duration)]) -> Result<(), InvalidConfig> {
    match times.iter().find(|(_, given)| given.is_zero() || *given > MAX_WAIT) {
        Some((what, given)) => Err(InvalidConfig::Duration { what, given: *given }),
        None => Ok(()),
    }
}

/// Refuses an address that others cannot dial.
fn check_address(me: Addr) -> Result<(), InvalidConfig> {
    match me.port() != 0 && !me.ip().is_unspecified() {
        true => Ok(()),
        false => Err(InvalidConfig::Address(me)),
    }
}

/// The default bound on a probe. A round trip around the world takes 300 ms, and a process that
/// needs more than three of them for a hello is of no use to its neighbours.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The default silence that makes a suspect: three pings, so that one that is lost and one that is
/// late make nobody a suspect.
const SUSPECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Members of a network by default, at most. A seed keeps some 200 bytes of each and sends a newcomer
/// all of them; without a bound whoever may join could fill its memory and its disk.
pub const MAX_MEMBERS: usize = 131_072;
/// Members of one source by default, at most. A test may run ten thousand on one machine, and one
/// machine must not be most of a large network.
pub const MAX_MEMBERS_PER_SOURCE: usize = 16_384;

/// A seed's settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SeedConfig {
    /// Where it listens and is known; one of the network's seeds.
    pub me: Addr,
    /// The network.
    pub network: Network,
    /// Bound on a dial-back or probe.
    pub probe_timeout: Duration,
    /// Silence after which the peers of this network suspect a neighbour: reports of one fault
    /// arrive within this time.
    pub suspect_timeout: Duration,
    /// Members from which on the seed votes against further ones.
    pub max_members: usize,
    /// The same for members of one source: an IPv4 address, or 64 bits of an IPv6 address, which are
    /// one subscriber's.
    pub max_members_per_source: usize,
    #[cfg(feature = "planted")]
    flaw: Flaw,
}

impl SeedConfig {
    /// Defaults of CONTRACT.md, section 1.
    pub fn new(me: Addr, network: Network) -> Self {
        Self {
            me,
            network,
            probe_timeout: PROBE_TIMEOUT,
            suspect_timeout: SUSPECT_TIMEOUT,
            max_members: MAX_MEMBERS,
            max_members_per_source: MAX_MEMBERS_PER_SOURCE,
            #[cfg(feature = "planted")]
            flaw: Flaw::None,
        }
    }

    /// Whether a seed can run with these settings.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        check_address(self.me)?;
        if self.network.seeds().len() > MAX_SEEDS {
            return Err(InvalidConfig::TooManySeeds(self.network.seeds().len()));
        }
        if !self.network.seeds().contains(&self.me) {
            return Err(InvalidConfig::NotASeed(self.me));
        }
        for (what, most) in [
            ("max_members", self.max_members),
            ("max_members_per_source", self.max_members_per_source),
        ] {
            if most == 0 {
                return Err(InvalidConfig::Zero(what));
            }
        }
        check_times(&[
            ("probe_timeout", self.probe_timeout),
            ("suspect_timeout", self.suspect_timeout),
        ])
    }

    /// The defect that a test has planted in this seed.
    pub(crate) fn flaw(&self) -> Flaw {
        #[cfg(feature = "planted")]
        return self.flaw;
        #[cfg(not(feature = "planted"))]
        Flaw::None
    }
}

/// How a peer finds out who is dead.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DetectionConfig {
    /// Bound on a probe.
    pub probe_timeout: Duration,
    /// Time between two looks at the neighbours' silence: in a scale-free overlay all of them are
    /// pinged, in the others those that would soon be suspected. By default a third of the suspect
    /// timeout.
    pub ping_interval: Duration,
    /// Silence after which a neighbour is suspected.
    pub suspect_timeout: Duration,
}

/// What a peer publishes, and how it passes on what others publish.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BroadcastConfig {
    /// Time between two generated messages. By default 5 s: this program began as an assignment,
    /// which asks for that.
    pub gossip_interval: Duration,
    /// Number of messages generated; 0 for none. By default 10, for the same reason.
    pub gossip_count: u64,
    /// How long messages may be gathered before they are pushed to any neighbour but the parent in
    /// the tree. By default zero, which pushes each at once: latency matters more than bytes,
    /// unless somebody counts messages.
    pub gather: Duration,
    /// Whether messages are signed by their origins and checked, where links are encrypted. By
    /// default they are: else any member can publish in the name of another. It costs each peer some
    /// 40 µs of processor time a message, and has to be the same at all peers of a network.
    pub signed: bool,
}

/// How a peer finds what it has missed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SyncConfig {
    /// Time between two rounds of anti-entropy. By default 10 s: a digest costs 32 bytes, and a
    /// lost message is missed for half of that time on average.
    pub sync_interval: Duration,
    /// Peers compared with in one round. By default 2: with one, a neighbour that lacks the same
    /// messages could be asked over and over.
    pub fanout: usize,
}

/// Which links a peer keeps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopologyConfig {
    /// Which overlay the links form.
    pub overlay: Overlay,
    /// Neighbours that a joining peer picks. By default 3: the overlay then stays in one piece when
    /// a fifth of the peers die at once (DESIGN.md, section 4).
    pub links: usize,
    /// Links that a peer accepts before it refuses more. By default 64: a hub's share of the work
    /// stays bounded, and the tail of the power law is cut where networks of thousands begin to
    /// show it.
    pub max_links: usize,
    /// Exponent γ of the degree distribution that the choice of neighbours aims at, over 2 and at
    /// most 3. By default 2.5, the middle of what is found in grown networks (Barabási and Albert,
    /// Science 286, 1999).
    pub exponent: f64,
}

/// How a peer keeps its replica of the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Whether the peer holds a replica at all.
    pub replicates: bool,
    /// How long a request may wait for the writes that its metadata names. By default 1 s: longer
    /// than a write takes to reach any peer that is not cut off, and shorter than clients wait.
    pub causal_wait: Duration,
    /// Number of replicas' lives that have to be over before they are ended together. By default
    /// 64: a clock then stays below 2 KiB, and an end, which all replicas have to hear of, is rare.
    pub seal_from: usize,
    /// Bytes of keys, values and metadata that the store may hold before a client's write that adds
    /// to them is refused. By default 1 GiB: a process holds all of it in memory, and goes on by
    /// being told to delete rather than by being killed for want of memory. Writes from other
    /// replicas are always taken, because replicas have to hold the same.
    pub max_bytes: usize,
    /// Characters of a key that a client may write. By default 50: this program began as an
    /// assignment, which asks for that.
    pub max_key: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            replicates: true,
            causal_wait: Duration::from_secs(1),
            seal_from: 64,
            max_bytes: 1 << 30,
            max_key: 50,
        }
    }
}

/// A peer's settings.
///
/// ```
/// # use rumormill::{Network, PeerConfig};
/// # use std::time::Duration;
/// let network = Network::new("example", ["127.0.0.1:5000".parse()?]);
/// let config = PeerConfig::new("127.0.0.1:6000".parse()?, network)
///     .gossip_count(0)
///     .suspect_timeout(Duration::from_secs(6))
///     .ping_interval(Duration::from_secs(2));
/// assert!(config.check().is_ok());
/// assert!(config.exponent(1.0).check().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerConfig {
    /// Where it listens and is known.
    pub me: Addr,
    /// The network.
    pub network: Network,
    /// Who belongs to the network; anything but [`Membership::Voted`] if it has no seeds.
    pub membership: Membership,
    /// How it finds out who is dead.
    pub detection: DetectionConfig,
    /// What it says, and how it passes on what others say.
    pub broadcast: BroadcastConfig,
    /// How it finds what it has missed.
    pub sync: SyncConfig,
    /// Which links it keeps.
    pub topology: TopologyConfig,
    /// How it keeps its replica of the store.
    pub store: StoreConfig,
    #[cfg(feature = "planted")]
    flaw: Flaw,
}

/// Sets one setting and returns all of them, so that calls can follow each other.
macro_rules! setters {
    ($($part:ident.$name:ident: $kind:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets `", stringify!($part), ".", stringify!($name), "`.")]
            #[must_use]
            pub fn $name(mut self, $name: $kind) -> Self {
                self.$part.$name = $name;
                self
            }
        )*
    };
}

impl PeerConfig {
    /// Defaults of CONTRACT.md, section 1.
    pub fn new(me: Addr, network: Network) -> Self {
        Self {
            me,
            network,
            membership: Membership::Voted,
            detection: DetectionConfig {
                probe_timeout: PROBE_TIMEOUT,
                ping_interval: SUSPECT_TIMEOUT / 3,
                suspect_timeout: SUSPECT_TIMEOUT,
            },
            broadcast: BroadcastConfig {
                gossip_interval: Duration::from_secs(5),
                gossip_count: 10,
                gather: Duration::ZERO,
                signed: true,
            },
            sync: SyncConfig { sync_interval: Duration::from_secs(10), fanout: 2 },
            topology: TopologyConfig {
                overlay: Overlay::ScaleFree,
                links: 3,
                max_links: 64,
                exponent: 2.5,
            },
            store: StoreConfig::default(),
            #[cfg(feature = "planted")]
            flaw: Flaw::None,
        }
    }

    setters! {
        detection.probe_timeout: Duration,
        detection.ping_interval: Duration,
        detection.suspect_timeout: Duration,
        broadcast.gossip_interval: Duration,
        broadcast.gossip_count: u64,
        broadcast.gather: Duration,
        broadcast.signed: bool,
        sync.sync_interval: Duration,
        sync.fanout: usize,
        topology.overlay: Overlay,
        topology.links: usize,
        topology.max_links: usize,
        topology.exponent: f64,
        store.replicates: bool,
        store.causal_wait: Duration,
        store.seal_from: usize,
        store.max_key: usize,
    }

    /// Sets `store.max_bytes`.
    #[must_use]
    pub fn max_store_bytes(mut self, max_bytes: usize) -> Self {
        self.store.max_bytes = max_bytes;
        self
    }

    /// Sets `membership`.
    #[must_use]
    pub fn membership(mut self, membership: Membership) -> Self {
        self.membership = membership;
        self
    }

    /// Whether a peer can run with these settings.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        check_address(self.me)?;
        let seeds = self.network.seeds();
        match (&self.membership, seeds.is_empty()) {
            (Membership::Voted, true) => return Err(InvalidConfig::NoSeeds),
            (Membership::Voted, false) | (_, true) => {}
            (_, false) => return Err(InvalidConfig::SeedsUnasked),
        }
        if seeds.len() > MAX_SEEDS {
            return Err(InvalidConfig::TooManySeeds(seeds.len()));
        }
        if seeds.contains(&self.me) {
            return Err(InvalidConfig::IsSeed(self.me));
        }
        self.check_numbers()?;
        let (ping, suspect) = (self.detection.ping_interval, self.detection.suspect_timeout);
        check_times(&[
            ("probe_timeout", self.detection.probe_timeout),
            ("ping_interval", ping),
            ("suspect_timeout", suspect),
            ("gossip_interval", self.broadcast.gossip_interval),
            ("sync_interval", self.sync.sync_interval),
            // These two may be zero.
            ("gather", self.broadcast.gather.max(Duration::from_nanos(1))),
            ("causal_wait", self.store.causal_wait.max(Duration::from_nanos(1))),
        ])?;
        if ping >= suspect {
            return Err(InvalidConfig::Ping { ping, suspect });
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), InvalidConfig> {
        let TopologyConfig { links, max_links, exponent, .. } = self.topology;
        if links == 0 || links > max_links {
            return Err(InvalidConfig::Links { links, max_links });
        }
        // The comparison is written so that NaN is refused as well.
        if !(exponent > 2.0 && exponent <= 3.0) {
            return Err(InvalidConfig::Exponent(exponent));
        }
        let StoreConfig { seal_from, max_bytes, max_key, .. } = self.store;
        let at_least_one = [
            ("fanout", self.sync.fanout),
            ("seal_from", seal_from),
            ("max_store_bytes", max_bytes),
            ("max_key", max_key),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, number)| *number == 0) {
            return Err(InvalidConfig::Zero(name));
        }
        if max_key > MAX_KEY {
            return Err(InvalidConfig::Key(max_key));
        }
        Ok(())
    }

    /// The defect that a test has planted in this peer.
    pub(crate) fn flaw(&self) -> Flaw {
        #[cfg(feature = "planted")]
        return self.flaw;
        #[cfg(not(feature = "planted"))]
        Flaw::None
    }
}

#[cfg(feature = "planted")]
#[doc(hidden)]
impl SeedConfig {
    #[must_use]
    pub fn with_flaw(mut self, flaw: Flaw) -> Self {
        self.flaw = flaw;
        self
    }
}

#[cfg(feature = "planted")]
#[doc(hidden)]
impl PeerConfig {
    #[must_use]
    pub fn with_flaw(mut self, flaw: Flaw) -> Self {
        self.flaw = flaw;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    fn network() -> Network {
        Network::new("test", [addr(5000), addr(5001)])
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_what_is_wrong() {
        let base = || PeerConfig::new(addr(6000), network());
        assert_eq!(base().check(), Ok(()));
        let (zero, long) = (Duration::ZERO, Duration::MAX);
        let table: Vec<(PeerConfig, &str)> = vec![
            (base().exponent(1.0), "exponent is 1"),
            (base().exponent(f64::NAN), "exponent is NaN"),
            (base().links(0), "links is 0"),
            (base().links(65), "links is 65 and max_links 64"),
            (base().fanout(0), "fanout is 0"),
            (base().seal_from(0), "seal_from is 0"),
            (base().max_store_bytes(0), "max_store_bytes is 0"),
            (base().max_key(0), "max_key is 0"),
            (base().max_key(1_025), "max_key is 1025"),
            (base().probe_timeout(zero), "probe_timeout is 0ns"),
            (base().suspect_timeout(long), "suspect_timeout is"),
            (base().causal_wait(long), "causal_wait is"),
            (base().gather(long), "gather is"),
            (base().ping_interval(Duration::from_secs(15)), "has to be shorter"),
            (base().membership(Membership::Open(Vec::new())), "membership is not voted"),
            (PeerConfig::new(addr(5000), network()), "give the peer another port"),
            (PeerConfig::new(addr(0), network()), "nobody can be reached"),
            (PeerConfig::new(addr(6000), Network::without_seeds("test")), "has no seeds"),
        ];
        for (config, says) in table {
            let error = config.check().expect_err(says).to_string();
            assert!(error.contains(says), "{error:?} does not say {says:?}");
        }
        assert_eq!(base().causal_wait(zero).gather(zero).check(), Ok(()));
        let open = PeerConfig::new(addr(6000), Network::without_seeds("test"));
        assert_eq!(open.membership(Membership::Open(Vec::new())).check(), Ok(()));
    }

    #[test]
    fn a_seed_has_to_be_one_of_its_list() {
        assert_eq!(SeedConfig::new(addr(5001), network()).check(), Ok(()));
        let error = SeedConfig::new(addr(5002), network()).check();
        assert_eq!(error, Err(InvalidConfig::NotASeed(addr(5002))));
        let config =
            SeedConfig { probe_timeout: Duration::ZERO, ..SeedConfig::new(addr(5000), network()) };
        assert!(config.check().is_err());
    }
}
