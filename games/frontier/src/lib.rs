//! The demo world: walk over a map from Tiled, gather ore, carry it, lay it down, talk; animals graze, where the world has any.
//!
//! It is also the template for a game of your own. What to look at, in this order:
//!
//! - this file: [`Frontier`] and its [`Game`] implementation, the whole of what the server knows of a game;
//! - `actions/`: one file for each thing that a player can do;
//! - `animals.rs`: what moves by itself, thousands of them in a region, and costs little;
//! - [`components`]: what the rules remember about entities;
//! - [`map`]: content drawn in a designer's tool, compiled into the binary;
//! - `schema/`: what clients send and are told;
//! - `tests/restore_midway.rs`: the test that every game must pass;
//! - `tests/simulated/`: the game on a failing cluster, with what must always hold of it.
//!
//! Rules are functions of the state. They must not look at a clock, draw random numbers of their own, read files or iterate
//! over a `HashMap`: three replicas run them and must agree to the bit. `clippy.toml` forbids the usual ways out.

mod actions;
mod animals;
pub mod components;
mod ground;
pub mod map;
mod messages;
mod ore;
mod parameters;
mod words;

use bytes::Bytes;
use marchland_region_core::{
    Action, ActionName, BadParameters, CharacterId, Code, Context, EntityId, Entrance, Game, Ground, Refusal, Registry, Spawn,
    Timer, World,
};
use prost::Message;

pub use crate::animals::{LEASH_M, WALK_M_S};
use crate::components::{Animal, Hands, Herd, Vein};
pub use crate::ground::{ANIMALS_MAX, FrontierGround, Land};
use crate::map::{ContentError, FrontierMap};
pub use crate::messages::{
    Drop, Gather, Gathered, Inventory, Item, Items, Look, Map, Open, Parameters, PickUp, Said, Say,
    parameters as parameters_schema,
};
pub use crate::parameters::{map_parameters, open_parameters};

/// Kinds of entities.
pub mod kind {
    /// A player's character.
    pub const CHARACTER: u32 = 1;
    /// A place where ore grows.
    pub const ORE: u32 = 2;
    /// An item on the ground.
    pub const ITEM: u32 = 3;
    /// An animal.
    pub const ANIMAL: u32 = 4;
}

/// What players can do.
pub mod action {
    /// Take ore from the nearest vein within reach.
    pub const GATHER: u32 = 1;
    /// Lay an item down.
    pub const DROP: u32 = 2;
    /// Pick up the nearest item within reach.
    pub const PICK_UP: u32 = 3;
    /// Say something to those near.
    pub const SAY: u32 = 4;
    /// Ask what one holds.
    pub const INVENTORY: u32 = 5;
}

/// Kind of the area event that carries [`Said`].
pub const EVENT_SAID: u32 = 4;
/// How far hands reach, in metres.
pub const REACH_M: f32 = 2.0;
/// Full speed, in metres a second.
pub const SPEED_M_S: f32 = 5.0;
/// Rest after gathering, in milliseconds.
pub const GATHER_REST_MS: u64 = 1000;
/// Longest saying, in bytes of UTF-8.
pub const SAY_MAX_BYTES: usize = 200;

/// Raised when the rules change.
const RULES_VERSION: u64 = 1;
/// Places that are looked at for one to stand on.
const PLACES_TRIED: usize = 256;
/// Looks that a character may have.
const CHARACTER_LOOKS: u64 = 8;

/// Random streams, one per system.
mod stream {
    pub(crate) const ENTRANCE: u32 = 1;
    pub(crate) const ORE: u32 = 2;
    pub(crate) const ANIMALS: u32 = 3;
}

/// The rules and the content of the demo world.
#[derive(Debug)]
pub struct Frontier {
    aurora: FrontierMap,
}

impl Frontier {
    /// Reads the content that is compiled in.
    ///
    /// # Errors
    /// When the map can not be used. A test of this crate keeps that from being shipped.
    pub fn new() -> Result<Self, ContentError> {
        Ok(Self { aurora: FrontierMap::aurora()? })
    }

    /// The map that worlds have unless their parameters say otherwise.
    #[must_use]
    pub fn aurora(&self) -> &FrontierMap {
        &self.aurora
    }
}

impl Game for Frontier {
    type Ground = FrontierGround;

    fn rules_version(&self) -> u64 {
        RULES_VERSION
    }

    fn content_hash(&self) -> u64 {
        self.aurora.content_hash()
    }

    fn components(&self, registry: &mut Registry) {
        registry.add::<Vein>();
        registry.add::<Hands>();
        registry.add::<Animal>();
        registry.add::<Herd>();
    }

