//! `marchland admin region move`: another node owns a region from then on.
//!
//! The region stands still for the moment that it takes to hand it over, not for an election; players keep their connections. The order
//! may be given again: a region that is already where it is wanted stays there.

use marchland_proto::codes::Code;
use marchland_types::{GroupId, NodeId, RegionId, ReplicaId};
use serde::Serialize;

use crate::client::{AdminCluster, CallError};
use crate::leader::{Given, NoLeader, give_leader};

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
    /// There is nobody to ask.
    #[error(transparent)]
    NoLeader(#[from] NoLeader),
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
    give_leader(cluster, region, async |node, from, group| {
        if to == Some(from) {
            return Ok(Given::Done(Moved { group: group.to_string(), from: from.0, to: from.0 }));
        }
        let reply = node.move_owner(group, to).await.map_err(|error| match error {
            CallError::Refused { reason, .. } => MoveError::Refused { group, reason },
            CallError::NoAnswer { .. } => MoveError::Unknown(error.to_string()),
        })?;
        match Code::from_u32(reply.code) {
            Some(Code::Ok) => {
                let to = ReplicaId(reply.leader).node().0;
                Ok(Given::Done(Moved { group: group.to_string(), from: from.0, to }))
            }
            Some(Code::NotLeader) => Ok(Given::NotLeader(reply.reason)),
            Some(Code::Refused) => Err(MoveError::Refused { group, reason: reply.reason }),
            _ => Err(MoveError::Unknown(reply.reason)),
        }
    })
    .await
}
