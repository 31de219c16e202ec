//! Which entities are in which cell. Not state: it is made anew from the bodies, so its order within a cell must be, and
//! is, by slot.

use std::collections::BTreeMap;

use marchland_types::CellId;

#[derive(Clone, Debug, Default)]
pub(crate) struct CellIndex {
    cells: BTreeMap<u32, Vec<u32>>,
}

impl CellIndex {
    pub(crate) fn insert(&mut self, cell: CellId, slot: u32) {
        let slots = self.cells.entry(cell.pack()).or_default();
        if let Err(at) = slots.binary_search(&slot) {
            slots.insert(at, slot);
        }
    }

    pub(crate) fn remove(&mut self, cell: CellId, slot: u32) {
        // An empty list stays: whoever walks to and fro over a border would allocate it again and again.
        if let Some(slots) = self.cells.get_mut(&cell.pack())
            && let Ok(at) = slots.binary_search(&slot)
        {
            slots.remove(at);
        }
    }

    /// Slots in `cell`, ascending.
    pub(crate) fn in_cell(&self, cell: CellId) -> &[u32] {
        self.cells.get(&cell.pack()).map_or(&[], Vec::as_slice)
    }

    /// Calls `each` with every slot in the cells from `low` to `high`, inclusive: by column, then row, then slot.
    pub(crate) fn in_rectangle(&self, low: CellId, high: CellId, mut each: impl FnMut(u32)) {
        let (columns, rows) = (i64::from(high.x) - i64::from(low.x) + 1, i64::from(high.z) - i64::from(low.z) + 1);
        if columns.max(0).saturating_mul(rows.max(0)) as usize > self.cells.len().saturating_mul(4) {
            // More cells than there are: look through those that exist, in the same order.
            let mut cells: Vec<CellId> = self.cells.keys().map(|cell| CellId::unpack(*cell)).collect();
            cells.sort_unstable();
            cells.retain(|cell| (low.x..=high.x).contains(&cell.x) && (low.z..=high.z).contains(&cell.z));
            cells.into_iter().for_each(|cell| self.in_cell(cell).iter().copied().for_each(&mut each));
            return;
        }
        for x in low.x..=high.x {
            for z in low.z..=high.z {
                self.in_cell(CellId { x, z }).iter().copied().for_each(&mut each);
            }
        }
    }
}
