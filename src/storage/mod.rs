//! Durable state: a seed's registry and a peer's replica, each in a redb file under `--data-dir`.
//!
//! What must stay true: a writer says that a change is on disk only when it is; all changes that
//! wait share one commit; a file that is damaged, foreign or in use is refused and never
//! overwritten. Each writer has its own thread to wait for the disk, because the task that runs the
//! protocol must never wait for it.

#[cfg(feature = "encryption")]
mod identity;
mod registry;
mod replica;

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::{fs, io};

use crate::proto::machine::Batch;
use redb::{Builder, Database, DatabaseError, ReadableTable, TableDefinition, WriteTransaction};

#[cfg(feature = "encryption")]
pub use identity::{open_known_seeds, open_secret};
pub use registry::{OpenStore, RegistryStore};
pub use replica::{OpenReplica, ReplicaStore};

/// Table that every file has: the version of its format, and other numbers.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key under which `META` holds the version of the format.
const VERSION_KEY: &str = "format";
/// Bytes of a file that redb may cache. This is small because a seed or peer reads the whole file
/// at start and holds the content in memory anyway.
const CACHE: usize = 128 << 10;

/// Why the state on disk cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The data directory cannot be made.
    #[error("cannot make the data directory {}: {source}; choose another with --data-dir", dir.display())]
    Directory {
        /// The data directory.
        dir: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error("{} is in use by another process; stop it, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    /// The file is damaged, or was not written by this program.
    #[error("{} is damaged or not ours ({what}); it was left as it is: move it away, or choose another --data-dir", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Others can read a file that holds a secret.
    #[error("{} can be read by others, so it proves nothing any more; make a new one by moving it away, or chmod 600 it if nobody has read it", .0.display())]
    Exposed(PathBuf),
    /// The file has a format that this version of the program does not read.
    #[error("{} has format {found}, this version reads {reads}; use the version that wrote it", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Version of the format that the file has.
        found: u64,
        /// Version of the format that this program writes.
        reads: u64,
    },
    /// The system does not let this program read or write the file.
    #[error("cannot use {}: {source}; {}", file.display(), what_to_do(source))]
    Disk {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The system cannot start the writer's thread.
    #[error("cannot start the writer of the data directory: {0}")]
    Thread(std::io::Error),
}

/// Tells the operator what to do about an error of the disk.
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

/// Tells whether an error of redb is a fault of the file itself or of the disk under it.
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

/// Suffix of a file's name while the file is being made.
const UNFINISHED: &str = ".new";

/// Opens a database in a directory; makes either of them if it is missing.
///
/// A new database has a temporary name until it is complete. If it had its final name at once, a
/// process killed while making it would leave half a file, and no later process could start.
fn open(dir: &Path, name: &str) -> Result<(Database, PathBuf), StorageError> {
    let directory = |source| StorageError::Directory { dir: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(directory)?;
    let file = dir.join(name);
    let unfinished = dir.join(format!("{name}{UNFINISHED}"));
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    let wrong = |error: DatabaseError| trouble(&file, error.into());
    let failed = |source| StorageError::Disk { file: file.clone(), source };
    // An empty file is refused, not made anew: it may be all that is left of a registry or replica.
    if fs::metadata(&file).is_ok_and(|found| found.len() == 0) {
        return Err(StorageError::Damaged { file, what: "it has no bytes".to_owned() });
    }
    if !file.try_exists().map_err(failed)? {
        let database = make(&builder, &unfinished).map_err(wrong)?;
        put_in_place(&unfinished, &file).map_err(failed)?;
        drop(database);
    }
    let database = builder.open(&file).map_err(wrong)?;
    // This process holds the lock, so no other one is making a database: a process that was killed
    // left this file behind.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok((database, file)),
    }
}

/// Does something with a file of a database. redb checks what it reads, but not all of it, and
/// panics where pages contradict each other: after a fault of the disk, or if another program wrote
/// them. The operator then has to learn which file it is, as with any other damage.
fn guarded<T, E>(
    work: impl FnOnce() -> Result<T, E>,
    damaged: impl FnOnce(String) -> E,
) -> Result<T, E> {
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(damaged("its pages contradict each other".to_owned())))
}

/// One kind of file: its name, version and tables.
struct Format {
    /// Name in the data directory.
    name: &'static str,
    /// Version that this program writes.
    version: u64,
    /// Oldest version that this program reads, and brings up to `version`.
    oldest: u64,
    /// Makes the tables that are missing.
    make_tables: fn(&WriteTransaction) -> Result<(), redb::Error>,
}

/// Opens a database of this format. A new one, or one of an older version that can be read, is
/// brought up to the current version.
fn open_of(dir: &Path, format: &Format) -> Result<(Database, PathBuf), StorageError> {
    let (database, file) = open(dir, format.name)?;
    let found = prepare(&database, format).map_err(|error| trouble(&file, error))?;
    if found == format.version {
        Ok((database, file))
    } else {
        Err(StorageError::Version { file, found, reads: format.version })
    }
}

