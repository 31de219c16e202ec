//! A region's world: the state with its indexes, as rules, queries and the shell read it.
//!
//! Nothing outside this folder writes the state but through `write`, which keeps the indexes, the hashes, the changes
//! of the tick and the journal of a running handler in step with it.

pub(crate) mod core;
mod index;
mod moved;
mod query;
mod reach;
pub(crate) mod slots;
pub(crate) mod state;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use marchland_proto::cluster;
use marchland_proto::records::{OwnState, quantize};
use marchland_proto::storage::Neighbour;
use marchland_types::{CellId, CharacterId, CutNumber, EntityId, GroupId, ItemId, LogIndex, MapEpoch, RegionId, Tick, WorldId};

use self::core::Core;
pub use self::core::{BarrierTo, Counters};
use self::index::CellIndex;
pub use self::query::{Near, RayHit};
pub use self::reach::AUTHORITY_MAX_M;
pub(crate) use self::reach::Reach;
use self::state::State;
pub(crate) use self::write::{Undo, within_reach};
use crate::codec::Writer;
use crate::component::Component;
use crate::entity::{Body, Identity};
use crate::inventory::{Item, Ledger};
use crate::session::{Mover, Session};
use crate::stub::Stub;

/// The slot of every ghost: none.
pub const GHOST_SLOT: u32 = u32::MAX;

/// The world as rules see it, read only. [`crate::Context`] adds what rules may do.
pub struct World {
    pub(crate) state: State,
    by_entity: BTreeMap<EntityId, u32>,
    by_character: BTreeMap<CharacterId, u32>,
    index: CellIndex,
    reach: Reach,
    /// Who stands on a neighbour's ground, by slot.
    outside: BTreeSet<u32>,
    /// Sessions that are not attached.
    away: usize,
    /// What a running handler wrote over, newest last.
    journal: Option<Vec<Undo>>,
    core_before: Core,
    /// Bodies as they were before this tick's first write, in the order of those.
    bodies_before: Vec<(u32, Option<Body>)>,
    identities_before: Vec<(u32, Option<Identity>)>,
    pub(crate) channels_changed: bool,
    pub(crate) map_changed: bool,
    pub(crate) scratch: Writer,
}

/// An entity as it is now.
#[derive(Clone, Copy, Debug)]
pub struct EntityView<'a> {
    /// The owner's dense number of it. Reused, but never within a tick.
    pub slot: u32,
    /// What it is.
    pub identity: &'a Identity,
    /// Where it is.
    pub body: &'a Body,
}

impl EntityView<'_> {
    /// The cell that it is in.
    #[must_use]
    pub fn cell(&self) -> CellId {
        cell_of(self.body)
    }

    /// As edges are told of it.
    #[must_use]
    pub fn record(&self) -> cluster::EntityRecord {
        let audience = &self.identity.audience;
        let [x, y, z] = self.body.position.map(quantize);
        cluster::EntityRecord {
            slot: self.slot,
            entity: self.identity.entity.0,
            kind: self.identity.kind,
            name: self.identity.name.as_ref().into(),
            look: self.identity.look.clone(),
            x,
            y,
            z,
            yaw: u32::from(self.body.yaw),
            priority: self.identity.priority,
            audience: audience_record(audience),
            move_number: self.identity.move_number.0,
        }
    }
}

/// An audience on the wire: absent when it is public.
pub(crate) fn audience_record(audience: &crate::entity::Audience) -> Option<cluster::Audience> {
    (audience.kind() != 0).then(|| cluster::Audience {
        kind: audience.kind(),
        characters: audience.characters().iter().map(|character| character.0).collect(),
    })
}

pub(crate) fn cell_of(body: &Body) -> CellId {
    CellId::of(body.position[0], body.position[2])
}

impl World {
    pub(crate) fn new(state: State) -> Self {
        let mut world = Self {
            state,
            by_entity: BTreeMap::new(),
            by_character: BTreeMap::new(),
            index: CellIndex::default(),
            reach: Reach::default(),
            outside: BTreeSet::new(),
            away: 0,
            journal: None,
            core_before: Core::default(),
            bodies_before: Vec::new(),
            identities_before: Vec::new(),
            channels_changed: true,
            map_changed: true,
            scratch: Writer::new(),
        };
        for (slot, identity) in world.state.identities.iter() {
            world.by_entity.insert(identity.entity, slot);
            if let Some(character) = identity.character {
                world.by_character.insert(character, slot);
            }
        }
        for (slot, body) in world.state.bodies.iter() {
            world.index.insert(cell_of(body), slot);
        }
        world.look_at_map();
        world.away = world.state.sessions.iter().filter(|(_, session)| !session.is_attached()).count();
        world
    }

