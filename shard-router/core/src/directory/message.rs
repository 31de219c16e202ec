//! Messages from other groups.

use marchland_proto::codes::Code;
use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{ChannelMessage, DirectoryAnswer};
use marchland_types::GroupId;

use super::place;
use crate::group::inbox::{self, Verdict};
use crate::group::{Halt, refuse};
use crate::map::RegionMap;
use crate::txn::Txn;

pub(super) fn handle(txn: &mut Txn<'_>, messages: Vec<ChannelMessage>) -> Result<DirectoryAnswer, Halt> {
    let from = inbox::sender(&messages)?;
    let Some(world) = txn.world()? else {
        return refuse(Code::Unavailable, "the world has not begun");
    };
    let map = place::map_of(&world)?;
    if map.of_group(from).is_none() && txn.plan(from)?.is_none() {
        return refuse(Code::Forbidden, format!("{from} is not known to world {}", world.world));
    }
    let taken = inbox::take(txn, from, messages, |txn, message| take(txn, &map, message))?;
    Ok(DirectoryAnswer {
        code: taken.code as u32,
        reason: taken.reason,
        taken_seq: taken.seq,
        cut: txn.counters.cut,
        ..DirectoryAnswer::default()
    })
}

fn take(txn: &mut Txn<'_>, map: &RegionMap, message: &ChannelMessage) -> Result<Verdict, Halt> {
    let from = GroupId(message.from_group);
    let usable = match &message.body {
        Some(Body::Location(update)) => place::located(txn, from, map, *update)?,
        Some(Body::Moved(moved)) => place::moved_on(txn, from, map, moved)?,
        Some(Body::Fin(_)) => {
            inbox::finished(txn, from)?;
            true
        }
        // Nothing sends these to a directory. An entity among them must not be lost for that.
        Some(
            Body::Admit(_)
            | Body::Expel(_)
            | Body::MapChange(_)
            | Body::Handoff(_)
            | Body::DropStub(_)
            | Body::Game(_)
            | Body::Deposit(_)
            | Body::Withdraw(_),
        )
        | None => false,
    };
    Ok(if usable { Verdict::Used } else { Verdict::SetAside(message.clone()) })
}
