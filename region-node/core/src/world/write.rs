//! The only writes to the state. While a handler of the game runs, each leaves in the journal what it wrote over, so that a
//! handler that panics is undone exactly, newest write first.

use bytes::Bytes;
use marchland_types::limits::NAME_MAX_BYTES;
use marchland_types::{CellId, CharacterId, EntityId, ItemId, MoveNumber};

use super::slots::SlotChange;
use super::{World, cell_of};
use crate::component::{Cell, Component, OldRow};
use crate::entity::{AUDIENCE_MAX, Body, Identity, LOOK_MAX_BYTES, POSITION_MAX_M, Spawn};
use crate::inventory::Inventory;
use crate::random::Pcg;
use crate::session::{Mover, Session};
use crate::timer::{Timer, TimerId};

/// What a write replaced.
pub(crate) enum Undo {
    Slot(SlotChange),
    Identity(u32, Option<Identity>),
    Body(u32, Option<Body>),
    Mover(u32, Option<Mover>),
    Session(u32, Option<Session>),
    Inventory(u32, Option<Inventory>),
    Component(u32, u32, OldRow),
    TimerStarted(TimerId),
    TimerStopped(TimerId, Timer),
    Stream(u32, Option<Pcg>),
}

impl World {
    /// Begins a handler: what it writes can be undone until [`World::commit`].
    pub(crate) fn begin(&mut self) {
        self.core_before.clone_from(&self.state.core);
        self.journal = Some(Vec::new());
    }

    /// Ends a handler that returned.
    pub(crate) fn commit(&mut self) {
        self.journal = None;
    }

    /// Ends a handler that panicked: nothing of it remains.
    pub(crate) fn roll_back(&mut self) {
        for undo in self.journal.take().into_iter().flatten().rev() {
            match undo {
                Undo::Slot(change) => self.state.slots.undo(change),
                Undo::Identity(slot, old) => {
                    self.put_identity(slot, old);
                }
                Undo::Body(slot, old) => {
                    self.put_body(slot, old);
                }
                Undo::Mover(slot, old) => {
                    self.put_mover(slot, old);
                }
                Undo::Session(slot, old) => {
                    self.put_session(slot, old);
                }
                Undo::Inventory(slot, old) => {
                    self.put_inventory(slot, old);
                }
                Undo::Component(tag, slot, old) => self.state.components.column(tag).restore(slot, old),
                Undo::TimerStarted(id) => {
                    self.state.timers.remove(id);
                }
                Undo::TimerStopped(id, timer) => self.state.timers.insert(id, timer),
                Undo::Stream(system, Some(old)) => {
                    self.state.streams.insert(system, old);
                }
                Undo::Stream(system, None) => {
                    self.state.streams.remove(&system);
                }
            }
        }
        self.state.core.clone_from(&self.core_before);
    }

    fn note(&mut self, undo: impl FnOnce() -> Undo) {
        if let Some(journal) = &mut self.journal {
            journal.push(undo());
        }
    }

    pub(crate) fn put_identity(&mut self, slot: u32, identity: Option<Identity>) -> bool {
        if let Some(new) = &identity {
            self.by_entity.insert(new.entity, slot);
            if let Some(character) = new.character {
                self.by_character.insert(character, slot);
            }
        }
        let first = !self.state.identities.is_dirty(slot);
        let new_entity = identity.as_ref().map(|new| (new.entity, new.character));
        let old = self.state.identities.replace(slot, identity);
        if let Some(gone) = &old
            && new_entity.is_none_or(|(entity, _)| entity != gone.entity)
        {
            self.by_entity.remove(&gone.entity);
            if let Some(character) = gone.character
                && self.by_character.get(&character) == Some(&slot)
                && new_entity.is_none_or(|(_, new)| new != Some(character))
            {
                self.by_character.remove(&character);
            }
        }
        if first {
            self.identities_before.push((slot, old.clone()));
        }
        let was = old.is_some();
        self.note(|| Undo::Identity(slot, old));
        was
    }

    pub(crate) fn put_body(&mut self, slot: u32, body: Option<Body>) -> bool {
        let new_cell = body.as_ref().map(cell_of);
        let first = !self.state.bodies.is_dirty(slot);
        let old = self.state.bodies.replace(slot, body);
        let old_cell = old.as_ref().map(cell_of);
        if old_cell != new_cell {
            self.reindex(slot, old_cell, new_cell);
        }
        if self.reach.0.is_some() {
            if body.is_some_and(|body| self.reach.is_outside(&body)) {
                self.outside.insert(slot);
            } else {
                self.outside.remove(&slot);
            }
        }
        if first {
            self.bodies_before.push((slot, old));
        }
        self.note(|| Undo::Body(slot, old));
        old.is_some()
    }

