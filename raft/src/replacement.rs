//! Whose place is taken by whom when data folders were lost: one step at a time, decided from what a group says of itself and
//! from the newest incarnation of each node.
//!
//! ```text
//! voters 1.1 2.1 3.1              node 3 has a new folder: 3.2
//!   add learner 3.2               receives a snapshot and the log, does not vote
//!   caught up? a majority live?   else wait
//!   change voters 1.1 2.1 3.2     joint: a majority of the old *and* of the new voters commits it
//! ```
//!
//! The step depends on the state alone, so whoever leads goes on where the last leader stopped, and doing a step twice changes
//! nothing. One replica of a group is replaced at a time. A change that the live members could not commit is not begun.

use std::collections::BTreeSet;

use marchland_types::{Incarnation, NodeId, ReplicaId};

use crate::api::{GroupStatus, Role};
use crate::group::CAUGHT_UP;

/// The next step towards a group whose members are the newest replicas of their nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Nothing is to be done, or not by this replica.
    None,
    /// Let this one receive the log.
    AddLearner(ReplicaId),
    /// Make these the voters.
    ChangeVoters(BTreeSet<ReplicaId>),
    /// Take this learner out.
    Remove(ReplicaId),
    /// Not yet; why, for the log.
    Wait(String),
}

/// What a leader with this status does next. `newest` is the newest incarnation of a node, if it is known.
#[must_use]
pub fn next_replacement(status: &GroupStatus, newest: impl Fn(NodeId) -> Option<Incarnation>) -> Replacement {
    if !matches!(status.role, Role::Leader(_)) {
        return Replacement::None;
    }
    let current = |id: ReplicaId| newest(id.node()).map_or(id, |incarnation| ReplicaId::new(id.node(), incarnation));
    let stale = |id: &ReplicaId| id.incarnation() < current(*id).incarnation();
    if status.leader.as_ref().is_some_and(stale) {
        // Its own folder was replaced: the others refuse what it says, and one of them will lead.
        return Replacement::None;
    }
    let voters: BTreeSet<ReplicaId> = status.voters.iter().copied().collect();
    // Two voters of a node: a leader died between the joint members and the new ones.
    let left: BTreeSet<_> =
        voters.iter().copied().filter(|id| !voters.iter().any(|other| other.node() == id.node() && other > id)).collect();
    if left.len() < voters.len() {
        return change(status, left);
    }
    if let Some(old) = voters.iter().find(|id| stale(id)) {
        let new = current(*old);
        let mut members = voters.clone();
        members.remove(old);
        members.insert(new);
        return match status.learners.iter().find(|id| id.node() == new.node()) {
            Some(learner) if *learner == new => change(status, members),
            Some(learner) => Replacement::Remove(*learner),
            None => Replacement::AddLearner(new),
        };
    }
    match status.learners.iter().find(|id| stale(id)) {
        Some(learner) => Replacement::Remove(*learner),
        None => Replacement::None,
    }
}

