//! Who a process is, whatever its address: the public half of a key that it alone holds.
//!
//! What must stay true: an identity in a hello or a welcome was proven by the link that it came
//! over. Whoever runs a machine checks that (`net::secure` does, for real links); the machines
//! only compare identities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::hex::{self, Hex};

/// Bytes of an identity.
pub const IDENTITY: usize = 32;

/// An Ed25519 public key (RFC 8032). Shown and read as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity(pub [u8; IDENTITY]);

/// A text that is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identity; it has 64 hexadecimal digits")]
pub struct NoIdentity;

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

impl FromStr for Identity {
    type Err = NoIdentity;

    fn from_str(digits: &str) -> Result<Self, NoIdentity> {
        let bytes = hex::parse(digits).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(NoIdentity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_shown() {
        let identity = Identity([0xa5; IDENTITY]);
        assert_eq!(identity.to_string().parse(), Ok(identity));
        for wrong in ["", "a5", &"g5".repeat(32), &"a5".repeat(33)] {
            assert_eq!(wrong.parse::<Identity>(), Err(NoIdentity), "{wrong}");
        }
    }
}
