//! Leaves a node's groups to other nodes before it stops, so that nobody waits for an election.
//!
//! Only a replica that answers and has caught up is asked; where none is, the group stays, and its members elect another leader when this
//! node is gone. Nothing here is needed for safety.

use std::time::Duration;

use futures::future::join_all;
use marchland_proto::cluster::MoveOwnerReply;
use marchland_proto::codes::Code;
use marchland_raft::{Group, ProposeError, RaftNode, Role};
use marchland_types::{NodeId, ReplicaId};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::assembly::Node;
use crate::seams::Seams;

/// Time for all groups together.
const WITHIN: Duration = Duration::from_secs(3);
/// Pause before the members of a group are asked again: a replica that has just started may still be behind.
const PAUSE: Duration = Duration::from_millis(100);

/// Players whom this node serves are shown the new owner's first ticks before they are sent away: two short waits, not a long one.
const SHOWN_FOR: Duration = Duration::from_millis(300);
/// How often a node looks whether its disk has room, and how long it may have none before others take over what it leads.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const SHORT_FOR: Duration = Duration::from_millis(500);
/// Time for one group that an operator moves.
const MOVE_WITHIN: Duration = Duration::from_secs(3);

/// Hands one group to the replica of a node, or to whoever is furthest.
pub(super) async fn move_owner(group: &Group, to: Option<NodeId>) -> MoveOwnerReply {
    let status = group.status();
    let answer = |code: Code, leader: Option<ReplicaId>, reason: String| MoveOwnerReply {
        code: code as u32,
        reason,
        leader: leader.map_or(0, |l| l.0),
    };
    if !leads(group) {
        return answer(Code::NotLeader, status.leader, format!("{} is not led here", group.id()));
    }
    let Some(node) = to else {
        return match timeout(MOVE_WITHIN, find_heir(group)).await {
            Ok(heir) => answer(Code::Ok, Some(heir), String::new()),
            Err(_) => answer(Code::Refused, status.leader, "no other replica answers and has caught up".into()),
        };
    };
    let Some(heir) = status.voters.iter().copied().find(|id| id.node() == node) else {
        return answer(Code::Refused, status.leader, format!("node {node} has no voting replica of {}", group.id()));
    };
    match group.transfer_leadership(heir).await {
        Ok(()) => answer(Code::Ok, Some(heir), String::new()),
        Err(ProposeError::NotLeader { leader, .. }) => answer(Code::NotLeader, leader, format!("{} is not led here", group.id())),
        Err(error @ ProposeError::Refused { .. }) => answer(Code::Refused, status.leader, error.to_string()),
        Err(error) => answer(Code::Unavailable, None, error.to_string()),
    }
}

/// What became of the groups that this node led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// Another node leads them now.
    pub handed_over: usize,
    /// Nobody took them in time.
    pub kept: usize,
}

impl<S: Seams> Node<S> {
    /// Hands every group that this node leads to another, as far as there is one that can take it. Before [`Node::stop`], when the
    /// others go on.
    pub async fn hand_over(&self) -> HandedOver {
        let groups = hand_over(self.groups()).await;
        if groups.handed_over > 0 && self.edge_stats().is_some_and(|edge| edge.clients > 0) {
            sleep(SHOWN_FOR).await;
        }
        groups
    }
}

async fn hand_over(groups: Vec<Group>) -> HandedOver {
    let end = Instant::now() + WITHIN;
    let led = groups.into_iter().filter(leads);
    let outcomes = join_all(led.map(|group| async move {
        let taken = timeout_at(end, find_heir(&group)).await;
        match &taken {
            Ok(heir) => tracing::info!(group = %group.id(), %heir, "handed over"),
            Err(_) => tracing::warn!(group = %group.id(), "nobody could take this group over: its members will elect a leader"),
        }
        taken.is_ok()
    }))
    .await;
    let handed_over = outcomes.iter().filter(|taken| **taken).count();
    HandedOver { handed_over, kept: outcomes.len() - handed_over }
}

/// Leaves what this node leads to others while its disk has no room for new work. Runs until it is dropped.
pub(super) async fn make_way(raft: RaftNode) {
    let mut short_since = None;
    loop {
        sleep(LOOK_EVERY).await;
        let groups = raft.groups();
        // All of them write to one log.
        if !groups.first().is_some_and(Group::is_short_of_room) {
            if short_since.take().is_some() {
                tracing::info!("the disk of the data folder has room again: new work is taken on");
                metrics::gauge!("marchland_disk_short").set(0.0);
            }
            continue;
        }
        if short_since.is_none() {
            tracing::error!("the disk of the data folder is nearly full: new work is refused here until there is room");
            metrics::gauge!("marchland_disk_short").set(1.0);
        }
        if short_since.get_or_insert_with(Instant::now).elapsed() < SHORT_FOR {
            continue;
        }
        for group in groups.iter().filter(|group| leads(group)) {
            for heir in group.heirs() {
                match group.transfer_leadership(heir).await {
                    Ok(()) => {
                        tracing::warn!(group = %group.id(), %heir, "handed over for want of room");
                        break;
                    }
                    Err(error) => tracing::debug!(group = %group.id(), %heir, %error, "not taken over"),
                }
            }
        }
    }
}

fn leads(group: &Group) -> bool {
    matches!(group.status().role, Role::Leader(_))
}

/// Asks the other voters, whoever is furthest first, until one leads.
async fn find_heir(group: &Group) -> ReplicaId {
    loop {
        let status = group.status();
        if let Some(leader) = status.leader.filter(|_| !leads(group)) {
            return leader;
        }
        for heir in group.heirs() {
            match group.transfer_leadership(heir).await {
                Ok(()) => return heir,
                Err(error) => tracing::info!(group = %group.id(), %heir, %error, "not taken over"),
            }
        }
        sleep(PAUSE).await;
    }
}
