//! [`Engine`]: what the keyed store does, synchronously, over the map of any engine.
//!
//! Exact snapshots: while one is read, every write first keeps what it replaces (the before-image), if the snapshot has not passed
//! that key yet. The snapshot then reads the present and prefers the before-images.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use marchland_types::{GroupId, point};

use super::layout::{
    FORMAT_KEY, FORMAT_VERSION, GENERATION_PREFIX, Space, Stored, after_prefix, decode_value, encode_value, generation_key,
    kinds, parse_generation_key, value_bytes_max,
};
use super::map::{Changes, Map, damaged};
use super::{Batch, KeyedError, Pairs};

/// Before-images that one snapshot may keep. A snapshot that is read so slowly is given up, not the writes.
const BEFORE_IMAGES_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Pairs that a snapshot reads at a time.
const SNAPSHOT_PAIRS: usize = 256;

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
    map: Box<dyn Map>,
    generations: BTreeMap<GroupId, u64>,
    snapshots: BTreeMap<GroupId, Snapshot>,
}

impl Engine {
    /// Reads the generations and removes what unfinished installs left.
    pub fn new(mut map: Box<dyn Map>) -> Result<Self, KeyedError> {
        match map.get(&FORMAT_KEY)? {
            None => map.write(vec![(FORMAT_KEY.to_vec(), Some(FORMAT_VERSION.to_be_bytes().to_vec()))])?,
            Some(found) => {
                let found = found.as_ref().try_into().map(u32::from_be_bytes).map_err(|_| damaged("format"))?;
                if found > FORMAT_VERSION {
                    let text = format!("store has format {found}, this build reads up to {FORMAT_VERSION}");
                    return Err(KeyedError::Fault(text));
                }
            }
        }
        let mut generations = BTreeMap::new();
        let mut bad = None;
        map.scan(&GENERATION_PREFIX, after_prefix(&GENERATION_PREFIX).as_deref(), &mut |key, value| {
            let generation = value.try_into().map(u64::from_be_bytes).ok();
            match parse_generation_key(key).zip(generation) {
                Some((group, generation)) => drop(generations.insert(group, generation)),
                None => bad = Some(damaged("generation")),
            }
            bad.is_none()
        })?;
        if let Some(bad) = bad {
            return Err(bad);
        }
        let mut engine = Self { map, generations, snapshots: BTreeMap::new() };
        engine.clear_other_generations()?;
        Ok(engine)
    }

    /// Makes everything so far durable, after the engine's [`Durable`](super::map::Durable) has done its part.
    pub fn commit(&mut self) -> Result<(), KeyedError> {
        self.map.commit()
    }

    /// The spaces that hold pairs (of the first of [`kinds`]) or pieces.
    fn spaces(&mut self, (first, end): (u8, u8)) -> Result<Vec<Space>, KeyedError> {
        let mut spaces = Vec::new();
        let mut from = vec![first];
        loop {
            let mut found = None;
            self.map.scan(&from, Some(&[end]), &mut |key, _| {
                found = Some(Space::of(key));
                false
            })?;
            let Some(space) = found else { return Ok(spaces) };
            let space = space.ok_or_else(|| damaged("key"))?;
            spaces.push(space);
            let prefix = if first == kinds()[0].0 { space.pair_prefix() } else { space.piece_prefix() };
            match after_prefix(&prefix) {
                Some(next) => from = next,
                None => return Ok(spaces),
            }
        }
    }

    fn clear_other_generations(&mut self) -> Result<(), KeyedError> {
        for kind in kinds() {
            for space in self.spaces(kind)? {
                if space != self.space(space.group) {
                    self.clear(space)?;
                }
            }
        }
        Ok(())
    }

    fn space(&self, group: GroupId) -> Space {
        Space { group, generation: self.generations.get(&group).copied().unwrap_or(0) }
    }

    /// Groups that hold anything.
    pub fn groups(&mut self) -> Result<Vec<GroupId>, KeyedError> {
        let spaces = self.spaces(kinds()[0])?;
        Ok(spaces.into_iter().filter(|space| self.space(space.group) == *space).map(|space| space.group).collect())
    }

