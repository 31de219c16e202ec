//! Tests of checkpoints on a simulated disk.

use proptest::prelude::*;

use super::*;
use crate::disk::SimDisk;

const GROUP: GroupId = GroupId(0x0400_0001_0000_0001);

fn open(disk: &SimDisk, retain_bytes: u64) -> Checkpoints<SimDisk> {
    Checkpoints::open(disk.clone(), Path::new("/n/checkpoints"), CheckpointOptions { keep_min: 2, retain_bytes }).expect("opens")
}

fn header(group: GroupId, index: u64) -> CheckpointHeader {
    let position = Position { term: Term(3), index: LogIndex(index) };
    CheckpointHeader { group, position, membership: Bytes::from_static(b"members"), meta: Bytes::from(index.to_string()) }
}

fn body(index: u64) -> Vec<Bytes> {
    (0..3).map(|part| Bytes::from(vec![(index + part) as u8; 700])).collect()
}

fn indices(checkpoints: &Checkpoints<SimDisk>, group: GroupId) -> Vec<u64> {
    checkpoints.candidates(group).unwrap().iter().map(|info| info.position.index.0).collect()
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let disk = SimDisk::new(1);
    let checkpoints = open(&disk, 0);
    assert!(checkpoints.latest(GROUP).unwrap().is_none());
    checkpoints.write(&header(GROUP, 9), body(9)).unwrap();
    let large = Bytes::from(vec![5; 3 * format::CHUNK_MAX_BYTES + 17]);
    checkpoints.write(&header(GROUP, 10), [large.clone(), Bytes::new()]).unwrap();
    let reader = checkpoints.latest(GROUP).unwrap().unwrap();
    assert_eq!(reader.header(), &header(GROUP, 10));
    assert_eq!(reader.body().unwrap().concat(), large);
    let older = checkpoints.read(&checkpoints.candidates(GROUP).unwrap()[1]).unwrap();
    assert_eq!(older.body().unwrap(), body(9));
}

#[test]
fn two_are_kept_and_the_log_may_be_purged_up_to_the_older() {
    let disk = SimDisk::new(1);
    let checkpoints = open(&disk, 0);
    let other = GroupId(GROUP.0 + 1);
    checkpoints.write(&header(other, 1), body(1)).unwrap();
    for index in [5, 100, 20] {
        checkpoints.write(&header(GROUP, index), body(index)).unwrap();
    }
    assert_eq!((indices(&checkpoints, GROUP), indices(&checkpoints, other)), (vec![100, 20], vec![1]));
    assert_eq!(checkpoints.purgeable(GROUP).unwrap(), Some(header(GROUP, 20).position));
    assert_eq!(checkpoints.purgeable(other).unwrap(), Some(header(other, 1).position));
    checkpoints.remove_group(GROUP).unwrap();
    assert_eq!((indices(&checkpoints, GROUP), indices(&checkpoints, other)), (vec![], vec![1]));
    let generous = open(&disk, 1 << 20);
    for index in 1..6 {
        generous.write(&header(GROUP, index), body(index)).unwrap();
    }
    assert_eq!(indices(&generous, GROUP), vec![5, 4, 3, 2, 1]);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let checkpoints = open(&disk, 0);
    checkpoints.write(&header(GROUP, 1), body(1)).unwrap();
    disk.set_capacity_bytes(Some(3000));
    let refused = checkpoints.write(&header(GROUP, 2), body(2));
    assert!(matches!(refused, Err(CheckpointError::Full { .. })), "{:?}", refused.err());
    assert_eq!(disk.list(Path::new("/n/checkpoints")).unwrap().len(), 1);
    disk.set_capacity_bytes(None);
    checkpoints.write(&header(GROUP, 2), body(2)).unwrap();
    assert_eq!(indices(&checkpoints, GROUP), vec![2, 1]);
}

#[test]
fn a_newer_format_is_told_apart_from_damage() {
    let disk = SimDisk::new(1);
    let checkpoints = open(&disk, 0);
    let info = checkpoints.write(&header(GROUP, 1), body(1)).unwrap();
    disk.rot(&info.path, 8, 1 ^ 2).unwrap();
    assert!(matches!(checkpoints.read(&info).err(), Some(CheckpointError::NewerVersion { found: 2, supported: 1, .. })));
}

proptest! {
    #[test]
    fn every_changed_byte_is_noticed(at: prop::sample::Index, flip in 1u8..) {
        let disk = SimDisk::new(1);
        let checkpoints = open(&disk, 0);
        let info = checkpoints.write(&header(GROUP, 1), body(1)).unwrap();
        let size_bytes = checkpoints.read(&info).unwrap().size_bytes();
        let offset = at.index(size_bytes as usize) as u64;
        disk.rot(&info.path, offset, flip).unwrap();
        let error = checkpoints.read(&info).and_then(CheckpointReader::body).expect_err("damaged");
        match error {
            CheckpointError::Damaged { path, offset: reported, .. } => {
                prop_assert_eq!(path, info.path);
                prop_assert!(reported <= offset.max(8), "reported {} for a change at {}", reported, offset);
            }
            CheckpointError::NewerVersion { .. } => prop_assert!((8..12).contains(&offset)),
            error => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn a_power_cut_leaves_whole_checkpoints_and_every_durable_one(cut in 0u64..60, seed in any::<u64>()) {
        let disk = SimDisk::new(seed);
        open(&disk, 0);
        disk.cut_after(cut);
        let mut durable = 0;
        let opened = Checkpoints::open(disk.clone(), Path::new("/n/checkpoints"), CheckpointOptions { keep_min: 2, retain_bytes: 0 });
        if let Ok(checkpoints) = opened {
            for index in 1..6 {
                match checkpoints.write(&header(GROUP, index), body(index)) {
                    Ok(_) => durable = index,
                    Err(_) => break,
                }
            }
        }
        disk.crash(seed);
        let checkpoints = open(&disk, 0);
        let found = checkpoints.candidates(GROUP).unwrap();
        prop_assert!(found.first().map_or(0, |info| info.position.index.0) >= durable);
        prop_assert!(found.len() as u64 >= durable.min(2), "the one before is kept as well");
        for info in &found {
            prop_assert_eq!(checkpoints.read(info).unwrap().body().unwrap(), body(info.position.index.0));
        }
    }
}
