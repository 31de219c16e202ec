//! Ore veins: planted when the world begins, emptied by players, growing again by themselves.

use marchland_region_core::{Context, EntityId, Spawn, Timer};
use prost::Message;

use crate::components::Vein;
use crate::messages::Look;
use crate::{Frontier, kind, stream};

/// A vein grows by one.
pub(crate) const TIMER_GROW: u32 = 1;
/// Time in which it does, in milliseconds.
const GROW_MS: u64 = 4000;
/// Kinds of ore.
const ORE_KINDS: u32 = 4;

/// Puts a full vein into the world.
pub(crate) fn plant(ctx: &mut Context<'_, Frontier>, [x, z]: [f32; 2]) {
    let random = ctx.random(stream::ORE);
    let (ore, most) = (random.below(ORE_KINDS), 4 + random.below(5));
    let vein = Vein { ore, left: most, most };
    let spawn = Spawn::new(kind::ORE).at([x, 0.0, z]).look(look(&vein));
    if let Some(entity) = ctx.spawn(spawn) {
        ctx.set(entity, vein);
    }
}

/// Takes one ore out of a vein; the kind, or `None` when it is empty.
pub(crate) fn take(ctx: &mut Context<'_, Frontier>, entity: EntityId) -> Option<u32> {
    let mut vein = ctx.get::<Vein>(entity)?.clone();
    let grew = vein.left == vein.most;
    vein.left = vein.left.checked_sub(1)?;
    show(ctx, entity, &vein);
    if grew {
        ctx.after(GROW_MS, Timer { entity: Some(entity), code: TIMER_GROW, argument: 0 });
    }
    let ore = vein.ore;
    ctx.set(entity, vein);
    Some(ore)
}

/// A vein has grown by one; it goes on until it is full.
pub(crate) fn grow(ctx: &mut Context<'_, Frontier>, entity: EntityId) {
    let Some(mut vein) = ctx.get::<Vein>(entity).cloned() else { return };
    vein.left = (vein.left + 1).min(vein.most);
    show(ctx, entity, &vein);
    if vein.left < vein.most {
        ctx.after(GROW_MS, Timer { entity: Some(entity), code: TIMER_GROW, argument: 0 });
    }
    ctx.set(entity, vein);
}

fn show(ctx: &mut Context<'_, Frontier>, entity: EntityId, vein: &Vein) {
    ctx.set_look(entity, look(vein));
}

fn look(vein: &Vein) -> Vec<u8> {
    Look { variant: vein.ore, left: vein.left }.encode_to_vec()
}
