//! What a handler of the game may do. It reads the world through [`World`] and writes it through the methods here.

mod inventory;

use std::ops::Deref;

use bytes::Bytes;
use marchland_proto::cluster;
use marchland_proto::records::quantize;
use marchland_proto::storage::GameMessage;
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CellId, CharacterId, EntityId, GroupId, MoveNumber};

pub use self::inventory::InventoryError;
use crate::channel::{Body as MessageBody, PostError};
use crate::component::Component;
use crate::entity::{Audience, Body, Identity, Spawn};
use crate::game::Game;
use crate::ground::Ground;
use crate::random::Pcg;
use crate::session::REPLY_MAX_BYTES;
use crate::timer::{TIMERS_MAX, Timer, TimerId};
use crate::world::{World, audience_record};

/// Events to areas that one handler may cause; more are dropped.
const AREA_EVENTS_MAX: usize = 256;
/// Longest body of an event to an area, in bytes; more is cut off.
pub const AREA_EVENT_MAX_BYTES: usize = 1024;

/// Why an event did not reach a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// The character is not in this world's region.
    #[error("character {0} is not here")]
    Absent(CharacterId),
    /// Its client has not acknowledged what it was told before.
    #[error("character {0} acknowledges too slowly")]
    Full(CharacterId),
    /// Longer than an event may be.
    #[error("an event of {0} bytes is too large")]
    TooLarge(usize),
}

/// An event that everyone who may see it near its place is shown, best effort.
#[derive(Clone, Debug, PartialEq)]
pub struct AreaEvent {
    /// Where.
    pub cell: CellId,
    /// As edges are told of it.
    pub event: cluster::CellEvent,
}

/// What a handler says to the outside. It is said when the handler returns.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) events: Vec<(CharacterId, u32, Bytes)>,
    pub(crate) areas: Vec<AreaEvent>,
    pub(crate) posts: Vec<(GroupId, MessageBody)>,
}

impl Outputs {
    pub(crate) fn clear(&mut self) {
        self.events.clear();
        self.areas.clear();
        self.posts.clear();
    }
}

/// The world in the hands of a handler.
pub struct Context<'a, G: Game> {
    pub(crate) world: &'a mut World,
    pub(crate) outputs: &'a mut Outputs,
    ground: &'a G::Ground,
}

impl<G: Game> Deref for Context<'_, G> {
    type Target = World;

    fn deref(&self) -> &World {
        self.world
    }
}

impl<'a, G: Game> Context<'a, G> {
    pub(crate) fn new(world: &'a mut World, outputs: &'a mut Outputs, ground: &'a G::Ground) -> Self {
        Self { world, outputs, ground }
    }

