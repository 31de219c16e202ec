//! Tests of the log as a whole that need its inside; what every log must do is in the conformance suite.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position, Term};

use super::*;
use crate::disk::{Disk, SimDisk};
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

fn dir() -> &'static Path {
    Path::new("/n/log")
}

fn open(disk: &SimDisk) -> (SharedLog, LogWriter<SimDisk>) {
    SharedLog::open(disk.clone(), dir(), small()).expect("opens")
}

fn refusal(disk: &SimDisk) -> OpenError {
    SharedLog::open(disk.clone(), dir(), small()).err().expect("refused")
}

fn append<D: Disk>(log: &SharedLog, writer: &mut LogWriter<D>, group: GroupId, count: u64, size: usize) {
    let from = log.state(group).last.map_or(0, |last| last.index.0 + 1);
    submit(log, writer, group, LogOp::Append((from..from + count).map(|index| entry(1, index, size)).collect())).unwrap();
}

fn indices(log: &SharedLog, group: GroupId) -> Vec<u64> {
    log.entries(group, LogIndex(0)..LogIndex(u64::MAX)).iter().map(|entry| entry.position.index.0).collect()
}

const GROUP: GroupId = GroupId(7);

/// A log with three batches of one entry each, in the first segment: at 512, 1024 and 1536.
fn three_batches() -> SimDisk {
    let disk = SimDisk::new(1);
    let (log, mut writer) = open(&disk);
    for _ in 0..3 {
        append(&log, &mut writer, GROUP, 1, 100);
    }
    disk.kill();
    disk
}

#[test]
fn damage_below_the_synced_end_is_refused_with_file_and_offset() {
    for (at, batch) in [(512, 512), (600, 512), (700, 512), (1024, 1024), (1100, 1024)] {
        let disk = three_batches();
        disk.rot(&segment::segment_path(dir(), 1), at, 0x10).unwrap();
        match refusal(&disk) {
            OpenError::Rot { path, offset, .. } => assert_eq!((path.to_str(), offset), (Some("/n/log/000000000001.log"), batch)),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn damage_of_the_last_batch_is_a_torn_tail_unless_the_log_was_closed() {
    let disk = three_batches();
    disk.rot(&segment::segment_path(dir(), 1), 1600, 1).unwrap();
    let (log, mut writer) = open(&disk);
    assert_eq!(indices(&log, GROUP), vec![0, 1]);
    append(&log, &mut writer, GROUP, 1, 50);
    drop(log);
    assert_eq!(drive(&mut writer), Turn::Closed);
    writer.seal();
    drop(writer);
    disk.crash(1);
    assert_eq!(indices(&open(&disk).0, GROUP), vec![0, 1, 2]);
    disk.rot(&segment::segment_path(dir(), 1), 1600, 1).unwrap();
    assert!(matches!(refusal(&disk), OpenError::Rot { offset: 1536, .. }));
}

#[test]
fn damage_in_a_finished_segment_or_its_absence_is_refused() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = open(&disk);
    for _ in 0..40 {
        append(&log, &mut writer, GROUP, 1, 1000);
    }
    let files = disk.list(dir()).unwrap();
    assert!(files.len() > 2, "{files:?}");
    disk.kill();
    let last_batch = 512 + 9 * 1536;
    disk.rot(&files[0], last_batch + 700, 1).unwrap();
    assert!(matches!(refusal(&disk), OpenError::Rot { path, offset, .. } if path == files[0] && offset == last_batch));
    disk.rot(&files[0], last_batch + 700, 1).unwrap();
    disk.remove(&files[1]).unwrap();
    assert!(matches!(refusal(&disk), OpenError::MissingSegment { segment: 2, .. }));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let disk = three_batches();
    disk.rot(&segment::segment_path(dir(), 1), 8, 1 ^ 9).unwrap();
    let text = refusal(&disk).to_string();
    assert_eq!(text, "log file /n/log/000000000001.log has format 9, this build reads up to 1");
}

#[test]
fn a_failed_sync_poisons_until_a_restart() {
    for fail in [SimDisk::fail_syncs as fn(&SimDisk, u32), SimDisk::fail_writes] {
        let disk = SimDisk::new(1);
        let (log, mut writer) = open(&disk);
        append(&log, &mut writer, GROUP, 1, 10);
        fail(&disk, 1);
        for _ in 0..2 {
            let result = submit(&log, &mut writer, GROUP, LogOp::Vote(Bytes::from_static(b"v")));
            assert!(matches!(result, Err(LogError::Poisoned(_))), "{result:?}");
            assert!(matches!(log.room(), Err(LogError::Poisoned(_))));
        }
        let before = disk.counters();
        writer.seal();
        assert_eq!(disk.counters().writes, before.writes, "nothing is written any more");
        drop((log, writer));
        disk.kill();
        let (log, mut writer) = open(&disk);
        append(&log, &mut writer, GROUP, 1, 10);
        assert_eq!(indices(&log, GROUP), vec![0, 1]);
    }
}

#[test]
fn what_waits_is_told_when_the_writer_goes() {
    let disk = SimDisk::new(1);
    let (log, writer) = open(&disk);
    let (slot, done) = outcome();
    log.submit(GROUP, LogOp::Vote(Bytes::new()), done);
    drop(writer);
    assert!(matches!(slot.lock().unwrap().take(), Some(Err(LogError::Closed))));
    let (slot, done) = outcome();
    log.submit(GROUP, LogOp::Forget, done);
    assert!(matches!(slot.lock().unwrap().take(), Some(Err(LogError::Closed))));
}

#[test]
fn the_queue_is_bounded_and_votes_pass_longer_than_appends() {
    let disk = SimDisk::new(1);
    let options = LogOptions { queue_bytes_max: 10_000, ..small() };
    let (log, mut writer) = SharedLog::open(disk, dir(), options).unwrap();
    let mut accepted = 0;
    let refused = loop {
        let (slot, done) = outcome();
        log.submit(GROUP, LogOp::Append(vec![entry(1, accepted, 900)]), done);
        match slot.lock().unwrap().take() {
            None => accepted += 1,
            Some(result) => break result,
        }
    };
    assert!(matches!(refused, Err(LogError::Busy { .. })) && (10..13).contains(&accepted), "{accepted} {refused:?}");
    assert!(log.room().is_err());
    submit(&log, &mut writer, GROUP, LogOp::Vote(Bytes::from_static(b"v"))).unwrap();
    assert!(log.room().is_ok());
    assert_eq!(log.state(GROUP).last.map(|last| last.index.0), Some(accepted - 1));
}

#[test]
fn a_full_disk_delays_and_recovers_when_space_returns() {
    let disk = SimDisk::new(1);
    let options = LogOptions { reserve_bytes: 40_000, ..small() };
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), options.clone()).unwrap();
    disk.set_capacity_bytes(Some(60_000));
    let mut index = 0;
    // Work goes on while there is room, then it is refused, with votes going on.
    while log.room().is_ok() {
        append(&log, &mut writer, GROUP, 1, 1000);
        index += 1;
        assert!(index < 100);
    }
    assert!(matches!(log.room(), Err(LogError::Full { needed_bytes: 40_000, .. })));
    submit(&log, &mut writer, GROUP, LogOp::Vote(Bytes::from_static(b"v"))).unwrap();
    // Whoever appends all the same is stopped by the log itself, without losing what was accepted.
    let mut waiting = Vec::new();
    let refused = loop {
        let (slot, done) = outcome();
        log.submit(GROUP, LogOp::Append(vec![entry(1, index, 1000)]), done);
        let last = drive(&mut writer);
        match slot.lock().unwrap().take() {
            Some(Ok(())) => {}
            Some(Err(error)) => break error,
            None => {
                assert_eq!(last, Turn::Stalled);
                waiting.push(slot.clone());
                if waiting.len() > 3 {
                    break LogError::Closed;
                }
            }
        }
        index += 1;
    };
    assert!(matches!(refused, LogError::Full { .. } | LogError::Closed), "{refused}");
    disk.set_capacity_bytes(None);
    drive(&mut writer);
    append(&log, &mut writer, GROUP, 1, 1000);
    assert!(log.room().is_ok());
    assert!(waiting.iter().all(|slot| matches!(*slot.lock().unwrap(), Some(Ok(())))));
    let before = indices(&log, GROUP);
    disk.crash(3);
    assert_eq!(indices(&SharedLog::open(disk, dir(), options).unwrap().0, GROUP), before);
}

