//! Durable state, on redb under `--data-dir`.
//!
//! What must stay true: what a writer was told to keep is on disk before it is
//! said to be, all that waits shares one commit, and a file that is damaged,
//! foreign or in use is refused and never overwritten. A writer has a thread of
//! its own for waiting for the disk, so that the protocol's task never does.

mod registry;
mod replica;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::{fs, io};

use crate::proto::machine::Batch;
use redb::{Builder, Database, DatabaseError, ReadableTable, TableDefinition, WriteTransaction};

pub use registry::{OpenStore, RegistryStore};
pub use replica::{OpenReplica, ReplicaStore};

/// What a file is: versions and small facts.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key of the format's version.
const VERSION_KEY: &str = "format";
/// Bytes of the file kept in memory: what is in it is held in memory anyway, so pages need not be.
const CACHE: usize = 128 << 10;

/// Why there is no durable state.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The directory cannot be made.
    #[error("cannot make the data directory {}: {source}; choose another with --data-dir", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error("{} is in use by another process; stop it, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    /// The file is damaged, or not ours.
    #[error("{} is damaged or not ours ({what}); it was left as it is: move it away, or choose another --data-dir", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file was written by another version of this program.
    #[error("{} has format {found}, this version reads {reads}; use the version that wrote it", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// The format's version in it.
        found: u64,
        /// The version that this program reads.
        reads: u64,
    },
    /// The system does not let the file be read or written.
    #[error("cannot use {}: {source}; {}", file.display(), what_to_do(source))]
    Disk {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The writer cannot be started.
    #[error("cannot start the writer of the data directory: {0}")]
    Thread(std::io::Error),
}

/// What helps against a failure of the disk.
fn what_to_do(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            "free some space there and start it again: nothing that was answered is lost"
        }
        PermissionDenied => "make it readable and writable for this user, and start it again",
        _ => "see to that disk and start it again: nothing that was answered is lost",
    }
}

/// What is wrong with a file that redb cannot use: the file itself, or the disk under it.
fn trouble(file: &Path, error: redb::Error) -> StorageError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    let file = file.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StorageError::InUse(file),
        redb::Error::Io(source)
            if !matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
        {
            StorageError::Disk { file, source }
        }
        error => StorageError::Damaged { file, what: error.to_string() },
    }
}

/// After the name of a file that is being made.
const UNFINISHED: &str = ".new";

/// Opens a database in a directory, which is made if it is not there.
///
/// The database, too, is made if it is not there, under another name until it is whole: a process that
/// is killed while it makes one would else leave half of it, and could never start again.
fn open(dir: &Path, name: &str) -> Result<(Database, PathBuf), StorageError> {
    let directory = |source| StorageError::Directory { dir: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(directory)?;
    let file = dir.join(name);
    let unfinished = dir.join(format!("{name}{UNFINISHED}"));
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    let wrong = |error: DatabaseError| trouble(&file, error.into());
    let failed = |source| StorageError::Disk { file: file.clone(), source };
    // One of no bytes is not made anew: it held something once.
    if fs::metadata(&file).is_ok_and(|found| found.len() == 0) {
        return Err(StorageError::Damaged { file, what: "it has no bytes".to_owned() });
    }
    if !file.try_exists().map_err(failed)? {
        let database = make(&builder, &unfinished).map_err(wrong)?;
        put_in_place(&unfinished, &file).map_err(failed)?;
        drop(database);
    }
    let database = builder.open(&file).map_err(wrong)?;
    // The lock is ours, so nobody is at work on this: it is of a life that was killed.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok((database, file)),
    }
}

/// What a kind of file is like.
struct Format {
    /// Its name in the directory.
    name: &'static str,
    /// The version that is written.
    version: u64,
    /// An older one that is read, and brought up to that one.
    older: Option<u64>,
    /// Makes the tables that are missing.
    make_tables: fn(&WriteTransaction) -> Result<(), redb::Error>,
}

/// Opens a database of that format: one that is new, or of an older version that can be read, is brought
/// up to it.
fn open_of(dir: &Path, format: &Format) -> Result<(Database, PathBuf), StorageError> {
    let (database, file) = open(dir, format.name)?;
    let found = prepare(&database, format).map_err(|error| trouble(&file, error))?;
    if found == format.version {
        Ok((database, file))
    } else {
        Err(StorageError::Version { file, found, reads: format.version })
    }
}

/// The version of a database; one that is not ours to read is left as it is.
fn prepare(database: &Database, format: &Format) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let version = {
        let mut meta = transaction.open_table(META)?;
        let known = meta.get(VERSION_KEY)?.map(|version| version.value());
        let known = known.filter(|version| Some(*version) != format.older);
        if known.is_none() {
            meta.insert(VERSION_KEY, format.version)?;
        }
        known.unwrap_or(format.version)
    };
    if version == format.version {
        (format.make_tables)(&transaction)?;
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(version)
}

