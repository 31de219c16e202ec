//! The keyed stores when they are interrupted: the simulated one by power cuts anywhere, the real one by damage to its files.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use marchland_storage::disk::{Disk, DiskFile, RealDisk, SimDisk};
use marchland_storage::keyed::{Batch, DiskKeyedNode, KeyedEngine, KeyedNode, KeyedOptions, KeyedStore, SimKeyed, SimKeyedNode};
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

fn options(engine: KeyedEngine) -> KeyedOptions {
    KeyedOptions { cache_bytes: 1 << 20, engine }
}

const GROUP: GroupId = GroupId(3);

/// Opens the store, changes two hundred keys, and closes it. Where an unusable store was put.
fn fill(keyed: &Path, engine: KeyedEngine) -> Option<std::path::PathBuf> {
    let opened = DiskKeyedNode::open(keyed, options(engine)).unwrap();
    let store = opened.node.namespace(GROUP);
    block_on(async {
        for key in 0..200u8 {
            store.apply(Batch { writes: vec![(Bytes::from(vec![key]), Some(Bytes::from(vec![key; 2000])))] }).await.unwrap();
        }
        store.persist().await.unwrap();
        assert_eq!(opened.node.groups().await.unwrap(), vec![GROUP]);
    });
    drop((opened.node, store));
    opened.threads.join();
    opened.set_aside
}

#[test]
fn an_unusable_store_of_sled_is_set_aside_and_reported_and_half_written_snapshots_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = dir.path().join("keyed");
    let fill = || fill(&keyed, KeyedEngine::Sled);
    assert_eq!(fill(), None);
    RealDisk.create(&keyed.join("snap.0000000000000001.generating")).unwrap().write_all_at(b"half", 0).unwrap();
    assert_eq!(fill(), None);
    // Damage every snapshot.
    for path in RealDisk.list(&keyed).unwrap() {
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            let mut file = RealDisk.open(&path).unwrap();
            file.write_all_at(&[0x5a; 64], 0).unwrap();
        }
    }
    let aside = dir.path().join("keyed.unusable-1");
    assert_eq!(fill().as_ref(), Some(&aside));
    assert!(RealDisk.exists(&aside.join("db")).unwrap(), "nothing is deleted");
    // A store that was found to be damaged while it was used goes at the next start, too.
    RealDisk.create(&dir.path().join("keyed.damaged")).unwrap();
    assert_eq!(fill(), Some(dir.path().join("keyed.unusable-2")));
    assert_eq!(fill(), None);
}

#[test]
fn an_unusable_store_of_redb_is_set_aside_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = dir.path().join("keyed");
    let fill = || fill(&keyed, KeyedEngine::Redb);
    assert_eq!(fill(), None);
    // The beginning, by which redb knows its files.
    RealDisk.open(&keyed.join("redb")).unwrap().write_all_at(&[0x5a; 64], 0).unwrap();
    let aside = dir.path().join("keyed.unusable-1");
    assert_eq!(fill().as_ref(), Some(&aside));
    assert!(RealDisk.exists(&aside.join("redb")).unwrap(), "nothing is deleted");
    // An end that is not there.
    let mut file = RealDisk.open(&keyed.join("redb")).unwrap();
    let length = file.len().unwrap();
    file.set_len(length / 2).unwrap();
    assert_eq!(fill(), Some(dir.path().join("keyed.unusable-2")));
    assert_eq!(fill(), None);
    // A store that was found to be damaged while it was used goes at the next start, too.
    RealDisk.create(&dir.path().join("keyed.damaged")).unwrap();
    assert_eq!(fill(), Some(dir.path().join("keyed.unusable-3")));
    // One whose engine panicked is verified, and stays if it is whole.
    RealDisk.create(&dir.path().join("keyed.suspect")).unwrap();
    assert_eq!(fill(), None);
    assert!(!RealDisk.exists(&dir.path().join("keyed.suspect")).unwrap());
    // And goes if it is not.
    rot(&keyed.join("redb"), |at| at % 2 == 0);
    RealDisk.create(&dir.path().join("keyed.suspect")).unwrap();
    assert_eq!(fill(), Some(dir.path().join("keyed.unusable-4")));
}