    fn actions(&self) -> &'static [ActionName] {
        &[
            ActionName { code: action::GATHER, name: "gather" },
            ActionName { code: action::DROP, name: "drop" },
            ActionName { code: action::PICK_UP, name: "pick up" },
            ActionName { code: action::SAY, name: "say" },
            ActionName { code: action::INVENTORY, name: "inventory" },
        ]
    }

    fn describe(&self, action: Action<'_>) -> Option<String> {
        words::action(action)
    }

    fn describe_answer(&self, action: u32, code: Code, body: &[u8]) -> Option<String> {
        words::answer(action, code, body)
    }

    fn ground(&self, parameters: &[u8]) -> Result<FrontierGround, BadParameters> {
        FrontierGround::new(parameters, &self.aurora)
    }

    fn genesis(&self, ctx: &mut Context<'_, Self>) {
        let own = own_ground(ctx);
        for place in ctx.ground().ore(own) {
            ore::plant(ctx, place);
        }
        if let Land::Open { ground, ore_nodes } = &ctx.ground().land {
            for _ in 0..*ore_nodes {
                // Of the world's veins, those that fall on this region's ground.
                let place = anywhere(ctx, ground.bounds());
                if ground::holds(own, place) {
                    ore::plant(ctx, place);
                }
            }
        }
        animals::settle(ctx, own, ctx.ground().animals);
    }

    fn enter(&self, ctx: &mut Context<'_, Self>, character: CharacterId, _name: &str) -> Spawn {
        let own = own_ground(ctx);
        let spawns = ctx.ground().spawns(own);
        let [x, z] = if spawns.is_empty() {
            anywhere_free(ctx, own)
        } else {
            let random = ctx.random(stream::ENTRANCE);
            let [x, z] = spawns[random.below(spawns.len() as u32) as usize];
            [x + random.between(-1.0, 1.0), z + random.between(-1.0, 1.0)]
        };
        let look = Look { variant: (character.0 % CHARACTER_LOOKS) as u32, left: 0 };
        Spawn::new(kind::CHARACTER).at([x, 0.0, z]).look(look.encode_to_vec())
    }

    fn entered(&self, ctx: &mut Context<'_, Self>, who: EntityId, entrance: Entrance) {
        if entrance == Entrance::First {
            ctx.set(who, Hands { free_at_ms: 0 });
        }
    }

    fn command(&self, ctx: &mut Context<'_, Self>, who: EntityId, action: Action<'_>) -> Result<Bytes, Refusal> {
        match action.code {
            action::GATHER => actions::gather(ctx, who),
            action::DROP => actions::drop(ctx, who, read(action.body)?),
            action::PICK_UP => actions::pick_up(ctx, who),
            action::SAY => actions::say(ctx, who, read(action.body)?),
            action::INVENTORY => actions::inventory(ctx, who),
            _ => Err(Refusal::unknown_action()),
        }
    }

    fn timer(&self, ctx: &mut Context<'_, Self>, timer: Timer) {
        if let (ore::TIMER_GROW, Some(vein)) = (timer.code, timer.entity) {
            ore::grow(ctx, vein);
        }
    }

    fn tick(&self, ctx: &mut Context<'_, Self>) {
        animals::move_all(ctx);
    }

    fn max_speed(&self) -> f32 {
        SPEED_M_S
    }

    fn check(&self, world: &World, ground: &FrontierGround) -> Result<(), String> {
        for view in world.entities().filter(|view| view.identity.kind == kind::CHARACTER) {
            let [x, _, z] = view.body.position;
            if !ground.is_free([x, z]) {
                return Err(format!("{} stands in a wall at {x} {z}", view.identity.name));
            }
        }
        for (vein, state) in world.with::<Vein>() {
            if state.left > state.most {
                return Err(format!("vein {vein} has {} of {} ore", state.left, state.most));
            }
        }
        animals::check(world, ground)
    }
}

/// The ground that is this region's: all of it, if the region is the whole world.
fn own_ground(ctx: &Context<'_, Frontier>) -> [[f32; 2]; 2] {
    ctx.own_ground().unwrap_or_else(|| ctx.ground().bounds())
}

/// A place at random, away from the edge.
fn anywhere(ctx: &mut Context<'_, Frontier>, [low, high]: [[f32; 2]; 2]) -> [f32; 2] {
    let random = ctx.random(stream::ENTRANCE);
    [random.between(low[0] + 0.5, high[0] - 0.5), random.between(low[1] + 0.5, high[1] - 0.5)]
}

/// A place at random where one can stand; where nearly everything is solid, perhaps none.
fn anywhere_free(ctx: &mut Context<'_, Frontier>, own: [[f32; 2]; 2]) -> [f32; 2] {
    let mut place = anywhere(ctx, own);
    for _ in 0..PLACES_TRIED {
        if ctx.ground().is_free(place) {
            break;
        }
        place = anywhere(ctx, own);
    }
    place
}

fn read<M: Message + Default>(body: &[u8]) -> Result<M, Refusal> {
    M::decode(body).map_err(|_| Refusal::malformed())
}
