//! A peer's replica of the key-value store, on disk.
//!
//! What must stay true: a write and the context that counts it as seen become durable in one
//! commit. Then after a crash the context names just the writes that the replica holds, and the
//! replica never gives a dot to two writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Format, META, StorageError, Writer, guarded, open_of, trouble};
use crate::proto::kv::clock::{Clock, Dot};
use crate::proto::kv::replica::StoreChange;
use crate::proto::kv::store::{Store, Version, Write};
use crate::proto::machine::Batch;

/// Name of the file in the data directory.
const FILE: &str = "store.redb";
/// By key: its versions, as JSON.
const VERSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("versions");
/// By replica: how many of its writes were seen. Lives that a seal has ended are not in it.
const CONTEXT: TableDefinition<'_, &str, u64> = TableDefinition::new("context");
/// By a number and the sealing replica's name: seals, as JSON. The numbers rise in the order in
/// which the seals came, so that a seal is read after those that it rests on. (They were Lamport
/// times once, and so begin above those.)
const SEALS: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("seals");
/// The replica's name.
const NAME: TableDefinition<'_, &str, &str> = TableDefinition::new("name");
const NAME_KEY: &str = "name";
const LAMPORT_KEY: &str = "lamport";
/// Format of the file. Version 2 had no seals and was otherwise the same.
const FORMAT: Format = Format {
    name: FILE,
    version: 3,
    oldest: 2,
    make_tables: |transaction| {
        transaction.open_table(VERSIONS)?;
        transaction.open_table(CONTEXT)?;
        transaction.open_table(SEALS)?;
        transaction.open_table(NAME)?;
        Ok(())
    },
};

/// Handle on the replica's writer.
pub type ReplicaStore = Writer<StoreChange>;

/// An open replica whose writer does not run yet.
#[derive(Debug)]
pub struct OpenReplica {
    database: Database,
    file: PathBuf,
    store: Store,
}

impl OpenReplica {
    /// Opens the replica in a directory and reads all of it. Makes the directory and the file if
    /// they are missing.
    ///
    /// # Errors
    ///
    /// If the file is in use, damaged, foreign, or of another format; it is then left unchanged.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let damaged = |what| StorageError::Damaged { file: dir.join(FILE), what };
        let read = || {
            let (database, file) = open_of(dir, &FORMAT)?;
            let store = read_all(&database).map_err(|error| trouble(&file, error))?;
            Ok(Self { database, file, store: store.map_err(damaged)? })
        };
        guarded(read, damaged)
    }

    /// The store that the file held; its name is empty if the file held nothing.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes the store that the file held, so that memory holds it only once.
    pub fn take_store(&mut self) -> Store {
        std::mem::replace(&mut self.store, Store::new("".into()))
    }

    /// Starts the writer, which calls `durable` with the number of the last batch that is on disk.
    ///
    /// # Errors
    ///
    /// If the system starts no more threads.
    pub fn start(
        self,
        durable: impl FnMut(u64) + Send + 'static,
        failed: impl FnOnce(String) + Send + 'static,
    ) -> Result<ReplicaStore, StorageError> {
        Writer::start((self.database, self.file), "store", commit, durable, failed)
    }
}

/// Reads the store, or says which part of the file is unreadable.
fn read_all(database: &Database) -> Result<Result<Store, String>, redb::Error> {
    let transaction = database.begin_read()?;
    let name = transaction.open_table(NAME)?.get(NAME_KEY)?.map(|name| name.value().to_owned());
    let lamport = transaction.open_table(META)?.get(LAMPORT_KEY)?.map_or(0, |kept| kept.value());
    let mut context = Clock::new();
    for entry in transaction.open_table(CONTEXT)?.iter()? {
        let (replica, count) = entry?;
        context.raise(&replica.value().into(), count.value());
    }
    let mut versions: Vec<(Arc<str>, Vec<Version>)> = Vec::new();
    for entry in transaction.open_table(VERSIONS)?.iter()? {
        let (key, kept) = entry?;
        let Ok(mut of) = serde_json::from_slice::<Vec<Version>>(kept.value()) else {
            return Ok(Err(format!("unreadable versions of {:?}", key.value())));
        };
        of.shrink_to_fit();
        versions.push((key.value().into(), of));
    }
    let mut seals: Vec<Arc<Write>> = Vec::new();
    for entry in transaction.open_table(SEALS)?.iter()? {
        let (key, kept) = entry?;
        let Ok(seal) = serde_json::from_slice(kept.value()) else {
            return Ok(Err(format!("unreadable seal of {:?}", key.value().1)));
        };
        seals.push(Arc::new(seal));
    }
    let name = name.unwrap_or_default().into();
    let kept = seals.len();
    let store = Store::recovered(name, context, lamport, seals, versions);
    if store.seals().len() != kept {
        return Ok(Err("seals that do not follow on each other".to_owned()));
    }
    Ok(Ok(store))
}

