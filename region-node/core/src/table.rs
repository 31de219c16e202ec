//! Dense tables of rows by slot, in chunks that a view shares until they are written.
//!
//! What always holds after [`Table::settle`]: the sum equals the wrapping sum of the hashes of all rows, so equal tables
//! have equal sums whatever order they were written in. Iteration goes by ascending slot, which is a function of the
//! content alone.

use std::sync::Arc;

use crate::codec::{CodecError, Reader, Row, Writer};
use crate::hash::{hash, mix};

/// Rows in a chunk: small enough that the copy after a view is cheap, large enough that a view has few parts.
const CHUNK_ROWS: usize = 64;

type Chunk<T> = Arc<[Option<T>]>;

/// Rows by slot.
#[derive(Clone, Debug)]
pub struct Table<T> {
    seed: u64,
    chunks: Vec<Option<Chunk<T>>>,
    rows: usize,
    /// Hash of the row in each slot as of the last [`Table::settle`], 0 without one.
    hashes: Vec<u64>,
    sum: u64,
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
}

impl<T: Row> Table<T> {
    /// An empty table; `seed` tells its rows from those of other tables in the state hash.
    pub fn new(seed: u64) -> Self {
        Self { seed, chunks: Vec::new(), rows: 0, hashes: Vec::new(), sum: 0, dirty: Vec::new(), is_dirty: Vec::new() }
    }

    /// Rows in the table.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// The row in `slot`.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK_ROWS)?.as_ref()?[slot % CHUNK_ROWS].as_ref()
    }

    /// The row in `slot`, to be written.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let at = slot as usize;
        let chunk = self.chunks.get_mut(at / CHUNK_ROWS)?.as_mut()?;
        chunk[at % CHUNK_ROWS].as_ref()?;
        if !self.is_dirty[at] {
            self.is_dirty[at] = true;
            self.dirty.push(slot);
        }
        Arc::make_mut(chunk)[at % CHUNK_ROWS].as_mut()
    }

    /// Puts a row into `slot`, or takes it out; returns what was there.
    pub fn replace(&mut self, slot: u32, row: Option<T>) -> Option<T> {
        let at = slot as usize;
        let number = at / CHUNK_ROWS;
        if self.chunks.len() <= number {
            row.as_ref()?;
            self.chunks.resize_with(number + 1, || None);
        }
        let length = self.chunks.len() * CHUNK_ROWS;
        if self.hashes.len() < length {
            self.hashes.resize(length, 0);
            self.is_dirty.resize(length, false);
        }
        let chunk = match &mut self.chunks[number] {
            Some(chunk) => chunk,
            empty => {
                row.as_ref()?;
                empty.insert(vec![None; CHUNK_ROWS].into())
            }
        };
        if !self.is_dirty[at] {
            self.is_dirty[at] = true;
            self.dirty.push(slot);
        }
        self.rows += usize::from(row.is_some());
        let old = std::mem::replace(&mut Arc::make_mut(chunk)[at % CHUNK_ROWS], row);
        self.rows -= usize::from(old.is_some());
        old
    }

    /// All rows by ascending slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().enumerate().filter_map(|(number, chunk)| chunk.as_ref().map(|chunk| (number, chunk))).flat_map(
            |(number, chunk)| {
                chunk
                    .iter()
                    .enumerate()
                    .filter_map(move |(at, row)| row.as_ref().map(|row| ((number * CHUNK_ROWS + at) as u32, row)))
            },
        )
    }

    /// Whether `slot` was written since the last [`Table::settle`].
    pub fn is_dirty(&self, slot: u32) -> bool {
        self.is_dirty.get(slot as usize).copied().unwrap_or(false)
    }

    /// Slots that were written since the last [`Table::settle`], in the order of their first write.
    pub fn dirty(&self) -> &[u32] {
        &self.dirty
    }

    /// Brings the sum up to date with every row that was written.
    pub fn settle(&mut self, scratch: &mut Writer) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for &slot in &dirty {
            let fresh = self.get(slot).map_or(0, |row| row_hash(self.seed, slot, row, scratch));
            let at = slot as usize;
            self.sum = self.sum.wrapping_add(fresh).wrapping_sub(self.hashes[at]);
            self.hashes[at] = fresh;
            self.is_dirty[at] = false;
        }
        dirty.clear();
        self.dirty = dirty;
    }

    /// The sum as of the last [`Table::settle`].
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The sum, from scratch.
    pub fn full_sum(&self) -> u64 {
        let mut scratch = Writer::new();
        self.iter().fold(0, |sum, (slot, row)| sum.wrapping_add(row_hash(self.seed, slot, row, &mut scratch)))
    }

    /// Writes all rows with their slots.
    pub fn put(&self, out: &mut Writer) {
        out.count(self.rows);
        for (slot, row) in self.iter() {
            out.u32(slot);
            out.nested(|out| row.put(out));
        }
    }

    /// Reads what [`Table::put`] wrote. Slots must ascend and lie below `slots`.
    pub fn take(seed: u64, slots: u32, input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut table = Self::new(seed);
        let mut floor = 0;
        for _ in 0..input.count(8)? {
            let slot = input.u32()?;
            if slot < floor || slot >= slots {
                return Err(CodecError::Invalid("a row's slot is out of order or out of range"));
            }
            floor = slot + 1;
            let mut bytes = Reader::new(input.bytes()?);
            let row = T::take(&mut bytes)?;
            bytes.finish()?;
            table.replace(slot, Some(row));
        }
        table.settle(&mut Writer::new());
        Ok(table)
    }
}