/// Changes a byte of those values of [`fill`] in a file of redb that `which` chooses, in the order of the file.
fn rot(path: &Path, which: impl Fn(usize) -> bool) {
    let mut file = RealDisk.open(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let (mut at, mut count) = (0, 0);
    while at + 1000 < bytes.len() {
        let run = bytes[at..at + 1000].iter().all(|byte| *byte == bytes[at]) && bytes[at] != 0;
        if run && which(count) {
            file.write_all_at(&[!bytes[at]], at as u64 + 500).unwrap();
        }
        count += usize::from(run);
        at += if run { 1000 } else { 1 };
    }
    assert!(count > 100, "{count} values found");
}

#[test]
fn rot_in_a_value_of_redb_is_found_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = dir.path().join("keyed");
    assert_eq!(fill(&keyed, KeyedEngine::Redb), None);
    rot(&keyed.join("redb"), |_| true);
    let opened = DiskKeyedNode::open(&keyed, options(KeyedEngine::Redb)).unwrap();
    let store = opened.node.namespace(GROUP);
    let error = block_on(store.get(&[7])).unwrap_err().to_string();
    assert_eq!(error, "keyed store failed: damaged: the checksum of a value is wrong");
    drop((opened.node, store));
    opened.threads.join();
    assert_eq!(fill(&keyed, KeyedEngine::Redb), Some(dir.path().join("keyed.unusable-1")));
}

#[test]
fn a_store_keeps_the_engine_that_made_it() {
    for (made, asked) in [(KeyedEngine::Redb, KeyedEngine::Sled), (KeyedEngine::Sled, KeyedEngine::Redb)] {
        let dir = tempfile::tempdir().unwrap();
        let keyed = dir.path().join("keyed");
        assert_eq!(fill(&keyed, made), None);
        let files = || {
            let mut names: Vec<_> = RealDisk.list(&keyed).unwrap();
            names.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with("snap."));
            names
        };
        let before = files();
        let opened = DiskKeyedNode::open(&keyed, options(asked)).unwrap();
        assert_eq!(opened.set_aside, None);
        let found = block_on(opened.node.namespace(GROUP).get(&[7])).unwrap();
        assert_eq!(found, Some(Bytes::from(vec![7; 2000])));
        drop(opened.node);
        opened.threads.join();
        assert_eq!(files(), before, "nothing of the other engine");
    }
}

#[test]
fn a_folder_of_two_engines_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = dir.path().join("keyed");
    assert_eq!(fill(&keyed, KeyedEngine::Redb), None);
    RealDisk.create(&keyed.join("conf")).unwrap();
    let error = DiskKeyedNode::open(&keyed, options(KeyedEngine::Redb)).err().unwrap().to_string();
    assert!(error.ends_with("holds a store of redb and one of sled, expected one of them"), "{error}");
}

#[test]
fn a_group_is_removed_with_everything() {
    for engine in KeyedEngine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let opened = DiskKeyedNode::open(&dir.path().join("keyed"), options(engine)).unwrap();
        block_on(async {
            let store = opened.node.namespace(GROUP);
            store.apply(Batch { writes: vec![(Bytes::from_static(b"k"), Some(Bytes::from(vec![1; 50_000])))] }).await.unwrap();
            opened.node.remove(GROUP).await.unwrap();
            assert_eq!(store.get(b"k").await.unwrap(), None);
            assert_eq!(opened.node.groups().await.unwrap(), vec![]);
        });
        drop(opened.node);
        opened.threads.join();
        if engine == KeyedEngine::Sled {
            assert_eq!(RealDisk.list(&dir.path().join("keyed").join("blobs")).unwrap(), Vec::<std::path::PathBuf>::new());
        }
    }
}

#[test]
fn what_was_not_persisted_is_kept_when_the_store_is_closed_in_peace() {
    for engine in KeyedEngine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let keyed = dir.path().join("keyed");
        for life in 0..3u8 {
            let opened = DiskKeyedNode::open(&keyed, options(engine)).unwrap();
            let store = opened.node.namespace(GROUP);
            let count = block_on(async {
                let count = store.range(b"", b"", usize::MAX).await.unwrap().len();
                store.apply(Batch { writes: vec![(Bytes::from(vec![life]), Some(Bytes::new()))] }).await.unwrap();
                count
            });
            assert_eq!(count, usize::from(life), "{engine}");
            drop((opened.node, store));
            opened.threads.join();
        }
    }
}
