//! The disk of a simulated machine: [`SimDisk`], which may be told to lie.
//!
//! A disk that says that it has synced and has not is what the invariants must notice first of all: it stands for every mistake by
//! which something is acknowledged before it is durable.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use marchland_storage::disk::{Disk, DiskFile, SimCounters, SimDisk, SimFile};

/// The disk of a machine. Clones share it.
#[derive(Clone)]
pub struct MachineDisk {
    disk: SimDisk,
    lies: bool,
    usual_latency: Duration,
}

impl MachineDisk {
    /// An empty disk. One that `lies` forgets that it was asked to sync files.
    #[must_use]
    pub fn new(seed: u64, latency: Duration, lies: bool) -> Self {
        let disk = SimDisk::new(seed);
        disk.set_latency(latency);
        Self { disk, lies, usual_latency: latency }
    }

    /// The disk that a power loss at this moment leaves; whoever has this one writes into nothing from here on.
    #[must_use]
    pub fn after_power_loss(&self, chance: u64) -> Self {
        let disk = self.disk.copy();
        disk.crash(chance);
        Self { disk, lies: self.lies, usual_latency: self.usual_latency }
    }

    /// The disk that the end of the process at this moment leaves, likewise.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let disk = self.disk.copy();
        disk.kill();
        Self { disk, lies: self.lies, usual_latency: self.usual_latency }
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
        Ok(MachineFile { file: self.disk.open(path)?, lies: self.lies })
    }

    fn create(&self, path: &Path) -> io::Result<MachineFile> {
        Ok(MachineFile { file: self.disk.create(path)?, lies: self.lies })
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
}

impl DiskFile for MachineFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
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
        if self.lies { Ok(()) } else { self.file.sync_data() }
    }
}