/// Makes these the voters, if a majority of them is there and has nearly everything.
fn change(status: &GroupStatus, voters: BTreeSet<ReplicaId>) -> Replacement {
    let last = status.last.map_or(0, |last| last.0);
    let has = |id: &ReplicaId| {
        let matched = status.matched.iter().find(|(member, _)| member == id).and_then(|(_, matched)| *matched);
        matched.is_some_and(|matched| matched.0 + CAUGHT_UP >= last)
    };
    if let Some(new) = voters.iter().find(|id| !status.voters.contains(id) && !has(id)) {
        return Replacement::Wait(format!("replica {new} has not caught up"));
    }
    let there = voters.iter().filter(|id| has(id)).count();
    if there <= voters.len() / 2 {
        return Replacement::Wait(format!("{there} of {} voters are there and caught up: no majority", voters.len()));
    }
    Replacement::ChangeVoters(voters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_types::{LogIndex, Term};

    fn id(node: u32, incarnation: u32) -> ReplicaId {
        ReplicaId::new(NodeId(node), Incarnation(incarnation))
    }

    /// Led by 1.1. Members are given with how far they are; `None` was never heard.
    fn led(voters: &[(ReplicaId, Option<u64>)], learners: &[(ReplicaId, Option<u64>)]) -> GroupStatus {
        let ids = |members: &[(ReplicaId, Option<u64>)]| members.iter().map(|(id, _)| *id).collect();
        GroupStatus {
            role: Role::Leader(Term(3)),
            term: Term(3),
            leader: Some(id(1, 1)),
            last: Some(LogIndex(1000)),
            committed: Some(LogIndex(1000)),
            applied: Some(LogIndex(1000)),
            durable: None,
            voters: ids(voters),
            learners: ids(learners),
            matched: voters.iter().chain(learners).map(|(id, at)| (*id, at.map(LogIndex))).collect(),
            fault: None,
            halted: None,
        }
    }

    fn newest(pairs: &[(u32, u32)]) -> impl Fn(NodeId) -> Option<Incarnation> {
        move |node| pairs.iter().find(|(n, _)| *n == node.0).map(|(_, i)| Incarnation(*i))
    }

    const ALL: Option<u64> = Some(1000);

    #[test]
    fn a_lost_replica_is_replaced_step_by_step() {
        let lost = newest(&[(1, 1), (2, 1), (3, 2)]);
        let (one, two, old, new) = (id(1, 1), id(2, 1), id(3, 1), id(3, 2));
        let voters = [(one, ALL), (two, ALL), (old, None)];
        assert_eq!(next_replacement(&led(&voters, &[]), newest(&[(1, 1), (3, 1)])), Replacement::None, "nobody was lost");
        assert_eq!(next_replacement(&led(&voters, &[]), &lost), Replacement::AddLearner(new));
        let waits = next_replacement(&led(&voters, &[(new, Some(900))]), &lost);
        assert_eq!(waits, Replacement::Wait("replica 3.2 has not caught up".into()));
        let after = Replacement::ChangeVoters([one, two, new].into());
        assert_eq!(next_replacement(&led(&voters, &[(new, Some(940))]), &lost), after);
        // The leader died after the joint members were committed.
        let joint = [(one, ALL), (two, ALL), (old, None), (new, ALL)];
        assert_eq!(next_replacement(&led(&joint, &[]), &lost), after);
        assert_eq!(next_replacement(&led(&[(one, ALL), (two, ALL), (new, ALL)], &[]), &lost), Replacement::None);
    }

    #[test]
    fn a_folder_that_is_lost_again_is_not_waited_for() {
        let twice = newest(&[(3, 3)]);
        let voters = [(id(1, 1), ALL), (id(2, 1), ALL), (id(3, 1), None)];
        assert_eq!(next_replacement(&led(&voters, &[(id(3, 2), None)]), &twice), Replacement::Remove(id(3, 2)));
        assert_eq!(next_replacement(&led(&voters, &[]), &twice), Replacement::AddLearner(id(3, 3)));
    }

    #[test]
    fn one_at_a_time_and_never_below_a_majority() {
        let two_lost = newest(&[(3, 2), (4, 2)]);
        let five = [(id(1, 1), ALL), (id(2, 1), ALL), (id(3, 1), None), (id(4, 1), None), (id(5, 1), ALL)];
        let learners = [(id(3, 2), ALL), (id(4, 2), ALL)];
        let first = Replacement::ChangeVoters([id(1, 1), id(2, 1), id(3, 2), id(4, 1), id(5, 1)].into());
        assert_eq!(next_replacement(&led(&five, &learners), &two_lost), first);
        // Nobody but the leader and the newcomer is there: the old members could not commit the change.
        let few = [(id(1, 1), ALL), (id(2, 1), Some(3)), (id(3, 1), None), (id(4, 1), None), (id(5, 1), Some(3))];
        assert!(matches!(next_replacement(&led(&few, &learners), &two_lost), Replacement::Wait(_)));
    }

    #[test]
    fn who_does_not_lead_or_was_replaced_itself_does_nothing() {
        let voters = [(id(1, 1), ALL), (id(2, 1), ALL), (id(3, 1), None)];
        let mut follows = led(&voters, &[]);
        follows.role = Role::Follower { term: Term(3), leader: Some(id(2, 1)) };
        assert_eq!(next_replacement(&follows, newest(&[(3, 2)])), Replacement::None);
        assert_eq!(next_replacement(&led(&voters, &[]), newest(&[(1, 2), (3, 2)])), Replacement::None);
    }

    #[test]
    fn a_stale_learner_goes() {
        let voters = [(id(1, 1), ALL), (id(2, 1), ALL), (id(3, 2), ALL)];
        assert_eq!(next_replacement(&led(&voters, &[(id(4, 1), None)]), newest(&[(4, 2)])), Replacement::Remove(id(4, 1)));
    }
}