    /// The ground.
    #[must_use]
    pub fn ground(&self) -> &'a G::Ground {
        self.ground
    }

    /// The same world in the hands of another game on the same ground: for a game that wraps another.
    pub fn lend<H: Game<Ground = G::Ground>>(&mut self) -> Context<'_, H> {
        self.lend_on(self.ground)
    }

    /// The same world in the hands of another game, on its own ground: for a game that wraps another and changes some of its rules.
    pub fn lend_on<H: Game>(&mut self, ground: &'a H::Ground) -> Context<'_, H> {
        Context { world: self.world, outputs: self.outputs, ground }
    }

    /// The random stream of one of the game's systems, by any number that the game gives it.
    pub fn random(&mut self, system: u32) -> &mut Pcg {
        self.world.stream(system)
    }

    // ---- entities --------------------------------------------------------------------------------------------------

    /// Puts a new entity into the world. `None` when the region holds as many as it can.
    pub fn spawn(&mut self, spawn: Spawn) -> Option<EntityId> {
        self.world.spawn(spawn, None, MoveNumber(0))
    }

    /// Takes an entity out of the world, with what it holds: those items cease to be. Characters stay; false for them and
    /// for what is not there.
    pub fn despawn(&mut self, entity: EntityId) -> bool {
        match self.world.own(entity) {
            Some(view) if view.identity.character.is_none() => {
                let slot = view.slot;
                self.world.despawn(slot);
                true
            }
            _ => false,
        }
    }

    fn change_body(&mut self, entity: EntityId, change: impl FnOnce(&mut Body)) -> bool {
        let Some(view) = self.world.own(entity) else { return false };
        let (slot, mut body) = (view.slot, *view.body);
        change(&mut body);
        if body.is_sound() { self.world.put_body(slot, Some(body)) } else { false }
    }

    fn change_identity(&mut self, entity: EntityId, change: impl FnOnce(&mut Identity)) -> bool {
        let Some(view) = self.world.own(entity) else { return false };
        let (slot, mut identity) = (view.slot, view.identity.clone());
        change(&mut identity);
        self.world.put_identity(slot, Some(identity))
    }

    /// Puts an entity elsewhere at once: nobody is to smooth the way there. False when it is not there or the place is no
    /// number.
    pub fn teleport(&mut self, entity: EntityId, position: [f32; 3]) -> bool {
        self.change_body(entity, |body| {
            body.position = position;
            body.velocity = [0.0; 3];
            body.discontinuity = body.discontinuity.wrapping_add(1);
        })
    }

    /// Moves an entity over the ground by (east, south) metres within this tick: it stops at walls and slides along them.
    pub fn walk(&mut self, entity: EntityId, by: [f32; 2]) -> bool {
        self.step(entity, by, |from, to| {
            let seconds = marchland_types::limits::TICK_MS as f32 / 1000.0;
            [(to[0] - from[0]) / seconds, 0.0, (to[1] - from[1]) / seconds]
        })
    }

    /// The same for what stays where it belongs, such as a grazing animal. It has no velocity: near a border it is no reason for the
    /// region beyond to be awake, so that two regions in which nobody is do not keep each other awake by what moves in them.
    pub fn amble(&mut self, entity: EntityId, by: [f32; 2]) -> bool {
        self.step(entity, by, |_, _| [0.0; 3])
    }

    /// Moves an entity over the ground; `velocity` is told (east, south) from where to where.
    fn step(&mut self, entity: EntityId, by: [f32; 2], velocity: impl FnOnce([f32; 2], [f32; 2]) -> [f32; 3]) -> bool {
        let ground = self.ground;
        let reach = self.world.reach();
        self.change_body(entity, |body| {
            let start = [body.position[0], body.position[2]];
            let [x, z] = reach.walked(ground, start, ground.walk(start, by));
            body.position = [x, ground.height([x, z]), z];
            body.velocity = velocity(start, [x, z]);
        })
    }

    /// Turns an entity; 256 steps a turn.
    pub fn turn(&mut self, entity: EntityId, yaw: u8) -> bool {
        self.change_body(entity, |body| body.yaw = yaw)
    }

    /// Sets the flags that a player's own client is told with its movement.
    pub fn set_flags(&mut self, entity: EntityId, flags: u16) -> bool {
        self.change_body(entity, |body| body.flags = flags)
    }

    /// Changes the appearance; what exceeds 1,024 bytes is cut off.
    pub fn set_look(&mut self, entity: EntityId, look: impl Into<Bytes>) -> bool {
        let mut look = look.into();
        look.truncate(crate::entity::LOOK_MAX_BYTES);
        self.change_identity(entity, |identity| identity.look = look)
    }

    /// Changes the weight in interest.
    pub fn set_priority(&mut self, entity: EntityId, priority: u32) -> bool {
        self.change_identity(entity, |identity| identity.priority = priority)
    }

    /// Changes who is shown it.
    pub fn set_audience(&mut self, entity: EntityId, audience: Audience) -> bool {
        if audience.characters().len() > crate::entity::AUDIENCE_MAX {
            return false;
        }
        self.change_identity(entity, |identity| identity.audience = audience)
    }

    // ---- components ------------------------------------------------------------------------------------------------

    /// Gives an entity a component, in place of any that it had. False when the entity is not there.
    ///
    /// # Panics
    /// When the component is not in the game's registry.
    pub fn set<C: Component>(&mut self, entity: EntityId, component: C) -> bool {
        let Some(slot) = self.world.slot_of(entity) else { return false };
        self.world.put_component(slot, Some(component));
        true
    }

    /// Takes a component from an entity.
    pub fn remove<C: Component>(&mut self, entity: EntityId) -> Option<C> {
        let old = self.world.get::<C>(entity)?.clone();
        let slot = self.world.slot_of(entity)?;
        self.world.put_component::<C>(slot, None);
        Some(old)
    }

    /// Changes a component; `None` when the entity has none.
    pub fn change<C: Component, T>(&mut self, entity: EntityId, change: impl FnOnce(&mut C) -> T) -> Option<T> {
        let mut component = self.world.get::<C>(entity)?.clone();
        let slot = self.world.slot_of(entity)?;
        let result = change(&mut component);
        self.world.put_component(slot, Some(component));
        Some(result)
    }

    // ---- time ------------------------------------------------------------------------------------------------------

    /// Starts a timer that runs down after `delay_ms`, in a later tick. `None` when there are too many, or its entity is not
    /// there.
    pub fn after(&mut self, delay_ms: u64, timer: Timer) -> Option<TimerId> {
        let known = timer.entity.is_none_or(|entity| self.world.slot_of(entity).is_some());
        if !known || self.world.state.timers.len() >= TIMERS_MAX {
            return None;
        }
        self.world.state.core.next_timer += 1;
        let id = TimerId { due_ms: self.now_ms().saturating_add(delay_ms), number: self.world.state.core.next_timer };
        self.world.put_timer(id, Some(timer));
        Some(id)
    }

    /// Stops a timer. False when it has run down already.
    pub fn stop(&mut self, timer: TimerId) -> bool {
        self.world.put_timer(timer, None)
    }

    // ---- words -----------------------------------------------------------------------------------------------------

    /// Tells a character's client something. It is numbered with the replies and kept until acknowledged.
    pub fn tell(&mut self, character: CharacterId, code: u32, body: impl Into<Bytes>) -> Result<(), TellError> {
        let body = body.into();
        let Some((_, session, _)) = self.world.session_of(character) else { return Err(TellError::Absent(character)) };
        if body.len() > REPLY_MAX_BYTES {
            return Err(TellError::TooLarge(body.len()));
        }
        let pending = self.outputs.events.iter().filter(|(to, _, _)| *to == character);
        let (count, bytes) = pending.fold((0, 0), |(count, bytes), (_, _, body)| (count + 1, bytes + body.len()));
        if !session.has_room_for_event(body.len(), count, bytes) {
            return Err(TellError::Full(character));
        }
        self.outputs.events.push((character, code, body));
        Ok(())
    }

    /// Tells everyone near a place something, best effort.
    pub fn announce(&mut self, position: [f32; 3], kind: u32, body: impl Into<Bytes>, audience: &Audience) {
        if self.outputs.areas.len() >= AREA_EVENTS_MAX {
            return;
        }
        let mut body = body.into();
        body.truncate(AREA_EVENT_MAX_BYTES);
        let event = cluster::CellEvent {
            kind,
            x: quantize(position[0]),
            z: quantize(position[2]),
            body,
            audience: audience_record(audience),
        };
        self.outputs.areas.push(AreaEvent { cell: CellId::of(position[0], position[2]), event });
    }

    /// Tells everyone near an entity something, best effort.
    pub fn shout(&mut self, entity: EntityId, kind: u32, body: impl Into<Bytes>) {
        if let Some(position) = self.position(entity) {
            self.announce(position, kind, body, &Audience::Public);
        }
    }

    /// Sends a message to an entity of a neighbour, whose ghost is seen here. It arrives once; if the entity has gone on meanwhile, it
    /// follows a character, and comes back to [`Game::returned`] otherwise.
    pub fn send(&mut self, to: EntityId, code: u32, body: impl Into<Bytes>) -> Result<(), PostError> {
        let Some(group) = self.world.ghost_of(to) else { return Err(PostError::NoGhost(to)) };
        let character = self.world.character_of(to).map_or(0, |character| character.0);
        self.post(group, GameMessage { code, character, body: body.into(), entity: to.0, ..GameMessage::default() })
    }

    /// Sends a message to another group. It arrives once, in order.
    pub fn post(&mut self, to: GroupId, message: GameMessage) -> Result<(), PostError> {
        use prost::Message as _;
        let pending = self.outputs.posts.iter().filter(|(group, _)| *group == to).count();
        // One place is kept for answers of the core.
        if self.world.state.channels.waiting(to) + pending + 1 >= CHANNEL_MESSAGES_MAX {
            return Err(PostError::Full(to));
        }
        let found = message.encoded_len() + 64;
        if found > marchland_types::limits::CHANNEL_MESSAGE_MAX_BYTES {
            return Err(PostError::TooLarge { found });
        }
        self.outputs.posts.push((to, MessageBody::Game(message)));
        Ok(())
    }
}