    fn reindex(&mut self, slot: u32, from: Option<CellId>, to: Option<CellId>) {
        if let Some(cell) = from {
            self.index.remove(cell, slot);
        }
        if let Some(cell) = to {
            self.index.insert(cell, slot);
        }
    }

    pub(crate) fn put_mover(&mut self, slot: u32, mover: Option<Mover>) -> bool {
        let old = self.state.movers.replace(slot, mover);
        let was = old.is_some();
        self.note(|| Undo::Mover(slot, old));
        was
    }

    /// A mover to be written by the core itself, outside of handlers.
    pub(crate) fn mover_mut(&mut self, slot: u32) -> Option<&mut Mover> {
        debug_assert!(self.journal.is_none(), "handlers write through put_mover");
        self.state.movers.get_mut(slot)
    }

    /// Replaces a session, or takes it out, and keeps the count of those that are away.
    pub(crate) fn put_session(&mut self, slot: u32, session: Option<Session>) -> bool {
        let away = |session: &Option<Session>| usize::from(session.as_ref().is_some_and(|session| !session.is_attached()));
        self.away += away(&session);
        let old = self.state.sessions.replace(slot, session);
        self.away -= away(&old);
        let was = old.is_some();
        self.note(|| Undo::Session(slot, old));
        was
    }

    /// A session to be written by the core itself, outside of handlers; its presence must stay.
    pub(crate) fn session_mut(&mut self, slot: u32) -> Option<&mut Session> {
        debug_assert!(self.journal.is_none(), "handlers write no sessions");
        self.state.sessions.get_mut(slot)
    }

    pub(crate) fn put_inventory(&mut self, slot: u32, inventory: Option<Inventory>) -> bool {
        let inventory = inventory.filter(|inventory| !inventory.items.is_empty());
        let old = self.state.inventories.replace(slot, inventory);
        let was = old.is_some();
        self.note(|| Undo::Inventory(slot, old));
        was
    }

    pub(crate) fn put_component<C: Component>(&mut self, slot: u32, component: Option<C>) {
        let Some(table) = self.state.components.typed_mut::<C>() else {
            panic!("component {} is not in the game's registry", C::NAME);
        };
        let old = table.replace(slot, component.map(Cell));
        self.note(|| Undo::Component(C::TAG, slot, old.map(|old| Box::new(old) as _)));
    }

    pub(crate) fn put_timer(&mut self, id: TimerId, timer: Option<Timer>) -> bool {
        match timer {
            Some(timer) => {
                self.state.timers.insert(id, timer);
                self.note(|| Undo::TimerStarted(id));
                true
            }
            None => {
                let old = self.state.timers.remove(id);
                if let Some(old) = old {
                    self.note(|| Undo::TimerStopped(id, old));
                }
                old.is_some()
            }
        }
    }

    /// The random stream of a system, to be drawn from.
    pub(crate) fn stream(&mut self, system: u32) -> &mut Pcg {
        let seed = self.state.genesis.as_ref().map_or(0, |genesis| genesis.seed);
        if self.journal.is_some() {
            let old = self.state.streams.get(&system).cloned();
            self.note(|| Undo::Stream(system, old));
        }
        self.state.streams.entry(system).or_insert_with(|| Pcg::of_system(seed, system))
    }

    /// An id that no entity of the world had before, or `None` when the region has given out all of its own.
    pub(crate) fn new_entity_id(&mut self) -> Option<EntityId> {
        let number = minted_number(&mut self.state.core.next_entity)?;
        Some(EntityId((u64::from(self.region().0) << 32) | number))
    }

    /// An id that no item of the world had before, or `None` when the region has given out all of its own.
    pub(crate) fn new_item_id(&mut self) -> Option<ItemId> {
        let number = minted_number(&mut self.state.core.next_item)?;
        Some(ItemId((u64::from(self.region().0) << 32) | number))
    }

