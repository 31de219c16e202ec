//! A character is in one place, a person has one session, and whatever somebody holds is held by nobody else.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::fact::{Fact, FinalState};

#[derive(Default)]
pub(super) struct OnePlace;

fn check(state: &FinalState) -> Result<(), String> {
    let replica = state.replica;
    let mut present = BTreeSet::new();
    if let Some(twice) = state.characters.iter().find(|character| !present.insert(**character)) {
        return Err(format!("character {twice} is in two places on {replica}"));
    }
    let mut sessions = BTreeMap::new();
    for client in &state.sessions {
        if let Some(other) = sessions.insert(client.person(), *client) {
            return Err(format!("person {} has two sessions on {replica}: {other} and {client}", client.person()));
        }
    }
    let mut holders = BTreeMap::new();
    for (client, items) in &state.inventories {
        for item in items {
            if let Some(other) = holders.insert(*item, *client) {
                return Err(format!("item {item} is held by {other} and by {client} on {replica}"));
            }
            if !state.items.contains(item) {
                return Err(format!("item {item}, held by {client}, is not in the world on {replica}"));
            }
        }
    }
    Ok(())
}

impl Invariant for OnePlace {
    fn name(&self) -> &'static str {
        "one-place"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Final(state) => check(state),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use marchland_types::{CharacterId, ItemId};

    use super::super::testing::verdict;
    use super::*;
    use crate::fact::ClientId;

    fn world(characters: &[u64], sessions: &[(u64, u64)], held: &[(u64, u64)]) -> Result<(), String> {
        let mut state = FinalState {
            characters: characters.iter().map(|c| CharacterId(*c)).collect(),
            sessions: sessions.iter().map(|(person, epoch)| ClientId::of(*person, *epoch)).collect(),
            items: vec![ItemId(1), ItemId(2)],
            ..FinalState::default()
        };
        for (person, item) in held {
            state.inventories.entry(ClientId::of(*person, 1)).or_default().push(ItemId(*item));
        }
        verdict(OnePlace, &[Fact::Final(state)])
    }

    #[test]
    fn doubled_characters_sessions_and_holders_are_found() {
        assert_eq!(world(&[1, 2], &[(1, 1), (2, 1)], &[(1, 1), (2, 2)]), Ok(()));
        assert!(world(&[1, 1], &[], &[]).is_err());
        assert!(world(&[1], &[(1, 1), (1, 2)], &[]).is_err());
        assert!(world(&[1, 2], &[], &[(1, 1), (2, 1)]).is_err());
        assert!(world(&[1, 2], &[], &[(1, 3)]).is_err());
    }
}
