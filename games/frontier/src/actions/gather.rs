//! Takes ore from the nearest vein within reach. Answered with [`Gathered`].

use bytes::Bytes;
use marchland_region_core::{Context, EntityId, Refusal};
use prost::Message;

use crate::components::{Hands, Vein};
use crate::messages::Gathered;
use crate::{Frontier, GATHER_REST_MS, REACH_M, ore};

pub(crate) fn gather(ctx: &mut Context<'_, Frontier>, who: EntityId) -> Result<Bytes, Refusal> {
    let now_ms = ctx.now_ms();
    if ctx.get::<Hands>(who).is_some_and(|hands| hands.free_at_ms > now_ms) {
        return Err(Refusal::because("your hands need a rest"));
    }
    let place = ctx.position(who).ok_or(Refusal::because("you are not here"))?;
    let vein = ctx.nearest(place, REACH_M, |entity| ctx.get::<Vein>(entity).is_some_and(|vein| vein.left > 0));
    let vein = vein.ok_or(Refusal::because("there is no ore within reach"))?;
    let kind = ore::take(ctx, vein).ok_or(Refusal::because("the vein is empty"))?;
    let item = ctx.mint(who, kind, Bytes::new()).map_err(|_| Refusal::because("you can not carry more"))?;
    ctx.set(who, Hands { free_at_ms: now_ms + GATHER_REST_MS });
    Ok(Gathered { item: item.0, kind }.encode_to_vec().into())
}
