//! A read after a barrier sees everything that was acknowledged to anyone before it began, whoever thinks that it leads
//! (linearizability of reads).

use super::Invariant;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct ReadsCurrent;

impl Invariant for ReadsCurrent {
    fn name(&self) -> &'static str {
        "reads-current"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Read { group, replica, acknowledged, saw } = fact else { return Ok(()) };
        if saw >= acknowledged {
            return Ok(());
        }
        Err(format!("{replica} of {group} was read at {saw} when {acknowledged} was acknowledged before"))
    }
}

#[cfg(test)]
mod tests {
    use marchland_types::{GroupId, LogIndex, ReplicaId};

    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn a_read_of_the_past_is_found() {
        let read = |acknowledged, saw| Fact::Read {
            group: GroupId(1),
            replica: ReplicaId(1),
            acknowledged: LogIndex(acknowledged),
            saw: LogIndex(saw),
        };
        assert_eq!(verdict(ReadsCurrent, &[read(0, 0), read(5, 5), read(5, 7)]), Ok(()));
        assert!(verdict(ReadsCurrent, &[read(5, 4)]).is_err());
    }
}
