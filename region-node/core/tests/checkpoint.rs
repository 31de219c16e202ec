//! Checkpoints: what is restored is what was there, and bytes that are none are refused without a panic.

mod arena;

use std::sync::Arc;

use bytes::Bytes;
use marchland_proto::storage::{ChannelMessage, EntityHandoff, channel_message};
use marchland_region_core::testing::Script;
use marchland_region_core::{
    Action, BadParameters, CharacterId, Context, DecodeError, EntityId, Game, LogIndex, Refusal, Region, Registry, Spawn,
    TileGround,
};
use proptest::prelude::*;

use arena::Arena;

/// A region in which every part of the state has something.
fn rich() -> Region<Arena> {
    arena::quiet();
    let mut script = Script::new(&Arena, Vec::new());
    for character in 1..=6 {
        script.enter(character, "someone");
    }
    script.tick();
    for tick in 0..60u64 {
        for character in 1..=6 {
            script.walk(character, [1.0, 0.5]);
            script.act(character, ((tick + character) % u64::from(arena::ACTIONS_END)) as u32, vec![2; 3]);
            script.acknowledge(character, tick / 2);
        }
        script.tick();
    }
    script.detach(5, true);
    script.detach(6, false);
    let record = Bytes::from_static(b"no record");
    let handoff = EntityHandoff { entity: 1, move_number: 1, record, ..EntityHandoff::default() };
    script.pending().messages.push(ChannelMessage {
        from_group: 99,
        seq: 1,
        cut: 4,
        map_epoch: 1,
        body: Some(channel_message::Body::Handoff(handoff)),
    });
    script.walk(1, [0.0, 1.0]);
    script.walk(1, [0.0, 1.0]);
    script.walk(1, [0.0, 1.0]);
    script.tick();
    let mut region = Region::new(Arc::new(Arena));
    for (at, entry) in script.log().iter().enumerate() {
        arena::apply_or_skip(&mut region, LogIndex(at as u64 + 1), entry).unwrap();
    }
    region.check().unwrap();
    region
}

#[test]
fn every_part_survives() {
    let region = rich();
    let bytes = region.view().encode();
    let copy = Region::decode(Arc::new(Arena), &bytes).unwrap();
    assert_eq!(copy.component_hashes(), region.component_hashes());
    assert_eq!((copy.state_hash(), copy.view().state_hash_full()), (region.state_hash(), region.state_hash()));
    assert_eq!(copy.view().encode(), bytes);
    assert_eq!(copy.view().inspect(), region.view().inspect());
    assert_eq!(copy.taken_from(marchland_region_core::GroupId(99)), 1);
    assert_eq!(copy.cut_number().0, 4);
}

#[test]
fn a_view_is_not_touched_by_what_comes_after() {
    let mut region = rich();
    let view = region.view();
    let (bytes, hash) = (view.encode(), region.state_hash());
    let mut script = Script::new(&Arena, Vec::new());
    script.tick();
    let next = region.applied().0 + 1;
    for round in 0..50 {
        arena::apply_or_skip(&mut region, LogIndex(next + round), &script.log()[1]).unwrap();
    }
    assert_ne!(region.state_hash(), hash);
    assert_eq!((view.encode(), view.state_hash_full()), (bytes, hash));
}

/// [`Arena`] with fewer components.
struct Forgetful;

impl Game for Forgetful {
    type Ground = TileGround;

    fn rules_version(&self) -> u64 {
        Arena.rules_version()
    }

    fn content_hash(&self) -> u64 {
        Arena.content_hash()
    }

    fn components(&self, _registry: &mut Registry) {}

    fn ground(&self, parameters: &[u8]) -> Result<TileGround, BadParameters> {
        Arena.ground(parameters)
    }

    fn enter(&self, _ctx: &mut Context<'_, Self>, _character: CharacterId, _name: &str) -> Spawn {
        Spawn::new(1)
    }

    fn command(&self, _ctx: &mut Context<'_, Self>, _who: EntityId, _action: Action<'_>) -> Result<Bytes, Refusal> {
        Err(Refusal::unknown_action())
    }
}

