//! What of a replay is printed.

use std::str::FromStr;

use marchland_region_core::World;
use marchland_types::EntityId;

use super::report::{EntryReport, ItemReport};

/// An entity, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityChoice {
    /// By its id.
    Number(u64),
    /// By its name.
    Name(String),
}

impl FromStr for EntityChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Number))
    }
}

/// What is printed: everything, or what concerns an entity or an item.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub entity: Option<EntityChoice>,
    pub item: Option<u64>,
}

impl Filter {
    pub fn is_set(&self) -> bool {
        self.entity.is_some() || self.item.is_some()
    }

    /// The entity that is meant, if it is in the world.
    pub fn find(&self, world: &World) -> Option<EntityId> {
        match self.entity.as_ref()? {
            EntityChoice::Number(number) => Some(EntityId(*number)),
            EntityChoice::Name(name) => {
                world.entities().find(|view| *view.identity.name == **name).map(|view| view.identity.entity)
            }
        }
    }

    fn concerns(&self, entity: Option<EntityId>, items: &[ItemReport]) -> bool {
        let holds = |item: &ItemReport| entity.is_some_and(|entity| [item.from.entity, item.to.entity].contains(&Some(entity.0)));
        items.iter().any(|item| Some(item.item) == self.item || holds(item))
    }

    /// Takes out of a report what does not concern the entity, which embodies `character`, or the item.
    pub fn apply(&self, report: &mut EntryReport, entity: Option<EntityId>, character: Option<u64>) {
        if !self.is_set() {
            return;
        }
        let is_it = |id: u64| entity.is_some_and(|entity| entity.0 == id);
        report.commands.retain(|command| is_it(command.entity) || self.concerns(entity, &command.items));
        report.deeds.retain(|deed| deed.entity.is_some_and(is_it) || self.concerns(entity, &deed.items));
        report.sessions.retain(|session| Some(session.character) == character);
        for entities in [&mut report.appeared, &mut report.changed, &mut report.vanished] {
            entities.retain(|changed| is_it(changed.entity));
        }
        report.cuts.clear();
    }
}
