//! The key file: who holds a key of it belongs to the network.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::net::secure::{BadKeys, NetworkKeys};

/// Bytes of a key file at most: room for all keys, with a comment each.
const LONGEST: u64 = 64 << 10;

/// A mistake in a key file: what is wrong, and what to do. No key is ever shown.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("{}: cannot read the network's keys: {source}; name a readable file with --key-file, and `peer --generate-key` makes a key for it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Others can read the file, so that they have the key too.
    #[error("{}: others can read the network's keys (mode {mode:03o}); chmod 600 it, and make a new key if somebody may have read this one", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no keys.
    #[error("{}: {wrong}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        wrong: BadKeys,
    },
}

/// Reads the keys of a network.
///
/// # Errors
///
/// If the file cannot be read, can be read by others, or holds no keys.
pub fn read_keys(path: &Path) -> Result<NetworkKeys, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // The open file is asked, not its name, which may be another file by now.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    NetworkKeys::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|wrong| KeyFileError::Bad { path: path.to_owned(), wrong })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::secure::NetworkKey;
    use std::fs;

    #[test]
    fn a_key_file_is_read_only_if_nobody_else_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(matches!(read_keys(&path), Err(KeyFileError::Unreadable { .. })));
        let key = NetworkKey::fresh().unwrap();
        fs::write(&path, format!("{}\n", key.line())).unwrap();
        for (mode, readable) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read_keys(&path);
            assert_eq!(read.is_ok(), readable, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                assert!(!error.to_string().contains(&key.line()), "{error}");
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key\n").unwrap();
        let error = read_keys(&path).unwrap_err().to_string();
        assert!(error.contains("line 1 is no key") && !error.contains("no key\n"), "{error}");
    }
}
