//! Tests of the engine, over every map, against an ordered map in memory.

use proptest::prelude::*;

use super::*;
use crate::disk::{Disk, SimDisk};
use crate::keyed::KeyedEngine;
use crate::keyed::redb_map::{self, RedbOptions};
use crate::keyed::sled_map;

/// A map, and what has to live as long as it.
fn map(engine: KeyedEngine) -> (Box<dyn Map>, Box<dyn std::any::Any>) {
    match engine {
        KeyedEngine::Redb => {
            let disk = SimDisk::new(1);
            disk.create_dir_all(std::path::Path::new("/keyed")).unwrap();
            let options = RedbOptions { cache_bytes: 1 << 20, verify: false };
            let (map, durable) = redb_map::open(&disk, std::path::Path::new("/keyed"), options).unwrap();
            (Box::new(map), Box::new(durable))
        }
        KeyedEngine::Sled => {
            let dir = tempfile::tempdir().unwrap();
            let (map, durable) = sled_map::open(dir.path(), 1 << 20).unwrap();
            (Box::new(map), Box::new((durable, dir)))
        }
    }
}

fn with_every_engine(test: impl Fn(Engine)) {
    for engine in KeyedEngine::ALL {
        let (map, _lives) = map(engine);
        test(Engine::new(map).unwrap());
    }
}

/// Keys that begin with `prefix`.
fn count(engine: &mut Engine, prefix: &[u8]) -> usize {
    let mut count = 0;
    engine
        .map
        .scan(prefix, after_prefix(prefix).as_deref(), &mut |_, _| {
            count += 1;
            true
        })
        .unwrap();
    count
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
        max_bytes in prop_oneof![1usize..200, Just(40_000)],
    ) {
        with_every_engine(|mut engine| {
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
                let next = engine.snapshot_next(group, &token, max_bytes).unwrap();
                if next.is_empty() {
                    break;
                }
                seen.extend(next);
            }
            assert_eq!(seen, frozen);
            assert_eq!(engine.range(group, b"", b"", usize::MAX).unwrap(), pairs(&map));
            for key in 0u8..12 {
                assert_eq!(engine.get(group, &[key]).unwrap(), map.get(&[key][..]).cloned());
            }
            let piece_bytes = engine.map.piece_bytes();
            let pieces: usize = map.values().map(|value| encode_value(value, piece_bytes).1.len()).sum();
            let prefix = engine.space(group).piece_prefix();
            assert_eq!(count(&mut engine, &prefix), pieces, "no piece outlives its value");
        });
    }
}

#[test]
fn a_snapshot_goes_on_past_many_keys_that_are_newer_than_it() {
    with_every_engine(|mut engine| {
        let group = GroupId(5);
        let pair = |number: usize| (Bytes::from(format!("{number:06}")), Some(Bytes::from_static(b"1")));
        let old = [0, 2_000];
        engine.apply(group, &Batch { writes: old.map(pair).to_vec() }).unwrap();
        let token = engine.snapshot(group).unwrap();
        engine.apply(group, &Batch { writes: (1..2_000).map(pair).collect() }).unwrap();
        let first = engine.snapshot_next(group, &token, 1).unwrap();
        let second = engine.snapshot_next(group, &token, 1_000_000).unwrap();
        let keys: Vec<_> = first.iter().chain(&second).map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, old.map(|number| pair(number).0));
        assert_eq!(engine.snapshot_next(group, &token, 1).unwrap(), vec![]);
    });
}

#[test]
fn the_rest_of_an_unfinished_install_goes_at_the_next_start() {
    with_every_engine(|mut engine| {
        let group = GroupId(5);
        engine.apply(group, &batch(&[(1, Some(3)), (2, Some(70_000))], 0)).unwrap();
        let space = engine.begin_install(group).unwrap();
        engine.fill(space, vec![(Bytes::from_static(b"new"), Bytes::from(vec![1; 50_000]))]).unwrap();
        let before = engine.range(group, b"", b"", 9).unwrap();
        let mut engine = Engine::new(engine.map).unwrap();
        assert_eq!(engine.range(group, b"", b"", 9).unwrap(), before);
        assert_eq!(count(&mut engine, &space.pair_prefix()) + count(&mut engine, &space.piece_prefix()), 0);
        // And the old content, once the new one is current.
        let space = engine.begin_install(group).unwrap();
        engine.fill(space, vec![(Bytes::from_static(b"new"), Bytes::from_static(b"1"))]).unwrap();
        let old = engine.switch(space).unwrap();
        let mut engine = Engine::new(engine.map).unwrap();
        assert_eq!(engine.range(group, b"", b"", 9).unwrap(), vec![(Bytes::from_static(b"new"), Bytes::from_static(b"1"))]);
        assert_eq!(count(&mut engine, &old.pair_prefix()) + count(&mut engine, &old.piece_prefix()), 0);
        assert_eq!(engine.groups().unwrap(), vec![group]);
    });
}

#[test]
fn a_snapshot_gives_way_to_an_install() {
    with_every_engine(|mut engine| {
        let group = GroupId(5);
        engine.apply(group, &batch(&[(1, Some(3))], 0)).unwrap();
        let token = engine.snapshot(group).unwrap();
        let space = engine.begin_install(group).unwrap();
        engine.switch(space).unwrap();
        assert!(matches!(engine.snapshot_next(group, &token, 9), Err(KeyedError::SnapshotLost { .. })));
    });
}

#[test]
fn a_newer_format_is_refused() {
    with_every_engine(|mut engine| {
        engine.map.write(vec![(FORMAT_KEY.to_vec(), Some((FORMAT_VERSION + 1).to_be_bytes().to_vec()))]).unwrap();
        let error = Engine::new(engine.map).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("keyed store failed: store has format 2, this build reads up to 1"));
    });
}
