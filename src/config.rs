//! CONFIG, the list of seeds, the HTTP token, and the arguments of the two programs (CONTRACT.md,
//! section 1).
//!
//! What must stay true: every mistake that a user can make before a node starts is found here, and
//! told in one line that says what is wrong and what to do. The programs then end with exit code 2.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

mod args;
mod keys;
mod token;
mod values;

pub use args::{ArgsError, Common, LogLevel, PeerArgs, SeedArgs};
pub use keys::{KeyFileError, read_keys};
pub use token::{Token, TokenError};

use crate::proto::config::Network;
use crate::proto::message::Identity;

/// Bytes of a CONFIG at most: room for ten thousand seeds with a comment each. It stops the reading
/// of `/dev/zero`, too.
pub const MAX_CONFIG: u64 = 1024 * 1024;

/// Characters of a bad line that an error shows at most.
const SHOWN_TEXT: usize = 60;

/// A mistake in a CONFIG: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the list of seeds: {source}; name a readable file with one ip:port a line", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file has more than [`MAX_CONFIG`] bytes.
    #[error("{}: longer than {MAX_CONFIG} bytes; a list of seeds has one ip:port a line", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A line is no address that a seed can have.
    #[error("{}:{line}: {text} {why}", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The line, quoted and shortened.
        text: String,
        /// What is wrong and what to do.
        why: &'static str,
    },
    /// A seed is listed twice.
    #[error("{}:{line}: the seed {seed} is listed a second time, first on line {first}; remove one", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// Number of the second line, from 1.
        line: usize,
        /// The seed.
        seed: SocketAddr,
        /// Number of the first line, from 1.
        first: usize,
    },
    /// No line has a seed.
    #[error("{}:{line}: the file ends without any seed; add one ip:port a line, such as 127.0.0.1:5000", path.display())]
    NoSeed {
        /// The file.
        path: PathBuf,
        /// Number of the last line, from 1.
        line: usize,
    },
}

/// A seed as CONFIG lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedSeed {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who it is, if CONFIG says.
    pub identity: Option<Identity>,
}

/// The network of the seeds that the file lists.
///
/// # Errors
///
/// As [`read_seeds`].
pub fn read_network(name: &str, path: &Path) -> Result<Network, ConfigError> {
    let seeds = read_seeds(path)?;
    let network = Network::new(name, seeds.iter().map(|seed| seed.address));
    Ok(seeds.iter().fold(network, |network, seed| match seed.identity {
        Some(identity) => network.with_identity(seed.address, identity),
        None => network,
    }))
}

/// Reads the seeds that the file lists, in its order.
///
/// # Errors
///
/// See [`ConfigError`]; each names the file and, where there is one, the line.
pub fn read_seeds(path: &Path) -> Result<Vec<ListedSeed>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_CONFIG) {
        return Err(ConfigError::TooLong { path: path.to_owned() });
    }
    // A byte that is no UTF-8 becomes a character that no address has, so that the error names its
    // line. In a comment it does no harm.
    parse_seeds(path, &String::from_utf8_lossy(&bytes))
}

/// Reads the seeds that `text` lists, in its order; `path` is only named in errors.
///
/// # Errors
///
/// As [`read_seeds`].
pub fn parse_seeds(path: &Path, text: &str) -> Result<Vec<ListedSeed>, ConfigError> {
    let mut seeds = Vec::new();
    let mut first_lines = HashMap::new();
    let mut last_line = 1;
    for (line, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        last_line = line;
        let entry = text.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let listed = parse_seed(entry).map_err(|why| ConfigError::BadLine {
            path: path.to_owned(),
            line,
            text: shown(entry),
            why,
        })?;
        let seed = listed.address;
        if let Some(first) = first_lines.insert(seed, line) {
            return Err(ConfigError::Twice { path: path.to_owned(), line, seed, first });
        }
        seeds.push(listed);
    }
    if seeds.is_empty() {
        return Err(ConfigError::NoSeed { path: path.to_owned(), line: last_line });
    }
    Ok(seeds)
}