#[test]
fn the_journal_gives_way_when_the_disk_is_full() {
    let disk = SimDisk::new(1);
    let options = LogOptions { retain_bytes: 1 << 20, ..small() };
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), options).unwrap();
    disk.set_capacity_bytes(Some(10 * 16 * 1024));
    for index in 0..400 {
        append(&log, &mut writer, GROUP, 1, 1000);
        submit(&log, &mut writer, GROUP, LogOp::Purge(entry(1, index, 0).position)).unwrap();
    }
    assert!(disk.counters().refused_full > 0, "the disk was never full");
}

#[test]
fn old_segments_go_though_one_group_stands_still_and_their_history_is_kept_for_a_while() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = open(&disk);
    let (slow, fast) = (GroupId(1), GroupId(2));
    submit(&log, &mut writer, slow, LogOp::Vote(Bytes::from_static(b"kept"))).unwrap();
    append(&log, &mut writer, slow, 20, 300);
    for index in 0..600 {
        append(&log, &mut writer, fast, 1, 1000);
        if index >= 10 {
            submit(&log, &mut writer, fast, LogOp::Purge(entry(1, index - 10, 0).position)).unwrap();
        }
    }
    let stats = log.stats();
    assert!(stats.carried_bytes > 0 && stats.carried_bytes < stats.bytes, "{stats:?}");
    let files = disk.list(dir()).unwrap();
    let count = |kind: &str| files.iter().filter(|path| path.extension().unwrap() == kind).count();
    assert!(count("log") <= 8 && count("journal") == 4, "{files:?}");
    // What is retained reaches back further than raft's log, and ends with it.
    let kept = |group: GroupId| {
        let mut history = History::read(&disk, dir(), group).unwrap();
        assert!(history.damage().is_empty(), "{:?}", history.damage());
        history.know_committed(log.state(group).last.unwrap().index);
        let [run] = &history.runs()[..] else { panic!("{:?}", history.runs()) };
        (run.start().0..=run.end().0).map(|index| history.entry(LogIndex(index)).unwrap().unwrap()).collect::<Vec<_>>()
    };
    let of_fast = kept(fast);
    assert!(of_fast[0].position.index.0 < 580 && of_fast.len() > 20, "{:?}", of_fast[0].position);
    assert_eq!(of_fast.last().unwrap().position, log.state(fast).last.unwrap());
    assert_eq!(kept(slow), log.entries(slow, LogIndex(0)..LogIndex(99)));
    let before: Vec<_> = [slow, fast].map(|group| (log.state(group), indices(&log, group))).into();
    assert_eq!(before[0].1.len(), 20);
    disk.crash(9);
    let log = open(&disk).0;
    let after: Vec<_> = [slow, fast].map(|group| (log.state(group), indices(&log, group))).into();
    assert_eq!((&after[0].0.vote, &after[0].1), (&before[0].0.vote, &before[0].1));
    // The last purge need not survive.
    assert!(after[1].1.ends_with(&before[1].1) && after[1].1.len() <= before[1].1.len() + 1);
}

