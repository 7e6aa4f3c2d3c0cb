//! What a model starts from, what its peers say, and what may go wrong.
//!
//! Peers are stubs: they run, hang up or leave in an incarnation, answer
//! dial-backs accordingly, and say the lines of a script, each once, at any time
//! after the lines that it waits for. So a line may also come late, after the
//! life in which it was said.

use rumormill::proto::message::Incarnation;
use rumormill::proto::planted::Flaw;

use super::world::World;

pub const SEEDS: usize = 3;
pub const PEERS: usize = 2;

/// Something that a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Says to a seed: let me in.
    Register { peer: usize, incarnation: Incarnation, seed: usize },
    /// Says to a seed: I go.
    Leave { peer: usize, incarnation: Incarnation, seed: usize },
    /// The other peer says to a seed that this one is dead.
    Report { accused: usize, incarnation: Incarnation, seed: usize },
    /// Its process is gone.
    Dies { peer: usize },
    /// Its process runs, in that incarnation.
    Starts { peer: usize, incarnation: Incarnation },
    /// It runs on, and tells whoever dials that it is about to leave.
    Departs { peer: usize },
}

/// A line of the script.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub deed: Deed,
    /// Places of the lines that come before.
    pub after: &'static [usize],
}

/// Any time.
pub const fn line(deed: Deed) -> Line {
    Line { deed, after: &[] }
}

/// After others.
pub const fn then(after: &'static [usize], deed: Deed) -> Line {
    Line { deed, after }
}

/// What may go wrong, each kind with a bound of its own. Breaking a connection is how messages are
/// lost; duplicates and overtaking are more than TCP would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A connection between two seeds breaks with what is under way on it, and is dialled again at
    /// once.
    Lose,
    /// It breaks, and is dialled again at any later time.
    Cut,
    /// A message between seeds arrives, and later once more.
    Twice,
    /// A message between seeds is overtaken by the next.
    Overtaken,
    /// A probe is not answered, although the peer would.
    Blind,
    /// A seed's next timer is due.
    Tick,
    /// A seed's process ends; a first part of its unsynced writes survives.
    Crash,
    /// A seed's process ends, and its disk is gone.
    DiskLost,
}

pub const FAULTS: usize = 8;

/// What may happen to messages under way.
pub const ANY_ORDER: [(Fault, u8); 3] =
    [(Fault::Lose, 1), (Fault::Twice, 1), (Fault::Overtaken, 1)];
/// The same without what costs most states.
pub const SHUFFLED: [(Fault, u8); 2] = [(Fault::Twice, 1), (Fault::Overtaken, 1)];

/// How often each kind of fault may occur, and how many faults in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub each: [u8; FAULTS],
    pub all: u8,
}

/// At most `all` faults, out of these kinds with a bound each.
pub fn faults(all: u8, kinds: &[(Fault, u8)]) -> Faults {
    let mut each = [0; FAULTS];
    for (kind, bound) in kinds {
        each[*kind as usize] = *bound;
    }
    Faults { each, all }
}

/// What one model is made of.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub flaw: Flaw,
    /// In which incarnation each peer runs at the beginning, and whether it is registered.
    pub peers: [Option<(Incarnation, bool)>; PEERS],
    pub script: Vec<Line>,
    /// Lists of the first peer that are asked for, one after another, each from a quorum of seeds.
    pub lists: u8,
    /// A reader asks its seeds one after another, not all at the same moment.
    pub slow_lists: bool,
    /// Seeds that may crash or lose their disk.
    pub frail: &'static [usize],
    /// What has happened before the model begins, beyond that its peers are registered.
    pub before: fn(&mut World, &Scenario),
    pub faults: Faults,
    /// Writes become durable at any later time, not at once.
    pub slow_disks: bool,
    /// Probes end at any later time, not at once.
    pub slow_probes: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "",
            flaw: Flaw::None,
            peers: [None; PEERS],
            script: Vec::new(),
            lists: 0,
            slow_lists: false,
            frail: &[0, 1, 2],
            before: |_, _| (),
            faults: Faults::default(),
            slow_disks: false,
            slow_probes: true,
        }
    }
}

/// How deep to look: 1, or what RUMORMILL_MODEL_DEPTH says. Each step more allows one more fault of
/// each kind that a scenario has, one more in all, and messages are lost where they were not.
pub fn depth() -> u8 {
    std::env::var("RUMORMILL_MODEL_DEPTH").map_or(1, |depth| depth.parse().expect("a number"))
}

impl Scenario {
    /// The same with as many more faults as the depth asked for.
    pub fn deepened(mut self) -> Self {
        let more = depth().saturating_sub(1);
        for bound in self.faults.each.iter_mut().filter(|bound| **bound > 0) {
            *bound += more;
        }
        if self.faults.all > 0 && more > 0 {
            self.faults.all += more;
            let lost = &mut self.faults.each[Fault::Lose as usize];
            *lost = more.max(*lost);
        }
        self
    }

    /// The same with a planted bug.
    pub fn with(self, flaw: Flaw) -> Self {
        Self { flaw, ..self }
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            Fault::Lose,
            Fault::Cut,
            Fault::Twice,
            Fault::Overtaken,
            Fault::Blind,
            Fault::Tick,
            Fault::Crash,
            Fault::DiskLost,
        ];
        write!(f, "at most {} faults", self.all)?;
        for kind in kinds.into_iter().filter(|kind| self.each[*kind as usize] > 0) {
            write!(f, ", {kind:?} {}", self.each[kind as usize])?;
        }
        Ok(())
    }
}
