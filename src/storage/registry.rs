//! A seed's registry on disk: its records, its standing and the marks of its founding.
//!
//! What must stay true: the record that wins on disk is the one that wins in memory. Batches may
//! hold several records of one peer, so the writer compares each record with the one in the file.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Format, META, StorageError, Writer, guarded, open_of};
use crate::proto::identity::IDENTITY;
use crate::proto::machine::Batch;
use crate::proto::message::{Addr, Identity, Standing};
use crate::proto::registry::{Record, Status};
use crate::proto::roles::Keep;
use crate::proto::signature::{SIGNATURE, Signature};

/// Name of the file in the data directory.
const FILE: &str = "registry.redb";
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Marks of the founding that the registry goes back to.
const FOUNDERS: TableDefinition<'_, u64, ()> = TableDefinition::new("founders");
/// Format of the file.
const FORMAT: Format = Format {
    name: FILE,
    version: 3,
    oldest: 1,
    make_tables: |transaction| {
        transaction.open_table(RECORDS)?;
        transaction.open_table(FOUNDERS)?;
        Ok(())
    },
};
/// Key of the seed's standing. A file without this key and without records is that of a fresh seed.
const STANDING_KEY: &str = "standing";

/// Handle on the registry's writer.
pub type RegistryStore = Writer<Keep>;

/// An open registry whose writer does not run yet.
#[derive(Debug)]
pub struct OpenStore {
    database: Database,
    file: PathBuf,
    standing: Standing,
    founders: Vec<u64>,
    records: Vec<(Addr, Record)>,
}

impl OpenStore {
    /// Opens the registry in a directory and reads all of it. Makes the directory and the file if
    /// they are missing.
    ///
    /// # Errors
    ///
    /// If the file is in use, damaged, foreign, or of another format; it is then left unchanged.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let damaged = |what| StorageError::Damaged { file: dir.join(FILE), what };
        let read = || {
            let (database, file) = open_of(dir, &FORMAT)?;
            let (standing, founders, records) = read_all(&database, &file)?;
            Ok(Self { database, file, standing, founders, records })
        };
        guarded(read, damaged)
    }

    /// The standing that the seed last wrote down.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Marks of the founding that this registry goes back to.
    pub fn founders(&self) -> &[u64] {
        &self.founders
    }

    /// The records that the file held, in order of their addresses.
    pub fn records(&self) -> &[(Addr, Record)] {
        &self.records
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
    ) -> Result<RegistryStore, StorageError> {
        Writer::start((self.database, self.file), "registry", commit, durable, failed)
    }
}

fn commit(database: &Database, file: &Path, group: &[Batch<Keep>]) -> Result<(), redb::Error> {
    if group.iter().all(|(_, changes)| changes.is_empty()) {
        return Ok(());
    }
    let changes: Vec<&Keep> = group.iter().flat_map(|(_, changes)| changes).collect();
    for part in changes.split_inclusive(|change| matches!(change, Keep::SetAside(_))) {
        write(database, part)?;
        if let Some(Keep::SetAside(number)) = part.last() {
            copy(database, &file.with_file_name(format!("registry-{number}.redb")))?;
        }
    }
    Ok(())
}

