//! What always holds of a state between two entries. Checked when a state is restored, in tests and in audits.

use std::collections::{BTreeMap, BTreeSet};

use marchland_types::{CharacterId, EntityId, ItemId};

use crate::game::Game;
use crate::record::{Record, items_of};
use crate::region::Region;
use crate::world::state::State;

/// A state that can not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvariantViolation {
    /// A slot has one part of an entity and lacks another, or is free and has any.
    #[error("slot {slot}: {reason}")]
    Slot {
        /// Which.
        slot: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Two entities with one id.
    #[error("entity {0} is there twice")]
    EntityTwice(EntityId),
    /// A character in two places.
    #[error("character {0} is there twice")]
    CharacterTwice(CharacterId),
    /// An item in two inventories.
    #[error("item {0} is there twice")]
    ItemTwice(ItemId),
    /// The ledger says otherwise.
    #[error("{found} items are there, the ledger explains {expected}")]
    Items {
        /// Items found.
        found: u64,
        /// `minted + arrived - destroyed - left`.
        expected: u64,
    },
    /// A number was given out that the counters do not know of.
    #[error("{0}")]
    Counter(&'static str),
    /// A stored record is none.
    #[error("the record of character {0} does not decode")]
    Record(CharacterId),
    /// The incremental hash is not that of the state.
    #[error("the hash of {part} is {incremental:#018x}, from scratch it is {full:#018x}")]
    Hash {
        /// Which part.
        part: &'static str,
        /// As kept.
        incremental: u64,
        /// As computed.
        full: u64,
    },
    /// The game's own check.
    #[error("the game's rules are broken: {0}")]
    Game(String),
}

/// Checks that the rows of all tables fit together.
pub(crate) fn check_rows(state: &State) -> Result<(), InvariantViolation> {
    check_slots(state)?;
    let mut entities = BTreeSet::new();
    let mut characters = BTreeSet::new();
    for (slot, identity) in state.identities.iter() {
        if !entities.insert(identity.entity) {
            return Err(InvariantViolation::EntityTwice(identity.entity));
        }
        if let Some(character) = identity.character
            && !characters.insert(character)
        {
            return Err(InvariantViolation::CharacterTwice(character));
        }
        let session = state.sessions.get(slot).map(|session| session.character);
        if session != identity.character {
            return Err(InvariantViolation::Slot { slot, reason: "the session is not the character's" });
        }
    }
    let mut items = Items::default();
    for (_, inventory) in state.inventories.iter() {
        items.add(inventory.items.iter().map(|item| item.item))?;
    }
    for (character, dormant) in state.dormants.iter() {
        if !characters.insert(character) {
            return Err(InvariantViolation::CharacterTwice(character));
        }
        let record = Record::take(&dormant.record).map_err(|_| InvariantViolation::Record(character))?;
        if !entities.insert(record.entity()) {
            return Err(InvariantViolation::EntityTwice(record.entity()));
        }
        items.add(record.inventory.items.iter().map(|item| item.item))?;
    }
    let expected = state.core.ledger.present();
    if items.count != expected {
        return Err(InvariantViolation::Items { found: items.count, expected });
    }
    // Items of handoffs on their way are no part of the ledger, but must not be anywhere else.
    for handoff in state.set_aside.iter() {
        items.add(items_of(&handoff.record).into_iter().map(ItemId))?;
    }
    check_counters(state, &entities)
}

#[derive(Default)]
struct Items {
    seen: BTreeSet<ItemId>,
    count: u64,
}

impl Items {
    fn add(&mut self, items: impl Iterator<Item = ItemId>) -> Result<(), InvariantViolation> {
        for item in items {
            self.count += 1;
            if !self.seen.insert(item) {
                return Err(InvariantViolation::ItemTwice(item));
            }
        }
        Ok(())
    }
}

fn check_slots(state: &State) -> Result<(), InvariantViolation> {
    let wrong = |slot, reason| Err(InvariantViolation::Slot { slot, reason });
    let mut free = BTreeMap::new();
    for slot in state.slots.free_slots() {
        free.insert(slot, ());
    }
    let used = state.identities.len();
    if state.bodies.len() != used {
        return wrong(0, "there are not as many bodies as identities");
    }
    if used + free.len() != state.slots.end as usize {
        return wrong(state.slots.end, "used and free slots are not all slots");
    }
    for (slot, _) in state.identities.iter() {
        if free.contains_key(&slot) {
            return wrong(slot, "it is used and free");
        }
        if state.bodies.get(slot).is_none() {
            return wrong(slot, "an entity without a body");
        }
    }
    for (slot, _) in state.sessions.iter() {
        if state.movers.get(slot).is_none() {
            return wrong(slot, "a session without movement");
        }
    }
    if state.movers.len() != state.sessions.len() {
        return wrong(0, "there is not as much movement as there are sessions");
    }
    let columns = state.components.columns.values().flat_map(|column| column.slots());
    let others = state.sessions.iter().map(|(slot, _)| slot).chain(state.inventories.iter().map(|(slot, _)| slot));
    for slot in columns.chain(others) {
        if state.identities.get(slot).is_none() {
            return wrong(slot, "it has parts but no entity");
        }
    }
    Ok(())
}

fn check_counters(state: &State, entities: &BTreeSet<EntityId>) -> Result<(), InvariantViolation> {
    let region = state.genesis.as_ref().map_or(0, |genesis| u64::from(genesis.region));
    let ours = entities.range(EntityId(region << 32)..=EntityId((region << 32) | 0xffff_ffff)).next_back();
    if ours.is_some_and(|entity| (entity.0 & 0xffff_ffff) > state.core.next_entity) {
        return Err(InvariantViolation::Counter("an entity's number was never given out"));
    }
    let most = u64::from(u32::MAX);
    if state.core.next_entity > most || state.core.next_item > most {
        return Err(InvariantViolation::Counter("a region counts its ids in 32 bits"));
    }
    if state.timers.iter().any(|(id, _)| id.number > state.core.next_timer) {
        return Err(InvariantViolation::Counter("a timer's number was never given out"));
    }
    for (_, timer) in state.timers.iter() {
        if timer.entity.is_some_and(|entity| !entities.contains(&entity)) {
            return Err(InvariantViolation::Counter("a timer belongs to an entity that is not there"));
        }
    }
    Ok(())
}

impl<G: Game> Region<G> {
    /// Checks everything that always holds between two entries, the game's own rules included.
    pub fn check(&self) -> Result<(), InvariantViolation> {
        check_rows(&self.world.state)?;
        let mut scratch = crate::codec::Writer::new();
        let full = self.world.state.hashes(true, &mut scratch);
        for ((part, incremental), (_, full)) in self.component_hashes().into_iter().zip(full) {
            if incremental != full {
                return Err(InvariantViolation::Hash { part, incremental, full });
            }
        }
        match &self.ground {
            Some(ground) => self.game.check(&self.world, ground).map_err(InvariantViolation::Game),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use marchland_types::{MoveNumber, SessionEpoch};

    use super::*;
    use crate::component::Registry;
    use crate::entity::Spawn;
    use crate::inventory::{Inventory, Item};
    use crate::session::{Mover, Session};
    use crate::world::World;

    /// Two characters, one of which holds an item.
    fn sound() -> World {
        let mut world = World::new(State::new(Registry::default()));
        for character in [1, 2].map(CharacterId) {
            let entity = world.spawn(Spawn::new(1), Some(character), MoveNumber(1)).unwrap();
            let slot = world.slot_of(entity).unwrap();
            world.put_session(slot, Some(Session::new(character, SessionEpoch(1), Bytes::new(), 0)));
            world.put_mover(slot, Some(Mover::default()));
        }
        let item = Item { item: ItemId(5), kind: 1, data: Bytes::new() };
        world.put_inventory(0, Some(Inventory { items: vec![item] }));
        world.state.core.ledger.minted = 1;
        world.state.core.next_item = 5;
        assert_eq!(check_rows(&world.state), Ok(()));
        world
    }

    #[test]
    fn planted_faults_are_found() {
        type Plant = fn(&mut World);
        let plants: [(&str, Plant); 10] = [
            ("a doubled item", |world| {
                let doubled = world.state.inventories.get(0).cloned();
                world.put_inventory(1, doubled);
                world.state.core.ledger.minted = 2;
            }),
            ("a lost item", |world| drop(world.state.inventories.replace(0, None))),
            ("an item from nowhere", |world| world.state.core.ledger.minted = 0),
            ("a lost session", |world| drop(world.state.sessions.replace(1, None))),
            ("lost movement", |world| drop(world.state.movers.replace(1, None))),
            ("a lost body", |world| {
                world.state.bodies.replace(1, None);
            }),
            ("a doubled character", |world| {
                let mut identity = world.state.identities.get(1).cloned().unwrap();
                identity.character = Some(CharacterId(1));
                world.state.identities.replace(1, Some(identity));
                let session = world.state.sessions.get(0).cloned();
                world.state.sessions.replace(1, session);
            }),
            ("a doubled entity", |world| {
                let entity = world.state.identities.get(0).unwrap().entity;
                world.state.identities.get_mut(1).unwrap().entity = entity;
            }),
            ("a used slot that is free", |world| {
                world.state.slots.free(1);
            }),
            ("a number that was never given out", |world| world.state.core.next_entity = 1),
        ];
        for (what, plant) in plants {
            let mut world = sound();
            plant(&mut world);
            assert!(check_rows(&world.state).is_err(), "{what} was not found");
        }
    }

    #[test]
    fn a_write_past_the_sums_is_found() {
        let mut world = sound();
        world.settle();
        let mut scratch = crate::codec::Writer::new();
        let hashes = |world: &World, full, scratch: &mut _| world.state.hashes(full, scratch);
        assert_eq!(hashes(&world, false, &mut scratch), hashes(&world, true, &mut scratch));
        world.state.bodies.get_mut(1).unwrap().yaw = 9;
        let (kept, full) = (hashes(&world, false, &mut scratch), hashes(&world, true, &mut scratch));
        let first = kept.iter().zip(&full).find(|(kept, full)| kept != full).map(|(kept, _)| kept.0);
        assert_eq!(first, Some("bodies"));
    }
}
