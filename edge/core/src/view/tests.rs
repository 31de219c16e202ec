//! The tables against rubbish, late batches and slots that change hands.

use marchland_types::{RegionId, WorldId};
use proptest::prelude::*;

use super::*;
use crate::test_owner::{Owner, cell_of};

fn view() -> RegionView {
    RegionView::new(GroupId::region(WorldId(1), RegionId(1)))
}

fn record(slot: u32, entity: u64, x: i32) -> EntityRecord {
    EntityRecord { slot, entity, x, name: "n".into(), ..EntityRecord::default() }
}

fn batch(tick: u64, cells: Vec<CellPart>) -> RegionBatch {
    RegionBatch { tick, index: tick, cells, ..RegionBatch::default() }
}

#[test]
fn what_is_not_newer_changes_nothing() {
    let mut owner = Owner::default();
    owner.spawn([0; 3]);
    let mut view = view();
    view.retain(cell_of([0; 3]));
    owner.hear(&mut view);
    let first = owner.tick(false);
    assert_eq!(view.apply(&first), Applied::Tick);
    owner.ent(0).unwrap().at = [9, 0, 0];
    let second = owner.tick(false);
    assert_eq!(view.apply(&second), Applied::Tick);
    assert_eq!(view.apply(&first), Applied::Stale);
    assert_eq!(view.position_of(EntityId(7_001)), Some([9, 0, 0]));
    assert_eq!((view.tick(), view.revision()), (2, 2));
    // A higher index with an old tick is not newer either.
    assert_eq!(view.apply(&RegionBatch { index: 99, ..first }), Applied::Stale);
}

#[test]
fn a_slot_that_changes_hands_within_one_tick_is_another_entity() {
    let mut view = view();
    let cell = view.retain(5).unwrap();
    view.apply(&batch(1, vec![CellPart { cell: 5, full: true, entities: vec![record(0, 10, 0)], ..CellPart::default() }]));
    let before = view.hot[0].generation;
    let part = CellPart { cell: 5, entities: vec![record(0, 11, 3)], left: vec![0], ..CellPart::default() };
    view.apply(&batch(2, vec![part]));
    view.check();
    assert_eq!(view.slots_in(cell), [0]);
    assert_ne!(view.hot[0].generation, before);
    assert_eq!((view.slot_of(10), view.slot_of(11)), (None, Some(0)));
}

#[test]
fn parts_of_cells_that_are_not_known_in_full_or_not_wanted_are_ignored() {
    let mut view = view();
    view.retain(5);
    let part = |cell, full| CellPart { cell, full, entities: vec![record(cell, u64::from(cell), 0)], ..CellPart::default() };
    view.apply(&batch(1, vec![part(5, false), part(6, true)]));
    assert_eq!(view.entities(), 0);
    view.apply(&batch(2, vec![part(5, true)]));
    assert_eq!(view.entities(), 1);
    view.check();
}

#[test]
fn cells_linger_and_are_then_forgotten_with_their_entities() {
    let mut view = view();
    let cell = view.retain(5).unwrap();
    assert_eq!(view.take_changes(), (vec![5], vec![]));
    view.apply(&batch(1, vec![CellPart { cell: 5, full: true, entities: vec![record(0, 10, 0)], ..CellPart::default() }]));
    view.release(cell);
    assert_eq!(view.take_changes(), (vec![], vec![]));
    assert_eq!(view.retain(5), Some(cell), "it is still there");
    view.release(cell);
    for tick in 2..2 + u64::from(CELL_LINGER_TICKS) {
        view.apply(&batch(tick, vec![]));
    }
    assert!(view.has_changes());
    assert_eq!(view.take_changes(), (vec![], vec![5]));
    assert_eq!(view.entities(), 0);
    view.check();
    // Wanted and given up between two calls: the owner never hears of it once its time is over.
    let cell = view.retain(6).unwrap();
    view.release(cell);
    assert_eq!(view.take_changes(), (vec![6], vec![]));
}

