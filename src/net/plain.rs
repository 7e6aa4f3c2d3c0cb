//! Stands in for `secure` in a build without encryption. None of these can exist, so that the code
//! of links is the same in all builds.

use bytes::BytesMut;

use crate::proto::message::{Addr, Hello, Identity, Refused};
use crate::proto::signature::{Signature, Signer, Statement};

/// Nothing. Behind a private field it makes a type of which no value exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Never {}

/// Bytes that one record carries at most, as where links are encrypted.
pub const MAX_RECORD: usize = 65_519;

/// What a process needs to open and accept encrypted links.
#[derive(Clone, Debug)]
pub struct Security(Never);

impl Security {
    /// Who this process is.
    pub fn identity(&self) -> Identity {
        match self.0 {}
    }

    /// Who the seeds are, as far as this process knows now.
    pub(crate) fn known_seeds(&self) -> Vec<(Addr, Identity)> {
        match self.0 {}
    }

    /// Whether the process that answered at a seed's address can be that seed.
    pub fn is_the_seed(&self, _: Addr, _: &Identity) -> bool {
        match self.0 {}
    }

    /// Why a caller cannot be who it says.
    pub fn objection_to(&self, _: &Hello, _: &Identity) -> Option<Refused> {
        match self.0 {}
    }
}

impl Signer for Security {
    fn identity(&self) -> Identity {
        match self.0 {}
    }

    fn sign(&self, _: &Statement) -> Signature {
        match self.0 {}
    }

    fn has_signed(&self, _: &Identity, _: &Statement, _: &Signature) -> bool {
        match self.0 {}
    }
}

/// Why a handshake or a record is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot encrypt")]
pub struct NoiseError(Never);

/// The side of a handshake that dials.
pub struct Dialling(Never);

impl Dialling {
    /// Begins, and returns the first message.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn begin(security: &Security, _: &[u8]) -> Result<(Self, Vec<u8>), NoiseError> {
        match security.0 {}
    }

    /// Hears the second message, and returns the third one, and the session.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn finish(self, _: &[u8], _: &[u8]) -> Result<(Vec<u8>, Session), NoiseError> {
        match self.0 {}
    }
}

/// The side of a handshake that accepts.
pub struct Accepting(Never);

impl Accepting {
    /// Hears the first message, and returns the second one.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn begin(security: &Security, _: &[u8], _: &[u8]) -> Result<(Self, Vec<u8>), NoiseError> {
        match security.0 {}
    }

    /// Hears the third message, and returns the hello in it, and the session.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn finish(self, _: &[u8]) -> Result<(Vec<u8>, Session), NoiseError> {
        match self.0 {}
    }
}

/// An encrypted link whose handshake is over.
#[derive(Debug)]
pub struct Session {
    /// Encrypts what this side says.
    pub sealer: Sealer,
    /// Decrypts what the other side says.
    pub opener: Opener,
}

impl Session {
    /// Whether the process at the other end holds the secret of this identity.
    pub fn is_with(&self, _: &Identity) -> bool {
        match self.sealer.0 {}
    }
}

/// Encrypts the records of one direction of a link.
#[derive(Debug)]
pub struct Sealer(Never);

impl Sealer {
    /// Appends a record with these bytes.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn seal(&mut self, _: &[u8], _: &mut Vec<u8>) -> Result<(), NoiseError> {
        match self.0 {}
    }
}

/// Decrypts the records of one direction of a link.
#[derive(Debug)]
pub struct Opener(Never);

impl Opener {
    /// Takes the first record out of the sealed bytes.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn open(&mut self, _: &mut BytesMut, _: &mut BytesMut) -> Result<bool, NoiseError> {
        match self.0 {}
    }
}
