//! Animals: deer that graze around their homes, and now and then go a few steps. A region's parameters say how many it begins with.
//!
//! What always holds: an animal is on its own region's ground, where one can stand, and within [`LEASH_M`] of its home. It never crosses
//! a border, and is no reason for a region to be awake: it goes on where it was when the region wakes.
//!
//! There may be thousands of them in a region, so one that grazes costs next to nothing, and one that walks a single write. What each
//! does next is decided when the last is over, every ten seconds or so; until then its velocity is constant.
//!
//! They live in a time of their own, [`Herd::time_ms`]: it passes with region time, but at most [`TICK_MAX_MS`] in one tick. So they
//! are as fast in a region that ticks four times a second, and do not all have something to decide after it slept.

use marchland_region_core::{Body, Context, EntityId, Ground, Spawn, World};
use prost::Message;

use crate::components::{Animal, Herd};
use crate::messages::Look;
use crate::{Frontier, FrontierGround, PLACES_TRIED, ground, kind, stream};

/// Farthest that an animal is from its home along either axis, in metres.
pub const LEASH_M: f32 = 12.0;
/// How fast an animal walks, in metres a second.
pub const WALK_M_S: f32 = 1.25;
/// An animal turns back so much before the end of its leash, in metres: where it comes to stand is rounded, by 4 mm at 100 km from the
/// origin.
const MARGIN_M: f32 = 0.05;
/// So far it stays from the edge of its region's ground, in metres.
const EDGE_M: f32 = 1.0;
/// Length of a walk, in metres.
const WALK_M: [f32; 2] = [1.5, 5.0];
/// How long an animal grazes, in milliseconds.
const GRAZE_MS: [f32; 2] = [8_000.0, 24_000.0];
/// About how long grazing and a walk take together, in milliseconds.
const ROUND_MS: f32 = 18_000.0;
/// Directions that are tried for a walk; when all are blocked it goes on grazing.
const WAYS_TRIED: usize = 4;
/// Most herd time that one tick takes, in milliseconds: a region that is only watched ticks as often.
const TICK_MAX_MS: u64 = 250;
/// Looks that an animal may have.
const ANIMAL_LOOKS: u32 = 3;

/// Puts animals into a new region. Where nearly everything is solid, there may be fewer.
pub(crate) fn settle(ctx: &mut Context<'_, Frontier>, own: [[f32; 2]; 2], count: u32) {
    let land = inner(own);
    let is_empty = (0..2).any(|axis| land[0][axis] > land[1][axis]);
    if count == 0 || is_empty {
        return;
    }
    let mut herd = Some(Herd { time_ms: 0, at_ms: ctx.now_ms() });
    for _ in 0..count {
        let Some(home) = free_place(ctx, land) else { continue };
        let random = ctx.random(stream::ANIMALS);
        // They begin somewhere in the middle of their grazing, so that they never decide all at once.
        let until_ms = random.between(0.0, ROUND_MS) as u64;
        let (yaw, variant) = (random.below(256) as u8, random.below(ANIMAL_LOOKS));
        let look = Look { variant, left: 0 };
        let spawn = Spawn::new(kind::ANIMAL).at([home[0], 0.0, home[1]]).facing(yaw).look(look.encode_to_vec());
        let Some(entity) = ctx.spawn(spawn) else { return };
        ctx.set(entity, Animal { home, velocity: [0.0; 2], until_ms });
        if let Some(herd) = herd.take() {
            ctx.set(entity, herd);
        }
    }
}

/// The part of a region's ground that animals go to.
fn inner([low, high]: [[f32; 2]; 2]) -> [[f32; 2]; 2] {
    [low.map(|v| v + EDGE_M), high.map(|v| v - EDGE_M)]
}

/// The part of it that an animal with this home goes to.
fn pasture(home: [f32; 2], land: [[f32; 2]; 2]) -> [[f32; 2]; 2] {
    let far = LEASH_M - MARGIN_M;
    [[0, 1].map(|axis| land[0][axis].max(home[axis] - far)), [0, 1].map(|axis| land[1][axis].min(home[axis] + far))]
}

