//! Characters that were made by the thousand: each enters with an entity and a name of its own.

mod arena;

use arena::{Arena, Mood};
use marchland_proto::storage::{Admit, Genesis, channel_message::Body};
use marchland_region_core::testing::{Script, WORLD};
use marchland_region_core::{CharacterId, Game, LogIndex, Record, Region, character_template};
use std::sync::Arc;

#[test]
fn one_record_is_many_characters() {
    arena::quiet();
    let game = Arc::new(Arena);
    let genesis = Genesis {
        world: WORLD.0,
        region: 1,
        rules_version: game.rules_version(),
        content_hash: game.content_hash(),
        ..Genesis::default()
    };
    let template = character_template(&game, &genesis).unwrap();
    let record = Record::take(&template).unwrap();
    assert_eq!((record.identity.entity.0, record.identity.character, &*record.identity.name), (0, None, ""));

    let mut script = Script::new(&Arena, Vec::new());
    for character in [7, 8] {
        script.tell(Body::Admit(Admit {
            character,
            epoch: 1,
            name: format!("sleeper{character}"),
            carried: template.clone(),
            move_number: 2,
            ..Admit::default()
        }));
    }
    script.tick();
    let mut region = Region::new(game);
    for (at, entry) in script.log().iter().enumerate() {
        region.apply(LogIndex(at as u64 + 1), entry).unwrap();
    }
    region.check().unwrap();
    let entities = [7, 8].map(|character| region.world().entity_of(CharacterId(character)).unwrap());
    assert_ne!(entities[0], entities[1]);
    for (entity, name) in entities.into_iter().zip(["sleeper7", "sleeper8"]) {
        let view = region.world().entity(entity).unwrap();
        assert_eq!((&*view.identity.name, view.identity.move_number.0), (name, 2));
        // What a new character of this game has, and what it did when the first one left.
        assert_eq!(region.world().get::<Mood>(entity), Some(&Mood(100)));
    }
}