#[test]
fn retained_segments_go_by_age() {
    let disk = SimDisk::new(1);
    let now = Arc::new(std::sync::atomic::AtomicU64::new(1_000));
    let clock = now.clone();
    let options = LogOptions {
        retain_bytes: 1 << 30,
        retain_ms: 500,
        wall_clock: Some(Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed))),
        ..small()
    };
    let (log, mut writer) = SharedLog::open(disk.clone(), dir(), options).unwrap();
    let journals = || disk.list(dir()).unwrap().iter().filter(|path| path.extension().unwrap() == "journal").count();
    let mut fill = || {
        for _ in 0..40 {
            append(&log, &mut writer, GROUP, 1, 1000);
            submit(&log, &mut writer, GROUP, LogOp::Purge(log.state(GROUP).last.unwrap())).unwrap();
        }
    };
    fill();
    assert!(journals() >= 3);
    now.store(10_000, std::sync::atomic::Ordering::Relaxed);
    fill();
    fill();
    assert!(journals() >= 3);
    assert!(!disk.exists(&segment::journal_path(dir(), 1)).unwrap(), "the oldest is gone");
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let disk = SimDisk::new(1);
    let (log, mut writer) = open(&disk);
    append(&log, &mut writer, GROUP, 3, 50_000);
    append(&log, &mut writer, GROUP, 1, 3_000_000);
    append(&log, &mut writer, GROUP, 1, 10);
    let before = log.entries(GROUP, LogIndex(0)..LogIndex(9));
    disk.crash(1);
    assert_eq!(open(&disk).0.entries(GROUP, LogIndex(0)..LogIndex(9)), before);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for options in [
        LogOptions { segment_bytes: 100, ..small() },
        LogOptions { queue_ops_max: 0, ..small() },
        LogOptions { retain_ms: 1, ..small() },
    ] {
        assert!(matches!(SharedLog::open(SimDisk::new(1), dir(), options), Err(OpenError::Options(_))));
    }
}

#[test]
fn the_task_waits_for_the_disk_and_ends_with_the_last_handle() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let disk = SimDisk::new(1);
        let (log, writer) = open(&disk);
        let task = tokio::spawn(writer.run_task(|| std::time::Duration::from_millis(3)));
        let start = tokio::time::Instant::now();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        log.submit(GROUP, LogOp::Vote(Bytes::new()), Box::new(move |result| sender.send(result).unwrap()));
        receiver.await.unwrap().unwrap();
        assert_eq!(start.elapsed().as_millis(), 3);
        drop(log);
        task.await.unwrap();
    });
}

#[test]
fn what_stood_behind_a_torn_batch_never_comes_back() {
    let mut cases = 0;
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let (log, mut writer) = open(&disk);
        append(&log, &mut writer, GROUP, 3, 10);
        // A batch that is not synced, and behind it one whose sync never comes.
        submit(&log, &mut writer, GROUP, LogOp::Purge(entry(1, 0, 0).position)).unwrap();
        disk.cut_after(1);
        let refused = submit(&log, &mut writer, GROUP, LogOp::Vote(Bytes::from_static(b"refused")));
        assert!(refused.is_err());
        drop((log, writer));
        disk.crash(seed);
        let (log, mut writer) = open(&disk);
        if log.state(GROUP) != (crate::raft_log::GroupLogState { last: Some(entry(1, 2, 0).position), ..Default::default() }) {
            continue;
        }
        cases += 1;
        // This one takes the place of the first, and ends where the second began.
        submit(&log, &mut writer, GROUP, LogOp::Purge(entry(1, 1, 0).position)).unwrap();
        drop((log, writer));
        disk.kill();
        assert_eq!(open(&disk).0.state(GROUP).vote, None, "seed {seed}: recovery had cut it off");
    }
    assert!(cases > 5, "{cases}");
}