/// Reads what a line says of a seed: its address and, if wanted, its identity.
fn parse_seed(entry: &str) -> Result<ListedSeed, &'static str> {
    let mut words = entry.split_whitespace();
    let address = parse_address(words.next().unwrap_or_default())?;
    let identity = words.next().map(str::parse).transpose().map_err(|_| {
        "names no identity after its address; write the 64 hexadecimal digits that seed --print-identity shows, or nothing"
    })?;
    match words.next() {
        None => Ok(ListedSeed { address, identity }),
        Some(_) => Err("says more than a seed's address and identity; write one seed a line"),
    }
}

/// Reads an address, which has to be one that others can reach.
fn parse_address(entry: &str) -> Result<SocketAddr, &'static str> {
    let Ok(seed) = entry.parse::<SocketAddr>() else {
        return Err(match entry.parse::<IpAddr>() {
            Ok(_) => "has no port; write ip:port, such as 127.0.0.1:5000 or [::1]:5000",
            Err(_) => "is no address; write ip:port, such as 127.0.0.1:5000 or [::1]:5000",
        });
    };
    let seed = canonical(seed);
    if seed.port() == 0 {
        return Err("has port 0; name the port that it listens on");
    }
    if seed.ip().is_unspecified() {
        return Err("is no address that others can reach; name its own IP");
    }
    if seed.ip().is_multicast() {
        return Err("is a multicast address; name its own IP");
    }
    Ok(seed)
}

/// Makes one spelling of an address the only one: `::ffff:127.0.0.1` is `127.0.0.1`.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_TEXT) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Vec<ListedSeed>, String> {
        parse_seeds(Path::new("c.txt"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_seed_may_have_its_identity_behind_its_address() {
        let digits = "a5".repeat(32);
        let seeds = parse(&format!("127.0.0.1:1 {digits} # one\n127.0.0.1:2\n")).unwrap();
        let identities: Vec<_> = seeds.iter().map(|seed| seed.identity).collect();
        assert_eq!(identities, [Some(Identity([0xa5; 32])), None]);
    }

    #[test]
    fn comments_blank_lines_and_foreign_line_ends_are_skipped() {
        let text =
            "\u{feff}# seeds\r\n\r\n127.0.0.1:5000 # first\r\n  [::1]:5000  \n\t\n10.0.0.1:1#x";
        let seeds = ["127.0.0.1:5000", "[::1]:5000", "10.0.0.1:1"];
        let parsed: Vec<_> = parse(text).unwrap().iter().map(|seed| seed.address).collect();
        assert_eq!(parsed, seeds.map(|seed| seed.parse::<SocketAddr>().unwrap()));
    }

    #[test]
    fn every_mistake_names_file_and_line() {
        for (text, line, says) in [
            ("127.0.0.1:5000\nlocalhost:5001", 2, "is no address"),
            ("127.0.0.1", 1, "has no port"),
            ("::1", 1, "has no port"),
            ("\n127.0.0.1:0", 2, "port 0"),
            ("0.0.0.0:5000", 1, "own IP"),
            ("[::]:5000", 1, "own IP"),
            ("224.0.0.1:5000", 1, "multicast"),
            ("127.0.0.1:65536", 1, "is no address"),
            ("127.0.0.1:5000 127.0.0.1:5001", 1, "names no identity"),
            (&format!("127.0.0.1:5000 {0} {0}", "00".repeat(32)), 1, "one seed a line"),
            ("127.0.0.1:5000\n\n127.0.0.1:5000", 3, "first on line 1"),
            ("127.0.0.1:5000\n[::ffff:127.0.0.1]:5000", 2, "first on line 1"),
            ("", 1, "without any seed"),
            ("# nothing\n\n# here\n", 3, "without any seed"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("c.txt:{line}: ")), "{text:?}: {error}");
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("absent"), dir.path().to_owned()] {
            let error = read_seeds(&path).unwrap_err();
            assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
            assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
        }
        assert!(matches!(read_seeds(Path::new("/dev/zero")), Err(ConfigError::TooLong { .. })));
    }

    #[test]
    fn bytes_that_are_no_text_name_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        std::fs::write(&path, b"# caf\xe9\n127.0.0.1:1\n\xff\xfe\n").unwrap();
        let error = read_seeds(&path).unwrap_err().to_string();
        assert!(error.contains("c:3: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_error_is_one_line(text in "\\PC{0,40}(\n\\PC{0,100}){0,3}") {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.contains('\n'), "{error:?}");
            }
        }
    }
}
