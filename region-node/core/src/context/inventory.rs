//! Items: made, moved, laid down, picked up and unmade, each in exactly one inventory at any time.

use bytes::Bytes;
use marchland_types::{EntityId, ItemId};

use super::Context;
use crate::entity::Spawn;
use crate::game::Game;
use crate::inventory::{INVENTORY_MAX_ITEMS, ITEM_DATA_MAX_BYTES, Inventory, Item};

/// Why an item stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// The holder is not in the world.
    #[error("entity {0} is not here")]
    NoEntity(EntityId),
    /// The holder does not hold it.
    #[error("entity {holder} does not hold item {item}")]
    NotHeld {
        /// Who should hold it.
        holder: EntityId,
        /// What.
        item: ItemId,
    },
    /// The holder can hold no more.
    #[error("entity {0} can hold no more")]
    Full(EntityId),
    /// The item's data is longer than 64 bytes.
    #[error("{0} bytes are too much for an item's data")]
    DataTooLarge(usize),
    /// The region holds as many entities, or has made as many items, as it can.
    #[error("the region is full")]
    RegionFull,
    /// Items on the ground are picked up from entities that are no characters.
    #[error("entity {0} is a character")]
    IsCharacter(EntityId),
}

impl<G: Game> Context<'_, G> {
    fn take_inventory(&self, entity: EntityId) -> Result<(u32, Inventory), InventoryError> {
        let slot = self.world.slot_of(entity).ok_or(InventoryError::NoEntity(entity))?;
        Ok((slot, self.world.state.inventories.get(slot).cloned().unwrap_or_default()))
    }

    fn remove_item(&mut self, holder: EntityId, item: ItemId) -> Result<Item, InventoryError> {
        let (slot, mut inventory) = self.take_inventory(holder)?;
        let at = inventory.items.iter().position(|held| held.item == item).ok_or(InventoryError::NotHeld { holder, item })?;
        let item = inventory.items.remove(at);
        self.world.put_inventory(slot, Some(inventory));
        Ok(item)
    }

    fn room(&self, holder: EntityId) -> Result<(u32, Inventory), InventoryError> {
        let (slot, inventory) = self.take_inventory(holder)?;
        if inventory.items.len() < INVENTORY_MAX_ITEMS { Ok((slot, inventory)) } else { Err(InventoryError::Full(holder)) }
    }

    /// Makes a new item in the hands of `holder`.
    pub fn mint(&mut self, holder: EntityId, kind: u32, data: impl Into<Bytes>) -> Result<ItemId, InventoryError> {
        let data = data.into();
        if data.len() > ITEM_DATA_MAX_BYTES {
            return Err(InventoryError::DataTooLarge(data.len()));
        }
        let (slot, mut inventory) = self.room(holder)?;
        let item = self.world.new_item_id().ok_or(InventoryError::RegionFull)?;
        inventory.items.push(Item { item, kind, data });
        self.world.put_inventory(slot, Some(inventory));
        self.world.state.core.ledger.minted += 1;
        Ok(item)
    }

    /// Unmakes an item.
    pub fn unmake(&mut self, holder: EntityId, item: ItemId) -> Result<Item, InventoryError> {
        let item = self.remove_item(holder, item)?;
        self.world.state.core.ledger.destroyed += 1;
        Ok(item)
    }

    /// Moves an item from one holder to another.
    pub fn give(&mut self, from: EntityId, to: EntityId, item: ItemId) -> Result<(), InventoryError> {
        self.room(to)?;
        let item = self.remove_item(from, item)?;
        let (slot, mut inventory) = self.take_inventory(to)?;
        inventory.items.push(item);
        self.world.put_inventory(slot, Some(inventory));
        Ok(())
    }

    /// Lays an item down: it is then held by a new entity that `on_ground` describes.
    pub fn drop_item(&mut self, from: EntityId, item: ItemId, on_ground: Spawn) -> Result<EntityId, InventoryError> {
        if self.world.item(from, item).is_none() {
            return Err(InventoryError::NotHeld { holder: from, item });
        }
        let ground = self.spawn(on_ground).ok_or(InventoryError::RegionFull)?;
        self.give(from, ground, item)?;
        Ok(ground)
    }

    /// Picks up everything that an entity on the ground holds; the entity ceases. All or nothing.
    pub fn pick_up(&mut self, by: EntityId, ground: EntityId) -> Result<Vec<Item>, InventoryError> {
        if self.world.character_of(ground).is_some() {
            return Err(InventoryError::IsCharacter(ground));
        }
        let (ground_slot, lying) = self.take_inventory(ground)?;
        let (slot, mut inventory) = self.take_inventory(by)?;
        if inventory.items.len() + lying.items.len() > INVENTORY_MAX_ITEMS {
            return Err(InventoryError::Full(by));
        }
        inventory.items.extend_from_slice(&lying.items);
        self.world.put_inventory(ground_slot, None);
        self.world.put_inventory(slot, Some(inventory));
        self.despawn(ground);
        Ok(lying.items)
    }
}
