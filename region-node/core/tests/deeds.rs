//! What a traced region tells of its handlers: enough to know who holds which item, and without any influence on the state.

mod arena;

use std::collections::BTreeMap;
use std::sync::Arc;

use marchland_region_core::{DeedOutcome, EntityId, Handler, Holder, ItemId, LogIndex, Region};
use proptest::prelude::*;

use arena::Arena;
use arena::random_log::{event, log};

/// Who holds what, as far as it is in the world.
fn held(region: &Region<Arena>) -> BTreeMap<ItemId, EntityId> {
    let entities = region.world().entities().map(|view| view.identity.entity);
    entities.flat_map(|entity| region.world().items(entity).iter().map(move |item| (item.item, entity))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deeds_explain_where_every_item_is(events in prop::collection::vec(event(), 1..200)) {
        arena::quiet();
        let mut plain = Region::new(Arc::new(Arena));
        let mut traced = Region::new(Arc::new(Arena));
        traced.trace();
        let mut holders: BTreeMap<ItemId, Holder> = BTreeMap::new();
        for (at, entry) in log(events).into_iter().enumerate() {
            let index = LogIndex(at as u64 + 1);
            let faults = (plain.apply(index, &entry).err(), traced.apply(index, &entry).err());
            prop_assert_eq!(&faults.0, &faults.1);
            prop_assert_eq!(plain.state_hash(), traced.state_hash());
            if faults.0.is_some() {
                // Whoever meets a fault restores an older state.
                break;
            }
            for deed in traced.take_deeds() {
                prop_assert!(deed.outcome == DeedOutcome::Done || deed.items.is_empty());
                prop_assert!(deed.answer.is_none() || matches!(deed.handler, Handler::Command(..)));
                for moved in deed.items {
                    prop_assert_eq!(holders.get(&moved.item).copied().unwrap_or(Holder::Nobody), moved.from);
                    holders.insert(moved.item, moved.to);
                }
            }
            let told: BTreeMap<ItemId, EntityId> = holders
                .iter()
                .filter_map(|(item, holder)| match holder {
                    Holder::Entity(entity) => Some((*item, *entity)),
                    Holder::Nobody | Holder::Dormant(_) => None,
                })
                .collect();
            prop_assert_eq!(told, held(&traced));
        }
    }
}
