//! Says something to those near: an area event with [`Said`].

use bytes::Bytes;
use marchland_region_core::{Context, EntityId, Refusal};
use prost::Message;

use crate::messages::{Said, Say};
use crate::{EVENT_SAID, Frontier, SAY_MAX_BYTES};

pub(crate) fn say(ctx: &mut Context<'_, Frontier>, who: EntityId, what: Say) -> Result<Bytes, Refusal> {
    if what.text.is_empty() || what.text.len() > SAY_MAX_BYTES {
        return Err(Refusal::because("say something, in at most 200 bytes"));
    }
    let name = ctx.entity(who).map(|view| view.identity.name.to_string()).unwrap_or_default();
    ctx.shout(who, EVENT_SAID, Said { name, text: what.text }.encode_to_vec());
    Ok(Bytes::new())
}