    pub fn get(&mut self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, KeyedError> {
        self.get_in(self.space(group), key)
    }

    fn get_in(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, KeyedError> {
        let stored = self.map.get(&space.pair(key))?;
        stored.map(|stored| self.join(space, key, &stored)).transpose()
    }

    /// The value that a stored one stands for.
    fn join(&mut self, space: Space, key: &[u8], stored: &[u8]) -> Result<Bytes, KeyedError> {
        match decode_value(stored).ok_or_else(|| damaged("value"))? {
            Stored::Inline(value) => Ok(value),
            Stored::Pieces(count) => {
                let mut value = Vec::new();
                for piece in 0..count {
                    let bytes = self.map.get(&space.piece(key, piece))?;
                    value.extend_from_slice(&bytes.ok_or_else(|| damaged("a piece of a value is absent"))?);
                }
                Ok(value.into())
            }
        }
    }

    pub fn range(&mut self, group: GroupId, from: &[u8], to: &[u8], limit: usize) -> Result<Pairs, KeyedError> {
        let space = self.space(group);
        let end = if to.is_empty() { after_prefix(&space.pair_prefix()) } else { Some(space.pair(to)) };
        let start = space.pair(from);
        self.pairs(space, &start, end.as_deref(), &mut |_, count| count < limit)
    }

    /// Pairs in `start..end` of a space, as long as `wants` says so: it gets the size of the pair, and the number of pairs before.
    fn pairs(
        &mut self,
        space: Space,
        start: &[u8],
        end: Option<&[u8]>,
        wants: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Pairs, KeyedError> {
        let (prefix_bytes, piece_bytes) = (space.pair_prefix().len(), self.map.piece_bytes());
        let mut found = Vec::new();
        self.map.scan(start, end, &mut |key, stored| {
            let goes_on = wants(key.len() - prefix_bytes + value_bytes_max(stored, piece_bytes), found.len());
            if goes_on {
                found.push((Bytes::copy_from_slice(&key[prefix_bytes..]), Bytes::copy_from_slice(stored)));
            }
            goes_on
        })?;
        found.into_iter().map(|(key, stored)| self.join(space, &key, &stored).map(|value| (key, value))).collect()
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

    fn keep_before(&mut self, snapshot: &mut Snapshot, key: &Bytes) -> Result<(), KeyedError> {
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
    fn write(&mut self, space: Space, batch: &Batch) -> Result<(), KeyedError> {
        let mut out = Changes::new();
        // Pieces that this very batch has written before, by key.
        let mut written: BTreeMap<&Bytes, u32> = BTreeMap::new();
        for (key, value) in &batch.writes {
            let old_pieces = match written.get(key) {
                Some(pieces) => *pieces,
                None => match self.map.get(&space.pair(key))?.map(|stored| decode_value(&stored)) {
                    None | Some(Some(Stored::Inline(_))) => 0,
                    Some(Some(Stored::Pieces(pieces))) => pieces,
                    Some(None) => return Err(damaged("value")),
                },
            };
            let mut new_pieces = 0;
            match value {
                None => out.push((space.pair(key), None)),
                Some(value) => {
                    let (stored, pieces) = encode_value(value, self.map.piece_bytes());
                    out.push((space.pair(key), Some(stored)));
                    for piece in pieces {
                        out.push((space.piece(key, new_pieces), Some(piece.to_vec())));
                        new_pieces += 1;
                    }
                }
            }
            for piece in new_pieces..old_pieces {
                out.push((space.piece(key, piece), None));
            }
            written.insert(key, new_pieces);
        }
        self.map.write(out)
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

    fn read_snapshot(&mut self, snapshot: &mut Snapshot, max_bytes: usize) -> Result<Pairs, KeyedError> {
        let space = snapshot.space;
        let end = after_prefix(&space.pair_prefix());
        let mut pairs = Vec::new();
        let mut bytes = 0;
        loop {
            // Strictly after what was read: the smallest key that is larger.
            let start =
                snapshot.read_up_to.as_ref().map_or_else(|| space.pair_prefix(), |read| [&space.pair(read)[..], &[0]].concat());
            // What is there now, and whether that is all.
            let (mut read_bytes, mut is_all) = (0, true);
            let present = self.pairs(space, &start, end.as_deref(), &mut |pair_bytes, count| {
                is_all = count == 0 || (read_bytes < max_bytes && count < SNAPSHOT_PAIRS);
                read_bytes += pair_bytes;
                is_all
            })?;
            let last = present.last().map(|(key, _)| key.clone());
            let mut present = present.into_iter().peekable();
            while bytes < max_bytes.max(1) {
                let present_key = present.peek().map(|(key, _)| key);
                let before_key = snapshot.before.first_key_value().map(|(key, _)| key);
                let Some(key) = present_key.into_iter().chain(before_key).min().cloned() else { break };
                // Beyond what was looked at there may be pairs that come first.
                if !is_all && last.as_ref().is_some_and(|last| key > *last) {
                    break;
                }
                let now = present.next_if(|(present, _)| *present == key).map(|(_, value)| value);
                let value = match snapshot.before.remove(&key) {
                    Some(before) => before,
                    None => now,
                };
                snapshot.read_up_to = Some(key.clone());
                if let Some(value) = value {
                    bytes += key.len() + value.len();
                    pairs.push((key, value));
                }
            }
            // An empty answer would be the end. All that was looked at may have come after the snapshot.
            if is_all || !pairs.is_empty() {
                return Ok(pairs);
            }
        }
    }

    /// An empty generation to be filled; the current one stays as it is.
    pub fn begin_install(&mut self, group: GroupId) -> Result<Space, KeyedError> {
        let current = self.space(group);
        let space = Space { generation: current.generation + 1, ..current };
        self.clear(space)?;
        Ok(space)
    }

    pub fn fill(&mut self, space: Space, pairs: Pairs) -> Result<(), KeyedError> {
        let batch = Batch { writes: pairs.into_iter().map(|(key, value)| (key, Some(value))).collect() };
        batch.check()?;
        self.write(space, &batch)
    }

    /// Makes the generation the current one. Its content must be on disk before, and this step right afterwards.
    pub fn switch(&mut self, space: Space) -> Result<Space, KeyedError> {
        let old = self.space(space.group);
        self.map.write(vec![(generation_key(space.group), Some(space.generation.to_be_bytes().to_vec()))])?;
        self.generations.insert(space.group, space.generation);
        if let Some(snapshot) = self.snapshots.get_mut(&space.group) {
            snapshot.lost = Some("the content was replaced");
            snapshot.before.clear();
        }
        Ok(old)
    }

    /// Removes everything of a space.
    pub fn clear(&mut self, space: Space) -> Result<(), KeyedError> {
        self.map.clear(&space.pair_prefix())?;
        self.map.clear(&space.piece_prefix())
    }
}

#[cfg(test)]
mod tests;
