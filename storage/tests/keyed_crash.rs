//! The keyed stores when they are interrupted: the simulated one by power cuts anywhere, the real one by damage to its files.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use marchland_storage::disk::{Disk, DiskFile, RealDisk, SimDisk};
use marchland_storage::keyed::{Batch, KeyedNode, KeyedOptions, KeyedStore, SimKeyed, SimKeyedNode, SledNode};
use marchland_types::GroupId;
use proptest::prelude::*;

type Map = BTreeMap<Bytes, Bytes>;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn open(disk: &SimDisk) -> SimKeyedNode<SimDisk> {
    SimKeyedNode::open(disk.clone(), Path::new("/n/keyed"), None).expect("opens after every crash")
}

async fn read(store: &SimKeyed<SimDisk>) -> Map {
    store.range(b"", b"", usize::MAX).await.unwrap().into_iter().collect()
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(u8, Option<u8>)>),
    Persist,
    Install(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0u8..8, prop::option::of(any::<u8>())), 1..5).prop_map(Step::Apply),
        2 => Just(Step::Persist),
        1 => prop::collection::vec(any::<u8>(), 0..6).prop_map(Step::Install),
    ]
}

fn value(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 1 + byte as usize * 5])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_leaves_a_prefix_of_whole_batches_no_shorter_than_what_was_persisted(
        lives in prop::collection::vec((prop::collection::vec(step(), 0..25), prop::option::of(0u64..40)), 1..4),
        seed in any::<u64>(),
    ) {
        let disk = SimDisk::new(seed);
        let (group, other) = (GroupId(1), GroupId(2));
        let mut content = Map::new();
        for (life, (steps, cut)) in lives.iter().enumerate() {
            let node = open(&disk);
            let (store, source) = (node.namespace(group), node.namespace(other));
            let (states, durable) = block_on(async {
                assert_eq!(read(&store).await, content);
                let mut states = vec![content.clone()];
                let mut durable = 0;
                if let Some(cut) = cut {
                    disk.cut_after(*cut);
                }
                for step in steps {
                    let mut next = states.last().unwrap().clone();
                    match step {
                        Step::Apply(writes) => {
                            let writes: Vec<_> = writes.iter().map(|(key, byte)| (Bytes::from(vec![*key]), byte.map(value))).collect();
                            for (key, value) in &writes {
                                match value {
                                    Some(value) => next.insert(key.clone(), value.clone()),
                                    None => next.remove(key),
                                };
                            }
                            states.push(next);
                            if store.apply(Batch { writes }).await.is_err() {
                                break;
                            }
                        }
                        Step::Persist => {
                            if store.persist().await.is_err() {
                                break;
                            }
                            durable = states.len() - 1;
                        }
                        Step::Install(bytes) => {
                            let writes: Vec<_> = bytes.iter().map(|byte| (Bytes::from(vec![*byte]), Some(value(*byte)))).collect();
                            let known = source.range(b"", b"", usize::MAX).await.unwrap();
                            let clear = known.into_iter().map(|(key, _)| (key, None));
                            if source.apply(Batch { writes: clear.chain(writes.clone()).collect() }).await.is_err() {
                                break;
                            }
                            states.push(writes.into_iter().map(|(key, value)| (key, value.unwrap())).collect());
                            let snapshot = source.snapshot().await.unwrap();
                            if store.install(snapshot).await.is_err() {
                                break;
                            }
                            durable = states.len() - 1;
                        }
                    }
                }
                (states, durable)
            });
            drop((node, store, source));
            disk.crash(seed.wrapping_add(life as u64));
            content = block_on(read(&open(&disk).namespace(group)));
            prop_assert!(states[durable..].contains(&content), "{content:?} is none of the states from {durable} on of {states:?}");
        }
    }
}

fn options() -> KeyedOptions {
    KeyedOptions { cache_bytes: 1 << 20 }
}

#[test]
fn an_unusable_store_is_set_aside_and_reported_and_half_written_snapshots_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = dir.path().join("keyed");
    let group = GroupId(3);
    let fill = |expected: Option<&Path>| {
        let opened = SledNode::open(&keyed, options()).unwrap();
        assert_eq!(opened.set_aside.as_deref(), expected);
        let store = opened.node.namespace(group);
        block_on(async {
            for key in 0..200u8 {
                store.apply(Batch { writes: vec![(Bytes::from(vec![key]), Some(Bytes::from(vec![key; 2000])))] }).await.unwrap();
            }
            store.persist().await.unwrap();
            assert_eq!(opened.node.groups().await.unwrap(), vec![group]);
        });
        drop((opened.node, store));
        opened.threads.join();
    };
    fill(None);
    RealDisk.create(&keyed.join("snap.0000000000000001.generating")).unwrap().write_all_at(b"half", 0).unwrap();
    fill(None);
    // Damage every snapshot and the middle of the data.
    for path in RealDisk.list(&keyed).unwrap() {
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            let mut file = RealDisk.open(&path).unwrap();
            file.write_all_at(&[0x5a; 64], 0).unwrap();
        }
    }
    let aside = dir.path().join("keyed.unusable-1");
    fill(Some(&aside));
    assert!(RealDisk.exists(&aside.join("db")).unwrap(), "nothing is deleted");
    // A store that was found to be damaged while it was used goes at the next start, too.
    RealDisk.create(&dir.path().join("keyed.damaged")).unwrap();
    fill(Some(&dir.path().join("keyed.unusable-2")));
    fill(None);
}

#[test]
fn a_group_is_removed_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let opened = SledNode::open(&dir.path().join("keyed"), options()).unwrap();
    block_on(async {
        let store = opened.node.namespace(GroupId(3));
        store.apply(Batch { writes: vec![(Bytes::from_static(b"k"), Some(Bytes::from(vec![1; 50_000])))] }).await.unwrap();
        opened.node.remove(GroupId(3)).await.unwrap();
        assert_eq!(store.get(b"k").await.unwrap(), None);
        assert_eq!(opened.node.groups().await.unwrap(), vec![]);
    });
    drop(opened.node);
    opened.threads.join();
    assert_eq!(RealDisk.list(&dir.path().join("keyed").join("blobs")).unwrap(), Vec::<std::path::PathBuf>::new());
}
