//! Lists what one holds. Answered with [`Items`].

use bytes::Bytes;
use marchland_region_core::{Context, EntityId, Refusal};
use prost::Message;

use crate::Frontier;
use crate::messages::{Item, Items};

pub(crate) fn inventory(ctx: &mut Context<'_, Frontier>, who: EntityId) -> Result<Bytes, Refusal> {
    let items = ctx.items(who).iter().map(|item| Item { id: item.item.0, kind: item.kind }).collect();
    Ok(Items { items }.encode_to_vec().into())
}
