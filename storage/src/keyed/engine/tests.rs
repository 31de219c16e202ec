//! Tests of the engine against an ordered map.

use proptest::prelude::*;

use super::*;

fn engine() -> (sled::Db, Engine) {
    let db = sled::Config::new().temporary(true).flush_every_ms(None).cache_capacity(1 << 20).open().unwrap();
    let engine = Engine::new((*db).clone()).unwrap();
    (db, engine)
}

fn writes() -> impl Strategy<Value = Vec<(u8, Option<usize>)>> {
    let size = prop_oneof![3 => 0usize..50, 1 => 32_000usize..140_000];
    prop::collection::vec((0u8..12, prop::option::weighted(0.7, size)), 0..6)
}

fn batch(writes: &[(u8, Option<usize>)], salt: usize) -> Batch {
    let value = |at: usize, size: usize| Bytes::from(vec![(salt + at) as u8; size]);
    let pair = |(at, (key, size)): (usize, &(u8, Option<usize>))| (Bytes::from(vec![*key]), size.map(|size| value(at, size)));
    Batch { writes: writes.iter().enumerate().map(pair).collect() }
}

fn apply(map: &mut BTreeMap<Bytes, Bytes>, batch: &Batch) {
    for (key, value) in &batch.writes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

fn pairs(map: &BTreeMap<Bytes, Bytes>) -> Pairs {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_is_an_ordered_map_and_its_snapshots_stand_still(
        before in prop::collection::vec(writes(), 0..6),
        during in prop::collection::vec((writes(), prop::option::of(0usize..100_000)), 0..12),
    ) {
        let (_db, mut engine) = engine();
        let group = GroupId(5);
        let mut map = BTreeMap::new();
        for (salt, writes) in before.iter().enumerate() {
            let batch = batch(writes, salt);
            engine.apply(group, &batch).unwrap();
            apply(&mut map, &batch);
        }
        let frozen = pairs(&map);
        let token = engine.snapshot(group).unwrap();
        let mut seen = Vec::new();
        for (salt, (writes, read)) in during.iter().enumerate() {
            let batch = batch(writes, 100 + salt);
            engine.apply(group, &batch).unwrap();
            apply(&mut map, &batch);
            if let Some(max_bytes) = read {
                seen.extend(engine.snapshot_next(group, &token, *max_bytes).unwrap());
            }
        }
        loop {
            let next = engine.snapshot_next(group, &token, 40_000).unwrap();
            if next.is_empty() {
                break;
            }
            seen.extend(next);
        }
        prop_assert_eq!(seen, frozen);
        prop_assert_eq!(engine.range(group, b"", b"", usize::MAX).unwrap(), pairs(&map));
        for key in 0u8..12 {
            prop_assert_eq!(engine.get(group, &[key]).unwrap(), map.get(&[key][..]).cloned());
        }
        let pieces: usize = map.values().map(|value| encode_value(value).1.len()).sum();
        let stored = engine.tree.scan_prefix(engine.space(group).piece_prefix()).count();
        prop_assert_eq!(stored, pieces, "no piece outlives its value");
    }
}

#[test]
fn the_rest_of_an_unfinished_install_goes_at_the_next_start() {
    let (db, mut engine) = engine();
    let group = GroupId(5);
    engine.apply(group, &batch(&[(1, Some(3)), (2, Some(70_000))], 0)).unwrap();
    let space = engine.begin_install(group).unwrap();
    engine.fill(space, vec![(Bytes::from_static(b"new"), Bytes::from(vec![1; 50_000]))]).unwrap();
    let before = engine.range(group, b"", b"", 9).unwrap();
    let engine = Engine::new((*db).clone()).unwrap();
    assert_eq!(engine.range(group, b"", b"", 9).unwrap(), before);
    assert_eq!(db.scan_prefix(space.pair_prefix()).count() + db.scan_prefix(space.piece_prefix()).count(), 0);
    // And the old content, once the new one is current.
    let mut engine = engine;
    let space = engine.begin_install(group).unwrap();
    engine.fill(space, vec![(Bytes::from_static(b"new"), Bytes::from_static(b"1"))]).unwrap();
    let old = engine.switch(space).unwrap();
    let engine = Engine::new((*db).clone()).unwrap();
    assert_eq!(engine.range(group, b"", b"", 9).unwrap(), vec![(Bytes::from_static(b"new"), Bytes::from_static(b"1"))]);
    assert_eq!(db.scan_prefix(old.pair_prefix()).count() + db.scan_prefix(old.piece_prefix()).count(), 0);
    assert_eq!(engine.groups().unwrap(), vec![group]);
}

#[test]
fn a_snapshot_gives_way_to_an_install() {
    let (_db, mut engine) = engine();
    let group = GroupId(5);
    engine.apply(group, &batch(&[(1, Some(3))], 0)).unwrap();
    let token = engine.snapshot(group).unwrap();
    let space = engine.begin_install(group).unwrap();
    engine.switch(space).unwrap();
    assert!(matches!(engine.snapshot_next(group, &token, 9), Err(KeyedError::SnapshotLost { .. })));
}

#[test]
fn a_newer_format_is_refused() {
    let (db, engine) = engine();
    drop(engine);
    db.insert(FORMAT_KEY, &(FORMAT_VERSION + 1).to_be_bytes()).unwrap();
    let error = Engine::new((*db).clone()).err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("keyed store failed: store has format 2, this build reads up to 1"));
}
