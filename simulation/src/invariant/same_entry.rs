//! The same log index holds the same entry on every replica, and a replica never applies two entries at one index (state machine
//! safety). A replica that restarts may apply an entry again: the same one.

use std::collections::BTreeMap;

use marchland_types::{GroupId, LogIndex, ReplicaId, Term};

use super::Invariant;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct SameEntry(BTreeMap<(GroupId, LogIndex), (Term, u64, ReplicaId)>);

impl Invariant for SameEntry {
    fn name(&self) -> &'static str {
        "same-entry"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Applied { group, replica, position, digest } = fact else { return Ok(()) };
        let (term, seen, by) = *self.0.entry((*group, position.index)).or_insert((position.term, *digest, *replica));
        if (term, seen) == (position.term, *digest) {
            return Ok(());
        }
        Err(format!(
            "{group} at {}: {by} applied term {term} {seen:016x}, {replica} applied term {} {digest:016x}",
            position.index, position.term
        ))
    }
}

#[cfg(test)]
mod tests {
    use marchland_types::Position;

    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn another_entry_at_the_same_index_is_found() {
        let applied = |replica, term, digest| Fact::Applied {
            group: GroupId(1),
            replica: ReplicaId(replica),
            position: Position { term: Term(term), index: LogIndex(4) },
            digest,
        };
        assert_eq!(verdict(SameEntry::default(), &[applied(1, 2, 9), applied(2, 2, 9), applied(1, 2, 9)]), Ok(()));
        assert!(verdict(SameEntry::default(), &[applied(1, 2, 9), applied(2, 2, 8)]).is_err());
        assert!(verdict(SameEntry::default(), &[applied(1, 2, 9), applied(2, 3, 9)]).is_err());
    }
}
