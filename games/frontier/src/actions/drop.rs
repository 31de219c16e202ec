//! Lays an item down where one stands.

use bytes::Bytes;
use marchland_region_core::{Context, EntityId, ItemId, Refusal, Spawn};
use prost::Message;

use crate::messages::{Drop, Look};
use crate::{Frontier, kind};

pub(crate) fn drop(ctx: &mut Context<'_, Frontier>, who: EntityId, what: Drop) -> Result<Bytes, Refusal> {
    let item = ctx.item(who, ItemId(what.item)).ok_or(Refusal::because("you do not have it"))?;
    let look = Look { variant: item.kind, left: 0 };
    let place = ctx.position(who).ok_or(Refusal::because("you are not here"))?;
    let on_ground = Spawn::new(kind::ITEM).at(place).look(look.encode_to_vec());
    ctx.drop_item(who, ItemId(what.item), on_ground).map_err(|_| Refusal::because("there is no room here"))?;
    Ok(Bytes::new())
}
