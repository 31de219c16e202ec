//! Which items changed hands since a handler began, read from its journal.

use std::collections::BTreeMap;

use marchland_types::{EntityId, ItemId};

use super::{Undo, World};
use crate::deed::{Holder, ItemMove};
use crate::doing::Handler;
use crate::inventory::Item;

impl World {
    /// Items that the running handler moved, by id.
    pub(crate) fn items_moved(&self, handler: Handler) -> Vec<ItemMove> {
        let mut inventories: BTreeMap<u32, &[Item]> = BTreeMap::new();
        let mut entities: BTreeMap<u32, Option<EntityId>> = BTreeMap::new();
        for undo in self.journal.iter().flatten() {
            match undo {
                // The first write found what was there before.
                Undo::Inventory(slot, old) => {
                    inventories.entry(*slot).or_insert(old.as_ref().map_or(&[], |inventory| &inventory.items));
                }
                Undo::Identity(slot, old) => {
                    entities.entry(*slot).or_insert(old.as_ref().map(|identity| identity.entity));
                }
                Undo::Slot(_)
                | Undo::Body(..)
                | Undo::Mover(..)
                | Undo::Session(..)
                | Undo::Component(..)
                | Undo::TimerStarted(_)
                | Undo::TimerStopped(..)
                | Undo::Stream(..) => {}
            }
        }
        let mut moves: BTreeMap<ItemId, ItemMove> = BTreeMap::new();
        let nobody = |item: &Item| ItemMove { item: item.item, kind: item.kind, from: Holder::Nobody, to: Holder::Nobody };
        for (slot, before) in inventories {
            let now = self.state.identities.get(slot).map(|identity| identity.entity);
            let then = entities.get(&slot).copied().unwrap_or(now);
            for item in before {
                moves.entry(item.item).or_insert_with(|| nobody(item)).from = then.map_or(Holder::Nobody, Holder::Entity);
            }
            for item in self.state.inventories.get(slot).map_or(&[][..], |inventory| &inventory.items) {
                moves.entry(item.item).or_insert_with(|| nobody(item)).to = now.map_or(Holder::Nobody, Holder::Entity);
            }
        }
        if let Handler::Enter(character) = handler {
            // Whatever was made before, the character brings along.
            let region = u64::from(self.region().0);
            let is_new = |item: ItemId| item.0 >> 32 == region && item.0 & u64::from(u32::MAX) > self.core_before.next_item;
            for moved in moves.values_mut().filter(|moved| moved.from == Holder::Nobody && !is_new(moved.item)) {
                moved.from = Holder::Dormant(character);
            }
        }
        moves.into_values().filter(|moved| moved.from != moved.to).collect()
    }
}
