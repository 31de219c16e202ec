//! Tests of the log as a whole that need its inside; what every log must do is in the conformance suite.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position, Term};

use super::*;
use crate::disk::{Disk, RealDisk};
use crate::raft_log::{Done, LogEntry, LogError, LogOp, RaftLog};

pub(super) fn entry(term: u64, index: u64, size: usize) -> LogEntry {
    LogEntry { position: Position { term: Term(term), index: LogIndex(index) }, payload: Bytes::from(vec![index as u8; size]) }
}

pub(super) type Outcome = Arc<Mutex<Option<Result<(), LogError>>>>;

pub(super) fn outcome() -> (Outcome, Done) {
    let slot = Outcome::default();
    let filled = slot.clone();
    (slot, Box::new(move |result| assert!(filled.lock().unwrap().replace(result).is_none(), "called twice")))
}

/// Runs the writer until it has nothing to do; the last turn.
pub(super) fn drive<D: Disk>(writer: &mut LogWriter<D>) -> Turn {
    loop {
        match writer.turn() {
            Turn::Wrote { .. } => {}
            turn => return turn,
        }
    }
}

/// Submits, drives, and returns the outcome.
pub(super) fn submit<D: Disk>(log: &SharedLog, writer: &mut LogWriter<D>, group: GroupId, op: LogOp) -> Result<(), LogError> {
    let (slot, done) = outcome();
    log.submit(group, op, done);
    drive(writer);
    let result = slot.lock().unwrap().take();
    result.expect("completed")
}

pub(super) fn small() -> LogOptions {
    LogOptions { segment_bytes: 16 * 1024, retain_bytes: 64 * 1024, reserve_bytes: 0, ..LogOptions::default() }
}

fn open(dir: &Path) -> (SharedLog, LogWriter<RealDisk>) {
    SharedLog::open(RealDisk, dir, small()).expect("opens")
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let group = GroupId(7);
    let (log, mut writer) = open(dir.path());
    for op in [
        LogOp::Vote(Bytes::from_static(b"vote")),
        LogOp::Append((0..5).map(|i| entry(1, i, 100)).collect()),
        LogOp::TruncateAfter(Some(LogIndex(2))),
        LogOp::Append(vec![entry(2, 3, 10)]),
        LogOp::Committed(Some(entry(1, 2, 0).position)),
        LogOp::Purge(entry(1, 1, 0).position),
    ] {
        submit(&log, &mut writer, group, op).unwrap();
    }
    let before = (log.state(group), log.entries(group, LogIndex(0)..LogIndex(9)));
    assert_eq!(before.1.len(), 2);
    drop((log, writer));
    let (log, _writer) = open(dir.path());
    assert_eq!((log.state(group), log.entries(group, LogIndex(0)..LogIndex(9))), before);
    assert_eq!(log.groups(), vec![group]);
}
