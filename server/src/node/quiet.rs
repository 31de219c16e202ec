//! Lets a node's realm, directories and vaults rest when nothing is written to them, as regions let theirs when they fall asleep.
//!
//! Whatever is wanted of such a group wakes it, a read included: nobody has to know that it rests.

use std::collections::BTreeMap;
use std::time::Duration;

use marchland_raft::{Group, GroupStatus, RaftNode, Role};
use marchland_types::{GroupId, GroupKind, LogIndex, Term};
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A group rests when its log has not grown for so long.
const QUIET_FOR: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub(super) async fn let_rest(raft: RaftNode) {
    let mut quiet = Quiet::default();
    loop {
        sleep(LOOK_EVERY).await;
        let groups = raft.groups();
        let keyed =
            |group: &&Group| matches!(group.id().kind(), Some(GroupKind::Realm | GroupKind::Directory | GroupKind::Vault));
        for group in groups.iter().filter(keyed).filter(|group| !group.is_at_rest()) {
            if quiet.look(group.id(), &group.status(), Instant::now()) && group.rest().await {
                tracing::debug!(group = %group.id(), "rests");
            }
        }
    }
}

/// Since when which group's log has not grown.
#[derive(Debug, Default)]
struct Quiet(BTreeMap<GroupId, (Term, Option<LogIndex>, Instant)>);

impl Quiet {
    /// Whether a group may rest.
    fn look(&mut self, group: GroupId, status: &GroupStatus, now: Instant) -> bool {
        if !matches!(status.role, Role::Leader(_)) {
            self.0.remove(&group);
            return false;
        }
        let seen = self.0.entry(group).or_insert((status.term, status.last, now));
        if (seen.0, seen.1) != (status.term, status.last) {
            *seen = (status.term, status.last, now);
        }
        now.saturating_duration_since(seen.2) >= QUIET_FOR
    }
}

#[cfg(test)]
mod tests {
    use marchland_types::{Incarnation, NodeId, ReplicaId};

    use super::*;

    fn status(role: Role, term: u64, last: u64) -> GroupStatus {
        GroupStatus {
            role,
            term: Term(term),
            leader: Some(ReplicaId::new(NodeId(1), Incarnation(1))),
            last: Some(LogIndex(last)),
            committed: None,
            applied: None,
            durable: None,
            voters: Vec::new(),
            learners: Vec::new(),
            matched: Vec::new(),
            fault: None,
            halted: None,
        }
    }

    #[tokio::test]
    async fn a_leader_whose_log_has_not_grown_may_rest() {
        let (mut quiet, start, group) = (Quiet::default(), Instant::now(), GroupId(7));
        let leads = |term, last| status(Role::Leader(Term(term)), term, last);
        assert!(!quiet.look(group, &leads(1, 10), start));
        assert!(!quiet.look(group, &leads(1, 11), start + QUIET_FOR), "it has grown");
        assert!(quiet.look(group, &leads(1, 11), start + QUIET_FOR * 2));
        assert!(!quiet.look(group, &leads(2, 11), start + QUIET_FOR * 3), "it leads anew");
        let follows = status(Role::Follower { term: Term(2), leader: None }, 2, 11);
        assert!(!quiet.look(group, &follows, start + QUIET_FOR * 9));
        assert!(!quiet.look(group, &leads(3, 11), start + QUIET_FOR * 9), "nothing is known of the time between");
    }
}
