//! An item that a client was told it holds is in the world at the end. (The demo world destroys none.)

use std::collections::BTreeMap;

use marchland_types::ItemId;

use super::Invariant;
use crate::fact::{ClientId, Fact};

#[derive(Default)]
pub(super) struct GivenKept(BTreeMap<ItemId, ClientId>);

impl Invariant for GivenKept {
    fn name(&self) -> &'static str {
        "given-kept"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Given { client, item } => match self.0.insert(*item, *client) {
                Some(before) => Err(format!("item {item} was given to {before} and to {client}")),
                None => Ok(()),
            },
            Fact::Final(state) => match self.0.iter().find(|(item, _)| !state.items.contains(item)) {
                Some((item, client)) => Err(format!("item {item}, given to {client}, is not on {}", state.replica)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;
    use crate::fact::FinalState;

    #[test]
    fn a_lost_item_and_one_that_was_given_twice_are_found() {
        let given = |client, item| Fact::Given { client: ClientId(client), item: ItemId(item) };
        let end = |items: &[u64]| {
            let items = items.iter().map(|i| ItemId(*i)).collect();
            Fact::Final(FinalState { items, ..FinalState::default() })
        };
        assert_eq!(verdict(GivenKept::default(), &[given(1, 7), given(1, 8), end(&[8, 7])]), Ok(()));
        assert!(verdict(GivenKept::default(), &[given(1, 7), end(&[8])]).is_err());
        assert!(verdict(GivenKept::default(), &[given(1, 7), given(2, 7)]).is_err());
    }
}
