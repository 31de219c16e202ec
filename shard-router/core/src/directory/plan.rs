//! A group's plan on its own, for groups that come after genesis.

use marchland_proto::codes::Code;
use marchland_proto::storage::{DirectoryAnswer, GroupPlan};
use marchland_types::WorldId;

use crate::group::{Halt, plan, refuse};
use crate::txn::Txn;

pub(super) fn handle(txn: &mut Txn<'_>, order: GroupPlan) -> Result<DirectoryAnswer, Halt> {
    let Some(world) = txn.world()? else {
        return refuse(Code::Unavailable, "the world has not begun");
    };
    plan::record(txn, WorldId(world.world), order)?;
    Ok(DirectoryAnswer::default())
}
