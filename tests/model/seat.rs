//! One seed's place in the model: its process, its clock, its disk, and who it talks to.
//!
//! Each seat has a clock of its own, which stands still until a timer is let
//! fire: so two orders of the same inputs end in the same state. A fingerprint
//! over all of it is taken once a step and stands for the seat in the hash of
//! the whole state. Of the machine only its random numbers, which set the pause
//! before a redial, are not part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rumormill::proto::config::{Network, SeedConfig};
use rumormill::proto::machine::{self, Conn};
use rumormill::proto::message::{Addr, Incarnation, Standing};
use rumormill::proto::planted::Flaw;
use rumormill::proto::registry::{Record, Registry, Status};
use rumormill::proto::roles::{Keep, SeedCommand};
use rumormill::proto::seed::SeedMachine;
use rumormill::proto::time::Time;

use super::disk::Disk;
use super::scenario::{PEERS, SEEDS};

/// What a seed is told.
pub type Input = machine::Input<SeedCommand>;

/// When every model begins: some day in 2026.
const BEGINNING: Time = Time::from_millis(1_795_206_851_000);
/// No process is back sooner: it keeps the numbers of ballots of two lives apart.
const RESTART: Duration = Duration::from_secs(1);

pub fn seed_addr(seed: usize) -> Addr {
    ([127, 0, 0, 1], 5000 + seed as u16).into()
}

pub fn peer_addr(peer: usize) -> Addr {
    ([127, 0, 0, 1], 6000 + peer as u16).into()
}

pub fn seed_at(addr: Addr) -> Option<usize> {
    (0..SEEDS).find(|seed| seed_addr(*seed) == addr)
}

pub fn peer_at(addr: Addr) -> Option<usize> {
    (0..PEERS).find(|peer| peer_addr(*peer) == addr)
}

pub fn network() -> Network {
    Network::new("model", (0..SEEDS).map(seed_addr))
}

/// A record that was heard.
type Heard = (Addr, Incarnation, Status, u64, Vec<u16>);

#[derive(Clone, Debug)]
pub struct Seat {
    config: SeedConfig,
    /// None while the process does not run.
    pub machine: Option<SeedMachine>,
    pub now: Time,
    pub disk: Disk,
    /// Probes under way, and whom they are to reach.
    pub probes: BTreeMap<Conn, usize>,
    /// The connection that each peer has to this seed.
    pub clients: [Option<Conn>; PEERS],
    incoming: Conn,
    /// Every record that became durable here since the disk was new.
    pub heard: BTreeSet<Heard>,
    fingerprint: u64,
}

impl Seat {
    pub fn new(place: usize, flaw: Flaw) -> Self {
        let config = SeedConfig::new(seed_addr(place), network());
        Self {
            config: config.with_flaw(flaw),
            machine: None,
            now: BEGINNING,
            disk: Disk::default(),
            probes: BTreeMap::new(),
            clients: [None; PEERS],
            incoming: 1,
            heard: BTreeSet::new(),
            fingerprint: 0,
        }
    }

    /// A new process, on what the disk holds; it still has to be told to start.
    pub fn boot(&mut self) {
        self.now = self.now + RESTART;
        let machine = SeedMachine::new(self.config.clone(), 1);
        let founders = self.disk.founders.iter().copied();
        let records = self.disk.records();
        self.machine = Some(machine.recovered(self.disk.standing, founders, records));
    }

    /// The process ends.
    pub fn halt(&mut self) {
        self.machine = None;
        self.probes.clear();
        self.clients = [None; PEERS];
        self.incoming = 1;
    }

    /// A new disk.
    pub fn lose_disk(&mut self) {
        self.disk = Disk::default();
        self.heard.clear();
    }

    /// A number for a connection that comes in.
    pub fn next_incoming(&mut self) -> Conn {
        self.incoming += 2;
        self.incoming
    }

    /// The first write that waits becomes durable.
    pub fn sync(&mut self) -> Option<Input> {
        let (batch, changes) = self.disk.sync()?;
        self.hear(&changes);
        Some(Input::Persisted { batch })
    }

    fn hear(&mut self, changes: &[Keep]) {
        for change in changes {
            if let Keep::Record(peer, record) = change {
                let Record { incarnation, status, at, voters, .. } = record.clone();
                self.heard.insert((*peer, incarnation, status, at, voters));
            }
        }
    }

    /// The process ends, and the first `survive` unsynced writes are on the disk all the same.
    pub fn crash(&mut self, survive: usize) {
        let surviving: Vec<_> = self.disk.unsynced.iter().take(survive).cloned().collect();
        for (_, changes) in surviving {
            self.hear(&changes);
        }
        self.disk.crash(survive);
        self.halt();
    }

    pub fn registry(&self) -> Option<&Registry> {
        self.machine.as_ref().map(SeedMachine::registry)
    }

    /// Whether it is relied on to know what was answered for.
    pub fn is_relied_on(&self) -> bool {
        self.disk.standing == Standing::Voting
    }

    /// Nothing is under way inside.
    pub fn is_quiet(&self) -> bool {
        self.machine.is_some() && self.probes.is_empty() && self.disk.unsynced.is_empty()
    }

    /// Something changed; [`Seat::seal`] has to follow before the state is looked at.
    pub fn open(&mut self) -> &mut Self {
        self.fingerprint = 0;
        self
    }

    /// Takes the fingerprint.
    pub fn seal(&mut self) {
        if self.fingerprint == 0 {
            let mut hash = DefaultHasher::new();
            (&self.machine, self.now, &self.disk, &self.probes).hash(&mut hash);
            (&self.clients, self.incoming, &self.heard).hash(&mut hash);
            self.fingerprint = hash.finish().max(1);
        }
    }

    pub fn is_sealed(&self) -> bool {
        self.fingerprint != 0
    }
}

impl PartialEq for Seat {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Seat {}

impl Hash for Seat {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint);
    }
}