#[test]
fn where_entities_went_is_known_for_a_while() {
    let mut view = view();
    view.retain(5);
    let of = |entity, move_number| EntityRecord { move_number, ..record(entity as u32, entity, 0) };
    let part = |handed, entities| CellPart { cell: 5, handed, entities, ..CellPart::default() };
    let went = |entity, move_number| HandedOff { slot: entity as u32, entity, move_number, to_group: 2 };
    view.apply(&batch(1, vec![CellPart { full: true, ..part(vec![], vec![of(1, 4), of(2, 4), of(3, 4)]) }]));
    // One of them is back in the same tick, and one slot has another occupant.
    let other = EntityRecord { slot: 2, ..of(9, 1) };
    view.apply(&batch(2, vec![part(vec![went(1, 5), went(2, 5), went(3, 5)], vec![of(3, 6), other])]));
    view.check();
    assert_eq!([1, 2, 3, 9].map(|entity| view.slot_of(entity)), [None, None, Some(3), Some(2)]);
    assert_eq!([1, 2, 3].map(|entity| view.handed(entity)), [Some(5), Some(5), None]);
    assert_eq!((view.find(3, 6), view.find(3, 7)), (Some(3), None));
    // Back, and gone again later: the later time counts.
    view.apply(&batch(20, vec![part(vec![], vec![of(1, 6)])]));
    view.apply(&batch(21, vec![part(vec![went(1, 7)], vec![])]));
    for tick in 22..21 + u64::from(HANDED_TICKS) {
        view.apply(&batch(tick, vec![]));
    }
    assert_eq!([1, 2].map(|entity| view.handed(entity)), [Some(7), None]);
    for tick in 61..64 {
        view.apply(&batch(tick, vec![]));
    }
    assert_eq!(view.handed(1), None);
    view.check();
}

#[test]
fn an_owner_can_not_make_the_tables_large() {
    let mut view = view();
    view.retain(5);
    let long = EntityRecord { look: vec![0; LOOK_MAX_BYTES + 1].into(), name: "x".repeat(NAME_MAX_BYTES + 1), ..record(3, 1, 0) };
    let entities = vec![record(u32::MAX, 2, 0), record(SLOTS_MAX as u32, 3, 0), long];
    view.apply(&batch(1, vec![CellPart { cell: 5, full: true, entities, ..CellPart::default() }]));
    assert_eq!((view.entities(), view.hot.len()), (1, 4));
    assert!(view.facts[3].look.is_empty() && view.facts[3].name.is_empty());
}

fn any_part() -> impl Strategy<Value = CellPart> {
    let entity = (0..6u32, 1..8u64, -2000..2000i32, 0..4u64)
        .prop_map(|(slot, entity, x, move_number)| EntityRecord { move_number, ..record(slot, entity, x) });
    let entities = proptest::collection::vec(entity, 0..4);
    let motion = proptest::collection::vec((0..7u32, -2000..2000i32), 0..4);
    let left = proptest::collection::vec(0..7u32, 0..4);
    let handed =
        (0..7u32, 1..8u64, 0..4u64).prop_map(|(slot, entity, move_number)| HandedOff { slot, entity, move_number, to_group: 2 });
    let handed = proptest::collection::vec(handed, 0..3);
    (0..4u32, any::<bool>(), entities, motion, left, 0..20usize, handed).prop_map(
        |(cell, full, entities, motion, left, cut, handed)| {
            let mut bytes = Vec::new();
            for (slot, x) in motion {
                Motion { slot, x, delta: Some([1, 0, 0]), ..Motion::default() }.put(&mut bytes);
            }
            // Now and then not a whole number of records.
            if cut == 0 {
                bytes.pop();
            }
            CellPart { cell, full, entities, motion: bytes.into(), left, events: vec![], handed }
        },
    )
}

proptest! {
    #[test]
    fn tables_agree_with_themselves_whatever_an_owner_sends(
        parts in proptest::collection::vec(proptest::collection::vec(any_part(), 0..4), 1..30),
        holds in proptest::collection::vec((0..4u32, any::<bool>()), 30),
    ) {
        let mut view = view();
        let mut held = Vec::new();
        for (tick, (parts, (cell, take))) in parts.into_iter().zip(holds).enumerate() {
            if take {
                held.extend(view.retain(cell));
            } else if let Some(cell) = held.pop() {
                view.release(cell);
            }
            view.apply(&batch(tick as u64 + 1, parts));
            view.check();
            let (subscribe, unsubscribe) = view.take_changes();
            prop_assert!(subscribe.iter().all(|cell| !unsubscribe.contains(cell)));
        }
    }
}