fn free_place(ctx: &mut Context<'_, Frontier>, [low, high]: [[f32; 2]; 2]) -> Option<[f32; 2]> {
    let ground = ctx.ground();
    let random = ctx.random(stream::ANIMALS);
    let mut places = (0..PLACES_TRIED).map(|_| [random.between(low[0], high[0]), random.between(low[1], high[1])]);
    places.find(|place| ground.is_free(*place))
}

/// One tick of all animals.
pub(crate) fn move_all(ctx: &mut Context<'_, Frontier>) {
    let Some((keeper, herd)) = ctx.with::<Herd>().next() else { return };
    let (before_ms, now_ms) = (herd.time_ms, ctx.now_ms());
    let time_ms = before_ms + now_ms.saturating_sub(herd.at_ms).min(TICK_MAX_MS);
    ctx.set(keeper, Herd { time_ms, at_ms: now_ms });
    let busy = |animal: &Animal| animal.velocity != [0.0; 2] || animal.until_ms <= time_ms;
    let busy: Vec<(EntityId, Animal)> =
        ctx.with_wanted(busy).map(|(entity, animal): (_, &Animal)| (entity, animal.clone())).collect();
    let land = inner(crate::own_ground(ctx));
    for (entity, animal) in busy {
        let Some([x, _, z]) = ctx.position(entity) else { continue };
        let (at, pasture) = ([x, z], pasture(animal.home, land));
        let walks = animal.velocity != [0.0; 2];
        if walks {
            let seconds = animal.until_ms.min(time_ms).saturating_sub(before_ms) as f32 / 1000.0;
            let by = [0, 1].map(|axis| {
                let to = at[axis] + animal.velocity[axis] * seconds;
                to.max(pasture[0][axis]).min(pasture[1][axis]) - at[axis]
            });
            ctx.amble(entity, by);
        }
        if animal.until_ms > time_ms {
            continue;
        }
        let walk = if walks { None } else { begin_walk(ctx, entity, at, pasture) };
        let (velocity, ms) = walk.unwrap_or_else(|| {
            let [least, most] = GRAZE_MS;
            ([0.0; 2], ctx.random(stream::ANIMALS).between(least, most) as u64)
        });
        ctx.set(entity, Animal { velocity, until_ms: time_ms + ms, ..animal });
    }
}

/// Turns an animal to where it goes next: its velocity, and for how many milliseconds. `None` when every way is blocked.
fn begin_walk(
    ctx: &mut Context<'_, Frontier>,
    entity: EntityId,
    at: [f32; 2],
    pasture: [[f32; 2]; 2],
) -> Option<([f32; 2], u64)> {
    let ground = ctx.ground();
    let random = ctx.random(stream::ANIMALS);
    let mut ways = (0..WAYS_TRIED).map(|_| (random.below(256) as u8, random.between(WALK_M[0], WALK_M[1])));
    let (yaw, length_m, facing) = ways.find_map(|(yaw, length_m)| {
        let facing = Body { yaw, ..Body::default() }.facing();
        let to = [at[0] + facing[0] * length_m, at[1] + facing[1] * length_m];
        let is_open = ground::holds(pasture, to) && ground.sight(at, to) == 1.0 && ground.is_free(to);
        is_open.then_some((yaw, length_m, facing))
    })?;
    ctx.turn(entity, yaw);
    Some((facing.map(|part| part * WALK_M_S), (length_m / WALK_M_S * 1000.0) as u64))
}

/// Says which animal is where none can be.
pub(crate) fn check(world: &World, ground: &FrontierGround) -> Result<(), String> {
    let own = world.own_ground().unwrap_or_else(|| ground.bounds());
    for (entity, animal) in world.with::<Animal>() {
        let [x, _, z] = world.position(entity).ok_or_else(|| format!("animal {entity} is nowhere"))?;
        if !ground.is_free([x, z]) || !ground::holds(own, [x, z]) {
            return Err(format!("animal {entity} is in a wall or on a neighbour's ground at {x} {z}"));
        }
        if (x - animal.home[0]).abs() > LEASH_M || (z - animal.home[1]).abs() > LEASH_M {
            return Err(format!("animal {entity} at {x} {z} is farther than {LEASH_M} m from its home {:?}", animal.home));
        }
    }
    Ok(())
}
