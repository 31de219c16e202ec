//! How the other members are: how far they have applied, and whether they have room. They say so with every append that they answer.
//!
//! A member whose log is complete and whose state is far behind is no hot standby: if it came to lead, it would first apply what it missed.
//! Whoever proposes can therefore ask how far behind the majority is, and propose less.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use marchland_types::{LogIndex, ReplicaId};

/// What a member says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// The last entry that it has applied; index 0 is unsaid.
    pub(crate) applied: LogIndex,
    /// Its disk has no room for new work.
    pub(crate) short_of_room: bool,
}

/// What the members of one group said last.
#[derive(Debug, Default)]
pub(crate) struct Standby(Mutex<BTreeMap<ReplicaId, Word>>);

impl Standby {
    /// A member answered.
    pub(crate) fn heard(&self, from: ReplicaId, word: Word) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.entry(from).or_default();
        let applied = if word.applied > LogIndex(0) { word.applied } else { known.applied };
        *known = Word { applied, ..word };
    }

    /// Whether a member said that it has no room.
    pub(crate) fn is_short_of_room(&self, member: ReplicaId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&member).is_some_and(|word| word.short_of_room)
    }

    /// By how many entries the majority of `voters` is behind `own`, what this replica has applied. Who said nothing is not held to be
    /// behind: a leader that just came to lead has heard nothing yet.
    pub(crate) fn lag(&self, me: ReplicaId, own: LogIndex, voters: &[ReplicaId]) -> u64 {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|id, _| voters.contains(id));
        let behind = |id: &ReplicaId| match heard.get(id) {
            Some(Word { applied, .. }) if *id != me && *applied > LogIndex(0) => own.0.saturating_sub(applied.0),
            _ => 0,
        };
        let mut lags: Vec<u64> = voters.iter().map(behind).collect();
        lags.sort_unstable();
        lags.get(voters.len() / 2).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(1);
    const VOTERS: [ReplicaId; 3] = [ME, ReplicaId(2), ReplicaId(3)];

    fn at(index: u64) -> Word {
        Word { applied: LogIndex(index), short_of_room: false }
    }

    #[test]
    fn the_majority_is_as_far_as_its_slowest_member() {
        let standby = Standby::default();
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS), 0, "nobody said anything yet");
        standby.heard(ReplicaId(2), at(90));
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS), 0, "the other one may be quicker");
        standby.heard(ReplicaId(3), at(70));
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS), 10);
        standby.heard(ReplicaId(3), at(0));
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS), 10, "no word");
        standby.heard(ReplicaId(3), at(101));
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS), 0);
    }

    #[test]
    fn whoever_is_alone_waits_for_nobody_and_strangers_do_not_count() {
        let standby = Standby::default();
        standby.heard(ReplicaId(2), at(1));
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS[..1]), 0);
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS[..2]), 0, "what a member said that has left is forgotten");
        standby.heard(ReplicaId(2), at(1));
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS[..2]), 99, "both are the majority of two");
    }

    #[test]
    fn a_replica_that_begins_again_is_behind_again() {
        let standby = Standby::default();
        standby.heard(ReplicaId(2), at(100));
        standby.heard(ReplicaId(2), at(40));
        standby.heard(ReplicaId(3), at(50));
        assert_eq!(standby.lag(ME, LogIndex(100), &VOTERS), 50);
    }

    #[test]
    fn whoever_has_no_room_says_so_until_there_is_some() {
        let standby = Standby::default();
        assert!(!standby.is_short_of_room(ReplicaId(2)), "nobody said anything yet");
        standby.heard(ReplicaId(2), Word { short_of_room: true, ..at(5) });
        assert!(standby.is_short_of_room(ReplicaId(2)) && !standby.is_short_of_room(ReplicaId(3)));
        standby.heard(ReplicaId(2), at(5));
        assert!(!standby.is_short_of_room(ReplicaId(2)));
    }
}
