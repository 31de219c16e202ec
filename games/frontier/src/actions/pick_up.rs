//! Picks up the nearest item within reach. Answered with [`Gathered`].

use bytes::Bytes;
use marchland_region_core::{Context, EntityId, Refusal};
use prost::Message;

use crate::messages::Gathered;
use crate::{Frontier, REACH_M, kind};

pub(crate) fn pick_up(ctx: &mut Context<'_, Frontier>, who: EntityId) -> Result<Bytes, Refusal> {
    let place = ctx.position(who).ok_or(Refusal::because("you are not here"))?;
    let lying = ctx.nearest(place, REACH_M, |entity| ctx.own(entity).is_some_and(|view| view.identity.kind == kind::ITEM));
    let lying = lying.ok_or(Refusal::because("there is nothing within reach"))?;
    let items = ctx.pick_up(who, lying).map_err(|_| Refusal::because("you can not carry more"))?;
    let item = items.first().ok_or(Refusal::because("there is nothing within reach"))?;
    Ok(Gathered { item: item.item.0, kind: item.kind }.encode_to_vec().into())
}