#[test]
fn components_that_nobody_knows_are_kept() {
    let region = rich();
    let bytes = region.view().encode();
    let stranger = Region::decode(Arc::new(Forgetful), &bytes).unwrap();
    assert_eq!(stranger.state_hash(), region.state_hash());
    let through = stranger.view().encode();
    assert_eq!(through, bytes);
    let back = Region::decode(Arc::new(Arena), &through).unwrap();
    assert!(back.world().with::<arena::Mood>().count() > 5);
}

#[test]
fn components_that_nobody_knows_sleep_and_wake_with_their_character() {
    let region = rich();
    let character = CharacterId(1);
    let mood = region.world().get::<arena::Mood>(region.world().entity_of(character).unwrap()).unwrap().clone();
    let mut stranger = Region::decode(Arc::new(Forgetful), &region.view().encode()).unwrap();
    let epoch = stranger.session(character).unwrap().epoch.0;
    let mut script = Script::new(&Forgetful, Vec::new());
    script.pending().detaches.push(marchland_proto::storage::DetachOrder { character: 1, epoch, attach: 1, goodbye: true });
    script.tick();
    let mut next = stranger.applied().0 + 1;
    let mut apply = |entry: &[u8]| {
        next += 1;
        stranger.apply(LogIndex(next), entry).unwrap();
    };
    apply(&script.log()[1]);
    let directory = marchland_region_core::GroupId::directory(marchland_region_core::testing::WORLD);
    let taken = region.taken_from(directory);
    for _ in 0..=taken {
        script.admit(1, "someone");
    }
    script.tick();
    apply(&script.log()[2]);
    let back = Region::decode(Arc::new(Arena), &stranger.view().encode()).unwrap();
    let entity = back.world().entity_of(character).expect("the character is back");
    assert_eq!(back.world().get::<arena::Mood>(entity), Some(&mood));
}

#[test]
fn other_rules_are_refused() {
    struct Newer;
    impl Game for Newer {
        type Ground = TileGround;
        fn rules_version(&self) -> u64 {
            4
        }
        fn content_hash(&self) -> u64 {
            0
        }
        fn components(&self, _registry: &mut Registry) {}
        fn ground(&self, parameters: &[u8]) -> Result<TileGround, BadParameters> {
            Arena.ground(parameters)
        }
        fn enter(&self, _ctx: &mut Context<'_, Self>, _character: CharacterId, _name: &str) -> Spawn {
            Spawn::new(1)
        }
        fn command(&self, _ctx: &mut Context<'_, Self>, _who: EntityId, _action: Action<'_>) -> Result<Bytes, Refusal> {
            Err(Refusal::unknown_action())
        }
    }
    let bytes = rich().view().encode();
    assert!(matches!(Region::decode(Arc::new(Newer), &bytes), Err(DecodeError::Rules { wanted: (3, 0xfeed), found: (4, 0) })));
}

fn rich_bytes() -> Vec<u8> {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| rich().view().encode()).clone()
}

/// Where sections begin, by their headers.
fn sections(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut at = 10;
    let mut found = Vec::new();
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at + 10..at + 18].try_into().unwrap()) as usize;
        found.push((at, length));
        at += 22 + length;
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_found(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        let mut bytes = rich_bytes();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        prop_assert!(Region::decode(Arc::new(Arena), &bytes).is_err());
    }

    /// Damage under a matching checksum: another build's mistake, or malice. It is refused, or is a sound state.
    #[test]
    fn rubbish_under_a_good_checksum_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = rich_bytes();
        let sections = sections(&bytes);
        for (section, place, value) in edits {
            let (at, length) = sections[section.index(sections.len())];
            if length == 0 {
                continue;
            }
            let body = at + 22;
            bytes[body + place.index(length)] = value;
            let crc = crc32fast::hash(&[&bytes[at..at + 18], &bytes[body..body + length]].concat());
            bytes[at + 18..at + 22].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(region) = Region::decode(Arc::new(Arena), &bytes) {
            assert!(region.view().inspect().tick > 0);
            prop_assert_eq!(region.view().state_hash_full(), region.state_hash());
        }
    }

    #[test]
    fn bytes_that_are_nothing_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Region::decode(Arc::new(Arena), &bytes).is_err());
        let mut headed = b"MLRG\x01\x00".to_vec();
        headed.extend(bytes);
        prop_assert!(Region::decode(Arc::new(Arena), &headed).is_err());
    }
}
