//! Replicas have equal states after equal entries, whether they restored a checkpoint or not; at the end
//! all of them have caught up to the same moment.

use std::collections::BTreeMap;

use marchland_types::{GroupId, LogIndex, ReplicaId};

use super::Invariant;
use crate::fact::{Fact, FinalState};

struct Seen {
    hash: u64,
    by: ReplicaId,
    parts: Vec<(String, u64)>,
}

#[derive(Default)]
pub(super) struct ReplicasAgree {
    hashes: BTreeMap<(GroupId, u64), Seen>,
    finals: BTreeMap<GroupId, (LogIndex, u64, ReplicaId)>,
}

impl Invariant for ReplicasAgree {
    fn name(&self) -> &'static str {
        "replicas-agree"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::StateHash { group, replica, at, hash, parts } => {
                let new = || Seen { hash: *hash, by: *replica, parts: parts.clone() };
                let seen = self.hashes.entry((*group, *at)).or_insert_with(new);
                if seen.hash == *hash {
                    return Ok(());
                }
                let differing = seen.parts.iter().zip(parts).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str());
                let differing = differing.collect::<Vec<_>>().join(", ");
                let (first, by) = (seen.hash, seen.by);
                Err(format!("{group} at {at}: {by} has {first:016x}, {replica} has {hash:016x}; differing parts: {differing}"))
            }
            Fact::Final(FinalState { group, replica, applied, hash, .. }) => {
                let (at, seen, by) = *self.finals.entry(*group).or_insert((*applied, *hash, *replica));
                if (at, seen) == (*applied, *hash) {
                    return Ok(());
                }
                Err(format!("{group} ends at {at} with {seen:016x} on {by}, at {applied} with {hash:016x} on {replica}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn different_hashes_at_one_moment_are_found() {
        let hash =
            |replica, at, hash| Fact::StateHash { group: GroupId(1), replica: ReplicaId(replica), at, hash, parts: Vec::new() };
        assert_eq!(verdict(ReplicasAgree::default(), &[hash(1, 5, 9), hash(2, 5, 9), hash(1, 6, 8)]), Ok(()));
        assert!(verdict(ReplicasAgree::default(), &[hash(1, 5, 9), hash(1, 6, 8), hash(2, 6, 9)]).is_err());
    }

    #[test]
    fn a_replica_that_did_not_catch_up_is_found() {
        let end = |replica, applied| {
            Fact::Final(FinalState { replica: ReplicaId(replica), applied: LogIndex(applied), ..FinalState::default() })
        };
        assert_eq!(verdict(ReplicasAgree::default(), &[end(1, 7), end(2, 7)]), Ok(()));
        assert!(verdict(ReplicasAgree::default(), &[end(1, 7), end(2, 6)]).is_err());
    }
}
