//! Typed components of a game, stored by slot under stable tags.
//!
//! A column that a checkpoint has and the game does not know is kept as it is and written back, so that a rules version
//! that was taken back loses nothing.

use std::any::Any;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Row, Writer};
use crate::table::Table;

/// A fact about an entity that the game's rules need, such as how much ore is left in a vein.
///
/// ```
/// use marchland_region_core::{CodecError, Component, Reader, Writer};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Vein {
///     ore_left: u32,
/// }
///
/// impl Component for Vein {
///     const TAG: u32 = 1; // stable for ever: it is in checkpoints
///     const NAME: &'static str = "vein";
///
///     fn put(&self, out: &mut Writer) {
///         out.u32(self.ore_left);
///     }
///
///     fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
///         Ok(Self { ore_left: input.u32()? })
///     }
/// }
/// ```
pub trait Component: Clone + Send + Sync + 'static {
    /// Names the component in checkpoints and handoffs. Never reused for another one.
    const TAG: u32;
    /// Names it for people.
    const NAME: &'static str;
    /// Appends the component. Equal components give equal bytes.
    fn put(&self, out: &mut Writer);
    /// Reads what [`Component::put`] wrote, now or in an earlier rules version.
    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError>;
    /// The component came with its entity to a region whose clock is that much ahead: a moment in it, such as a deadline, is to be moved
    /// as much, so that it is as far away as it was.
    fn shift_ms(&mut self, _later_ms: i64) {}
}

/// A [`Component`] as a row.
#[derive(Clone)]
pub(crate) struct Cell<C>(pub(crate) C);

impl<C: Component> Row for Cell<C> {
    fn put(&self, out: &mut Writer) {
        self.0.put(out);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        C::take(input).map(Cell)
    }

    fn shift_ms(&mut self, later_ms: i64) {
        self.0.shift_ms(later_ms);
    }
}

/// A row whose type nobody knows.
#[derive(Clone)]
struct Opaque(Bytes);

impl Row for Opaque {
    fn put(&self, out: &mut Writer) {
        out.as_mut_vec().extend_from_slice(&self.0);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let left = input.left();
        input.raw(left).map(|bytes| Self(Bytes::copy_from_slice(bytes)))
    }
}

/// What was in a place before it was written: a [`Cell`] of the column's type.
pub(crate) type OldRow = Option<Box<dyn Any + Send + Sync>>;

/// A column of components, whatever their type.
pub(crate) trait Column: Send + Sync {
    fn name(&self) -> &'static str;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn share(&self) -> Box<dyn Column>;
    /// Appends the row's bytes; false when there is none.
    fn put_row(&self, slot: u32, out: &mut Writer) -> bool;
    fn take_row(&mut self, slot: u32, bytes: &[u8]) -> Result<OldRow, CodecError>;
    fn shift_ms(&mut self, slot: u32, later_ms: i64);
    fn remove(&mut self, slot: u32) -> OldRow;
    fn restore(&mut self, slot: u32, old: OldRow);
    fn settle(&mut self, scratch: &mut Writer);
    fn sum(&self) -> u64;
    fn full_sum(&self) -> u64;
    fn put(&self, out: &mut Writer);
    fn take(&mut self, slots: u32, input: &mut Reader<'_>) -> Result<(), CodecError>;
    /// Slots with a row, ascending.
    fn slots(&self) -> Vec<u32>;
}

pub(crate) struct Typed<T> {
    name: &'static str,
    seed: u64,
    pub(crate) table: Table<T>,
}

fn seed_of(tag: u32) -> u64 {
    0x636f_6c00_0000_0000 | u64::from(tag)
}

impl<T: Row> Typed<T> {
    fn new(tag: u32, name: &'static str) -> Self {
        Self { name, seed: seed_of(tag), table: Table::new(seed_of(tag)) }
    }

    fn boxed(old: Option<T>) -> OldRow {
        old.map(|old| Box::new(old) as Box<dyn Any + Send + Sync>)
    }
}

impl<T: Row> Column for Typed<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn share(&self) -> Box<dyn Column> {
        Box::new(Self { name: self.name, seed: self.seed, table: self.table.clone() })
    }

    fn put_row(&self, slot: u32, out: &mut Writer) -> bool {
        match self.table.get(slot) {
            Some(row) => {
                row.put(out);
                true
            }
            None => false,
        }
    }

    fn take_row(&mut self, slot: u32, bytes: &[u8]) -> Result<OldRow, CodecError> {
        let mut input = Reader::new(bytes);
        let row = T::take(&mut input)?;
        input.finish()?;
        Ok(Self::boxed(self.table.replace(slot, Some(row))))
    }

    fn shift_ms(&mut self, slot: u32, later_ms: i64) {
        if let Some(row) = self.table.get_mut(slot) {
            row.shift_ms(later_ms);
        }
    }

    fn remove(&mut self, slot: u32) -> OldRow {
        self.table.get(slot)?;
        Self::boxed(self.table.replace(slot, None))
    }

    fn restore(&mut self, slot: u32, old: OldRow) {
        let old = old.map(|old| *old.downcast::<T>().expect("a row goes back to the column that it came from"));
        self.table.replace(slot, old);
    }

    fn settle(&mut self, scratch: &mut Writer) {
        self.table.settle(scratch);
    }

    fn sum(&self) -> u64 {
        self.table.sum()
    }

    fn full_sum(&self) -> u64 {
        self.table.full_sum()
    }

    fn put(&self, out: &mut Writer) {
        self.table.put(out);
    }

    fn take(&mut self, slots: u32, input: &mut Reader<'_>) -> Result<(), CodecError> {
        self.table = Table::take(self.seed, slots, input)?;
        Ok(())
    }

    fn slots(&self) -> Vec<u32> {
        self.table.iter().map(|(slot, _)| slot).collect()
    }
}

/// The components that a game's rules use.
#[derive(Default)]
pub struct Registry {
    pub(crate) columns: BTreeMap<u32, Box<dyn Column>>,
}

impl Registry {
    /// Makes component `C` known. Panics when its tag is taken: that is a mistake in the game's code, met at its first start.
    pub fn add<C: Component>(&mut self) {
        let before = self.columns.insert(C::TAG, Box::new(Typed::<Cell<C>>::new(C::TAG, C::NAME)));
        assert!(before.is_none(), "two components have the tag {}", C::TAG);
    }

    /// The column with this tag, made for opaque rows when no component has it.
    pub(crate) fn column(&mut self, tag: u32) -> &mut dyn Column {
        self.columns.entry(tag).or_insert_with(|| Box::new(Typed::<Opaque>::new(tag, "unknown component"))).as_mut()
    }

    pub(crate) fn typed<C: Component>(&self) -> Option<&Table<Cell<C>>> {
        self.columns.get(&C::TAG)?.as_any().downcast_ref::<Typed<Cell<C>>>().map(|column| &column.table)
    }

    pub(crate) fn typed_mut<C: Component>(&mut self) -> Option<&mut Table<Cell<C>>> {
        self.columns.get_mut(&C::TAG)?.as_any_mut().downcast_mut::<Typed<Cell<C>>>().map(|column| &mut column.table)
    }

    pub(crate) fn share(&self) -> Self {
        Self { columns: self.columns.iter().map(|(tag, column)| (*tag, column.share())).collect() }
    }
}
