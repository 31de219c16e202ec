//! Gives an order to the node that leads a region's group, wherever that is.

use std::time::Duration;

use marchland_types::{GroupId, GroupKind, NodeId, RegionId};

use crate::client::{AdminCluster, AdminNode};

/// How often the leader is looked for: as long as an election takes, and then some.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// An order was given to nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLeader {
    /// No node that answers has the region.
    #[error("no node that answers has a replica of region {0}")]
    NoRegion(RegionId),
    /// Nobody leads its group.
    #[error("{group} has no leader: {reason}")]
    NoLeader {
        /// The group.
        group: GroupId,
        /// What was heard last.
        reason: String,
    },
}

/// What a node did with an order.
pub(crate) enum Given<T> {
    /// It took it.
    Done(T),
    /// It leads no more, and says so: the leader is looked for again.
    NotLeader(String),
}

/// Looks for the leader of a region's group, and has `give` give it the order.
pub(crate) async fn give_leader<T, E: From<NoLeader>>(
    cluster: &AdminCluster,
    region: RegionId,
    mut give: impl AsyncFnMut(&AdminNode, NodeId, GroupId) -> Result<Given<T>, E>,
) -> Result<T, E> {
    let mut none = NoLeader::NoRegion(region);
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for node in &cluster.nodes {
            let Ok(status) = node.status().await else { continue };
            let Some(here) = status.groups.iter().find(|g| is_region(GroupId(g.group), region)) else { continue };
            let group = GroupId(here.group);
            let reason = match here.role.as_str() {
                "leader" => match give(node, NodeId(status.node), group).await? {
                    Given::Done(done) => return Ok(done),
                    Given::NotLeader(reason) => reason,
                },
                role => format!("node {} is {role}", status.node),
            };
            none = NoLeader::NoLeader { group, reason };
        }
    }
    Err(none.into())
}

fn is_region(group: GroupId, region: RegionId) -> bool {
    group.kind() == Some(GroupKind::Region) && group.serial() == region.0
}
