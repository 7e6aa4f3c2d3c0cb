//! The pre-shared keys of a network, as a key file lists them.

use std::fmt;

use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

use crate::proto::hex::{self, Hex};

/// Bytes of a key (Noise, section 9: a pre-shared key has 32 bytes).
pub const KEY: usize = 32;

/// Bytes of a hint at a key: so many that no two keys are taken for each other.
pub(super) const HINT: usize = 16;

/// Most keys of one file. Two are enough to change a key without a stop; each more is one more hash
/// for each stranger who calls.
pub const MAX_KEYS: usize = 16;

/// One pre-shared key. Whoever holds it belongs to the network, so it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkKey([u8; KEY]);

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(..)")
    }
}

impl NetworkKey {
    /// A fresh key from the system's randomness.
    ///
    /// # Errors
    ///
    /// If the system gives no randomness.
    pub fn fresh() -> Result<Self, rand::rngs::SysError> {
        let mut key = [0; KEY];
        SysRng.try_fill_bytes(&mut key)?;
        Ok(Self(key))
    }

    /// The key as a line of a key file: 64 hexadecimal digits.
    pub fn line(&self) -> String {
        Hex(&self.0).to_string()
    }

    pub(super) fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    /// A hint at this key that goes in front of the first message of a handshake: whoever holds the
    /// key finds it among its own, and to anybody else each hint looks like another number.
    pub(super) fn hint(&self, message: &[u8]) -> [u8; HINT] {
        let mut hash = Sha256::new();
        hash.update(b"rumormill key hint");
        hash.update(self.0);
        hash.update(message);
        let hash: [u8; 32] = hash.finalize().into();
        hash.first_chunk().copied().unwrap_or_default()
    }
}

/// A text that is no list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// A line is no key. The line itself is not shown, because it may be one with a typing error.
    #[error(
        "line {0} is no key; a key has 64 hexadecimal digits, and `peer --generate-key` makes one"
    )]
    Line(usize),
    /// There is no key.
    #[error("it has no key; add one, which `peer --generate-key` makes")]
    Empty,
    /// There are more keys than [`MAX_KEYS`].
    #[error("it has more than {MAX_KEYS} keys; remove the oldest")]
    TooMany,
}

/// The keys of a network: the first is used to dial, all are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkKeys(Vec<NetworkKey>);

impl NetworkKeys {
    /// Reads keys, one a line. Blank lines are skipped, and `#` starts a comment.
    ///
    /// # Errors
    ///
    /// If a line is no key, or there is none or too many.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        let mut keys = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let entry = text.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let key = hex::parse(entry).and_then(|bytes| bytes.try_into().ok());
            keys.push(NetworkKey(key.ok_or(BadKeys::Line(line))?));
            if keys.len() > MAX_KEYS {
                return Err(BadKeys::TooMany);
            }
        }
        if keys.is_empty() { Err(BadKeys::Empty) } else { Ok(Self(keys)) }
    }

    /// A network with one key.
    pub fn of(key: NetworkKey) -> Self {
        Self(vec![key])
    }

    /// Number of keys; at least 1.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn first(&self) -> Option<&NetworkKey> {
        self.0.first()
    }

    /// The key that the sender of this message has hinted at, if it is one of these.
    pub(super) fn hinted_at(&self, hint: &[u8], message: &[u8]) -> Option<&NetworkKey> {
        self.0.iter().find(|key| key.hint(message) == hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_has_a_key_a_line() {
        let (first, second) = (NetworkKey::fresh().unwrap(), NetworkKey::fresh().unwrap());
        assert_ne!(first, second);
        let text = format!("# ours\n\n  {} # new\r\n{}\n", first.line(), second.line());
        assert_eq!(NetworkKeys::parse(&text), Ok(NetworkKeys(vec![first, second])));
    }

    #[test]
    fn mistakes_name_their_line_and_show_no_key() {
        let key = NetworkKey::fresh().unwrap();
        assert!(!format!("{key:?}").contains(&key.line()), "a key is not shown");
        let line = key.line();
        let short = line.get(..63).unwrap();
        for (text, expected) in [
            (String::new(), BadKeys::Empty),
            ("# none\n".to_owned(), BadKeys::Empty),
            (format!("{line}\n{short}"), BadKeys::Line(2)),
            (format!("{line} {line}"), BadKeys::Line(1)),
            (format!("{short}g"), BadKeys::Line(1)),
            (format!("{line}\n").repeat(MAX_KEYS + 1), BadKeys::TooMany),
        ] {
            assert_eq!(NetworkKeys::parse(&text), Err(expected));
            assert!(!expected.to_string().contains(short), "{expected}");
        }
    }
}
