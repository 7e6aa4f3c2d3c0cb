//! Who this process is, and who its seeds are: two small text files in the data directory.
//!
//! `identity` holds the process's secret and `known-seeds` a line for each seed whose identity was
//! learned. What must stay true: a secret is made once, is complete on disk before it is used, and
//! nobody else can read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{StorageError, UNFINISHED, put_in_place};
use crate::net::secure::{KnownSeeds, Secret};
use crate::proto::config::Network;
use crate::proto::message::{Addr, Identity};

/// Name of the file with the secret.
const SECRET: &str = "identity";
/// Name of the file with the identities of seeds.
const KNOWN_SEEDS: &str = "known-seeds";
/// Only the owner reads and writes the secret.
const PRIVATE: u32 = 0o600;
/// Bytes of either file at most: room for ten thousand seeds.
const LONGEST: u64 = 1 << 20;

/// Opens the secret in a data directory; makes either of them if it is missing.
///
/// # Errors
///
/// If the file cannot be read or made, is no secret, or can be read by others.
pub fn open_secret(dir: &Path) -> Result<Secret, StorageError> {
    let directory = |source| StorageError::Directory { dir: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(directory)?;
    let file = dir.join(SECRET);
    let failed = |source| StorageError::Disk { file: file.clone(), source };
    if !file.try_exists().map_err(failed)? {
        make_secret(&dir.join(format!("{SECRET}{UNFINISHED}")), &file).map_err(failed)?;
    }
    if fs::metadata(&file).map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(StorageError::Exposed(file));
    }
    let text = read(&file).map_err(failed)?;
    Secret::parse(&text).map_err(|error| StorageError::Damaged { file, what: error.to_string() })
}

/// Makes a secret under a temporary name, so that a process that is killed leaves no half of one.
fn make_secret(unfinished: &Path, file: &Path) -> io::Result<()> {
    let secret = Secret::fresh().map_err(io::Error::other)?;
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut made =
        OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(unfinished)?;
    writeln!(made, "{}", secret.line())?;
    made.sync_all()?;
    put_in_place(unfinished, file)?;
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// The identities of a network's seeds: those that its settings name, else those that were learned
/// by the lives before. What is learned from now on is added to the file.
///
/// # Errors
///
/// If the file cannot be read, or a line is not `IP:PORT IDENTITY`.
pub fn open_known_seeds(dir: &Path, network: &Network) -> Result<KnownSeeds, StorageError> {
    let file = dir.join(KNOWN_SEEDS);
    let learned = match read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(StorageError::Disk { file, source }),
        Ok(text) => parse(&text)
            .map_err(|line| StorageError::Damaged { file: file.clone(), what: bad_line(line) })?,
    };
    let identity = |seed: &Addr| {
        let learned = learned.iter().rev().find(|(known, _)| known == seed);
        network.identity(seed).or(learned.map(|(_, identity)| *identity))
    };
    let seeds: Vec<_> = network.seeds().iter().map(|seed| (*seed, identity(seed))).collect();
    Ok(KnownSeeds::new(seeds, move |seed, identity| append(&file, seed, identity)))
}

fn bad_line(line: usize) -> String {
    format!("line {line} is not a seed's IP:PORT and its identity")
}

/// The pairs in a text; or the number of the first line that is none.
fn parse(text: &str) -> Result<Vec<(Addr, Identity)>, usize> {
    let pair = |line: &str| {
        let (seed, identity) = line.trim().split_once(' ')?;
        Some((seed.parse().ok()?, identity.trim().parse().ok()?))
    };
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| pair(line).ok_or(number)).collect()
}

fn append(file: &PathBuf, seed: Addr, identity: &Identity) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(format!("{seed} {identity}\n").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        // A life that was killed while it made one.
        fs::write(dir.path().join("identity.new"), "12").unwrap();
        let secret = open_secret(dir.path()).unwrap();
        let file = dir.path().join(SECRET);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(open_secret(dir.path()).unwrap().identity(), secret.identity());
        assert!(!dir.path().join("identity.new").exists());
        for mode in [0o640, 0o604] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(open_secret(dir.path()), Err(StorageError::Exposed(_))));
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(PRIVATE)).unwrap();
        fs::write(&file, "").unwrap();
        assert!(matches!(open_secret(dir.path()), Err(StorageError::Damaged { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"", "it is left as it is");
    }

    #[test]
    fn what_is_learned_of_seeds_is_known_to_the_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let addr = |port| Addr::from(([127, 0, 0, 1], port));
        let id = |byte| Identity([byte; 32]);
        let network = Network::new("test", [addr(1), addr(2)]).with_identity(addr(1), id(1));
        let known = open_known_seeds(dir.path(), &network).unwrap();
        assert!(known.answered(addr(2), &id(2)));
        let known = open_known_seeds(dir.path(), &network).unwrap();
        assert_eq!((known.known(&addr(1)), known.known(&addr(2))), (Some(id(1)), Some(id(2))));
        // What the settings say counts more than what was learned.
        let network = network.with_identity(addr(2), id(3));
        let known = open_known_seeds(dir.path(), &network).unwrap();
        assert_eq!(known.known(&addr(2)), Some(id(3)));
        fs::write(dir.path().join(KNOWN_SEEDS), "\n127.0.0.1:1\n").unwrap();
        let error = open_known_seeds(dir.path(), &network).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
