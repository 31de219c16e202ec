//! A name stands for one character, whoever asks and how often, and no two names for the same one. (Nothing deletes characters yet.)

use std::collections::BTreeMap;

use marchland_types::CharacterId;

use super::Invariant;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct NamesUnique {
    characters: BTreeMap<String, CharacterId>,
    names: BTreeMap<CharacterId, String>,
}

impl Invariant for NamesUnique {
    fn name(&self) -> &'static str {
        "names-unique"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Claimed { client, name, character } = fact else { return Ok(()) };
        let first = *self.characters.entry(name.clone()).or_insert(*character);
        if first != *character {
            return Err(format!("{name:?} is character {first}, and {client} was told {character}"));
        }
        let known = self.names.entry(*character).or_insert_with(|| name.clone());
        if known == name { Ok(()) } else { Err(format!("character {character} is {known:?}, and {client} has it as {name:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;
    use crate::fact::ClientId;

    #[test]
    fn a_name_with_two_characters_and_a_character_with_two_names_are_found() {
        let claimed = |name: &str, character| Fact::Claimed {
            client: ClientId(1),
            name: name.to_owned(),
            character: CharacterId(character),
        };
        assert_eq!(verdict(NamesUnique::default(), &[claimed("ann", 1), claimed("bo", 2), claimed("ann", 1)]), Ok(()));
        assert!(verdict(NamesUnique::default(), &[claimed("ann", 1), claimed("ann", 2)]).is_err());
        assert!(verdict(NamesUnique::default(), &[claimed("ann", 1), claimed("bo", 1)]).is_err());
    }
}
