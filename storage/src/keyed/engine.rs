//! [`Engine`]: what the keyed store does, synchronously, over sled.
//!
//! Exact snapshots: while one is read, every write first keeps what it replaces (the before-image), if the snapshot has not passed
//! that key yet. The snapshot then reads the present and prefers the before-images.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use marchland_types::{GroupId, point};

use super::layout::{
    FORMAT_KEY, FORMAT_VERSION, GENERATION_PREFIX, OPENED_KEY, Space, Stored, after_prefix, decode_value, encode_value,
    generation_key, kinds, parse_generation_key,
};
use super::{Batch, KeyedError, Pairs};

/// Before-images that one snapshot may keep. A snapshot that is read so slowly is given up, not the writes.
const BEFORE_IMAGES_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Keys removed in one batch when a generation is cleared.
const CLEAR_KEYS: usize = 512;

/// A snapshot that is being read.
struct Snapshot {
    /// Gone when the reader dropped the snapshot.
    reader: Weak<()>,
    space: Space,
    /// Everything up to this key, inclusive, has been read.
    read_up_to: Option<Bytes>,
    before: BTreeMap<Bytes, Option<Bytes>>,
    before_bytes: usize,
    lost: Option<&'static str>,
}

/// The keyed store.
pub(super) struct Engine {
    tree: sled::Tree,
    generations: BTreeMap<GroupId, u64>,
    snapshots: BTreeMap<GroupId, Snapshot>,
}

/// An error of sled, and whether it means that the store's content is damaged.
pub(super) fn is_corruption(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Corruption { .. })
}

impl From<sled::Error> for KeyedError {
    fn from(error: sled::Error) -> Self {
        let kind = if is_corruption(&error) { "damaged: " } else { "" };
        Self::Fault(format!("{kind}{error}"))
    }
}

fn damaged(what: &str) -> KeyedError {
    KeyedError::Fault(format!("damaged: {what}"))
}