fn commit(database: &Database, _: &Path, group: &[Batch<StoreChange>]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut names = transaction.open_table(NAME)?;
        let mut context = transaction.open_table(CONTEXT)?;
        let mut seals = transaction.open_table(SEALS)?;
        let mut table = transaction.open_table(VERSIONS)?;
        let mut lamport = meta.get(LAMPORT_KEY)?.map_or(0, |kept| kept.value());
        for change in group.iter().flat_map(|(_, changes)| changes) {
            match change {
                StoreChange::Named(name) => {
                    names.insert(NAME_KEY, &**name)?;
                }
                StoreChange::Write(write) => {
                    let Dot { replica, count } = &write.dot;
                    context.insert(&**replica, count)?;
                    lamport = lamport.max(write.lamport);
                    if write.is_seal() {
                        let bytes = serde_json::to_vec(write).map_err(std::io::Error::other)?;
                        let last = seals.last()?.map_or(0, |(key, _)| key.value().0);
                        let number = last.saturating_add(1);
                        seals.insert((number, &**replica), bytes.as_slice())?;
                        for ended in &write.replaces {
                            let kept = context.get(&*ended.replica)?.map(|kept| kept.value());
                            if kept.is_some_and(|count| count <= ended.count) {
                                context.remove(&*ended.replica)?;
                            }
                        }
                    }
                }
                StoreChange::Versions(key, versions) => put(&mut table, key, versions)?,
                StoreChange::Seen(seen, at) => {
                    for (replica, count) in seen.iter() {
                        context.insert(&**replica, count)?;
                    }
                    lamport = lamport.max(*at);
                }
            }
        }
        meta.insert(LAMPORT_KEY, lamport)?;
    }
    transaction.commit()?;
    Ok(())
}

fn put(
    table: &mut redb::Table<'_, &str, &[u8]>,
    key: &str,
    versions: &[Version],
) -> Result<(), redb::Error> {
    if versions.is_empty() {
        table.remove(key)?;
    } else {
        // Versions hold strings, numbers and bytes only, so writing them as JSON cannot fail.
        let bytes = serde_json::to_vec(versions).map_err(std::io::Error::other)?;
        table.insert(key, bytes.as_slice())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::kv::value::Value;
    use crate::proto::time::Time;
    use serde_json::json;

    const NOW: Time = Time::from_millis(1_800_000_000_000);

    fn applied(store: &Store, write: Arc<Write>) -> Vec<StoreChange> {
        let versions = store.get(&write.key).to_vec();
        vec![StoreChange::Versions(write.key.clone(), versions), StoreChange::Write(write)]
    }

    #[test]
    fn a_replica_comes_back_with_what_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = OpenReplica::open(dir.path()).unwrap();
        let mut store = open.take_store();
        assert_eq!(&**store.name(), "");
        let writer = open.start(|_| {}, |error| panic!("{error}")).unwrap();
        store.rename("127.0.0.1:6000@7".into());
        writer.submit(1, vec![StoreChange::Named(store.name().clone())]);
        for number in 0..100_u64 {
            let key = format!("key {}", number % 10);
            let value = Value::new(&json!({"number": number, "ü": [null, 1.5]})).unwrap();
            let (write, _) = store.put(NOW, &key, value, None);
            writer.submit(2 + number, applied(&store, write));
        }
        let (gone, _) = store.delete(NOW, "key 3", None).unwrap();
        writer.submit(102, applied(&store, gone));
        let mut other = Store::new("127.0.0.1:6001@8".into());
        other.put(NOW, "theirs", Value::new(&json!("x")).unwrap(), None);
        let changed = store.merge(other.snapshot(&Clock::new())).unwrap().changed;
        let mut changes: Vec<StoreChange> = changed
            .into_iter()
            .map(|key| StoreChange::Versions(key.clone(), store.get(&key).to_vec()))
            .collect();
        changes.push(StoreChange::Seen(store.context().clone(), store.lamport()));
        writer.submit(103, changes);
        // Once a seal ends a life, the seal counts its writes and the context no longer does.
        let last = [("127.0.0.1:6001@8".into(), 1)].into_iter().collect();
        let seal = store.seal(NOW, &last).unwrap();
        writer.submit(104, vec![StoreChange::Write(seal)]);
        assert_eq!(store.context().get("127.0.0.1:6001@8"), 0);
        drop(writer);
        let again = OpenReplica::open(dir.path()).unwrap();
        assert_eq!(again.store().name(), store.name());
        assert_eq!(again.store().snapshot(&Clock::new()), store.snapshot(&Clock::new()));
        assert_eq!(again.store().keys().count(), 10);
        assert_eq!(again.store().context(), store.context());
        assert_eq!(again.store().count("127.0.0.1:6001@8"), 1);
    }

    #[test]
    fn seals_are_read_in_the_order_in_which_they_came_whatever_their_lamport_times() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = OpenReplica::open(dir.path()).unwrap();
        let mut store = open.take_store();
        let writer = open.start(|_| {}, |error| panic!("{error}")).unwrap();
        store.rename("127.0.0.1:6000@7".into());
        let mut liar = Store::new("127.0.0.1:6001@7".into());
        for (number, time) in [(1, u64::MAX >> 11), (2, u64::MAX >> 11), (3, 1)] {
            let mut over = Store::new(format!("127.0.0.1:6002@{number}").into());
            let (write, _) = over.put(NOW, "k", Value::new(&json!(number)).unwrap(), None);
            let last = over.context().clone();
            liar.receive(write.clone()).unwrap();
            store.receive(write.clone()).unwrap();
            let mut seal = Write::clone(&liar.seal(NOW, &last).unwrap());
            seal.lamport = time;
            let seal = Arc::new(seal);
            store.receive(seal.clone()).unwrap();
            writer
                .submit(number, [applied(&store, write), vec![StoreChange::Write(seal)]].concat());
        }
        drop(writer);
        let again = OpenReplica::open(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.store().seals().len(), 3);
        assert_eq!(again.store().context(), store.context());
    }
}