/// Makes an empty database in the place of what a life left there that was killed while it made one.
fn make(builder: &Builder, file: &Path) -> Result<Database, DatabaseError> {
    match builder.create(file) {
        Err(DatabaseError::DatabaseAlreadyOpen) => return Err(DatabaseError::DatabaseAlreadyOpen),
        // It has just been made, or is whole and was never put in place, or is another name of one that
        // was moved away since, or half of one; told apart from the first by nothing.
        made => drop(made),
    }
    fs::remove_file(file).map_err(redb::StorageError::from)?;
    builder.create(file)
}

/// Gives a file its name for good, unless there is one of that name by now.
fn put_in_place(unfinished: &Path, file: &Path) -> io::Result<()> {
    match fs::hard_link(unfinished, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        // Not every file system knows links.
        Err(_) => fs::rename(unfinished, file)?,
        Ok(()) => {}
    }
    let Some(dir) = file.parent() else { return Ok(()) };
    // A name is durable with its directory.
    fs::File::open(dir)?.sync_all()
}

/// How a group of changes becomes durable.
type Commit<T> = fn(&Database, &Path, &[Batch<T>]) -> Result<(), redb::Error>;

/// A thread that makes changes durable.
#[derive(Debug)]
pub struct Writer<T> {
    batches: Option<mpsc::Sender<Vec<Batch<T>>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Writer<T> {
    /// Starts it; it calls `durable` with the number of the last batch that is on disk.
    fn start(
        (database, file): (Database, PathBuf),
        name: &str,
        commit: Commit<T>,
        mut durable: impl FnMut(u64) + Send + 'static,
        failed: impl FnOnce(String) + Send + 'static,
    ) -> Result<Self, StorageError> {
        // Without a bound: a host that waits for its disk, while the writer waits to be heard by the
        // host, would wait for ever. What may wait is bounded by what the host lets in.
        let (sender, batches) = mpsc::channel::<Vec<Batch<T>>>();
        let write = move || {
            while let Ok(mut group) = batches.recv() {
                group.extend(batches.try_iter().flatten());
                match commit(&database, &file, &group) {
                    Ok(()) => {
                        if let Some((last, _)) = group.last() {
                            durable(*last);
                        }
                    }
                    // A disk that fails once cannot be trusted with the next answer.
                    Err(error) => {
                        failed(trouble(&file, error).to_string());
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(write)
            .map_err(StorageError::Thread)?;
        Ok(Self { batches: Some(sender), thread: Some(thread) })
    }

    /// Has a batch written; numbers ascend. False if the writer has failed.
    pub fn submit(&self, number: u64, changes: Vec<T>) -> bool {
        self.submit_together(vec![(number, changes)])
    }

    /// Has some batches written in one commit. False if the writer has failed.
    pub fn submit_together(&self, group: Vec<Batch<T>>) -> bool {
        self.batches.as_ref().is_some_and(|batches| batches.send(group).is_ok())
    }
}

impl<T> Drop for Writer<T> {
    /// Waits until all that was submitted is written, so that the next life finds it and the lock
    /// free.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use redb::ReadableTable;

    use super::*;

    const NAME: &str = "some.redb";

    #[test]
    fn whatever_a_life_that_was_killed_left_of_a_new_file_the_next_one_makes_it() {
        let half = vec![0; 1 << 20];
        for left in [&b""[..], b"redb", &half] {
            let dir = tempfile::tempdir().unwrap();
            let unfinished = dir.path().join(format!("{NAME}{UNFINISHED}"));
            fs::write(&unfinished, left).unwrap();
            drop(open(dir.path(), NAME).unwrap());
            assert!(!unfinished.exists());
            drop(open(dir.path(), NAME).unwrap());
        }
    }

    #[test]
    fn what_was_moved_away_does_not_come_back_by_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let (file, unfinished) = (dir.path().join(NAME), dir.path().join("some.redb.new"));
        let (database, _) = open(dir.path(), NAME).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("old", 1).unwrap();
        transaction.commit().unwrap();
        drop(database);
        // Killed after it was put in place, and before its first name was taken away.
        fs::hard_link(&file, unfinished).unwrap();
        fs::rename(&file, dir.path().join("away")).unwrap();
        let (database, _) = open(dir.path(), NAME).unwrap();
        let transaction = database.begin_write().unwrap();
        assert!(transaction.open_table(META).unwrap().get("old").unwrap().is_none());
    }

    #[test]
    fn a_file_of_no_bytes_is_damaged_and_one_in_use_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(NAME);
        fs::write(&file, b"").unwrap();
        assert!(matches!(open(dir.path(), NAME), Err(StorageError::Damaged { .. })));
        assert_eq!(fs::metadata(&file).unwrap().len(), 0, "it is left as it is");
        fs::remove_file(&file).unwrap();
        let _held = open(dir.path(), NAME).unwrap();
        assert!(matches!(open(dir.path(), NAME), Err(StorageError::InUse(_))));
    }
}
