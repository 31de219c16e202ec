//! A term of a group has at most one leader (Ongaro and Ousterhout 2014, election safety).

use std::collections::BTreeMap;

use marchland_types::{GroupId, ReplicaId, Term};

use super::Invariant;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct OneLeader(BTreeMap<(GroupId, Term), ReplicaId>);

impl Invariant for OneLeader {
    fn name(&self) -> &'static str {
        "one-leader"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Leads { group, term, replica } = fact else { return Ok(()) };
        let first = *self.0.entry((*group, *term)).or_insert(*replica);
        if first == *replica { Ok(()) } else { Err(format!("{first} and {replica} both lead {group} in term {term}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn two_leaders_in_a_term_are_found() {
        let leads = |term, replica| Fact::Leads { group: GroupId(1), term: Term(term), replica: ReplicaId(replica) };
        assert_eq!(verdict(OneLeader::default(), &[leads(1, 1), leads(1, 1), leads(2, 2)]), Ok(()));
        assert!(verdict(OneLeader::default(), &[leads(1, 1), leads(2, 2), leads(1, 2)]).is_err());
    }
}
