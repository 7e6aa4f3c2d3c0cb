//! Which seed is who.
//!
//! CONFIG may name the identity of a seed. Where it does not, the first one seen at the seed's
//! address is remembered, as SSH does with the keys of hosts. What must stay true: once a seed's
//! identity is known, nobody else is taken for that seed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::proto::config::Network;
use crate::proto::message::{Addr, Identity};

/// A pair could not be written down.
pub type NotKept = io::Error;

/// Writes down the identity with which a seed was first seen.
type Keep = Box<dyn FnMut(Addr, &Identity) -> Result<(), NotKept> + Send>;

/// The identities of seeds, by address.
pub struct KnownSeeds(Mutex<Known>);

struct Known {
    /// The seeds of the network; a stranger at another address is no seed.
    of: BTreeMap<Addr, Option<Identity>>,
    keep: Keep,
}

impl fmt::Debug for KnownSeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownSeeds").field(&self.lock().of).finish()
    }
}

impl KnownSeeds {
    /// The seeds of a network, with the identities that are known. `keep` writes down those that
    /// are learned from now on.
    pub fn new(
        seeds: impl IntoIterator<Item = (Addr, Option<Identity>)>,
        keep: impl FnMut(Addr, &Identity) -> Result<(), NotKept> + Send + 'static,
    ) -> Self {
        Self(Mutex::new(Known { of: seeds.into_iter().collect(), keep: Box::new(keep) }))
    }

    /// The seeds of a network, as its settings name them; identities that are learned are forgotten
    /// when the process ends.
    pub fn of(network: &Network) -> Self {
        Self::new(network.seeds().iter().map(|seed| (*seed, network.identity(seed))), |_, _| Ok(()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identity of the seed at this address, if it is known.
    pub fn known(&self, seed: &Addr) -> Option<Identity> {
        self.lock().of.get(seed).copied().flatten()
    }

    /// The seeds whose identities are known.
    pub(super) fn all(&self) -> Vec<(Addr, Identity)> {
        let known = |(seed, identity): (&Addr, &Option<Identity>)| Some((*seed, (*identity)?));
        self.lock().of.iter().filter_map(known).collect()
    }

    /// Whether the process with this identity, which has answered at the address of a seed, is that
    /// seed. The first one that answers is remembered. It is not believed if it cannot be written
    /// down, because another one could be believed after a restart.
    pub fn answered(&self, seed: Addr, identity: &Identity) -> bool {
        let mut known = self.lock();
        let Known { of, keep } = &mut *known;
        match of.get_mut(&seed) {
            None => false,
            Some(Some(known)) => known == identity,
            Some(unknown) => {
                let kept = keep(seed, identity).is_ok();
                if kept {
                    *unknown = Some(*identity);
                }
                kept
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_first_identity_of_a_seed_is_the_only_one() {
        let addr = |port| Addr::from(([127, 0, 0, 1], port));
        let id = |byte| Identity([byte; 32]);
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&kept);
        let seeds = [(addr(5000), Some(id(1))), (addr(5001), None), (addr(5002), None)];
        let known = KnownSeeds::new(seeds, move |seed, identity| {
            if seed == addr(5002) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            into.lock().unwrap().push((seed, *identity));
            Ok(())
        });
        for (seed, by, expected) in [
            (5000, 2, false), // CONFIG names another
            (5000, 1, true),
            (5001, 3, true), // the first one seen
            (5001, 4, false),
            (5001, 3, true),
            (5002, 5, false), // cannot be written down
            (5003, 6, false), // no seed
        ] {
            assert_eq!(known.answered(addr(seed), &id(by)), expected, "{seed} by {by}");
        }
        assert_eq!(*kept.lock().unwrap(), [(addr(5001), id(3))]);
        assert_eq!(known.known(&addr(5001)), Some(id(3)));
        assert_eq!(known.known(&addr(5002)), None);
        assert_eq!(known.all(), [(addr(5000), id(1)), (addr(5001), id(3))]);
    }
}
