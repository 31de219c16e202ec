//! The machine over a store that loses power.

mod support;

use bytes::Bytes;
use marchland_proto::storage::DirectoryApplied;
use marchland_raft::{Applied, Machine, Payload, Snapshot, SnapshotBody};
use marchland_router::core::{Key, check};
use marchland_router::{KeyedMachine, Registry};
use marchland_storage::disk::SimDisk;
use marchland_storage::keyed::{Batch, KeyedStore};
use marchland_types::GroupId;
use proptest::prelude::*;
use prost::Message;
use support::*;

async fn open(disk: &SimDisk) -> TestMachine {
    TestMachine::directory(directory_group(), store(disk), Registry::default()).await.expect("the machine opens")
}

/// A runtime of its own for each case.
fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

/// The state after the whole log, applied entry by entry without a fault; and all answers.
async fn undisturbed(log: &[Payload]) -> (std::collections::BTreeMap<Bytes, Bytes>, Vec<Bytes>) {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let machine = TestMachine::directory(directory_group(), store.clone(), Registry::default()).await.unwrap();
    let mut answers = Vec::new();
    for entry in entries(log, 0) {
        answers.extend(machine.apply(vec![entry]).await.unwrap());
    }
    let records = records(&store).await;
    check(records.clone()).unwrap();
    (records, answers)
}

fn numbers() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    proptest::collection::vec(any::<(u8, u8, u8)>(), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Apply = replay: with batches of any size, persists and power losses anywhere, the state and the answers are the same.
    #[test]
    fn power_losses_and_batches_do_not_show(
        numbers in numbers(),
        steps in proptest::collection::vec((1usize..12, any::<bool>(), proptest::option::of(any::<u64>())), 1..20),
    ) {
        run(async {
            let log = script(&numbers);
            let (expected, expected_answers) = undisturbed(&log).await;
            let mut disk = SimDisk::new(2);
            let mut machine = open(&disk).await;
            let (mut next, mut persisted) = (0, None);
            for (count, persist, crash) in steps {
                let batch: Vec<_> = entries(&log, next).into_iter().take(count).collect();
                let answers = machine.apply(batch.clone()).await.unwrap();
                assert_eq!(answers[..], expected_answers[next..next + batch.len()]);
                next += batch.len();
                if persist {
                    persisted = machine.persist().await.unwrap().position;
                    assert_eq!(persisted, batch.last().map(|e| e.position).or(persisted));
                }
                if let Some(seed) = crash {
                    drop(machine);
                    let image = disk.copy();
                    image.crash(seed);
                    disk = image;
                    machine = open(&disk).await;
                    let restored = machine.restored().await.unwrap();
                    assert!(restored.position >= persisted, "{restored:?} is less than what was persisted: {persisted:?}");
                    next = restored.position.map_or(0, |p| p.index.0 as usize + 1);
                    assert_eq!(restored.position, entries(&log, 0).get(next.wrapping_sub(1)).map(|e| e.position));
                }
            }
            let rest = machine.apply(entries(&log, next)).await.unwrap();
            assert_eq!(rest[..], expected_answers[next..]);
            drop(machine);
            assert_eq!(records(&store(&disk)).await, expected);
        });
    }

    /// A snapshot from the middle, while the log goes on, and then the rest = the whole log. It replaces what was there.
    #[test]
    fn a_snapshot_and_the_tail_are_the_whole_log(numbers in numbers(), at in any::<prop::sample::Index>(), stale in 0usize..4) {
        run(async {
            let log = script(&numbers);
            let (expected, _) = undisturbed(&log).await;
            let source = open(&SimDisk::new(1)).await;
            let all = entries(&log, 0);
            let at = 1 + at.index(all.len());
            source.apply(all[..at].to_vec()).await.unwrap();
            let snapshot = source.snapshot().await.unwrap();
            assert_eq!(snapshot.applied.position, Some(all[at - 1].position));
            source.apply(all[at..].to_vec()).await.unwrap();

            let disk = SimDisk::new(2);
            let target = open(&disk).await;
            // An older part of the log, which the snapshot replaces.
            target.apply(all[..stale.min(at)].to_vec()).await.unwrap();
            target.install(snapshot).await.unwrap();
            assert_eq!(target.restored().await.unwrap().position, Some(all[at - 1].position));
            target.apply(all[at..].to_vec()).await.unwrap();
            target.persist().await.unwrap();
            drop(target);
            assert_eq!(records(&store(&disk)).await, expected);
        });
    }

    /// A snapshot that was altered or cut anywhere is refused, and nothing of it is there.
    #[test]
    fn damaged_snapshots_change_nothing(at in any::<prop::sample::Index>(), by in 1u8.., cut in any::<bool>(), chunk in 1usize..400) {
        run(async {
            let log = script(&[(0, 1, 1), (1, 2, 2), (6, 1, 1)]);
            let source = open(&SimDisk::new(1)).await;
            source.apply(entries(&log, 0)).await.unwrap();
            let Snapshot { applied, mut body } = source.snapshot().await.unwrap();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.next().await.unwrap() {
                bytes.extend_from_slice(&chunk);
            }
            let disk = SimDisk::new(2);
            let target = open(&disk).await;
            target.apply(entries(&log, 0).into_iter().take(3).collect()).await.unwrap();
            let before = records(&store_of(&target)).await;
            let whole = install(&target, &applied, &bytes, chunk).await;
            // Whole, it is taken, however it is cut into chunks.
            assert!(whole.is_ok(), "{whole:?}");
            let target = open(&SimDisk::new(3)).await;
            target.apply(entries(&log, 0).into_iter().take(3).collect()).await.unwrap();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= by;
            }
            assert!(install(&target, &applied, &bytes, chunk).await.is_err());
            assert_eq!(records(&store_of(&target)).await, before);
        });
    }
}

