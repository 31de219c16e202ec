//! Unique items: each is in exactly one inventory, and the ledger explains how many there are.
//!
//! Every entity can hold items. One that lies on the ground is held by an entity that stands for it, so there is no second
//! kind of place where an item might be lost or doubled.

use bytes::Bytes;
use marchland_types::ItemId;

use crate::codec::{CodecError, Reader, Row, Writer};

/// Items that one entity holds, so that a list of them fits in a reply.
pub const INVENTORY_MAX_ITEMS: usize = 256;
/// Longest data of an item, in bytes.
pub const ITEM_DATA_MAX_BYTES: usize = 64;

/// A unique item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its id, never used again.
    pub item: ItemId,
    /// The game's kind.
    pub kind: u32,
    /// The game's, at most [`ITEM_DATA_MAX_BYTES`].
    pub data: Bytes,
}

/// What one entity holds, in the order in which it was acquired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// At most [`INVENTORY_MAX_ITEMS`].
    pub items: Vec<Item>,
}

impl Row for Inventory {
    fn put(&self, out: &mut Writer) {
        out.count(self.items.len());
        for item in &self.items {
            out.u64(item.item.0);
            out.u32(item.kind);
            out.bytes(&item.data);
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut items = Vec::new();
        for _ in 0..input.count(16)? {
            items.push(Item { item: ItemId(input.u64()?), kind: input.u32()?, data: input.owned()? });
        }
        if items.len() > INVENTORY_MAX_ITEMS {
            return Err(CodecError::Invalid("more items than an inventory holds"));
        }
        Ok(Self { items })
    }
}

/// What came to be and ceased: `present = minted + arrived - destroyed - left`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Made here.
    pub minted: u64,
    /// Unmade here.
    pub destroyed: u64,
    /// Came with characters from other groups.
    pub arrived: u64,
    /// Went to other groups.
    pub left: u64,
}

impl Ledger {
    /// Items that must be present.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.minted.wrapping_add(self.arrived).wrapping_sub(self.destroyed).wrapping_sub(self.left)
    }
}