    /// Number of the tick that runs, or ran last.
    #[must_use]
    pub fn tick(&self) -> Tick {
        self.state.core.tick
    }

    /// Region time in milliseconds since 1970; it never goes back.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.state.core.now_ms
    }

    /// The newest cut that was taken.
    #[must_use]
    pub fn cut_number(&self) -> CutNumber {
        self.state.core.cut
    }

    /// Index of the last entry that was applied.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.state.core.applied
    }

    /// Which region of the world this is; 0 before its genesis.
    #[must_use]
    pub fn region(&self) -> RegionId {
        RegionId(self.state.genesis.as_ref().map_or(0, |genesis| genesis.region))
    }

    /// Which world it is part of; 0 before its genesis.
    #[must_use]
    pub fn world(&self) -> WorldId {
        WorldId(self.state.genesis.as_ref().map_or(0, |genesis| genesis.world & 0xff_ffff))
    }

    /// The group that this region is.
    #[must_use]
    pub fn group(&self) -> GroupId {
        let region = self.region();
        let own = self.state.map.iter().find(|neighbour| neighbour.region == region.0);
        own.map_or_else(|| GroupId::region(self.world(), region), |own| GroupId(own.group))
    }

    /// The region map in force, with its version.
    #[must_use]
    pub fn map(&self) -> (MapEpoch, &[Neighbour]) {
        (self.state.core.map_epoch, &self.state.map)
    }

    /// The rectangle of ground that is this region's: least and greatest (east, south), in metres. `None` before its genesis.
    #[must_use]
    pub fn own_ground(&self) -> Option<[[f32; 2]; 2]> {
        let region = self.region();
        let own = self.state.map.iter().find(|neighbour| neighbour.region == region.0)?;
        Some([[own.min_x, own.min_z], [own.max_x, own.max_z]])
    }

    /// The map is there, or another one: who stands outside is looked for anew.
    pub(crate) fn look_at_map(&mut self) {
        self.reach = Reach(if self.state.map.len() > 1 { self.own_ground() } else { None });
        let (reach, bodies) = (self.reach, self.state.bodies.iter());
        self.outside = bodies.filter(|(_, body)| reach.is_outside(body)).map(|(slot, _)| slot).collect();
    }

    /// Who stands on a neighbour's ground, by slot.
    pub(crate) fn outside(&self) -> &BTreeSet<u32> {
        &self.outside
    }

    /// The ground that is this region's own.
    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// What happened that somebody should look at.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.state.core.counters
    }

    /// How many items came to be and ceased.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.state.core.ledger
    }

    /// Entities in the world.
    #[must_use]
    pub fn entity_count(&self) -> usize {
        self.state.identities.len()
    }

    /// Sessions whose character is in the world.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.state.sessions.len()
    }

    /// Sessions with a client.
    #[must_use]
    pub fn attached_count(&self) -> usize {
        self.state.sessions.len() - self.away
    }

    /// Characters that are not in the world but kept by this region.
    #[must_use]
    pub fn dormant_count(&self) -> usize {
        self.state.dormants.len()
    }

    /// The slot of an entity.
    #[must_use]
    pub fn slot_of(&self, entity: EntityId) -> Option<u32> {
        self.by_entity.get(&entity).copied()
    }

    pub(crate) fn slot_of_character(&self, character: CharacterId) -> Option<u32> {
        self.by_character.get(&character).copied()
    }

    pub(crate) fn index_cell(&self, cell: CellId) -> &[u32] {
        self.index.in_cell(cell)
    }

    /// The entity in a slot.
    #[inline]
    #[must_use]
    pub fn at_slot(&self, slot: u32) -> Option<EntityView<'_>> {
        Some(EntityView { slot, identity: self.state.identities.get(slot)?, body: self.state.bodies.get(slot)? })
    }

    /// An entity of this region, or the ghost of a neighbour's: that one can be looked at and not changed.
    #[must_use]
    pub fn entity(&self, entity: EntityId) -> Option<EntityView<'_>> {
        self.own(entity).or_else(|| {
            let (_, ghost) = self.state.borders.ghosts.find(entity)?;
            Some(EntityView { slot: GHOST_SLOT, identity: &ghost.identity, body: &ghost.body })
        })
    }

    /// An entity of this region.
    #[must_use]
    pub fn own(&self, entity: EntityId) -> Option<EntityView<'_>> {
        self.at_slot(self.slot_of(entity)?)
    }

    /// The group of the neighbour whose ghost an entity is; `None` for one of this region and for what is not there.
    #[must_use]
    pub fn ghost_of(&self, entity: EntityId) -> Option<GroupId> {
        if self.slot_of(entity).is_some() { None } else { self.state.borders.ghosts.find(entity).map(|(group, _)| group) }
    }

    /// Where a character went that left this region, until the directory knows of it.
    #[must_use]
    pub fn stub(&self, character: CharacterId) -> Option<&Stub> {
        self.state.borders.stubs.get(character)
    }

    /// All entities, by slot.
    pub fn entities(&self) -> impl Iterator<Item = EntityView<'_>> {
        self.state
            .identities
            .iter()
            .filter_map(|(slot, identity)| Some(EntityView { slot, identity, body: self.state.bodies.get(slot)? }))
    }

    /// Where an entity is: east, up, south, in metres.
    #[must_use]
    pub fn position(&self, entity: EntityId) -> Option<[f32; 3]> {
        self.entity(entity).map(|view| view.body.position)
    }

    /// The entity that embodies a character.
    #[must_use]
    pub fn entity_of(&self, character: CharacterId) -> Option<EntityId> {
        Some(self.state.identities.get(self.slot_of_character(character)?)?.entity)
    }

    /// The character that an entity embodies.
    #[must_use]
    pub fn character_of(&self, entity: EntityId) -> Option<CharacterId> {
        self.entity(entity)?.identity.character
    }

    /// A component of an entity.
    #[must_use]
    pub fn get<C: Component>(&self, entity: EntityId) -> Option<&C> {
        self.state.components.typed::<C>()?.get(self.slot_of(entity)?).map(|row| &row.0)
    }

    /// All entities that have a component, by slot.
    pub fn with<C: Component>(&self) -> impl Iterator<Item = (EntityId, &C)> {
        self.state
            .components
            .typed::<C>()
            .into_iter()
            .flat_map(|table| table.iter().filter_map(|(slot, row)| Some((self.state.identities.get(slot)?.entity, &row.0))))
    }

    /// All entities that have a component which is wanted, by slot. The others cost a look at their component and no more.
    pub fn with_wanted<C: Component>(&self, wanted: impl Fn(&C) -> bool) -> impl Iterator<Item = (EntityId, &C)> {
        let rows = self.state.components.typed::<C>().into_iter().flat_map(|table| table.iter());
        let wanted = rows.filter(move |(_, row)| wanted(&row.0));
        wanted.filter_map(|(slot, row)| Some((self.state.identities.get(slot)?.entity, &row.0)))
    }

    /// What an entity holds, in the order in which it was acquired.
    #[must_use]
    pub fn items(&self, entity: EntityId) -> &[Item] {
        self.slot_of(entity).and_then(|slot| self.state.inventories.get(slot)).map_or(&[], |inventory| &inventory.items)
    }

    /// An item of an entity.
    #[must_use]
    pub fn item(&self, entity: EntityId, item: ItemId) -> Option<&Item> {
        self.items(entity).iter().find(|held| held.item == item)
    }

    pub(crate) fn session_at(&self, slot: u32) -> Option<(&Session, &Mover)> {
        Some((self.state.sessions.get(slot)?, self.state.movers.get(slot)?))
    }

    pub(crate) fn session_of(&self, character: CharacterId) -> Option<(u32, &Session, &Mover)> {
        let slot = self.slot_of_character(character)?;
        let (session, mover) = self.session_at(slot)?;
        Some((slot, session, mover))
    }

    pub(crate) fn own_state(&self, slot: u32) -> Option<OwnState> {
        let (session, mover) = self.session_at(slot)?;
        let body = self.state.bodies.get(slot)?;
        Some(OwnState {
            character: session.character.0,
            applied_seq: mover.applied_seq.0,
            move_seq: mover.move_seq.0,
            position: body.position,
            velocity: body.velocity,
            discontinuity: body.discontinuity,
            move_left_ms: mover.move_left_ms as u16,
            flags: body.flags,
            slot,
            yaw: body.yaw,
        })
    }

    pub(crate) fn away_count(&self) -> usize {
        self.away
    }
}