fn store_of(machine: &TestMachine) -> Store {
    machine.store().clone()
}

struct Chunks(std::vec::IntoIter<Bytes>);

impl SnapshotBody for Chunks {
    fn next(&mut self) -> marchland_raft::BoxFuture<'_, Result<Option<Bytes>, marchland_raft::MachineFault>> {
        Box::pin(std::future::ready(Ok(self.0.next())))
    }
}

async fn install(
    machine: &TestMachine,
    applied: &Applied,
    bytes: &[u8],
    chunk: usize,
) -> Result<(), marchland_raft::MachineFault> {
    let chunks: Vec<_> = bytes.chunks(chunk).map(Bytes::copy_from_slice).collect();
    let body = Box::new(Chunks(chunks.into_iter()));
    machine.install(Snapshot { applied: applied.clone(), body }).await
}

#[tokio::test]
async fn snapshots_of_another_group_or_with_more_behind_their_end_are_refused() {
    let source = open(&SimDisk::new(1)).await;
    source.apply(entries(&script(&[(0, 1, 1)]), 0)).await.unwrap();
    let Snapshot { applied, mut body } = source.snapshot().await.unwrap();
    let mut bytes = body.next().await.unwrap().unwrap().to_vec();
    assert!(body.next().await.unwrap().is_none());
    let disk = SimDisk::new(2);
    let other = GroupId::directory(2.into());
    let machine = TestMachine::directory(other, store(&disk), Registry::default()).await.unwrap();
    let refused = install(&machine, &applied, &bytes, 1000).await.unwrap_err();
    assert!(refused.reason.contains("snapshot is of directory(1,1)"), "{refused}");
    let machine = open(&disk).await;
    let tail = bytes.clone();
    bytes.extend_from_slice(&tail);
    let refused = install(&machine, &applied, &bytes, 1000).await.unwrap_err();
    assert!(refused.reason.contains("goes on after its last frame"), "{refused}");
}

#[tokio::test]
async fn a_second_snapshot_waits_for_the_first() {
    let machine = open(&SimDisk::new(1)).await;
    machine.apply(entries(&script(&[(0, 1, 1)]), 0)).await.unwrap();
    let first = machine.snapshot().await.unwrap();
    let mut second = std::pin::pin!(machine.snapshot());
    tokio::select! {
        biased;
        _ = &mut second => panic!("two views at once"),
        () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
    }
    drop(first);
    assert!(second.await.unwrap().applied.position.is_some());
}

#[tokio::test]
async fn newer_formats_damage_and_repeated_entries_stop_the_replica() {
    let disk = SimDisk::new(1);
    let machine = open(&disk).await;
    let all = entries(&script(&[(0, 1, 1)]), 0);
    machine.apply(all.clone()).await.unwrap();
    let again = machine.apply(vec![all[2].clone()]).await.unwrap_err();
    assert!(again.reason.contains("entry 2@1 again"), "{again}");
    let mut rubbish = all[3].clone();
    rubbish.position.index.0 = 99;
    rubbish.payload = Payload::Command(Bytes::from_static(&[0xff; 5]));
    assert!(machine.apply(vec![rubbish]).await.is_err());
    let store = machine.store().clone();
    let newer = DirectoryApplied { format: 2, ..DirectoryApplied::default() }.encode_to_vec();
    for (bytes, expected) in [(newer, "format 2"), (vec![0xff; 5], "damaged")] {
        store.apply(Batch { writes: vec![(Key::Applied.encode(), Some(bytes.into()))] }).await.unwrap();
        let refused =
            KeyedMachine::directory(directory_group(), store.clone(), Registry::default()).await.err().expect("refused");
        assert!(refused.reason.contains(expected), "{refused}");
    }
}
