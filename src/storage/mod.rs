//! Durable state, on redb under `--data-dir`.
//!
//! What must stay true: what a writer was told to keep is on disk before it is
//! said to be, all that waits shares one commit, and a file that is damaged,
//! foreign or in use is refused and never overwritten. A writer has a thread of
//! its own for waiting for the disk, so that the protocol's task never does.

mod registry;
mod replica;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use redb::{Database, TableDefinition};

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

/// What a file is called until it is a database.
const UNFINISHED: &str = "unfinished";

/// Opens a database in a directory, which is made if it is not there. A new one gets its name once it
/// is a database, so that whatever has the name and is none was damaged: a file of zero bytes, which
/// may have held a registry, would else begin a new one.
fn open(dir: &Path, name: &str) -> Result<(Database, PathBuf), StorageError> {
    let directory = |source| StorageError::Directory { dir: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(directory)?;
    let file = dir.join(name);
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    match fs::metadata(&file) {
        Ok(found) if found.len() == 0 => {
            return Err(StorageError::Damaged { file, what: "it has no bytes".to_owned() });
        }
        Ok(_) => {
            let database = builder.open(&file).map_err(|error| trouble(&file, error.into()))?;
            return Ok((database, file));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(StorageError::Disk { file, source }),
    }
    let unfinished = file.with_extension(UNFINISHED);
    let failed = |source| StorageError::Disk { file: file.clone(), source };
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let database = builder.create(&unfinished).map_err(|error| trouble(&file, error.into()))?;
    fs::rename(&unfinished, &file).map_err(failed)?;
    // The name is on disk, too, before anything in the file is relied on.
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok((database, file))
}

/// Changes to keep, and their number.
pub type Batch<T> = (u64, Vec<T>);

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