fn row_hash<T: Row>(seed: u64, slot: u32, row: &T, scratch: &mut Writer) -> u64 {
    scratch.clear();
    row.put(scratch);
    hash(mix(seed, u64::from(slot)), scratch.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Row for u64 {
        fn put(&self, out: &mut Writer) {
            out.u64(*self);
        }
        fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
            input.u64()
        }
    }

    proptest! {
        #[test]
        fn the_sum_is_a_function_of_the_content(writes in prop::collection::vec((0u32..300, prop::option::of(0u64..9)), 0..200)) {
            let mut table = Table::new(5);
            let mut model = std::collections::BTreeMap::new();
            let mut scratch = Writer::new();
            for (i, (slot, row)) in writes.into_iter().enumerate() {
                let old = match row {
                    Some(row) => model.insert(slot, row),
                    None => model.remove(&slot),
                };
                prop_assert_eq!(table.replace(slot, row), old);
                if i % 7 == 0 {
                    table.settle(&mut scratch);
                    prop_assert_eq!(table.sum(), table.full_sum());
                }
            }
            table.settle(&mut scratch);
            prop_assert_eq!(table.sum(), table.full_sum());
            prop_assert_eq!(table.len(), model.len());
            prop_assert!(table.iter().map(|(slot, row)| (slot, *row)).eq(model.into_iter()));
            let mut out = Writer::new();
            table.put(&mut out);
            let copy = Table::<u64>::take(5, 300, &mut Reader::new(out.as_slice())).unwrap();
            prop_assert_eq!(copy.sum(), table.sum());
        }
    }

    #[test]
    fn a_view_keeps_what_it_saw() {
        let mut table = Table::new(0);
        table.replace(3, Some(1u64));
        let view = table.clone();
        *table.get_mut(3).unwrap() = 2;
        table.replace(4, Some(9));
        assert_eq!((view.get(3), view.get(4)), (Some(&1), None));
        assert_eq!((table.get(3), table.get(4)), (Some(&2), Some(&9)));
    }

    #[test]
    fn slots_beyond_the_end_are_refused() {
        let mut table = Table::new(0);
        table.replace(4_000_000, Some(1u64));
        let mut out = Writer::new();
        table.put(&mut out);
        assert!(Table::<u64>::take(0, 10, &mut Reader::new(out.as_slice())).is_err());
    }
}
