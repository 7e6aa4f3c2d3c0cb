//! Encrypted links: who may open one, who is at its other end, and its records.
//!
//! A link is wrapped in Noise XXpsk3 (<https://noiseprotocol.org/noise.html>, revision 34, sections
//! 7.5 and 9). The network's pre-shared key admits: a process without it learns no hello and is told
//! no answer. Each process's own key says who it is. What must stay true: what a machine hears came
//! from a process that holds a key of the network, and an [`Identity`] in a hello or a welcome
//! belongs to the process at the other end.

mod keys;
mod known;
mod noise;
mod secret;

use std::sync::{Arc, PoisonError, RwLock};

pub use keys::{BadKeys, KEY, MAX_KEYS, NetworkKey, NetworkKeys};
pub use known::{KnownSeeds, NotKept};
pub use noise::{Accepting, Dialling, MAX_RECORD, NoiseError, Opener, Sealer, Session};
pub use secret::{Secret, SecretError};

use crate::proto::message::{Addr, Hello, Identity, Purpose, Refused, Role};
use crate::proto::signature::{Signature, Signer, Statement};

/// What a process needs to open and accept encrypted links.
///
/// Cheap to clone; the clones share the keys, so that a change reaches all links opened from then
/// on.
#[derive(Clone, Debug)]
pub struct Security(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: RwLock<NetworkKeys>,
    secret: Secret,
    seeds: KnownSeeds,
}

impl Security {
    /// Links with these network keys, opened and accepted as the process that holds this secret.
    /// Which seed is who is known, or is learned, from `seeds`.
    pub fn new(keys: NetworkKeys, secret: Secret, seeds: KnownSeeds) -> Self {
        Self(Arc::new(Inner { keys: RwLock::new(keys), secret, seeds }))
    }

    /// Who this process is.
    pub fn identity(&self) -> Identity {
        self.0.secret.identity()
    }

    /// Replaces the network keys. Links that are open stay open.
    pub fn replace_keys(&self, keys: NetworkKeys) {
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Who the seeds are, as far as this process knows now.
    pub(crate) fn known_seeds(&self) -> Vec<(Addr, Identity)> {
        self.0.seeds.all()
    }

    fn keys(&self) -> NetworkKeys {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the process that answered at a seed's address can be that seed. The first one that
    /// answers there is remembered, unless CONFIG says who it is.
    pub fn is_the_seed(&self, address: Addr, identity: &Identity) -> bool {
        self.0.seeds.answered(address, identity)
    }

    /// Why a caller cannot be who it says, or cannot be believed. A member could call in the name of
    /// a seed that was never seen, so nothing is learned from calls. Who only asks whether this
    /// process lives needs no name.
    pub fn objection_to(&self, hello: &Hello, identity: &Identity) -> Option<Refused> {
        if hello.role == Role::Peer {
            return None;
        }
        match self.0.seeds.known(&hello.from) {
            Some(known) => (known != *identity).then_some(Refused::WrongIdentity),
            None => (hello.purpose == Purpose::Council).then_some(Refused::UnknownIdentity),
        }
    }
}

impl Signer for Security {
    fn identity(&self) -> Identity {
        self.0.secret.identity()
    }

    fn sign(&self, statement: &Statement) -> Signature {
        self.0.secret.sign(statement)
    }

    fn has_signed(&self, who: &Identity, statement: &Statement, signature: &Signature) -> bool {
        secret::has_signed(who, statement, signature)
    }
}
