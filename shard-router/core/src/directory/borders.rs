//! The map changes: borders between the regions of a world move.
//!
//! The new map counts from this entry on for whoever asks the directory; each region goes by its own until it takes the message that it is
//! sent here. What regions send each other carries the epoch that they go by, and waits where that is not known yet: so no region is
//! handed somebody for ground that it does not know to be its own. That is why all of them are told, also those far away.

use marchland_proto::codes::Code;
use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{DirectoryAnswer, MapChange, MapOrder};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{MapEpoch, WorldId};

use super::place;
use crate::group::post::post;
use crate::group::{Halt, refuse};
use crate::keys::Key;
use crate::map::{MapRegion, RegionMap};
use crate::txn::{Sender, Txn};

pub(super) fn handle(txn: &mut Txn<'_>, order: MapOrder) -> Result<DirectoryAnswer, Halt> {
    let Some(mut world) = txn.world()? else {
        return refuse(Code::Unavailable, "the world has not begun");
    };
    let in_force = place::map_of(&world)?;
    let answer = |map_epoch| DirectoryAnswer { map_epoch, ..DirectoryAnswer::default() };
    let refused = |reason: String| Ok(DirectoryAnswer { code: Code::Refused as u32, reason, ..answer(in_force.epoch().0) });
    let next = match RegionMap::parse(WorldId(world.world), MapEpoch(order.map_epoch), &order.map) {
        Ok(next) => next,
        Err(bad) => return refused(bad.to_string()),
    };
    if next == in_force {
        return Ok(answer(in_force.epoch().0));
    }
    if let Err(bad) = in_force.may_become(&next) {
        return refused(bad.to_string());
    }
    let groups = next.regions().iter().map(|region| region.group);
    txn.want(groups.map(Key::Channel).chain([Key::Channels]))?;
    txn.sender = txn.sender.map(|sender| Sender { map_epoch: next.epoch(), ..sender });
    for region in next.regions() {
        let map = next.told_to(region.region, Some(&in_force));
        post(txn, region.group, CHANNEL_MESSAGES_MAX, Body::MapChange(MapChange { map_epoch: next.epoch().0, map }))?;
    }
    world.map_epoch = next.epoch().0;
    world.map = next.regions().iter().map(MapRegion::record).collect();
    txn.put(&Key::World, &world);
    Ok(answer(next.epoch().0))
}
