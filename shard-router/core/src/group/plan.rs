//! The members of a group, recorded before the group is initialised. A changed plan takes a new group id.

use std::collections::BTreeSet;

use marchland_proto::codes::Code;
use marchland_proto::storage::GroupPlan;
use marchland_types::{GroupId, WorldId};

use super::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Replicas of one group. More would slow every commit; seven survive three losses.
const REPLICAS_MAX: usize = 7;

/// Records the plan of a group of this world (0 for the realm's own).
pub(crate) fn record(txn: &mut Txn<'_>, world: WorldId, plan: GroupPlan) -> Result<(), Halt> {
    let group = GroupId(plan.group);
    if group.kind().is_none() || group.world() != world {
        return refuse(Code::Malformed, format!("{group} is no group of world {world}"));
    }
    let replicas: BTreeSet<_> = plan.replicas.iter().copied().collect();
    let well_formed = |r: &u64| r >> 32 != 0 && *r as u32 != 0;
    if replicas.is_empty() || replicas.len() != plan.replicas.len() || !replicas.iter().all(well_formed) {
        return refuse(Code::Malformed, format!("plan of {group} does not name distinct replicas"));
    }
    if replicas.len() > REPLICAS_MAX {
        return refuse(Code::TooLarge, format!("plan of {group} names {} replicas, at most {REPLICAS_MAX}", replicas.len()));
    }
    match txn.plan(group)? {
        None => txn.put(&Key::Plan(group), &plan),
        Some(existing) if existing.replicas.iter().copied().collect::<BTreeSet<_>>() == replicas => {}
        Some(_) => return refuse(Code::Refused, format!("{group} has another plan: a changed plan takes a new group id")),
    }
    Ok(())
}
