//! Spreads the leadership of a world's regions evenly over its nodes.
//!
//! Of n nodes, region k prefers the (k mod n)-th. A leader that is another one hands over when the preferred one answers and has caught
//! up: after the world is made, and when a node comes back after a failure. It does not when it was itself handed the region by a replica
//! that lives on: an operator wanted that, or a disk that fills. One such wish holds for as long as the leadership.
//!
//! Nothing here is needed for safety. A world of one region has nothing to spread.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use futures::future::join_all;
use marchland_raft::{GroupStatus, RaftNode, Role};
use marchland_types::{GroupId, GroupKind, LogIndex, ReplicaId, Term};
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Groups at rest are looked at so many times more rarely, the more there are.
const LOOKS_AT_REST: RangeInclusive<usize> = 10..=40;
/// So many of them at a look, if that allows it.
const AT_REST_AT_ONCE: usize = 25;
/// Nothing is handed over within this time after an election, so that one upset does not follow another.
const SETTLED_AFTER: Duration = Duration::from_millis(1_500);
/// Pause after the preferred replica did not take a group.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Groups that are handed over at a time: each stands still for a moment, and its edges ask for a full view.
const AT_ONCE: usize = 4;
/// A replica lives when its log is no further behind the leader's than this: less than a second's ticks.
const LIVE_WITHIN: u64 = 16;

/// Runs until it is dropped.
pub(super) async fn spread(raft: RaftNode, voters: BTreeSet<ReplicaId>) {
    let nodes: Vec<_> = voters.iter().map(|voter| voter.node()).collect();
    let mut watched: BTreeMap<GroupId, Leadership> = BTreeMap::new();
    for look in 0.. {
        sleep(LOOK_EVERY).await;
        let groups = raft.groups();
        let regions = || groups.iter().filter(|group| group.id().kind() == Some(GroupKind::Region));
        if regions().nth(1).is_none() {
            continue;
        }
        let rarely = (regions().count() / AT_REST_AT_ONCE).clamp(*LOOKS_AT_REST.start(), *LOOKS_AT_REST.end());
        let mut due = Vec::new();
        for (place, group) in regions().enumerate() {
            // They may be a thousand, and are looked at in turns: none shall have to move when players have just come.
            if group.is_at_rest() && !(place + look).is_multiple_of(rarely) {
                continue;
            }
            let status = group.status();
            let preferred = nodes[group.id().serial() as usize % nodes.len()];
            let to = status.voters.iter().copied().find(|voter| voter.node() == preferred);
            let looked = watched.entry(group.id()).or_default().look(&status, Instant::now());
            if let Some(to) = to.filter(|to| looked && *to != raft.replica() && due.len() < AT_ONCE && is_live(&status, *to)) {
                due.push((group.clone(), to));
            }
        }
        let handed = due.into_iter().map(|(group, to)| async move { (group.id(), to, group.transfer_leadership(to).await) });
        for (group, to, outcome) in join_all(handed).await {
            match outcome {
                Ok(()) => tracing::info!(%group, %to, "leadership is spread: handed over"),
                Err(error) => {
                    tracing::debug!(%group, %to, %error, "not taken over");
                    watched.entry(group).or_default().refused(Instant::now());
                }
            }
        }
    }
}

/// What is known of who leads one group.
#[derive(Debug, Default)]
struct Leadership {
    /// Who led before this replica did, and when it was first and last seen to.
    before: Option<(ReplicaId, Instant, Instant)>,
    /// The term that this replica leads, and since when it does.
    own: Option<(Term, Instant)>,
    /// Whether it keeps the group, once that is decided.
    keeps: Option<bool>,
    not_before: Option<Instant>,
}

