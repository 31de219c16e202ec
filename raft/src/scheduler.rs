//! When which group's state is made durable and its log purged: one group at a time, so that checkpoints of many groups do
//! not meet on the disk. The group with the most unpersisted bytes above the limit comes first; then, the one that was
//! persisted longest ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use marchland_types::GroupId;
use tokio::time::Instant;

use crate::node::NodeInner;

/// What decides about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    group: GroupId,
    unpersisted_bytes: u64,
    age: Duration,
}

fn choose(candidates: &[Candidate], limit_bytes: u64, limit_age: Duration) -> Option<GroupId> {
    let heavy = candidates.iter().filter(|c| c.unpersisted_bytes >= limit_bytes).max_by_key(|c| c.unpersisted_bytes);
    let old = || candidates.iter().filter(|c| c.unpersisted_bytes > 0 && c.age >= limit_age).max_by_key(|c| c.age);
    heavy.or_else(old).map(|c| c.group)
}

/// Runs until the node is dropped.
pub(crate) async fn run(node: Weak<NodeInner>) {
    let Some(first) = node.upgrade() else { return };
    let pause = Duration::from_millis(first.timings().persist_check_ms);
    let (limit_bytes, limit_age) = (first.limits().persist_bytes, Duration::from_millis(first.timings().persist_age_ms));
    drop(first);
    let mut last: BTreeMap<GroupId, Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(pause).await;
        loop {
            let Some(node) = node.upgrade() else { return };
            let groups = node.groups();
            drop(node);
            let now = Instant::now();
            let open: BTreeSet<GroupId> = groups.iter().map(|group| group.id()).collect();
            last.retain(|id, _| open.contains(id));
            let candidates: Vec<Candidate> = groups
                .iter()
                .filter(|group| group.fault().is_none() && group.state.halts().halted().is_none())
                .map(|group| Candidate {
                    group: group.id(),
                    unpersisted_bytes: group.state.unpersisted_bytes(),
                    age: now - *last.entry(group.id()).or_insert(now),
                })
                .collect();
            let Some(id) = choose(&candidates, limit_bytes, limit_age) else { break };
            last.insert(id, now);
            let Some(group) = groups.into_iter().find(|group| group.id() == id) else { break };
            match group.persist().await {
                Ok(durable) => tracing::debug!(group = %id, ?durable, "persisted"),
                Err(reason) => {
                    tracing::warn!(group = %id, %reason, "not persisted");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(group: u64, unpersisted_bytes: u64, age_s: u64) -> Candidate {
        Candidate { group: GroupId(group), unpersisted_bytes, age: Duration::from_secs(age_s) }
    }

    #[test]
    fn the_heaviest_then_the_oldest_then_nobody() {
        let minute = Duration::from_secs(60);
        let all = [candidate(1, 100, 90), candidate(2, 900, 1), candidate(3, 1200, 1), candidate(4, 0, 999)];
        assert_eq!(choose(&all, 800, minute), Some(GroupId(3)));
        assert_eq!(choose(&all, 5000, minute), Some(GroupId(1)));
        assert_eq!(choose(&all[1..], 5000, minute), None);
    }
}
