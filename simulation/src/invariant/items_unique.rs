//! Every unique item is in exactly one place, and as many are there as were made and not destroyed.

use std::collections::BTreeSet;

use super::Invariant;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct ItemsUnique;

impl Invariant for ItemsUnique {
    fn name(&self) -> &'static str {
        "items-unique"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Final(state) = fact else { return Ok(()) };
        let mut seen = BTreeSet::new();
        if let Some(twice) = state.items.iter().find(|item| !seen.insert(**item)) {
            return Err(format!("item {twice} is in two places on {}", state.replica));
        }
        match state.items_expected {
            Some(expected) if expected != state.items.len() as u64 => {
                Err(format!("{} has {} items, its ledger says {expected}", state.replica, state.items.len()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use marchland_types::ItemId;

    use super::super::testing::verdict;
    use super::*;
    use crate::fact::FinalState;

    #[test]
    fn doubled_and_missing_items_are_found() {
        let end = |items: &[u64], expected| {
            let items = items.iter().map(|i| ItemId(*i)).collect();
            Fact::Final(FinalState { items, items_expected: Some(expected), ..FinalState::default() })
        };
        assert_eq!(verdict(ItemsUnique, &[end(&[1, 2], 2)]), Ok(()));
        assert!(verdict(ItemsUnique, &[end(&[1, 1], 2)]).is_err());
        assert!(verdict(ItemsUnique, &[end(&[1], 2)]).is_err());
    }
}