impl Leadership {
    /// Takes notice of a status; whether this replica may hand the group over now.
    fn look(&mut self, status: &GroupStatus, now: Instant) -> bool {
        if !matches!(status.role, Role::Leader(_)) {
            self.before = match (status.leader, self.before) {
                (Some(leader), Some((same, first, _))) if same == leader => Some((leader, first, now)),
                (Some(leader), _) => Some((leader, now, now)),
                (None, before) => before,
            };
            (self.own, self.keeps) = (None, None);
            return false;
        }
        let since = match self.own {
            Some((term, since)) if term == status.term => since,
            _ => {
                (self.own, self.keeps) = (Some((status.term, now)), None);
                now
            }
        };
        if now < since + SETTLED_AFTER || self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        // Leaders that fell after a moment, as when a world begins, gave nothing away.
        let given = |(before, first, last): (_, Instant, Instant)| last >= first + SETTLED_AFTER && is_live(status, before);
        let keeps = *self.keeps.get_or_insert_with(|| self.before.is_some_and(given));
        !keeps
    }

    /// The preferred replica did not take it.
    fn refused(&mut self, now: Instant) {
        self.not_before = Some(now + AGAIN_AFTER);
    }
}

/// Whether a member takes what its leader sends.
fn is_live(status: &GroupStatus, member: ReplicaId) -> bool {
    let matched = status.matched.iter().find(|(id, _)| *id == member).and_then(|(_, matched)| *matched);
    let last = status.last.unwrap_or(LogIndex(0));
    matched.is_some_and(|matched| matched.0 + LIVE_WITHIN >= last.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_types::{Incarnation, NodeId};

    fn replica(node: u32) -> ReplicaId {
        ReplicaId::new(NodeId(node), Incarnation(1))
    }

    fn led_by(node: u32, term: u64, role: Role) -> GroupStatus {
        GroupStatus {
            role,
            term: Term(term),
            leader: Some(replica(node)),
            last: Some(LogIndex(100)),
            committed: None,
            applied: None,
            durable: None,
            voters: (1..=3).map(replica).collect(),
            learners: Vec::new(),
            matched: Vec::new(),
            fault: None,
            halted: None,
        }
    }

    /// Replica 1 leads, and replica 2 has come this far.
    fn own(term: u64, other: u64) -> GroupStatus {
        GroupStatus { matched: vec![(replica(2), Some(LogIndex(other)))], ..led_by(1, term, Role::Leader(Term(term))) }
    }

    fn follows(node: u32, term: u64) -> GroupStatus {
        led_by(node, term, Role::Follower { term: Term(term), leader: Some(replica(node)) })
    }

    #[tokio::test]
    async fn who_was_elected_first_hands_over_when_it_has_settled() {
        let (mut seen, start) = (Leadership::default(), Instant::now());
        assert!(!seen.look(&own(1, 100), start));
        assert!(!seen.look(&own(1, 100), start + SETTLED_AFTER / 2), "just elected");
        assert!(seen.look(&own(1, 100), start + SETTLED_AFTER));
        seen.refused(start + SETTLED_AFTER);
        assert!(!seen.look(&own(1, 100), start + SETTLED_AFTER * 2));
        assert!(seen.look(&own(1, 100), start + SETTLED_AFTER + AGAIN_AFTER));
        assert!(!seen.look(&own(3, 100), start + SETTLED_AFTER * 4), "elected again");
    }

    #[tokio::test]
    async fn who_was_handed_a_region_keeps_it_and_who_took_it_from_a_dead_one_does_not() {
        let start = Instant::now();
        for (other, hands_over) in [(100, false), (84, false), (83, true)] {
            let mut seen = Leadership::default();
            assert!(!seen.look(&follows(2, 1), start));
            assert!(!seen.look(&follows(2, 1), start + SETTLED_AFTER));
            assert!(!seen.look(&own(2, other), start + SETTLED_AFTER));
            assert_eq!(seen.look(&own(2, other), start + SETTLED_AFTER * 2), hands_over, "{other}");
            // What comes later does not change it.
            assert_eq!(seen.look(&own(2, 183 - other), start + SETTLED_AFTER * 3), hands_over, "{other}");
        }
        let mut seen = Leadership::default();
        seen.look(&follows(2, 1), start);
        seen.look(&own(2, 100), start);
        assert!(seen.look(&own(2, 100), start + SETTLED_AFTER), "it led for a moment");
    }

    #[test]
    fn a_replica_that_takes_nothing_is_not_live() {
        assert!(is_live(&own(1, 90), replica(2)) && !is_live(&own(1, 50), replica(2)));
        assert!(!is_live(&own(1, 90), replica(3)), "nothing is known of it");
    }
}