    /// Puts a new entity into the world, or `None` when it is full. What is out of bounds is cut to them.
    pub(crate) fn spawn(&mut self, spawn: Spawn, character: Option<CharacterId>, move_number: MoveNumber) -> Option<EntityId> {
        let entity = self.new_entity_id()?;
        let slot = self.take_slot()?;
        let identity = Identity {
            entity,
            kind: spawn.kind,
            character,
            name: bounded_name(&spawn.name).into(),
            look: bounded(spawn.look),
            priority: spawn.priority,
            audience: bounded_audience(spawn.audience),
            move_number,
        };
        let position = spawn.position.map(within_reach);
        self.put_identity(slot, Some(identity));
        self.put_body(slot, Some(Body { position, yaw: spawn.yaw, ..Body::default() }));
        Some(entity)
    }

    /// Takes an entity with everything that belongs to it out of the world. Its items cease unless they were taken before.
    pub(crate) fn despawn(&mut self, slot: u32) {
        let Some(identity) = self.state.identities.get(slot) else { return };
        let entity = identity.entity;
        self.state.core.ledger.destroyed += self.state.inventories.get(slot).map_or(0, |inventory| inventory.items.len() as u64);
        for (id, _) in self.state.timers.of(entity) {
            self.put_timer(id, None);
        }
        let tags: Vec<u32> = self.state.components.columns.keys().copied().collect();
        for tag in tags {
            let old = self.state.components.column(tag).remove(slot);
            if old.is_some() {
                self.note(|| Undo::Component(tag, slot, old));
            }
        }
        self.put_inventory(slot, None);
        self.put_session(slot, None);
        self.put_mover(slot, None);
        self.put_body(slot, None);
        self.put_identity(slot, None);
        let change = self.state.slots.free(slot);
        self.note(|| Undo::Slot(change));
    }

    /// Puts a component given by tag and bytes. The bytes were read from a record and may be no component.
    pub(crate) fn put_component_bytes(&mut self, tag: u32, slot: u32, bytes: &[u8]) -> Result<(), crate::CodecError> {
        let old = self.state.components.column(tag).take_row(slot, bytes)?;
        self.note(|| Undo::Component(tag, slot, old));
        Ok(())
    }

    /// Takes a free slot, or `None` when the region is full.
    pub(crate) fn take_slot(&mut self) -> Option<u32> {
        let (slot, change) = self.state.slots.acquire()?;
        self.note(|| Undo::Slot(change));
        Some(slot)
    }

    /// What this tick changed, and forgets it: bodies and identities with what they were before.
    #[expect(clippy::type_complexity, reason = "two lists that are taken apart at once")]
    pub(crate) fn changes(&mut self) -> (&mut Vec<(u32, Option<Body>)>, &mut Vec<(u32, Option<Identity>)>) {
        (&mut self.bodies_before, &mut self.identities_before)
    }

    /// A body as it was when the tick began; `None` for what was not there.
    pub(crate) fn body_before(&self, slot: u32) -> Option<Body> {
        if !self.state.bodies.is_dirty(slot) {
            return self.state.bodies.get(slot).copied();
        }
        self.bodies_before.iter().find(|(at, _)| *at == slot).and_then(|(_, before)| *before)
    }

    /// Ends a tick: sums are brought up to date and freed slots may be used again.
    pub(crate) fn settle(&mut self) {
        debug_assert!(self.journal.is_none(), "a handler is still running");
        self.state.slots.rested();
        self.bodies_before.clear();
        self.identities_before.clear();
        let (channels, map) = (std::mem::take(&mut self.channels_changed), std::mem::take(&mut self.map_changed));
        self.state.settle(channels, map, &mut self.scratch);
    }
}

/// Counts up; ids leave 32 bits for it.
fn minted_number(counter: &mut u64) -> Option<u64> {
    let number = counter.checked_add(1).filter(|number| *number <= u64::from(u32::MAX))?;
    *counter = number;
    Some(number)
}

/// A position of the state: what is no number becomes 0, what is too far away comes nearer.
pub(crate) fn within_reach(metres: f32) -> f32 {
    if metres.is_nan() { 0.0 } else { metres.clamp(-POSITION_MAX_M, POSITION_MAX_M) }
}

/// At most the longest name, cut between characters.
fn bounded_name(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_MAX_BYTES)]
}

fn bounded(mut look: Bytes) -> Bytes {
    look.truncate(LOOK_MAX_BYTES);
    look
}

fn bounded_audience(mut audience: crate::entity::Audience) -> crate::entity::Audience {
    use crate::entity::Audience::{Named, Owner, Party, Public};
    match &mut audience {
        Party(characters) | Named(characters) => characters.truncate(AUDIENCE_MAX),
        Public | Owner(_) => {}
    }
    audience
}
