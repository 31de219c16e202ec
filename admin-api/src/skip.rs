//! `marchland admin region skip-entry`: has a region that halts at an entry go on without it.
//!
//! The order is given to the node that leads the region's group, wherever that is. It is given once: when no answer comes, it may or may not
//! be committed, and the caller is told to look.

use marchland_proto::cluster::SkipEntryRequest;
use marchland_proto::codes::Code;
use marchland_types::{GroupId, GroupKind, LogIndex, RegionId, ReplicaId};
use serde::Serialize;

use crate::client::{AdminCluster, CallError};

/// How often the leader is looked for: as long as an election takes, and then some.
const ATTEMPTS: usize = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(250);

/// A region that went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The region's group, for example `region(1,1)`.
    pub group: String,
    /// The entry that was skipped.
    pub index: u64,
    /// Where the order to skip it stands in the log.
    pub order_index: u64,
    /// The region's tick, after it went on.
    pub tick: u64,
    /// The node that led the group.
    pub node: u32,
}

/// Why a region did not go on.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// No node that answers has it.
    #[error("no node that answers has a replica of region {0}")]
    NoRegion(RegionId),
    /// Nobody leads its group.
    #[error("{group} has no leader: {reason}")]
    NoLeader {
        /// The group.
        group: GroupId,
        /// What the last node said.
        reason: String,
    },
    /// It does not halt there, or does not take orders at the moment. Nothing was done.
    #[error("{group} refuses: {reason}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The order may or may not be committed.
    #[error("outcome unknown, look at `cluster status`: {0}")]
    Unknown(String),
}

/// Has a region go on without an entry.
pub async fn skip_entry(cluster: &AdminCluster, region: RegionId, index: LogIndex, reason: &str) -> Result<Skipped, SkipError> {
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for node in &cluster.nodes {
            let Ok(status) = node.status().await else { continue };
            let here = status.groups.iter().find(|g| is_region(GroupId(g.group), region));
            let Some(here) = here else { continue };
            let group = GroupId(here.group);
            if here.role != "leader" {
                last.get_or_insert((group, format!("node {} is {}", status.node, here.role)));
                continue;
            }
            let request = SkipEntryRequest { group: group.0, index: index.0, reason: reason.to_owned() };
            let reply = node.skip_entry(request).await.map_err(|error| match error {
                CallError::Refused { reason, .. } => SkipError::Refused { group, reason },
                CallError::NoAnswer { .. } => SkipError::Unknown(error.to_string()),
            })?;
            match Code::from_u32(reply.code) {
                Some(Code::Ok) => {
                    let (order_index, tick) = (reply.order_index, reply.tick);
                    return Ok(Skipped { group: group.to_string(), index: index.0, order_index, tick, node: status.node });
                }
                // It leads no more.
                Some(Code::NotLeader) => {
                    last =
                        Some((group, format!("replica {} leads, as far as node {} knows", ReplicaId(reply.leader), status.node)));
                }
                Some(Code::Refused) => return Err(SkipError::Refused { group, reason: reply.reason }),
                _ => return Err(SkipError::Unknown(reply.reason)),
            }
        }
    }
    Err(match last {
        Some((group, reason)) => SkipError::NoLeader { group, reason },
        None => SkipError::NoRegion(region),
    })
}

fn is_region(group: GroupId, region: RegionId) -> bool {
    group.kind() == Some(GroupKind::Region) && group.serial() == region.0
}
