//! [`SimKeyedNode`]: the keyed store of the simulator, an ordered map whose batches go to one file of a [`Disk`].
//!
//! A batch is written at once and synced by persist. What a crash leaves of the file up to the first batch that is not whole
//! is what survives: a whole-batch prefix at or after the last persist, chosen by the disk's seed. Opening writes the content anew, so a
//! torn rest never stands behind new batches. The content lives in memory; this is for worlds that are simulated.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use marchland_types::{GroupId, point};

use super::{Batch, KeyedError, KeyedNode, KeyedSnapshot, KeyedStore, Pairs, SnapshotNext};
use crate::disk::{Disk, DiskFile, create_dir_synced};

const FILE: &str = "map";
const PART: &str = "map.part";
/// Length and checksum before each batch.
const PREFIX_BYTES: usize = 8;
/// The file is written anew when it is this much larger than four times what it says.
const SLACK_BYTES: u64 = 1024 * 1024;

type Map = BTreeMap<Bytes, Bytes>;

/// How long a persist takes.
pub type Pause = Arc<dyn Fn() -> Duration + Send + Sync>;

struct State<D: Disk> {
    disk: D,
    dir: PathBuf,
    file: D::File,
    end: u64,
    groups: BTreeMap<GroupId, Map>,
    live_bytes: u64,
    snapshots: BTreeMap<GroupId, Weak<()>>,
    failed: Option<String>,
}

/// The keyed store of a simulated node.
pub struct SimKeyedNode<D: Disk> {
    state: Arc<Mutex<State<D>>>,
    pause: Option<Pause>,
}

impl<D: Disk> Clone for SimKeyedNode<D> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), pause: self.pause.clone() }
    }
}

fn fault(error: std::io::Error) -> KeyedError {
    KeyedError::Fault(error.to_string())
}

