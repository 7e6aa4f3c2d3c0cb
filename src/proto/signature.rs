//! Signatures: what shows, wherever it turns up, that a seed has voted for a change, or that a member
//! has published a message.
//!
//! A statement is a SHA-256 over a few words that say what kind of statement it is, the name of the
//! network, and what is stated. So a signature under one kind, or in one network, says nothing in
//! another. How signing works is left to whoever runs the machines (`net::secure` does it with
//! Ed25519); the machines only ask for it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::hex::Hex;
use super::identity::Identity;

/// Bytes of a signature.
pub const SIGNATURE: usize = 64;

/// An Ed25519 signature (RFC 8032). Shown as 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Signature([[u8; SIGNATURE / 2]; 2]);

impl Signature {
    /// The signature that these bytes are.
    pub fn from_bytes(bytes: &[u8; SIGNATURE]) -> Self {
        let mut halves = [[0; SIGNATURE / 2]; 2];
        let (one, other) = bytes.split_at(SIGNATURE / 2);
        halves[0].copy_from_slice(one);
        halves[1].copy_from_slice(other);
        Self(halves)
    }

    /// The bytes of the signature.
    pub fn to_bytes(&self) -> [u8; SIGNATURE] {
        let mut bytes = [0; SIGNATURE];
        bytes.copy_from_slice(self.0.as_flattened());
        bytes
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(self.0.as_flattened()).fmt(f)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Statement(pub [u8; 32]);

impl Statement {
    /// A statement of that kind, in the network of that name. `say` says what is stated, always in as
    /// many bytes or with lengths in front, so that no two statements are the same bytes.
    pub(crate) fn new(kind: &str, network: &str, say: impl FnOnce(&mut Sha256)) -> Self {
        let mut hash = Sha256::new();
        for words in [kind, network] {
            hash.update((words.len() as u64).to_le_bytes());
            hash.update(words);
        }
        say(&mut hash);
        Self(hash.finalize().into())
    }
}

/// Signs as one process, and checks what others have signed.
pub trait Signer: fmt::Debug + Send + Sync {
    /// Whose signatures it makes.
    fn identity(&self) -> Identity;

    /// Signs a statement. The same statement always gets the same signature.
    fn sign(&self, statement: &Statement) -> Signature;

    /// Whether this is the signature of that process under the statement.
    fn has_signed(&self, who: &Identity, statement: &Statement, signature: &Signature) -> bool;
}

/// How a machine signs and checks; none where links are plain and nobody has an identity.
pub(crate) type Signing = Option<Arc<dyn Signer>>;

/// A signer for tests that need no real keys: a signature is a SHA-256 over the signer's number and
/// the statement, which only this type makes.
#[cfg(test)]
pub(crate) mod toy {
    use super::*;

    /// The signer with this number, whose identity repeats it.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Toy(pub u8);

    fn toy_signature(who: &Identity, statement: &Statement) -> Signature {
        let mut hash = Sha256::new();
        hash.update(who.0);
        hash.update(statement.0);
        let half: [u8; 32] = hash.finalize().into();
        Signature([half; 2])
    }

    impl Signer for Toy {
        fn identity(&self) -> Identity {
            Identity([self.0; 32])
        }

        fn sign(&self, statement: &Statement) -> Signature {
            toy_signature(&self.identity(), statement)
        }

        fn has_signed(&self, who: &Identity, statement: &Statement, signature: &Signature) -> bool {
            toy_signature(who, statement) == *signature
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_of_one_kind_in_one_network() {
        let say =
            |kind, network, said: &str| Statement::new(kind, network, |hash| hash.update(said));
        let all = [
            say("vote", "one", "yes"),
            say("vote", "one", "no"),
            say("vote", "two", "yes"),
            say("message", "one", "yes"),
            say("vot", "eone", "yes"),
            say("vote", "oney", "es"),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all.iter().skip(place + 1).all(|other| one != other), "{place}");
        }
    }

    #[test]
    fn a_signature_is_the_bytes_it_was_made_of() {
        let bytes: [u8; SIGNATURE] = std::array::from_fn(|place| u8::try_from(place).unwrap());
        let signature = Signature::from_bytes(&bytes);
        assert_eq!(signature.to_bytes(), bytes);
        assert!(signature.to_string().starts_with("000102") && signature.to_string().len() == 128);
    }
}