impl Engine {
    /// Reads the generations and removes what unfinished installs left.
    pub fn new(tree: sled::Tree) -> Result<Self, KeyedError> {
        match tree.get(FORMAT_KEY)? {
            None => {
                tree.insert(FORMAT_KEY, &FORMAT_VERSION.to_be_bytes())?;
            }
            Some(found) => {
                let found = found.as_ref().try_into().map(u32::from_be_bytes).map_err(|_| damaged("format"))?;
                if found > FORMAT_VERSION {
                    let text = format!("store has format {found}, this build reads up to {FORMAT_VERSION}");
                    return Err(KeyedError::Fault(text));
                }
            }
        }
        let mut generations = BTreeMap::new();
        for pair in tree.scan_prefix(GENERATION_PREFIX) {
            let (key, value) = pair?;
            let group = parse_generation_key(&key).ok_or_else(|| damaged("generation key"))?;
            let generation = value.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| damaged("generation"))?;
            generations.insert(group, generation);
        }
        let engine = Self { tree, generations, snapshots: BTreeMap::new() };
        engine.clear_other_generations()?;
        Ok(engine)
    }

    /// Writes something, so that the opening can see whether it reaches the disk.
    pub fn count_opening(&self) -> Result<(), KeyedError> {
        let opened = self.tree.get(OPENED_KEY)?.and_then(|count| count.as_ref().try_into().map(u64::from_be_bytes).ok());
        self.tree.insert(OPENED_KEY, &opened.unwrap_or(0).wrapping_add(1).to_be_bytes())?;
        Ok(())
    }

    fn clear_other_generations(&self) -> Result<(), KeyedError> {
        for (first, end) in kinds() {
            let mut from = vec![first];
            while let Some(pair) = self.tree.range(from..vec![end]).next() {
                let space = Space::of(&pair?.0).ok_or_else(|| damaged("key"))?;
                if space != self.space(space.group) {
                    self.clear(space)?;
                }
                let prefix = if first == kinds()[0].0 { space.pair_prefix() } else { space.piece_prefix() };
                match after_prefix(&prefix) {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn space(&self, group: GroupId) -> Space {
        Space { group, generation: self.generations.get(&group).copied().unwrap_or(0) }
    }

    /// Groups that hold anything.
    pub fn groups(&self) -> Result<Vec<GroupId>, KeyedError> {
        let (first, end) = kinds()[0];
        let mut groups = Vec::new();
        let mut from = vec![first];
        while let Some(pair) = self.tree.range(from..vec![end]).next() {
            let space = Space::of(&pair?.0).ok_or_else(|| damaged("key"))?;
            if self.space(space.group) == space {
                groups.push(space.group);
            }
            match after_prefix(&space.pair_prefix()) {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(groups)
    }

    pub fn get(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, KeyedError> {
        self.get_in(self.space(group), key)
    }

    fn get_in(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KeyedError> {
        let stored = self.tree.get(space.pair(key))?;
        stored.map(|stored| self.join(space, key, &stored)).transpose()
    }

    /// The value that a stored one stands for.
    fn join(&self, space: Space, key: &[u8], stored: &[u8]) -> Result<Bytes, KeyedError> {
        match decode_value(stored).ok_or_else(|| damaged("value"))? {
            Stored::Inline(value) => Ok(value),
            Stored::Pieces(count) => {
                let mut value = Vec::new();
                for piece in 0..count {
                    let bytes = self.tree.get(space.piece(key, piece))?;
                    value.extend_from_slice(&bytes.ok_or_else(|| damaged("a piece of a value is absent"))?);
                }
                Ok(value.into())
            }
        }
    }

    pub fn range(&self, group: GroupId, from: &[u8], to: &[u8], limit: usize) -> Result<Pairs, KeyedError> {
        let space = self.space(group);
        let end = if to.is_empty() { after_prefix(&space.pair_prefix()) } else { Some(space.pair(to)) };
        let start = space.pair(from);
        let mut pairs = Vec::new();
        let prefix_bytes = space.pair_prefix().len();
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Ok(pairs);
        }
        let range = match end {
            Some(end) => self.tree.range(start..end),
            None => self.tree.range(start..),
        };
        for pair in range.take(limit) {
            let (key, stored) = pair?;
            let key = Bytes::copy_from_slice(&key[prefix_bytes..]);
            let value = self.join(space, &key, &stored)?;
            pairs.push((key, value));
        }
        Ok(pairs)
    }

    pub fn apply(&mut self, group: GroupId, batch: &Batch) -> Result<(), KeyedError> {
        batch.check()?;
        let space = self.space(group);
        if self.snapshots.get(&group).is_some_and(|snapshot| snapshot.reader.strong_count() == 0) {
            self.snapshots.remove(&group);
        }
        if let Some(mut snapshot) = self.snapshots.remove(&group) {
            let kept = batch.writes.iter().try_for_each(|(key, _)| self.keep_before(&mut snapshot, key));
            self.snapshots.insert(group, snapshot);
            kept?;
        }
        point!("keyed.before_apply");
        self.write(space, batch)?;
        point!("keyed.applied");
        Ok(())
    }

    fn keep_before(&self, snapshot: &mut Snapshot, key: &Bytes) -> Result<(), KeyedError> {
        let is_read = snapshot.read_up_to.as_ref().is_some_and(|read| key <= read);
        if is_read || snapshot.lost.is_some() || snapshot.before.contains_key(key) {
            return Ok(());
        }
        let before = self.get_in(snapshot.space, key)?;
        snapshot.before_bytes += key.len() + before.as_ref().map_or(0, Bytes::len) + 64;
        snapshot.before.insert(key.clone(), before);
        if snapshot.before_bytes > BEFORE_IMAGES_MAX_BYTES {
            snapshot.lost = Some("too much changed while it was read");
            snapshot.before.clear();
        }
        Ok(())
    }

    /// Writes pairs to a space in one atomic step, removing the pieces of what they replace.
    fn write(&self, space: Space, batch: &Batch) -> Result<(), KeyedError> {
        let mut out = sled::Batch::default();
        // Pieces that this very batch has written before, by key.
        let mut written: BTreeMap<&Bytes, u32> = BTreeMap::new();
        for (key, value) in &batch.writes {
            let old_pieces = match written.get(key) {
                Some(pieces) => *pieces,
                None => match self.tree.get(space.pair(key))?.map(|stored| decode_value(&stored)) {
                    None | Some(Some(Stored::Inline(_))) => 0,
                    Some(Some(Stored::Pieces(pieces))) => pieces,
                    Some(None) => return Err(damaged("value")),
                },
            };
            let mut new_pieces = 0;
            match value {
                None => out.remove(space.pair(key)),
                Some(value) => {
                    let (stored, pieces) = encode_value(value);
                    out.insert(space.pair(key), stored);
                    for piece in pieces {
                        out.insert(space.piece(key, new_pieces), piece);
                        new_pieces += 1;
                    }
                }
            }
            for piece in new_pieces..old_pieces {
                out.remove(space.piece(key, piece));
            }
            written.insert(key, new_pieces);
        }
        self.tree.apply_batch(out)?;
        Ok(())
    }

    /// Begins a snapshot; it lives as long as the returned token.
    pub fn snapshot(&mut self, group: GroupId) -> Result<Arc<()>, KeyedError> {
        if self.snapshots.get(&group).is_some_and(|snapshot| snapshot.reader.strong_count() > 0) {
            return Err(KeyedError::SnapshotOpen(group));
        }
        let token = Arc::new(());
        let snapshot = Snapshot {
            reader: Arc::downgrade(&token),
            space: self.space(group),
            read_up_to: None,
            before: BTreeMap::new(),
            before_bytes: 0,
            lost: None,
        };
        self.snapshots.insert(group, snapshot);
        Ok(token)
    }

    /// The next pairs of the snapshot that `token` stands for.
    pub fn snapshot_next(&mut self, group: GroupId, token: &Arc<()>, max_bytes: usize) -> Result<Pairs, KeyedError> {
        let lost = |reason| KeyedError::SnapshotLost { group, reason };
        let is_it = |snapshot: &Snapshot| snapshot.reader.ptr_eq(&Arc::downgrade(token));
        let Some(mut snapshot) = self.snapshots.remove(&group).filter(is_it) else { return Err(lost("it was replaced")) };
        if let Some(reason) = snapshot.lost {
            self.snapshots.insert(group, snapshot);
            return Err(lost(reason));
        }
        let pairs = self.read_snapshot(&mut snapshot, max_bytes);
        self.snapshots.insert(group, snapshot);
        pairs
    }

    fn read_snapshot(&self, snapshot: &mut Snapshot, max_bytes: usize) -> Result<Pairs, KeyedError> {
        let space = snapshot.space;
        let prefix_bytes = space.pair_prefix().len();
        let mut pairs = Vec::new();
        let mut bytes = 0;
        // Strictly after what was read: the smallest key that is larger.
        let start =
            snapshot.read_up_to.as_ref().map_or_else(|| space.pair_prefix(), |read| [&space.pair(read)[..], &[0]].concat());
        let end = after_prefix(&space.pair_prefix()).unwrap_or_else(|| vec![u8::MAX; 18]);
        let mut present = self.tree.range(start..end);
        let mut next_present = present.next().transpose()?;
        while bytes < max_bytes.max(1) {
            let present_key = next_present.as_ref().map(|(key, _)| Bytes::copy_from_slice(&key[prefix_bytes..]));
            let before_key = snapshot.before.first_key_value().map(|(key, _)| key.clone());
            let Some(key) = present_key.iter().chain(before_key.iter()).min().cloned() else { break };
            let value = match snapshot.before.remove(&key) {
                Some(before) => before,
                None => {
                    let (_, stored) = next_present.as_ref().ok_or_else(|| damaged("snapshot"))?;
                    Some(self.join(space, &key, stored)?)
                }
            };
            if present_key.as_ref() == Some(&key) {
                next_present = present.next().transpose()?;
            }
            snapshot.read_up_to = Some(key.clone());
            if let Some(value) = value {
                bytes += key.len() + value.len();
                pairs.push((key, value));
            }
        }
        Ok(pairs)
    }

    /// An empty generation to be filled; the current one stays as it is.
    pub fn begin_install(&mut self, group: GroupId) -> Result<Space, KeyedError> {
        let current = self.space(group);
        let space = Space { generation: current.generation + 1, ..current };
        self.clear(space)?;
        Ok(space)
    }

    pub fn fill(&self, space: Space, pairs: Pairs) -> Result<(), KeyedError> {
        let batch = Batch { writes: pairs.into_iter().map(|(key, value)| (key, Some(value))).collect() };
        batch.check()?;
        self.write(space, &batch)
    }

    /// Makes the generation the current one. Its content must be on disk before, and this step right afterwards.
    pub fn switch(&mut self, space: Space) -> Result<Space, KeyedError> {
        let old = self.space(space.group);
        self.tree.insert(generation_key(space.group), &space.generation.to_be_bytes())?;
        self.generations.insert(space.group, space.generation);
        if let Some(snapshot) = self.snapshots.get_mut(&space.group) {
            snapshot.lost = Some("the content was replaced");
            snapshot.before.clear();
        }
        Ok(old)
    }

    /// Removes everything of a space.
    pub fn clear(&self, space: Space) -> Result<(), KeyedError> {
        for prefix in [space.pair_prefix(), space.piece_prefix()] {
            loop {
                let mut batch = sled::Batch::default();
                let mut count = 0;
                for key in self.tree.scan_prefix(&prefix).keys().take(CLEAR_KEYS) {
                    batch.remove(key?);
                    count += 1;
                }
                if count == 0 {
                    break;
                }
                self.tree.apply_batch(batch)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
