//! `marchland admin region move`: another node owns a region from then on.
//!
//! The region stands still for the moment that it takes to hand it over, not for an election; players keep their connections. The order
//! may be given again: a region that is already where it is wanted stays there.

use marchland_proto::codes::Code;
use marchland_types::{GroupId, GroupKind, NodeId, RegionId, ReplicaId};
use serde::Serialize;

use crate::client::{AdminCluster, CallError};

/// How often the owner is looked for: as long as an election takes, and then some.
const ATTEMPTS: usize = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(250);

/// A region where it was wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The region's group, for example `region(1,1)`.
    pub group: String,
    /// The node that owned it; the same as `to` if nothing had to be done.
    pub from: u32,
    /// The node that owns it.
    pub to: u32,
}

/// Why a region was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// No node that answers has it.
    #[error("no node that answers has a replica of region {0}")]
    NoRegion(RegionId),
    /// Nobody leads its group.
    #[error("{0} has no leader")]
    NoLeader(GroupId),
    /// That node can not take it, or none can. The region stays where it is.
    #[error("{group} refuses: {reason}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// It may or may not have been moved.
    #[error("outcome unknown, look at `cluster status`: {0}")]
    Unknown(String),
}

/// Moves a region to `to`, or to any other node.
pub async fn move_owner(cluster: &AdminCluster, region: RegionId, to: Option<NodeId>) -> Result<Moved, MoveError> {
    let mut found = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for node in &cluster.nodes {
            let Ok(status) = node.status().await else { continue };
            let Some(here) = status.groups.iter().find(|g| is_region(GroupId(g.group), region)) else { continue };
            let group = GroupId(here.group);
            found = Some(group);
            if here.role != "leader" {
                continue;
            }
            if to == Some(NodeId(status.node)) {
                return Ok(Moved { group: group.to_string(), from: status.node, to: status.node });
            }
            let reply = node.move_owner(group, to).await.map_err(|error| match error {
                CallError::Refused { reason, .. } => MoveError::Refused { group, reason },
                CallError::NoAnswer { .. } => MoveError::Unknown(error.to_string()),
            })?;
            match Code::from_u32(reply.code) {
                Some(Code::Ok) => {
                    let to = ReplicaId(reply.leader).node().0;
                    return Ok(Moved { group: group.to_string(), from: status.node, to });
                }
                // It leads no more: look for who does.
                Some(Code::NotLeader) => {}
                Some(Code::Refused) => return Err(MoveError::Refused { group, reason: reply.reason }),
                _ => return Err(MoveError::Unknown(reply.reason)),
            }
        }
    }
    Err(found.map_or(MoveError::NoRegion(region), MoveError::NoLeader))
}

fn is_region(group: GroupId, region: RegionId) -> bool {
    group.kind() == Some(GroupKind::Region) && group.serial() == region.0
}
