//! When which group's state is made durable and its log purged: one group at a time, so that checkpoints of many groups do
//! not meet on the disk. The group with the most unpersisted bytes above the limit comes first; then, the one that has had
//! something to persist for longest. A few are chosen at a time, for there may be thousands.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use marchland_types::GroupId;
use tokio::time::Instant;

use crate::group::Group;
use crate::node::NodeInner;

/// What decides about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    group: GroupId,
    unpersisted_bytes: u64,
    /// Since it was first seen to have something to persist.
    age: Duration,
}

/// Groups that are chosen before all are looked at again.
const AT_ONCE: usize = 16;

/// At most [`AT_ONCE`] groups, in the order of their turns.
fn choose(mut candidates: Vec<Candidate>, limit_bytes: u64, limit_age: Duration) -> Vec<GroupId> {
    let is_heavy = |c: &Candidate| c.unpersisted_bytes >= limit_bytes;
    candidates.retain(|c| is_heavy(c) || (c.unpersisted_bytes > 0 && c.age >= limit_age));
    candidates.sort_by_key(|c| Reverse(if is_heavy(c) { (c.unpersisted_bytes, Duration::ZERO) } else { (0, c.age) }));
    candidates.iter().map(|c| c.group).take(AT_ONCE).collect()
}

/// Runs until the node is dropped.
pub(crate) async fn run(node: Weak<NodeInner>) {
    let Some(first) = node.upgrade() else { return };
    let pause = Duration::from_millis(first.timings().persist_check_ms);
    let (limit_bytes, limit_age) = (first.limits().persist_bytes, Duration::from_millis(first.timings().persist_age_ms));
    drop(first);
    // Since when groups have something to persist.
    let mut since: BTreeMap<GroupId, Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(pause).await;
        loop {
            let Some(node) = node.upgrade() else { return };
            let groups = node.groups();
            drop(node);
            let now = Instant::now();
            since.retain(|id, _| {
                groups.binary_search_by_key(id, Group::id).is_ok_and(|at| groups[at].0.state.unpersisted_bytes() > 0)
            });
            let candidates: Vec<Candidate> = groups
                .iter()
                .map(|group| &group.0)
                .filter(|group| group.state.unpersisted_bytes() > 0)
                .filter(|group| group.fault().is_none() && group.state.halts().halted().is_none())
                .map(|group| Candidate {
                    group: group.id(),
                    unpersisted_bytes: group.state.unpersisted_bytes(),
                    age: now - *since.entry(group.id()).or_insert(now),
                })
                .collect();
            let chosen = choose(candidates, limit_bytes, limit_age);
            if chosen.is_empty() {
                break;
            }
            let mut failed = false;
            for id in chosen {
                since.remove(&id);
                let Ok(at) = groups.binary_search_by_key(&id, Group::id) else { continue };
                match groups[at].0.persist().await {
                    Ok(durable) => tracing::debug!(group = %id, ?durable, "persisted"),
                    Err(reason) => {
                        tracing::warn!(group = %id, %reason, "not persisted");
                        failed = true;
                    }
                }
            }
            if failed {
                break;
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
        let all = [candidate(1, 100, 90), candidate(2, 900, 1), candidate(3, 1200, 1), candidate(4, 0, 999), candidate(5, 1, 91)];
        let groups = |numbers: &[u64]| numbers.iter().map(|number| GroupId(*number)).collect::<Vec<_>>();
        assert_eq!(choose(all.to_vec(), 800, minute), groups(&[3, 2, 5, 1]));
        assert_eq!(choose(all.to_vec(), 5000, minute), groups(&[5, 1]));
        assert_eq!(choose(all[1..4].to_vec(), 5000, minute), []);
        let many = (0..100).map(|group| candidate(group, 1, 60 + group)).collect();
        assert_eq!(choose(many, 5000, minute), (84..100).rev().map(GroupId).collect::<Vec<_>>());
    }
}
