//! The disk of a simulated machine: [`SimDisk`], which may be told to lie.
//!
//! A disk that says that it has synced and has not is what the invariants must notice first of all: it stands for every mistake by
//! which something is acknowledged before it is durable.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use marchland_storage::disk::{Disk, DiskFile, SimCounters, SimDisk, SimFile};

use crate::oracle::{self, Violation};
use crate::{interpose, machine};

thread_local! {
    /// What power losses did to writes that were not synced, in this run: dropped, torn, names undone.
    static LOST: Cell<[u64; 3]> = const { Cell::new([0; 3]) };
}

/// Starts this thread's counts.
pub fn begin() {
    LOST.set([0; 3]);
}

/// What power losses did to what was not synced, with how often.
#[must_use]
pub fn lost() -> [(&'static str, u64); 3] {
    let [writes, torn, names] = LOST.get();
    [("writes dropped by a power loss", writes), ("writes torn by a power loss", torn), ("names undone by a power loss", names)]
}

/// The disk of a machine. Clones share it.
#[derive(Clone)]
pub struct MachineDisk {
    disk: SimDisk,
    lies: bool,
    usual_latency: Duration,
    log: LogHealth,
}

/// Whether a write or sync of the raft log has failed in this boot, and when. Nobody may write to a log after that: what the
/// failed sync should have written is lost, though it can still be read (Rebello et al. 2020, "Can applications recover from fsync failures?").
#[derive(Clone, Default)]
struct LogHealth(Arc<Mutex<Option<Duration>>>);

impl LogHealth {
    fn failed_at(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called with what came of a write or sync.
    fn saw<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        if machine::is_ghost() {
            return result;
        }
        if let Some(at) = self.failed_at() {
            let found = format!("a {what} of the raft log of {} after it failed at {at:?}", machine::current_name());
            oracle::report(Violation::new("failed-log-left-alone", found));
        }
        let failed = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::StorageFull);
        if failed {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(interpose::driver_time());
        }
        result
    }
}

/// Where a node has its raft log.
const LOG: &str = "/data/log";

impl MachineDisk {
    /// An empty disk. One that `lies` forgets that it was asked to sync files.
    #[must_use]
    pub fn new(seed: u64, latency: Duration, lies: bool) -> Self {
        let disk = SimDisk::new(seed);
        disk.set_latency(latency);
        Self { disk, lies, usual_latency: latency, log: LogHealth::default() }
    }

    /// The disk that a power loss at this moment leaves; whoever has this one writes into nothing from here on.
    #[must_use]
    pub fn after_power_loss(&self, chance: u64) -> Self {
        let disk = self.disk.copy();
        let before = disk.counters();
        disk.crash(chance);
        let after = disk.counters();
        let [writes, torn, names] = LOST.get();
        LOST.set([
            writes + after.lost_writes - before.lost_writes,
            torn + after.torn_writes - before.torn_writes,
            names + after.undone_names - before.undone_names,
        ]);
        Self { disk, lies: self.lies, usual_latency: self.usual_latency, log: LogHealth::default() }
    }

    /// The disk that the end of the process at this moment leaves, likewise.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let disk = self.disk.copy();
        disk.kill();
        Self { disk, lies: self.lies, usual_latency: self.usual_latency, log: LogHealth::default() }
    }

    /// Another disk of the same make, with nothing on it.
    #[must_use]
    pub fn replacement(&self, seed: u64) -> Self {
        Self::new(seed, self.usual_latency, self.lies)
    }

    /// How long the next sync takes, for whoever drives a writer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.disk.latency()
    }

    /// Makes syncs take about this long.
    pub fn set_latency(&self, latency: Duration) {
        self.disk.set_latency(latency);
    }

    /// When a write or sync of the raft log failed for want of a working disk, in this boot.
    #[must_use]
    pub fn log_failed_at(&self) -> Option<Duration> {
        self.log.failed_at()
    }

    fn file(&self, path: &Path, file: SimFile) -> MachineFile {
        MachineFile { file, lies: self.lies, log: path.starts_with(LOG).then(|| self.log.clone()) }
    }

    /// What syncs took before any fault.
    #[must_use]
    pub fn usual_latency(&self) -> Duration {
        self.usual_latency
    }

    /// The next `count` writes fail with EIO.
    pub fn fail_writes(&self, count: u32) {
        self.disk.fail_writes(count);
    }

    /// The next `count` syncs of files fail with EIO, and what they should have written is lost.
    pub fn fail_syncs(&self, count: u32) {
        self.disk.fail_syncs(count);
    }

    /// Writes and syncs that were made to fail so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let counters = self.counters();
        counters.failed_writes + counters.failed_syncs
    }

    /// From here on there is room for this much more alone.
    pub fn leave_room(&self, bytes: u64) {
        self.disk.set_capacity_bytes(None);
        let used = self.disk.used_bytes();
        self.disk.set_capacity_bytes(Some(used + bytes));
    }

    /// Undoes [`MachineDisk::leave_room`].
    pub fn make_room(&self) {
        self.disk.set_capacity_bytes(None);
    }

    /// What happened to it so far.
    #[must_use]
    pub fn counters(&self) -> SimCounters {
        self.disk.counters()
    }
}

impl Disk for MachineDisk {
    type File = MachineFile;

    fn open(&self, path: &Path) -> io::Result<MachineFile> {
        Ok(self.file(path, self.disk.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<MachineFile> {
        Ok(self.file(path, self.disk.create(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(dir)
    }
}

/// An open file of a [`MachineDisk`].
pub struct MachineFile {
    file: SimFile,
    lies: bool,
    /// Of a file of the raft log.
    log: Option<LogHealth>,
}

impl MachineFile {
    fn saw<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        match &self.log {
            Some(log) => log.saw(what, result),
            None => result,
        }
    }
}

impl DiskFile for MachineFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        self.saw("write", written)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&mut self, size_bytes: u64) -> io::Result<()> {
        self.file.set_len(size_bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        if self.lies {
            return Ok(());
        }
        let synced = self.file.sync_data();
        self.saw("sync", synced)
    }
}