/// Writes changes in one transaction.
fn write(database: &Database, changes: &[&Keep]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut founders = transaction.open_table(FOUNDERS)?;
        let mut table = transaction.open_table(RECORDS)?;
        for change in changes {
            match change {
                Keep::Standing(standing) => {
                    meta.insert(STANDING_KEY, encode_standing(*standing))?;
                }
                Keep::Founders(marks) => {
                    for mark in marks {
                        founders.insert(mark, ())?;
                    }
                }
                Keep::SetAside(_) => {}
                Keep::Record(peer, record) => {
                    let key = peer.to_string();
                    // Two changes may be of one peer, and the later one need not win: keep the
                    // record that wins in memory, too.
                    let newer = table.get(key.as_str())?.and_then(|kept| decode(kept.value()));
                    let newer = newer
                        .is_none_or(|kept| kept.precedence(record) != std::cmp::Ordering::Greater);
                    if newer {
                        table.insert(key.as_str(), encode(record).as_slice())?;
                    }
                }
                Keep::Forget(peer, incarnation) => {
                    let key = peer.to_string();
                    let kept = table.get(key.as_str())?.and_then(|kept| decode(kept.value()));
                    let gone = kept.is_some_and(|kept| {
                        kept.incarnation == *incarnation && kept.status != Status::Alive
                    });
                    if gone {
                        table.remove(key.as_str())?;
                    }
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Copies the whole registry into another file, on which a seed can be started.
fn copy(database: &Database, file: &Path) -> Result<(), redb::Error> {
    let (from, copy) = (database.begin_read()?, Database::create(file)?);
    let to = copy.begin_write()?;
    {
        let mut meta = to.open_table(META)?;
        for entry in from.open_table(META)?.iter()? {
            let (key, value) = entry?;
            meta.insert(key.value(), value.value())?;
        }
        let mut records = to.open_table(RECORDS)?;
        for entry in from.open_table(RECORDS)?.iter()? {
            let (key, value) = entry?;
            records.insert(key.value(), value.value())?;
        }
        let mut founders = to.open_table(FOUNDERS)?;
        for entry in from.open_table(FOUNDERS)?.iter()? {
            founders.insert(entry?.0.value(), ())?;
        }
    }
    to.commit()?;
    Ok(())
}

type Kept = (Standing, Vec<u64>, Vec<(Addr, Record)>);

fn read_all(database: &Database, file: &Path) -> Result<Kept, StorageError> {
    let damaged = |what: String| StorageError::Damaged { file: file.to_owned(), what };
    let transaction = database.begin_read().map_err(|e| damaged(e.to_string()))?;
    let table = transaction.open_table(RECORDS).map_err(|e| damaged(e.to_string()))?;
    let mut records = Vec::new();
    for entry in table.iter().map_err(|e| damaged(e.to_string()))? {
        let (key, value) = entry.map_err(|e| damaged(e.to_string()))?;
        let record = key.value().parse().ok().zip(decode(value.value()));
        let unreadable = || damaged(format!("unreadable record of {:?}", key.value()));
        records.push(record.ok_or_else(unreadable)?);
    }
    records.sort_unstable_by_key(|(addr, _)| *addr);
    let meta = transaction.open_table(META).map_err(|e| damaged(e.to_string()))?;
    let kept = meta.get(STANDING_KEY).map_err(|e| damaged(e.to_string()))?;
    let standing = match kept.map(|kept| kept.value()) {
        Some(kept) => {
            decode_standing(kept).ok_or_else(|| damaged(format!("unreadable standing {kept}")))?
        }
        // Early versions wrote no standing. A seed that holds records has voted.
        None if !records.is_empty() => Standing::Voting,
        None => Standing::Fresh,
    };
    let table = transaction.open_table(FOUNDERS).map_err(|e| damaged(e.to_string()))?;
    let mut founders = Vec::new();
    for entry in table.iter().map_err(|e| damaged(e.to_string()))? {
        founders.push(entry.map_err(|e| damaged(e.to_string()))?.0.value());
    }
    Ok((standing, founders, records))
}

fn encode_standing(standing: Standing) -> u64 {
    match standing {
        Standing::Fresh => 0,
        Standing::Founding => 1,
        Standing::Voting => 2,
    }
}

fn decode_standing(kept: u64) -> Option<Standing> {
    [Standing::Fresh, Standing::Founding, Standing::Voting]
        .into_iter()
        .find(|standing| encode_standing(*standing) == kept)
}

/// Set in the byte of the status if an identity follows the time.
const HAS_IDENTITY: u8 = 0x80;

/// Set in the byte of the status if the voters' signatures follow the voters.
const HAS_SIGNATURES: u8 = 0x40;
/// Bytes of a voter's number.
const VOTER: usize = 2;

/// Encodes a record for the disk: incarnation, status, time, identity, then the voters, and as many
/// signatures or none; little-endian.
fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(
        17 + IDENTITY + VOTER * record.voters.len() + SIGNATURE * record.signatures.len(),
    );
    bytes.extend_from_slice(&record.incarnation.to_le_bytes());
    let mut status: u8 = match record.status {
        Status::Alive => 0,
        Status::Left => 1,
        Status::Dead => 2,
    };
    // A record has a signature of each voter or none at all.
    let is_signed = !record.signatures.is_empty() && record.signatures.len() == record.voters.len();
    status |= if record.identity.is_some() { HAS_IDENTITY } else { 0 };
    status |= if is_signed { HAS_SIGNATURES } else { 0 };
    bytes.push(status);
    bytes.extend_from_slice(&record.at.to_le_bytes());
    if let Some(identity) = &record.identity {
        bytes.extend_from_slice(&identity.0);
    }
    for voter in &record.voters {
        bytes.extend_from_slice(&voter.to_le_bytes());
    }
    for signature in record.signatures.iter().filter(|_| is_signed) {
        bytes.extend_from_slice(&signature.to_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let (incarnation, rest) = bytes.split_first_chunk::<8>()?;
    let (status, rest) = rest.split_first()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (identity, rest) = if status & HAS_IDENTITY == 0 {
        (None, rest)
    } else {
        let (identity, rest) = rest.split_first_chunk()?;
        (Some(Identity(*identity)), rest)
    };
    let voters = if status & HAS_SIGNATURES == 0 {
        rest.len()
    } else {
        rest.len() / (VOTER + SIGNATURE) * VOTER
    };
    let (voters, signatures) = rest.split_at_checked(voters)?;
    let voters = voters.chunks(VOTER).map(|voter| Some(u16::from_le_bytes(voter.try_into().ok()?)));
    let signatures = signatures
        .chunks(SIGNATURE)
        .map(|signature| Some(Signature::from_bytes(signature.try_into().ok()?)));
    Some(Record {
        incarnation: u64::from_le_bytes(*incarnation),
        status: match status & !(HAS_IDENTITY | HAS_SIGNATURES) {
            0 => Status::Alive,
            1 => Status::Left,
            2 => Status::Dead,
            _ => return None,
        },
        at: u64::from_le_bytes(*at),
        voters: voters.collect::<Option<_>>()?,
        identity,
        signatures: signatures.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::VERSION_KEY;
    use std::fs;
    use std::sync::mpsc::{self, channel};

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    fn record(incarnation: u64, status: Status) -> Record {
        // Some with an identity, some with signatures.
        let identity = (status == Status::Alive).then_some(Identity([7; 32]));
        let signed = incarnation.is_multiple_of(2);
        let signatures =
            [3, 4].into_iter().filter(|_| signed).map(|byte| Signature::from_bytes(&[byte; 64]));
        Record {
            incarnation,
            status,
            at: 9,
            voters: vec![0, 300],
            identity,
            signatures: signatures.collect(),
        }
    }

    fn keep(port: u16, incarnation: u64, status: Status) -> Vec<Keep> {
        vec![Keep::Record(addr(port), record(incarnation, status))]
    }

    fn start(store: OpenStore) -> (RegistryStore, mpsc::Receiver<u64>) {
        let (sender, durable) = channel();
        let store = store.start(
            move |number| sender.send(number).unwrap(),
            |error| panic!("the disk failed: {error}"),
        );
        (store.unwrap(), durable)
    }

    #[test]
    fn what_is_said_to_be_durable_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (store, durable) = start(OpenStore::open(dir.path()).unwrap());
        for number in 1..=100 {
            assert!(store.submit(number, keep(6000 + number as u16, number, Status::Alive)));
        }
        store.submit(101, keep(6001, 1, Status::Dead));
        store.submit(102, keep(6001, 1, Status::Alive));
        store.submit(103, vec![Keep::Standing(Standing::Founding)]);
        while durable.recv().unwrap() < 103 {}
        drop(store);
        let again = OpenStore::open(dir.path()).unwrap();
        assert_eq!(again.standing(), Standing::Founding);
        assert_eq!(again.records().len(), 100);
        assert_eq!(again.records()[0], (addr(6001), record(1, Status::Dead)));
        assert_eq!(again.records()[99], (addr(6100), record(100, Status::Alive)));
    }

    #[test]
    fn only_what_is_gone_in_that_life_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let open = OpenStore::open(dir.path()).unwrap();
        assert_eq!(open.standing(), Standing::Fresh);
        let (store, _durable) = start(open);
        store.submit(1, keep(6001, 1, Status::Dead));
        store.submit(2, keep(6002, 2, Status::Dead));
        store.submit(3, keep(6003, 1, Status::Alive));
        let forget = |port| Keep::Forget(addr(port), 1);
        store.submit(4, vec![forget(6001), forget(6002), forget(6003), forget(6004)]);
        drop(store);
        let again = OpenStore::open(dir.path()).unwrap();
        let left: Vec<u16> = again.records().iter().map(|(addr, _)| addr.port()).collect();
        assert_eq!(left, [6002, 6003]);
        assert_eq!(again.standing(), Standing::Voting, "whoever has records has voted");
    }

    #[test]
    fn what_is_set_aside_is_a_registry_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _durable) = start(OpenStore::open(dir.path()).unwrap());
        store.submit(1, keep(6001, 1, Status::Alive));
        store.submit(2, vec![Keep::Standing(Standing::Voting), Keep::Founders(vec![7, 9])]);
        store.submit(3, vec![Keep::SetAside(5)]);
        store.submit(4, keep(6002, 1, Status::Alive));
        drop(store);
        let again = OpenStore::open(dir.path()).unwrap();
        assert_eq!((again.records().len(), again.founders()), (2, &[7, 9][..]));
        let other = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join("registry-5.redb"), other.path().join(FILE)).unwrap();
        let aside = OpenStore::open(other.path()).unwrap();
        assert_eq!((aside.records().len(), aside.founders()), (1, &[7, 9][..]));
        assert_eq!(aside.standing(), Standing::Voting);
    }

    #[test]
    fn changes_that_wait_share_a_commit() {
        let dir = tempfile::tempdir().unwrap();
        let (store, durable) = start(OpenStore::open(dir.path()).unwrap());
        for number in 1..=1_000 {
            store.submit(number, keep(6000, number, Status::Alive));
        }
        drop(store);
        let commits = durable.iter().count();
        assert!(commits < 500, "{commits} commits for 1,000 batches");
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = OpenStore::open(dir.path()).unwrap();
        assert!(matches!(OpenStore::open(dir.path()), Err(StorageError::InUse(_))));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_and_left_alone() {
        let text = b"this is somebody's diary, and no database at all".repeat(100);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        fs::write(&file, &text).unwrap();
        assert!(matches!(OpenStore::open(dir.path()), Err(StorageError::Damaged { .. })));
        assert_eq!(fs::read(&file).unwrap(), text);
    }

    #[test]
    fn a_file_of_another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = OpenStore::open(dir.path()).unwrap();
        let transaction = store.database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(VERSION_KEY, 4).unwrap();
        transaction.commit().unwrap();
        drop(store);
        assert!(matches!(
            OpenStore::open(dir.path()),
            Err(StorageError::Version { found: 4, reads: 3, .. })
        ));
    }
}
