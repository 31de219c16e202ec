//! The raft log beside the raw limit of the disk, measured in the same run.
//!
//! Raw: the payloads of one batch written to a preallocated file, one `fdatasync`, again. Log: one append for each of as many groups, all
//! waited for, again. The two take turns in slices, so that whatever else the machine does falls on both.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, GroupKind, LogIndex, Position, Term, WorldId};

use crate::disk::{Disk, DiskFile, RealDisk};
use crate::log::{LogOptions, SharedLog};
use crate::raft_log::{LogEntry, LogOp, RaftLog};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBench {
    /// Groups that append.
    pub groups: u32,
    /// Appends in one batch, spread over the groups.
    pub batch: u32,
    /// Size of an entry's payload.
    pub payload_bytes: usize,
    /// Batches that are under way at once: 1 waits for each, 2 is what ticks do.
    pub in_flight: usize,
    /// Time for each of the two.
    pub duration: Duration,
    /// Turns that the two take.
    pub slices: u32,
}

impl Default for LogBench {
    fn default() -> Self {
        Self { groups: 64, batch: 64, payload_bytes: 256, in_flight: 1, duration: Duration::from_secs(3), slices: 6 }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogBenchResult {
    /// Durable appends a second that the bare disk would carry.
    pub raw_appends_per_s: f64,
    /// Durable appends a second through the log.
    pub log_appends_per_s: f64,
    /// The second over the first.
    pub log_to_raw: f64,
    /// Median and 99th percentile of one raw batch, in microseconds.
    pub raw_batch_us: (f64, f64),
    /// Median and 99th percentile of one batch through the log, from the first submit to the last completion.
    pub log_batch_us: (f64, f64),
    /// Bytes that the log wrote for each byte of payload.
    pub written_per_given: f64,
    /// Appends for each `fdatasync` of the log.
    pub appends_per_sync: f64,
}

/// Size of the raw file. It is written round and round.
const RAW_BYTES: u64 = 32 * 1024 * 1024;
/// A group is purged when it holds this many entries.
const PURGE_ENTRIES: u64 = 2048;

struct Raw<C> {
    file: <RealDisk as Disk>::File,
    batch: Vec<u8>,
    offset: u64,
    clock: C,
    times: Vec<Duration>,
}

impl<C: Clock> Raw<C> {
    fn run(&mut self, duration: Duration) -> io::Result<()> {
        let end = self.clock.monotonic() + duration;
        loop {
            let start = self.clock.monotonic();
            if start >= end {
                return Ok(());
            }
            self.file.write_all_at(&self.batch, self.offset)?;
            self.file.sync_data()?;
            self.offset += self.batch.len() as u64;
            if self.offset + self.batch.len() as u64 > RAW_BYTES {
                self.offset = 0;
            }
            self.times.push(self.clock.monotonic() - start);
        }
    }
}

struct Through<C> {
    log: SharedLog,
    bench: LogBench,
    /// Next index of each group.
    next: Vec<u64>,
    group: usize,
    payload: Bytes,
    clock: C,
    times: Vec<Duration>,
    elapsed: Duration,
}

impl<C: Clock> Through<C> {
    fn run(&mut self, duration: Duration) -> io::Result<()> {
        let (sender, receiver) = crossbeam_channel::bounded(self.bench.in_flight.max(1));
        let begin = self.clock.monotonic();
        let mut under_way = std::collections::VecDeque::new();
        loop {
            let now = self.clock.monotonic();
            let is_over = now >= begin + duration;
            if is_over && under_way.is_empty() {
                self.elapsed += now - begin;
                return Ok(());
            }
            if !is_over && under_way.len() < self.bench.in_flight.max(1) {
                under_way.push_back(now);
                self.submit(&sender);
                continue;
            }
            let result: Result<(), String> = receiver.recv().map_err(io::Error::other)?;
            result.map_err(io::Error::other)?;
            if let Some(start) = under_way.pop_front() {
                self.times.push(self.clock.monotonic() - start);
            }
        }
    }

    fn submit(&mut self, sender: &crossbeam_channel::Sender<Result<(), String>>) {
        let waited = Arc::new((AtomicUsize::new(self.bench.batch as usize), sender.clone()));
        for _ in 0..self.bench.batch {
            let at = self.group;
            self.group = (at + 1) % self.next.len();
            let group = GroupId::new(GroupKind::Bench, WorldId(1), at as u32);
            let position = Position { term: Term(1), index: LogIndex(self.next[at]) };
            self.next[at] += 1;
            let waited = waited.clone();
            let done = Box::new(move |result: Result<(), crate::raft_log::LogError>| {
                let (left, sender) = &*waited;
                let last = left.fetch_sub(1, Ordering::AcqRel) == 1;
                if let Err(error) = result {
                    let _ = sender.try_send(Err(error.to_string()));
                } else if last {
                    let _ = sender.try_send(Ok(()));
                }
            });
            self.log.submit(group, LogOp::Append(vec![LogEntry { position, payload: self.payload.clone() }]), done);
            if position.index.0 % PURGE_ENTRIES == PURGE_ENTRIES - 1 {
                self.log.submit(group, LogOp::Purge(position), Box::new(|_| {}));
            }
        }
    }
}

/// Microseconds at the median and at the 99th percentile.
fn percentiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort();
    let at = |share: f64| {
        times.get(((times.len().saturating_sub(1)) as f64 * share) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    (at(0.5), at(0.99))
}

/// Measures in the folder `dir`, which is created and may be removed afterwards.
pub fn bench_log(dir: &Path, bench: LogBench, clock: impl Clock) -> io::Result<LogBenchResult> {
    let disk = RealDisk;
    disk.create_dir_all(dir)?;
    let path = dir.join("raw");
    if disk.exists(&path)? {
        disk.remove(&path)?;
    }
    let mut file = disk.create(&path)?;
    let zeros = vec![0; 1024 * 1024];
    for at in 0..RAW_BYTES / zeros.len() as u64 {
        file.write_all_at(&zeros, at * zeros.len() as u64)?;
    }
    file.sync_data()?;
    let batch: Vec<u8> = (0..bench.batch as usize * bench.payload_bytes).map(|at| (at * 131 % 251) as u8).collect();
    let mut raw = Raw { file, batch, offset: 0, clock: clock.clone(), times: Vec::new() };
    let options = LogOptions { retain_bytes: 0, ..LogOptions::default() };
    let (log, writer) = SharedLog::open(disk, &dir.join("log"), options).map_err(io::Error::other)?;
    let thread = writer.run_thread()?;
    let mut through = Through {
        log,
        bench,
        next: vec![0; bench.groups.max(1) as usize],
        group: 0,
        payload: Bytes::from(vec![7; bench.payload_bytes]),
        clock,
        times: Vec::new(),
        elapsed: Duration::ZERO,
    };
    // Once for nothing, so that neither pays for a cold start.
    raw.run(bench.duration / 20)?;
    through.run(bench.duration / 20)?;
    (raw.times, through.times, through.elapsed) = (Vec::new(), Vec::new(), Duration::ZERO);
    let before = through.log.stats();
    for _ in 0..bench.slices.max(1) {
        raw.run(bench.duration / bench.slices.max(1))?;
        through.run(bench.duration / bench.slices.max(1))?;
    }
    let after = through.log.stats();
    let per_s = |batches: usize, elapsed: f64| batches as f64 * f64::from(bench.batch) / elapsed;
    let appends = through.times.len() as f64 * f64::from(bench.batch);
    let mut result = LogBenchResult {
        raw_appends_per_s: per_s(raw.times.len(), raw.times.iter().sum::<Duration>().as_secs_f64()),
        log_appends_per_s: per_s(through.times.len(), through.elapsed.as_secs_f64()),
        log_to_raw: 0.0,
        raw_batch_us: percentiles(&mut raw.times),
        log_batch_us: percentiles(&mut through.times),
        written_per_given: (after.bytes - before.bytes) as f64 / (appends * bench.payload_bytes as f64),
        appends_per_sync: appends / (after.syncs - before.syncs) as f64,
    };
    result.log_to_raw = result.log_appends_per_s / result.raw_appends_per_s;
    drop(through);
    thread.join();
    Ok(result)
}
