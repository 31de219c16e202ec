//! What a history shows of logs that were written, cut, damaged, and are being written.

use std::path::Path;

use marchland_types::Position;

use super::super::tests::{drive, entry, outcome, small, submit};
use super::super::{LogWriter, SharedLog};
use super::*;
use crate::disk::SimDisk;
use crate::raft_log::{LogOp, RaftLog};

const GROUP: GroupId = GroupId(7);

fn dir() -> &'static Path {
    Path::new("/n/log")
}

fn at(term: u64, index: u64) -> Position {
    entry(term, index, 0).position
}

/// Appends entries of `size` bytes, each committed before the next one, and purged behind.
fn fill(log: &SharedLog, writer: &mut LogWriter<SimDisk>, range: std::ops::Range<u64>, size: usize) {
    for index in range {
        submit(log, writer, GROUP, LogOp::Append(vec![entry(1, index, size)])).unwrap();
        log.submit(GROUP, LogOp::Committed(Some(at(1, index))), outcome().1);
        if index >= 10 {
            submit(log, writer, GROUP, LogOp::Purge(at(1, index - 10))).unwrap();
        }
    }
    drive(writer);
}

fn read(disk: &SimDisk) -> History<SimDisk> {
    History::read(disk, dir(), GROUP).unwrap()
}

fn all(history: &mut History<SimDisk>) -> Vec<LogEntry> {
    let runs = history.runs();
    let indices = runs.iter().flat_map(|run| run.start().0..=run.end().0);
    indices.map(|index| history.entry(LogIndex(index)).unwrap().expect("is there")).collect()
}

#[test]
fn reaches_back_beyond_what_raft_has_and_ends_at_the_commit() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), small()).unwrap();
    fill(&log, &mut writer, 0..100, 1000);
    submit(&log, &mut writer, GROUP, LogOp::Append(vec![entry(1, 100, 9)])).unwrap();
    let mut history = read(&disk);
    // The word of a commit goes out with what is written next.
    assert_eq!((history.committed(), history.undecided()), (Some(LogIndex(99)), 1));
    let kept = all(&mut history);
    assert!(kept.len() > 30 && log.entries(GROUP, LogIndex(0)..LogIndex(200)).len() < 20, "{}", kept.len());
    assert_eq!(kept.last(), Some(&entry(1, 99, 1000)));
    assert!(kept.iter().all(|kept| *kept == entry(1, kept.position.index.0, 1000)));
    assert_eq!(history.entry(LogIndex(100)).unwrap(), None);
    history.know_committed(LogIndex(100));
    assert_eq!(history.entry(LogIndex(100)).unwrap(), Some(entry(1, 100, 9)));
    assert!(history.damage().is_empty());
}

#[test]
fn what_was_taken_back_is_not_shown() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), small()).unwrap();
    submit(&log, &mut writer, GROUP, LogOp::Append(vec![entry(1, 0, 1), entry(1, 1, 1), entry(1, 2, 1)])).unwrap();
    submit(&log, &mut writer, GROUP, LogOp::TruncateAfter(Some(LogIndex(0)))).unwrap();
    submit(&log, &mut writer, GROUP, LogOp::Append(vec![entry(2, 1, 1)])).unwrap();
    let mut history = read(&disk);
    assert_eq!((history.committed(), history.undecided(), history.runs()), (None, 2, Vec::new()));
    history.know_committed(LogIndex(1));
    assert_eq!(all(&mut history), vec![entry(1, 0, 1), entry(2, 1, 1)]);
}

#[test]
fn an_absent_segment_is_a_gap_and_told() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), small()).unwrap();
    fill(&log, &mut writer, 0..60, 1000);
    let whole = all(&mut read(&disk)).len();
    let journals: Vec<_> = disk.list(dir()).unwrap().into_iter().filter(|path| path.extension().unwrap() == "journal").collect();
    disk.remove(&journals[1]).unwrap();
    let history = read(&disk);
    let runs = history.runs();
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!(runs[1].end(), &LogIndex(59));
    assert!(runs.iter().map(|run| run.end().0 - run.start().0 + 1).sum::<u64>() < whole as u64);
    assert!(matches!(history.damage(), [OpenError::MissingSegment { .. }]), "{:?}", history.damage());
}

#[test]
fn rot_is_told_with_its_place_and_nothing_beyond_it_is_guessed() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), small()).unwrap();
    fill(&log, &mut writer, 0..60, 1000);
    let whole = all(&mut read(&disk));
    let files = disk.list(dir()).unwrap();
    let journals: Vec<_> = files.iter().filter(|path| path.extension().unwrap() == "journal").collect();
    for path in [journals[1], files.iter().rfind(|path| path.extension().unwrap() == "log").unwrap()] {
        // In the first batch of the segment.
        disk.rot(path, 600, 1).unwrap();
        let mut history = read(&disk);
        let [OpenError::Rot { path: found, offset: 512, .. }] = history.damage() else { panic!("{:?}", history.damage()) };
        assert_eq!(found, path);
        let kept = all(&mut history);
        assert!(kept.len() < whole.len() && kept.iter().all(|entry| whole.contains(entry)));
        disk.rot(path, 600, 1).unwrap();
    }
    assert_eq!(all(&mut read(&disk)), whole);
}

#[test]
fn an_entry_that_an_unreadable_part_may_have_replaced_is_not_shown() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), small()).unwrap();
    fill(&log, &mut writer, 0..5, 10);
    // Two entries that nobody committed, replaced in a batch that rots.
    submit(&log, &mut writer, GROUP, LogOp::Append(vec![entry(1, 5, 10), entry(1, 6, 10)])).unwrap();
    let before: usize = log.stats().bytes as usize;
    submit(&log, &mut writer, GROUP, LogOp::TruncateAfter(Some(LogIndex(4)))).unwrap();
    submit(&log, &mut writer, GROUP, LogOp::Append(vec![entry(2, 5, 10)])).unwrap();
    submit(&log, &mut writer, GROUP, LogOp::Append(vec![entry(2, 6, 10), entry(2, 7, 10)])).unwrap();
    let path = segment_path(dir(), 1);
    disk.rot(&path, 512 + before as u64 + 70, 1).unwrap();
    let mut history = read(&disk);
    assert!(matches!(history.damage(), [OpenError::Rot { .. }]), "{:?}", history.damage());
    history.know_committed(LogIndex(7));
    assert_eq!(all(&mut history).last(), Some(&entry(1, 4, 10)));
    assert_eq!(history.entry(LogIndex(5)).unwrap(), None);
}

#[test]
fn a_torn_tail_is_the_end() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), small()).unwrap();
    fill(&log, &mut writer, 0..6, 10);
    let written: u64 = log.stats().bytes;
    // The last batch, which nothing after it calls synced.
    disk.rot(&segment_path(dir(), 1), written + 10, 1).unwrap();
    let mut history = read(&disk);
    assert!(history.damage().is_empty(), "{:?}", history.damage());
    // It held entry 5, and the word that entry 4 is committed.
    assert_eq!((all(&mut history).last(), history.undecided()), (Some(&entry(1, 3, 10)), 1));
}
