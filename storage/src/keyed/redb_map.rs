//! [`RedbMap`]: the map over redb, a tree of pages in one file.
//!
//! One write transaction is open at all times: reads see what it has written, and `commit` makes it durable and begins the
//! next. So nothing is visible that a crash could keep in part, and pages that are changed often between two commits are written
//! once. redb keeps what a transaction changes in its cache and in the file, where nothing refers to it yet; only the
//! numbers of the changed pages stay in memory, which is why a transaction that has grown large is committed unasked.
//!
//! Keys with the same beginning ([`table_of`]) are in a table of their own, without that beginning: redb fills the leaves of a table whose
//! keys come in ascending order, as those of characters do, and halves all others; and eighteen bytes for each pair are saved.
//!
//! redb checks a page's checksum only when it repairs a file. So each value carries a checksum of its own, over key and value.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use redb::{
    Builder, CommitError, Database, DatabaseError, ReadableTable, StorageError, TableDefinition, TableError, TableHandle,
    TransactionError, WriteTransaction,
};

use self::backend::Backend;
use super::KeyedError;
use super::layout::{after_prefix, table_of};
use super::map::{Changes, Durable, Map, OpenError, Visit, damaged};
use super::open::fault;
use crate::disk::{Disk, DiskFile};

mod backend;

/// redb's file; a folder that has it is redb's.
pub(super) const DATA_FILE: &str = "redb";
/// The file until it holds an empty store.
const PART_FILE: &str = "redb.part";
/// Changes after which a transaction is committed unasked. Each may replace a page, whose predecessor stays until the commit:
/// this bounds how much larger than its content the file grows.
const CHANGES_MAX: usize = 4096;
/// Bytes of keys and values after which it is.
const CHANGED_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Before each value.
const CHECKSUM_BYTES: usize = 4;

/// A key in its table, and its new value.
type Change<'a> = (&'a [u8], Option<&'a [u8]>);

type Table<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// The map over redb.
pub(super) struct RedbMap {
    /// Always there except while it is replaced; a failed commit leaves none.
    open: Option<WriteTransaction>,
    changes: usize,
    changed_bytes: usize,
    /// Beginnings of keys that have a table.
    tables: BTreeSet<Vec<u8>>,
    db: Database,
}

/// Syncs redb's file by a descriptor of its own.
pub(super) struct RedbSync<F>(F);

/// How to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct RedbOptions {
    pub cache_bytes: u64,
    /// Whether to verify the checksum of every page.
    pub verify: bool,
}

impl From<StorageError> for KeyedError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Corrupted(_) => damaged(error),
            StorageError::Io(ref io)
                if matches!(io.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
            {
                damaged(error)
            }
            error => Self::Fault(error.to_string()),
        }
    }
}

impl From<TransactionError> for KeyedError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            error => Self::Fault(error.to_string()),
        }
    }
}

impl From<CommitError> for KeyedError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            error => Self::Fault(error.to_string()),
        }
    }
}

impl From<TableError> for KeyedError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            TableError::TableTypeMismatch { .. }
            | TableError::TableIsMultimap(_)
            | TableError::TableIsNotMultimap(_)
            | TableError::TypeDefinitionChanged { .. }
            | TableError::TableDoesNotExist(_) => damaged(error),
            error => Self::Fault(error.to_string()),
        }
    }
}

impl From<DatabaseError> for KeyedError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => error.into(),
            error => Self::Fault(error.to_string()),
        }
    }
}

/// Opens redb in `dir`, which exists.
pub(super) fn open<D: Disk>(disk: &D, dir: &Path, options: RedbOptions) -> Result<(RedbMap, RedbSync<D::File>), OpenError> {
    let failed = |error| OpenError::Failed(fault(dir)(error));
    let (path, part) = (dir.join(DATA_FILE), dir.join(PART_FILE));
    let is_new = !disk.exists(&path).map_err(failed)?;
    let file = if is_new {
        if disk.exists(&part).map_err(failed)? {
            disk.remove(&part).map_err(failed)?;
        }
        disk.create(&part)
    } else {
        disk.open(&path)
    };
    let file = file.map_err(failed)?;
    // redb panics on some damage.
    let map = catch_unwind(AssertUnwindSafe(|| RedbMap::open(Backend::new(file), options)))
        .unwrap_or_else(|_| Err(damaged("the engine panicked")))?;
    if is_new {
        disk.rename(&part, &path).map_err(failed)?;
    }
    disk.sync_dir(dir).map_err(failed)?;
    Ok((map, RedbSync(disk.open(&path).map_err(failed)?)))
}

