//! A process's own key: it proves with it who it is.
//!
//! The key is an Ed25519 key (RFC 8032), so that the process can sign with it. Noise needs an X25519
//! key; that is the same point in Montgomery form, so that one key file and one identity do for
//! both (as libsodium's `crypto_sign_ed25519_pk_to_curve25519` does it).

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use rand::TryRng;
use rand::rngs::SysRng;

use crate::proto::hex::{self, Hex};
use crate::proto::message::Identity;
use crate::proto::signature::{Signature, Statement};

/// The private half of an identity. It is not shown.
#[derive(Clone)]
pub struct Secret(SigningKey);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.identity())
    }
}

/// A text that is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not one line of 64 hexadecimal digits")]
pub struct SecretError;

impl Secret {
    /// A fresh secret from the system's randomness.
    ///
    /// # Errors
    ///
    /// If the system gives no randomness.
    pub fn fresh() -> Result<Self, rand::rngs::SysError> {
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a secret as [`Secret::line`] writes it.
    ///
    /// # Errors
    ///
    /// If the text is anything else.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = hex::parse(text.trim()).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|seed| Self(SigningKey::from_bytes(&seed))).ok_or(SecretError)
    }

    /// The secret in 64 hexadecimal digits, for a file that nobody else can read.
    pub fn line(&self) -> String {
        Hex(self.0.as_bytes()).to_string()
    }

    /// The public half.
    pub fn identity(&self) -> Identity {
        Identity(self.0.verifying_key().to_bytes())
    }

    /// Signs a statement. Ed25519 takes no randomness, so that the same statement has the same
    /// signature.
    pub(super) fn sign(&self, statement: &Statement) -> Signature {
        Signature::from_bytes(&self.0.sign(&statement.0).to_bytes())
    }

    /// The private key for Noise.
    pub(super) fn dh_key(&self) -> [u8; 32] {
        self.0.to_scalar_bytes()
    }
}

/// Whether this is the signature of that process under the statement. The strict check takes one
/// signature of one signer for each statement, and nothing of an identity that anybody can have.
pub(super) fn has_signed(who: &Identity, statement: &Statement, signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
    let key = VerifyingKey::from_bytes(&who.0);
    key.is_ok_and(|key| key.verify_strict(&statement.0, &signature).is_ok())
}

/// The public key for Noise that belongs to an identity. None if the identity is no point of the
/// curve, or one of the few for which anybody could know the secret.
pub(super) fn dh_key_of(identity: &Identity) -> Option<[u8; 32]> {
    let key = VerifyingKey::from_bytes(&identity.0).ok().filter(|key| !key.is_weak())?;
    Some(key.to_montgomery().to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_it_is_written_and_never_shown() {
        let secret = Secret::fresh().unwrap();
        let again = Secret::parse(&format!("{}\n", secret.line())).unwrap();
        assert_eq!(again.identity(), secret.identity());
        assert!(!format!("{secret:?}").contains(&secret.line()));
        for wrong in ["", "00", &"0g".repeat(32), &format!("{0}\n{0}", secret.line())] {
            assert!(Secret::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_signature_is_one_process_under_one_statement() {
        let (one, other) = (Secret::fresh().unwrap(), Secret::fresh().unwrap());
        let (this, that) = (Statement([1; 32]), Statement([2; 32]));
        let signature = one.sign(&this);
        assert_eq!(signature, one.sign(&this));
        let mut spoilt = signature.to_bytes();
        spoilt[9] ^= 1;
        for (what, who, statement, signature, expected) in [
            ("its own", &one, &this, signature, true),
            ("somebody else's", &other, &this, signature, false),
            ("under another statement", &one, &that, signature, false),
            ("spoilt", &one, &this, Signature::from_bytes(&spoilt), false),
            ("none", &one, &this, Signature::from_bytes(&[0; 64]), false),
        ] {
            assert_eq!(has_signed(&who.identity(), statement, &signature), expected, "{what}");
        }
        let nobody = Identity([0xff; 32]);
        assert!(!has_signed(&nobody, &this, &signature), "no point of the curve");
    }

    #[test]
    fn an_identity_that_anybody_can_have_proves_nothing() {
        let neutral = Identity([
            1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0,
        ]);
        assert_eq!(dh_key_of(&neutral), None);
        assert_eq!(dh_key_of(&Identity([0; 32])), None);
        assert!(dh_key_of(&Secret::fresh().unwrap().identity()).is_some());
    }
}
