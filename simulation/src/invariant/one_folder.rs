//! An incarnation of a node belongs to one data folder, whoever says so: the realm, a directory, or the folder itself.

use std::collections::BTreeMap;

use marchland_types::ReplicaId;

use super::Invariant;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct OneFolder(BTreeMap<ReplicaId, u128>);

impl Invariant for OneFolder {
    fn name(&self) -> &'static str {
        "one-folder"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Bound { replica, folder } = fact else { return Ok(()) };
        let first = *self.0.entry(*replica).or_insert(*folder);
        if first == *folder { Ok(()) } else { Err(format!("folders {first:032x} and {folder:032x} are both {replica}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn two_folders_with_one_incarnation_are_found() {
        let bound = |replica, folder| Fact::Bound { replica: ReplicaId(replica), folder };
        assert_eq!(verdict(OneFolder::default(), &[bound(1, 7), bound(2, 8), bound(1, 7)]), Ok(()));
        assert!(verdict(OneFolder::default(), &[bound(1, 7), bound(2, 8), bound(1, 8)]).is_err());
    }
}
