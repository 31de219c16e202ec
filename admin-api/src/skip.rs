//! `marchland admin region skip-entry`: has a region that halts at an entry go on without it.
//!
//! The order is given to the node that leads the region's group, wherever that is. It is given once: when no answer comes, it may or may not
//! be committed, and the caller is told to look.

use marchland_proto::cluster::SkipEntryRequest;
use marchland_proto::codes::Code;
use marchland_types::{GroupId, LogIndex, RegionId, ReplicaId};
use serde::Serialize;

use crate::client::{AdminCluster, CallError};
use crate::leader::{Given, NoLeader, give_leader};

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
    /// There is nobody to ask.
    #[error(transparent)]
    NoLeader(#[from] NoLeader),
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
    give_leader(cluster, region, async |node, number, group| {
        let request = SkipEntryRequest { group: group.0, index: index.0, reason: reason.to_owned() };
        let reply = node.skip_entry(request).await.map_err(|error| match error {
            CallError::Refused { reason, .. } => SkipError::Refused { group, reason },
            CallError::NoAnswer { .. } => SkipError::Unknown(error.to_string()),
        })?;
        match Code::from_u32(reply.code) {
            Some(Code::Ok) => {
                let (order_index, tick) = (reply.order_index, reply.tick);
                let skipped = Skipped { group: group.to_string(), index: index.0, order_index, tick, node: number.0 };
                Ok(Given::Done(skipped))
            }
            Some(Code::NotLeader) => {
                Ok(Given::NotLeader(format!("replica {} leads, as far as node {number} knows", ReplicaId(reply.leader))))
            }
            Some(Code::Refused) => Err(SkipError::Refused { group, reason: reply.reason }),
            _ => Err(SkipError::Unknown(reply.reason)),
        }
    })
    .await
}