fn name_of(beginning: &[u8]) -> String {
    use std::fmt::Write;
    beginning.iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

fn beginning_of(name: &str) -> Option<Vec<u8>> {
    (0..name.len()).step_by(2).map(|at| u8::from_str_radix(name.get(at..at + 2)?, 16).ok()).collect()
}

fn checksum(table: &[u8], key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(table);
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

/// The value in what is stored, if its checksum is right.
fn checked<'a>(table: &[u8], key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], KeyedError> {
    match stored.split_first_chunk() {
        Some((found, value)) if *found == checksum(table, key, value) => Ok(value),
        Some(_) | None => Err(damaged("the checksum of a value is wrong")),
    }
}

impl RedbMap {
    fn open<F: DiskFile>(backend: Backend<F>, options: RedbOptions) -> Result<Self, KeyedError> {
        let cache_bytes = usize::try_from(options.cache_bytes).unwrap_or(usize::MAX);
        let db = Builder::new()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(options.verify)
            .create_with_backend(backend)?;
        let mut map = Self { open: None, changes: 0, changed_bytes: 0, tables: BTreeSet::new(), db };
        map.find_tables()?;
        Ok(map)
    }

    /// Learns which tables there are, and removes empty ones.
    fn find_tables(&mut self) -> Result<(), KeyedError> {
        let open = Self::begin(&self.db)?;
        let handles: Vec<_> = open.list_tables()?.collect();
        for handle in handles {
            let name = handle.name().to_owned();
            let beginning = beginning_of(&name).ok_or_else(|| damaged("the name of a table"))?;
            let definition = Table::new(&name);
            let is_empty = open.open_table(definition)?.first()?.is_none();
            if is_empty {
                open.delete_table(definition)?;
            } else {
                self.tables.insert(beginning);
            }
        }
        self.open = Some(open);
        Ok(())
    }

    fn begin(db: &Database) -> Result<WriteTransaction, KeyedError> {
        let mut open = db.begin_write()?;
        // The allocator's state goes with each commit, so that opening after a crash has not to read the whole file.
        open.set_quick_repair(true);
        Ok(open)
    }

    fn transaction(open: &Option<WriteTransaction>) -> Result<&WriteTransaction, KeyedError> {
        open.as_ref().ok_or_else(|| KeyedError::Fault("a commit failed before".to_owned()))
    }
}

impl Map for RedbMap {
    fn piece_bytes(&self) -> usize {
        usize::MAX
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KeyedError> {
        let (beginning, rest) = key.split_at(table_of(key));
        if !self.tables.contains(beginning) {
            return Ok(None);
        }
        let name = name_of(beginning);
        let table = Self::transaction(&self.open)?.open_table(Table::new(&name))?;
        let Some(stored) = table.get(rest)? else { return Ok(None) };
        checked(beginning, rest, stored.value()).map(|value| Some(Bytes::copy_from_slice(value)))
    }

    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), KeyedError> {
        let mut key = Vec::new();
        for beginning in &self.tables {
            if to.is_some_and(|to| to <= &beginning[..]) {
                break;
            }
            let start = match from.strip_prefix(&beginning[..]) {
                Some(start) => start,
                None if from > &beginning[..] => continue,
                None => &[],
            };
            let end = to.and_then(|to| to.strip_prefix(&beginning[..]));
            if end.is_some_and(|end| end <= start) {
                continue;
            }
            let name = name_of(beginning);
            let table = Self::transaction(&self.open)?.open_table(Table::new(&name))?;
            let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
            for pair in table.range::<&[u8]>(bounds)? {
                let (rest, stored) = pair?;
                let value = checked(beginning, rest.value(), stored.value())?;
                key.clear();
                key.extend_from_slice(beginning);
                key.extend_from_slice(rest.value());
                if !visit(&key, value) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, changes: Changes) -> Result<(), KeyedError> {
        let mut by_table: BTreeMap<&[u8], Vec<Change<'_>>> = BTreeMap::new();
        for (key, value) in &changes {
            let (beginning, rest) = key.split_at(table_of(key));
            by_table.entry(beginning).or_default().push((rest, value.as_deref()));
        }
        let open = Self::transaction(&self.open)?;
        for (beginning, changes) in by_table {
            let is_known = self.tables.contains(beginning);
            if !is_known && changes.iter().all(|(_, value)| value.is_none()) {
                continue;
            }
            let name = name_of(beginning);
            let mut table = open.open_table(Table::new(&name))?;
            if !is_known {
                self.tables.insert(beginning.to_owned());
            }
            for (key, value) in changes {
                match value {
                    Some(value) => {
                        let mut reserved = table.insert_reserve(key, CHECKSUM_BYTES + value.len())?;
                        let (head, tail) = reserved.as_mut().split_at_mut(CHECKSUM_BYTES);
                        head.copy_from_slice(&checksum(beginning, key, value));
                        tail.copy_from_slice(value);
                    }
                    None => drop(table.remove(key)?),
                }
            }
        }
        self.changes += changes.len();
        let bytes = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
        self.changed_bytes += changes.iter().map(bytes).sum::<usize>();
        if self.changes >= CHANGES_MAX || self.changed_bytes >= CHANGED_MAX_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn clear(&mut self, prefix: &[u8]) -> Result<(), KeyedError> {
        let open = Self::transaction(&self.open)?;
        let end = after_prefix(prefix);
        let range = (Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let gone: Vec<Vec<u8>> = self.tables.range::<[u8], _>(range).cloned().collect();
        for beginning in &gone {
            open.delete_table(Table::new(&name_of(beginning)))?;
            self.tables.remove(beginning);
            self.changes += 1;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), KeyedError> {
        let open = self.open.take().ok_or_else(|| KeyedError::Fault("a commit failed before".to_owned()))?;
        open.commit()?;
        (self.changes, self.changed_bytes) = (0, 0);
        self.open = Some(Self::begin(&self.db)?);
        Ok(())
    }
}

impl<F: DiskFile> Durable for RedbSync<F> {
    /// The commit syncs by itself. Most of what it would wait for is on disk already after this, and reads and writes went on
    /// meanwhile.
    fn sync(&mut self) -> Result<(), KeyedError> {
        self.0.sync_data().map_err(|error| KeyedError::Fault(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