/// One batch: `clear` empties the group first.
fn encode(group: GroupId, clear: bool, writes: &[(Bytes, Option<Bytes>)]) -> Vec<u8> {
    let mut out = vec![0; PREFIX_BYTES];
    out.extend_from_slice(&group.0.to_le_bytes());
    out.push(u8::from(clear));
    for (key, value) in writes {
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(&value.as_ref().map_or(u32::MAX, |value| value.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    let length = (out.len() - PREFIX_BYTES) as u32;
    out[..4].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&out[PREFIX_BYTES..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

type Decoded = (GroupId, bool, Vec<(Bytes, Option<Bytes>)>);

/// The batch that `bytes` begin with, and its size.
fn decode(bytes: &[u8]) -> Option<(Decoded, usize)> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let length = word(bytes.get(..4)?) as usize;
    let crc = word(bytes.get(4..8)?);
    let mut body = bytes.get(PREFIX_BYTES..PREFIX_BYTES.checked_add(length)?)?;
    if length < 9 || crc32fast::hash(body) != crc {
        return None;
    }
    let mut take = |count: usize| {
        let (head, tail) = body.split_at_checked(count)?;
        body = tail;
        Some(head)
    };
    let group = GroupId(u64::from_le_bytes(take(8)?.try_into().expect("eight bytes")));
    let clear = take(1)?[0] != 0;
    let mut writes = Vec::new();
    while let Some(head) = take(8) {
        let (key_bytes, value_bytes) = (word(&head[..4]), word(&head[4..]));
        let key = Bytes::copy_from_slice(take(key_bytes as usize)?);
        let value = match value_bytes {
            u32::MAX => None,
            value_bytes => Some(Bytes::copy_from_slice(take(value_bytes as usize)?)),
        };
        writes.push((key, value));
    }
    Some(((group, clear, writes), PREFIX_BYTES + length))
}

fn pair_bytes(key: &Bytes, value: &Bytes) -> u64 {
    8 + key.len() as u64 + value.len() as u64
}

impl<D: Disk> State<D> {
    fn check(&self) -> Result<(), KeyedError> {
        self.failed.as_ref().map_or(Ok(()), |reason| Err(KeyedError::Fault(reason.clone())))
    }

    /// Remembers a fault: nothing is done any more after it.
    fn guard<T>(&mut self, result: Result<T, KeyedError>) -> Result<T, KeyedError> {
        if let Err(KeyedError::Fault(reason)) = &result {
            self.failed.get_or_insert(reason.clone());
        }
        result
    }

    fn put(&mut self, group: GroupId, clear: bool, writes: Vec<(Bytes, Option<Bytes>)>) {
        let map = self.groups.entry(group).or_default();
        if clear {
            self.live_bytes -= map.iter().map(|(key, value)| pair_bytes(key, value)).sum::<u64>();
            map.clear();
        }
        for (key, value) in writes {
            let old = match value {
                Some(value) => {
                    self.live_bytes += pair_bytes(&key, &value);
                    map.insert(key.clone(), value)
                }
                None => map.remove(&key),
            };
            self.live_bytes -= old.map_or(0, |old| pair_bytes(&key, &old));
        }
    }

    fn write(&mut self, group: GroupId, clear: bool, writes: Vec<(Bytes, Option<Bytes>)>) -> Result<(), KeyedError> {
        self.check()?;
        let bytes = encode(group, clear, &writes);
        let written = self.file.write_all_at(&bytes, self.end).map_err(fault);
        self.guard(written)?;
        self.end += bytes.len() as u64;
        self.put(group, clear, writes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), KeyedError> {
        self.check()?;
        let synced = self.file.sync_data().map_err(fault);
        self.guard(synced)?;
        if self.end > self.live_bytes * 4 + SLACK_BYTES {
            let rewritten = self.rewrite().map_err(fault);
            self.guard(rewritten)?;
        }
        Ok(())
    }

    /// Writes the content to a new file, which takes the place of the old one in one step.
    fn rewrite(&mut self) -> std::io::Result<()> {
        let (path, part) = (self.dir.join(FILE), self.dir.join(PART));
        if self.disk.exists(&part)? {
            self.disk.remove(&part)?;
        }
        let mut file = self.disk.create(&part)?;
        let mut end = 0;
        for (group, map) in &self.groups {
            let writes: Vec<_> = map.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
            let bytes = encode(*group, false, &writes);
            file.write_all_at(&bytes, end)?;
            end += bytes.len() as u64;
        }
        file.sync_data()?;
        self.disk.rename(&part, &path)?;
        self.disk.sync_dir(&self.dir)?;
        (self.file, self.end) = (file, end);
        Ok(())
    }
}

impl<D: Disk> SimKeyedNode<D> {
    /// Opens the store in `dir`, created if absent. `pause` says how long a persist takes.
    pub fn open(disk: D, dir: &Path, pause: Option<Pause>) -> Result<Self, KeyedError> {
        create_dir_synced(&disk, dir).map_err(fault)?;
        let path = dir.join(FILE);
        let exists = disk.exists(&path).map_err(fault)?;
        let file = if exists { disk.open(&path) } else { disk.create(&path) }.map_err(fault)?;
        let mut bytes = vec![0; file.len().map_err(fault)? as usize];
        file.read_exact_at(&mut bytes, 0).map_err(fault)?;
        let dir = dir.to_owned();
        let mut state =
            State { disk, dir, file, end: 0, groups: BTreeMap::new(), live_bytes: 0, snapshots: BTreeMap::new(), failed: None };
        let mut rest = &bytes[..];
        while let Some(((group, clear, writes), size)) = decode(rest) {
            state.put(group, clear, writes);
            rest = &rest[size..];
        }
        state.rewrite().map_err(fault)?;
        Ok(Self { state: Arc::new(Mutex::new(state)), pause })
    }

    fn lock(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn persist(&self) -> Result<(), KeyedError> {
        if let Some(pause) = &self.pause {
            tokio::time::sleep(pause()).await;
        }
        let synced = self.lock().sync();
        point!("keyed.persisted");
        synced
    }
}

impl<D: Disk> KeyedNode for SimKeyedNode<D> {
    type Store = SimKeyed<D>;

    fn namespace(&self, group: GroupId) -> SimKeyed<D> {
        SimKeyed { node: self.clone(), group }
    }

    async fn groups(&self) -> Result<Vec<GroupId>, KeyedError> {
        let state = self.lock();
        state.check()?;
        Ok(state.groups.iter().filter(|(_, map)| !map.is_empty()).map(|(group, _)| *group).collect())
    }

    async fn remove(&self, group: GroupId) -> Result<(), KeyedError> {
        self.lock().write(group, true, Vec::new())?;
        self.persist().await
    }
}

/// One namespace of a [`SimKeyedNode`].
pub struct SimKeyed<D: Disk> {
    node: SimKeyedNode<D>,
    group: GroupId,
}

impl<D: Disk> Clone for SimKeyed<D> {
    fn clone(&self) -> Self {
        Self { node: self.node.clone(), group: self.group }
    }
}

impl<D: Disk> KeyedStore for SimKeyed<D> {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KeyedError> {
        let state = self.node.lock();
        state.check()?;
        Ok(state.groups.get(&self.group).and_then(|map| map.get(key).cloned()))
    }

    async fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Pairs, KeyedError> {
        let state = self.node.lock();
        state.check()?;
        let Some(map) = state.groups.get(&self.group).filter(|_| to.is_empty() || from < to) else { return Ok(Vec::new()) };
        let end = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) };
        let range = map.range::<[u8], _>((Bound::Included(from), end));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn apply(&self, batch: Batch) -> Result<(), KeyedError> {
        batch.check()?;
        point!("keyed.before_apply");
        self.node.lock().write(self.group, false, batch.writes)?;
        point!("keyed.applied");
        Ok(())
    }

    async fn persist(&self) -> Result<(), KeyedError> {
        self.node.persist().await
    }

    async fn snapshot(&self) -> Result<Box<dyn KeyedSnapshot>, KeyedError> {
        let mut state = self.node.lock();
        state.check()?;
        if state.snapshots.get(&self.group).is_some_and(|open| open.strong_count() > 0) {
            return Err(KeyedError::SnapshotOpen(self.group));
        }
        let token = Arc::new(());
        state.snapshots.insert(self.group, Arc::downgrade(&token));
        let pairs = state.groups.get(&self.group).cloned().unwrap_or_default().into_iter();
        Ok(Box::new(SimSnapshot { pairs, _token: token }))
    }

    async fn install(&self, mut source: Box<dyn KeyedSnapshot>) -> Result<(), KeyedError> {
        let mut writes = Vec::new();
        loop {
            let pairs = source.next(256 * 1024).await?;
            if pairs.is_empty() {
                break;
            }
            writes.extend(pairs.into_iter().map(|(key, value)| (key, Some(value))));
        }
        point!("keyed.filled");
        self.node.lock().write(self.group, true, writes)?;
        self.node.persist().await?;
        point!("keyed.switched");
        Ok(())
    }
}

struct SimSnapshot {
    pairs: std::collections::btree_map::IntoIter<Bytes, Bytes>,
    _token: Arc<()>,
}

impl KeyedSnapshot for SimSnapshot {
    fn next(&mut self, max_bytes: usize) -> SnapshotNext<'_> {
        let mut pairs = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes.max(1) {
            let Some((key, value)) = self.pairs.next() else { break };
            bytes += key.len() + value.len();
            pairs.push((key, value));
        }
        Box::pin(std::future::ready(Ok(pairs)))
    }
}
