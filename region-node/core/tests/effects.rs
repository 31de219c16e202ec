//! What edges are told is enough to know the world: a mirror that hears nothing but effects equals the state.

mod arena;

use std::collections::BTreeMap;
use std::sync::Arc;

use marchland_proto::records::quantize;
use marchland_region_core::{CellId, Effects, EntityId, LogIndex, Region};
use proptest::prelude::*;

use arena::Arena;
use arena::random_log::{event, log};

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    entity: EntityId,
    at: [i32; 3],
    yaw: u8,
    cell: CellId,
    look: Vec<u8>,
}

fn seen(region: &Region<Arena>, slot: u32) -> Seen {
    let view = region.world().at_slot(slot).expect("an entity that effects name");
    let at = view.body.position.map(quantize);
    Seen { entity: view.identity.entity, at, yaw: view.body.yaw, cell: view.cell(), look: view.identity.look.to_vec() }
}

fn hear(mirror: &mut BTreeMap<u32, Seen>, effects: &Effects<Arena>, region: &Region<Arena>) {
    for gone in &effects.vanished {
        let old = mirror.remove(&gone.slot).expect("who leaves was there");
        assert_eq!((old.entity, old.cell), (gone.entity, gone.cell));
    }
    for new in &effects.appeared {
        assert!(mirror.insert(new.slot, seen(region, new.slot)).is_none(), "slot {} was taken", new.slot);
    }
    for changed in &effects.looks {
        let known = mirror.get_mut(&changed.slot).expect("whose looks change was there");
        known.look = seen(region, changed.slot).look;
    }
    for moved in &effects.moved {
        let known = mirror.get_mut(&moved.motion.slot).expect("who moves was there");
        assert_eq!(known.cell, moved.previous);
        let to = [moved.motion.x, moved.motion.y, moved.motion.z];
        if let Some(delta) = moved.motion.delta {
            assert_eq!([0, 1, 2].map(|axis| known.at[axis] + i32::from(delta[axis])), to);
        }
        (known.at, known.yaw, known.cell) = (to, moved.motion.yaw, moved.cell);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn effects_tell_everything(events in prop::collection::vec(event(), 1..200)) {
        arena::quiet();
        let mut region = Region::new(Arc::new(Arena));
        let mut mirror = BTreeMap::new();
        let mut own = BTreeMap::new();
        for (at, entry) in log(events).iter().enumerate() {
            let Ok(effects) = arena::apply_or_skip(&mut region, LogIndex(at as u64 + 1), entry) else { continue };
            hear(&mut mirror, &effects, &region);
            let world: BTreeMap<u32, Seen> = region.world().entities().map(|view| (view.slot, seen(&region, view.slot))).collect();
            prop_assert_eq!(&mirror, &world);
            // Cells hold exactly who is in them.
            for (slot, known) in &world {
                let there = region.cell_entities(known.cell).filter(|view| view.slot == *slot).count();
                prop_assert_eq!(there, 1);
            }
            // Own movement that was not told again is what was told last.
            for state in &effects.own {
                let anew = effects.attached.iter().any(|answer| answer.character == state.character);
                let known = own.insert(state.character, *state);
                prop_assert!(anew || known != Some(*state), "told twice: {:?}", state);
            }
            for answer in effects.attached.iter().filter(|answer| answer.code == 0) {
                let character = marchland_region_core::CharacterId(answer.character);
                if let Some(state) = region.own_state(character) {
                    own.insert(answer.character, state);
                }
            }
            for ended in &effects.ended {
                own.remove(&ended.character);
            }
            for (character, state) in &own {
                let character = marchland_region_core::CharacterId(*character);
                let attached = region.session(character).is_some_and(|session| session.attached);
                if attached {
                    prop_assert_eq!(region.own_state(character), Some(*state));
                }
            }
        }
    }
}
