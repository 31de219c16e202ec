//! Files of every format version that was ever written, as this build reads them.
//!
//! `MARCHLAND_WRITE_FIXTURES=1 cargo test -p marchland-storage --test fixtures` writes those of the present version; older ones are never
//! written again.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use marchland_storage::checkpoint::{CheckpointHeader, CheckpointOptions, Checkpoints};
use marchland_storage::disk::{Disk, DiskFile, RealDisk, SimDisk};
use marchland_storage::folder::{DataFolder, FolderId};
use marchland_storage::log::{LogOptions, LogWriter, SharedLog, Turn};
use marchland_storage::raft_log::{GroupLogState, LogEntry, LogOp, RaftLog};
use marchland_types::seam::Entropy;
use marchland_types::{GroupId, Incarnation, LogIndex, NodeId, Position, Term};

const A: GroupId = GroupId(0x0400_0001_0000_0001);
const B: GroupId = GroupId(0x0200_0001_0000_0001);

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A stored folder, copied to where it may be written to.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in RealDisk.list(&stored(name)).unwrap() {
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Stores a simulated folder, if that is asked for.
fn store(disk: &SimDisk, dir: &Path, name: &str) {
    if std::env::var_os("MARCHLAND_WRITE_FIXTURES").is_none() {
        return;
    }
    std::fs::create_dir_all(stored(name)).unwrap();
    for path in disk.list(dir).unwrap() {
        let file = disk.open(&path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        std::fs::write(stored(name).join(path.file_name().unwrap()), bytes).unwrap();
    }
}

fn position(term: u64, index: u64) -> Position {
    Position { term: Term(term), index: LogIndex(index) }
}

fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { position: position(term, index), payload: Bytes::from(format!("entry {index} of term {term}").repeat(8)) }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 16 * 1024, retain_bytes: 16 * 1024, reserve_bytes: 0, salt: 0x5a17, ..LogOptions::default() }
}

fn submit<D: Disk>(log: &SharedLog, writer: &mut LogWriter<D>, group: GroupId, op: LogOp) {
    log.submit(group, op, Box::new(|result| result.unwrap()));
    while let Turn::Wrote { .. } = writer.turn() {}
}

#[test]
fn logs_of_version_1_are_read() {
    let (disk, dir) = (SimDisk::new(1), Path::new("/log"));
    let (log, mut writer) = SharedLog::open(disk.clone(), dir, options()).unwrap();
    for op in [
        LogOp::Vote(Bytes::from_static(b"vote of a")),
        LogOp::Append((0..40).map(|index| entry(1, index)).collect()),
        LogOp::TruncateAfter(Some(LogIndex(37))),
        LogOp::Append((38..41).map(|index| entry(2, index)).collect()),
        LogOp::Committed(Some(position(1, 30))),
        LogOp::Purge(position(1, 19)),
    ] {
        submit(&log, &mut writer, A, op);
    }
    submit(&log, &mut writer, B, LogOp::Append(vec![entry(3, 0), entry(3, 1)]));
    submit(&log, &mut writer, GroupId(9), LogOp::Vote(Bytes::from_static(b"gone")));
    submit(&log, &mut writer, GroupId(9), LogOp::Forget);
    drop((log, writer));
    store(&disk, dir, "log-v1");

    let dir = copy("log-v1");
    let (log, _writer) = SharedLog::open(RealDisk, dir.path(), options()).unwrap();
    assert_eq!(log.groups(), vec![B, A]);
    let expected = GroupLogState {
        vote: Some(Bytes::from_static(b"vote of a")),
        committed: Some(position(1, 30)),
        purged: Some(position(1, 19)),
        last: Some(position(2, 40)),
    };
    assert_eq!(log.state(A), expected);
    let entries: Vec<_> = (20..38).map(|index| entry(1, index)).chain((38..41).map(|index| entry(2, index))).collect();
    assert_eq!(log.entries(A, LogIndex(0)..LogIndex(99)), entries);
    assert_eq!(log.entries(B, LogIndex(0)..LogIndex(99)), vec![entry(3, 0), entry(3, 1)]);
}

#[test]
fn checkpoints_of_version_1_are_read() {
    let (disk, dir) = (SimDisk::new(1), Path::new("/checkpoints"));
    let header = CheckpointHeader {
        group: A,
        position: position(4, 77),
        membership: Bytes::from_static(b"three voters"),
        meta: Bytes::from_static(b"tick 70"),
    };
    let body = || [Bytes::from(vec![1; 300]), Bytes::from(vec![2; 5])];
    Checkpoints::open(disk.clone(), dir, CheckpointOptions::default()).unwrap().write(&header, body()).unwrap();
    store(&disk, dir, "checkpoint-v1");

    let dir = copy("checkpoint-v1");
    let reader = Checkpoints::open(RealDisk, dir.path(), CheckpointOptions::default()).unwrap().latest(A).unwrap().unwrap();
    assert_eq!(reader.header(), &header);
    assert_eq!(reader.body().unwrap(), body());
}

#[derive(Clone)]
struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

#[test]
fn data_folders_of_version_1_are_read() {
    let (disk, dir) = (SimDisk::new(1), Path::new("/folder"));
    DataFolder::open(disk.clone(), dir, NodeId(3), 0, &Sevens).unwrap().set_incarnation(Incarnation(5)).unwrap();
    store(&disk, dir, "folder-v1");

    let dir = copy("folder-v1");
    let folder = DataFolder::open(RealDisk, dir.path(), NodeId(3), 0, &Sevens).unwrap();
    assert_eq!((folder.id(), folder.incarnation(), folder.was_created()), (FolderId([7; 16]), Some(Incarnation(5)), false));
}
