//! The realm begins: name of the cluster, its own members. Once; the same again changes nothing.

use marchland_proto::codes::Code;
use marchland_proto::storage::{RealmAnswer, RealmGenesis};
use marchland_types::GroupId;

use crate::group::{Halt, plan, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Longest name of a cluster, in bytes.
const CLUSTER_NAME_MAX_BYTES: usize = 64;

pub(super) fn handle(txn: &mut Txn<'_>, mut genesis: RealmGenesis) -> Result<RealmAnswer, Halt> {
    if genesis.cluster.is_empty() || genesis.cluster.len() > CLUSTER_NAME_MAX_BYTES {
        return refuse(Code::Malformed, format!("cluster name of {} bytes", genesis.cluster.len()));
    }
    let Some(own) = genesis.plan.take().filter(|plan| plan.group == GroupId::realm().0) else {
        return refuse(Code::Malformed, "no plan of the realm");
    };
    txn.want([Key::Plan(GroupId::realm())])?;
    match txn.realm()? {
        None => txn.put(&Key::Realm, &genesis),
        Some(existing) if existing == genesis => {}
        Some(existing) => {
            return refuse(Code::Refused, format!("the realm of cluster {:?} has begun already", existing.cluster));
        }
    }
    plan::record(txn, GroupId::realm().world(), own)?;
    Ok(RealmAnswer::default())
}