/// Returns the version of a database, and makes its tables. A database of a version that this
/// program cannot read is left unchanged.
fn prepare(database: &Database, format: &Format) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let version = {
        let mut meta = transaction.open_table(META)?;
        let known = meta.get(VERSION_KEY)?.map(|version| version.value());
        let known = known.filter(|version| !(format.oldest..format.version).contains(version));
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

/// Makes an empty database, in place of any file that a killed process left under this name.
fn make(builder: &Builder, file: &Path) -> Result<Database, DatabaseError> {
    match builder.create(file) {
        Err(DatabaseError::DatabaseAlreadyOpen) => return Err(DatabaseError::DatabaseAlreadyOpen),
        // The file may be new; or complete but never put in place; or a second name of a database
        // that the operator has moved away; or half of one. Nothing tells them apart, so delete it
        // and make another.
        made => drop(made),
    }
    fs::remove_file(file).map_err(redb::StorageError::from)?;
    builder.create(file)
}

/// Gives a file its final name, unless a file of that name exists by now.
fn put_in_place(unfinished: &Path, file: &Path) -> io::Result<()> {
    match fs::hard_link(unfinished, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        // Some file systems have no hard links.
        Err(_) => fs::rename(unfinished, file)?,
        Ok(()) => {}
    }
    let Some(dir) = file.parent() else { return Ok(()) };
    // The new name is durable only once its directory is synced.
    fs::File::open(dir)?.sync_all()
}

/// Function that makes a group of batches durable in one commit.
type Commit<T> = fn(&Database, &Path, &[Batch<T>]) -> Result<(), redb::Error>;

/// Handle on a thread that makes changes durable.
#[derive(Debug)]
pub struct Writer<T> {
    batches: Option<mpsc::Sender<Vec<Batch<T>>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Writer<T> {
    /// Starts the thread. It calls `durable` with the number of the last batch that is on disk.
    fn start(
        (database, file): (Database, PathBuf),
        name: &str,
        commit: Commit<T>,
        mut durable: impl FnMut(u64) + Send + 'static,
        failed: impl FnOnce(String) + Send + 'static,
    ) -> Result<Self, StorageError> {
        // The channel has no bound. With one, a host that waits for room in it, and a writer that
        // waits for the host to hear it, would wait for each other for ever. The host bounds what
        // may wait here.
        let (sender, batches) = mpsc::channel::<Vec<Batch<T>>>();
        let write = move || {
            while let Ok(mut group) = batches.recv() {
                group.extend(batches.try_iter().flatten());
                let done = guarded(|| commit(&database, &file, &group), redb::Error::Corrupted);
                match done {
                    Ok(()) => {
                        if let Some((last, _)) = group.last() {
                            durable(*last);
                        }
                    }
                    // A disk that has failed once may fail to keep the next change too, so the
                    // writer stops.
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

    /// Submits a batch to be written; numbers must ascend. Returns false if the writer has failed.
    pub fn submit(&self, number: u64, changes: Vec<T>) -> bool {
        self.submit_together(vec![(number, changes)])
    }

    /// Submits several batches to be written in one commit. Returns false if the writer has failed.
    pub fn submit_together(&self, group: Vec<Batch<T>>) -> bool {
        self.batches.as_ref().is_some_and(|batches| batches.send(group).is_ok())
    }
}

impl<T> Drop for Writer<T> {
    /// Waits until everything submitted is written, so that the next process finds it on disk, and
    /// finds the lock free.
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
        // The process was killed after it had put the file in place and before it removed the first
        // name.
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

    /// Each page in turn begins with a kind that no page has.
    #[test]
    fn a_file_whose_pages_contradict_each_other_is_damaged_and_ends_nobody() {
        const PAGE: usize = 4_096;
        let made = tempfile::tempdir().unwrap();
        drop(OpenStore::open(made.path()).unwrap());
        drop(OpenReplica::open(made.path()).unwrap());
        for name in ["registry.redb", "store.redb"] {
            let sound = fs::read(made.path().join(name)).unwrap();
            let mut damaged = 0;
            for page in 0..(sound.len() / PAGE).min(64) {
                let dir = tempfile::tempdir().unwrap();
                let mut spoiled = sound.clone();
                spoiled[page * PAGE..page * PAGE + 2].fill(0xee);
                fs::write(dir.path().join(name), spoiled).unwrap();
                let found = match name {
                    "store.redb" => OpenReplica::open(dir.path()).map(drop),
                    _ => OpenStore::open(dir.path()).map(drop),
                };
                match found {
                    Ok(()) => {}
                    Err(StorageError::Damaged { file, .. }) if file.ends_with(name) => damaged += 1,
                    Err(error) => panic!("page {page} of {name}: {error}"),
                }
            }
            assert!(damaged > 2, "{damaged} pages of {name} matter");
        }
    }
}
