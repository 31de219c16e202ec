//! [`SimDisk`]: a disk in memory that loses what was not synced, deterministically.
//!
//! Each file has a durable image and a list of pending writes; each folder a list of pending creations, renames and removals.
//! Reads see everything; a crash keeps, drops or tears each pending write at sectors of 512 B and keeps or undoes each pending
//! change of a name, as the seed says. A failed sync leaves what it should have written visible and no longer pending, as
//! Linux does: a later sync succeeds and says nothing about it.
//!
//! A [`SimDisk`] is a handle: clones share one disk, and a node that is started again finds on it what the crash left. Files
//! that were opened before a crash fail from then on.

mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::state::{Name, SimState};
use super::{Disk, DiskFile};

/// What happened on a [`SimDisk`] so far. A test that injects a fault checks here that it took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounters {
    /// Writes accepted.
    pub writes: u64,
    /// Syncs of files that succeeded.
    pub syncs: u64,
    /// Syncs of folders that succeeded.
    pub dir_syncs: u64,
    /// Power losses.
    pub crashes: u64,
    /// Pending writes that a crash dropped whole.
    pub lost_writes: u64,
    /// Pending writes that a crash tore.
    pub torn_writes: u64,
    /// Pending writes that a crash kept.
    pub kept_writes: u64,
    /// Creations, renames and removals that a crash undid.
    pub undone_names: u64,
    /// Syncs that failed because of an injected fault.
    pub failed_syncs: u64,
    /// Writes that failed because of an injected fault.
    pub failed_writes: u64,
    /// Writes that were refused because the disk was full.
    pub refused_full: u64,
}

/// A simulated disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<SimState>>,
}

/// An open file of a [`SimDisk`].
pub struct SimFile {
    state: Arc<Mutex<SimState>>,
    inode: u64,
    epoch: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.epoch == self.epoch {
            state.close(self.inode);
        }
    }
}

struct SimLock {
    state: Arc<Mutex<SimState>>,
    dir: PathBuf,
    epoch: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.epoch == self.epoch {
            state.locks.remove(&self.dir);
        }
    }
}

fn lock(state: &Mutex<SimState>) -> MutexGuard<'_, SimState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimDisk {
    /// An empty disk, whose failed syncs and latencies follow `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(SimState::new(seed))) }
    }

    fn lock(&self) -> MutexGuard<'_, SimState> {
        lock(&self.state)
    }

    /// A second disk that holds what this one does, with its pending writes. Whoever has this one goes on with it alone: a
    /// simulator that cuts the power in the middle of a function gives the machine's next boot a copy.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Power loss: of what was not synced, `seed` chooses what survives. Open files and locks are gone.
    pub fn crash(&self, seed: u64) {
        self.lock().crash(seed);
    }

    /// The power fails after `operations` more changes: everything fails from then on, until [`SimDisk::crash`].
    pub fn cut_after(&self, operations: u64) {
        self.lock().cut_after = Some(operations);
    }

    /// The process dies, the machine stays up: open files and locks are gone, nothing else.
    pub fn kill(&self) {
        self.lock().kill();
    }

    /// Limits the bytes of all files together; `None` is no limit.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// Bytes of all files together.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes
    }

    /// The next `count` syncs of files fail with EIO.
    pub fn fail_syncs(&self, count: u32) {
        self.lock().fail_syncs = count;
    }

    /// The next `count` writes fail with EIO.
    pub fn fail_writes(&self, count: u32) {
        self.lock().fail_writes = count;
    }

    /// The next `count` reads fail with EIO.
    pub fn fail_reads(&self, count: u32) {
        self.lock().fail_reads = count;
    }

    /// How long a sync takes, about; see [`SimDisk::latency`].
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// For whoever drives a writer: how long the next sync takes, between half and one and a half of what was set.
    pub fn latency(&self) -> Duration {
        self.lock().next_latency()
    }

    /// Changes one byte of a file on the disk itself, behind everybody's back.
    pub fn rot(&self, path: &Path, offset: u64, flip: u8) -> io::Result<()> {
        self.lock().rot(path, offset, flip)
    }

    /// What happened so far.
    pub fn counters(&self) -> SimCounters {
        self.lock().counters
    }

    /// A checksum of everything that a power loss now could not take away.
    pub fn durable_checksum(&self) -> u32 {
        self.lock().durable_checksum()
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let mut state = self.lock();
        let inode = state.open(path)?;
        Ok(SimFile { state: self.state.clone(), inode, epoch: state.epoch })
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let mut state = self.lock();
        let inode = state.create(path)?;
        Ok(SimFile { state: self.state.clone(), inode, epoch: state.epoch })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.lock().create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.lock().list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.lock().visible.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().sync_dir(dir)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.lock().free_bytes())
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = lock(&self.state);
        match state.visible.get(dir) {
            Some(Name::Dir) => {}
            Some(Name::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        if !state.locks.insert(dir.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { state: self.state.clone(), dir: dir.to_owned(), epoch: state.epoch }))
    }
}

impl SimFile {
    /// The state, unless this handle is from before a crash.
    fn state(&self) -> io::Result<MutexGuard<'_, SimState>> {
        let state = lock(&self.state);
        if state.epoch == self.epoch {
            Ok(state)
        } else {
            Err(io::Error::other("the disk has lost power since this file was opened"))
        }
    }
}

impl DiskFile for SimFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.state()?.write(self.inode, bytes, offset)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.state()?.read(self.inode, out, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.len(self.inode))
    }

    fn set_len(&mut self, size_bytes: u64) -> io::Result<()> {
        self.state()?.set_len(self.inode, size_bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.state()?.sync_data(self.inode)
    }
}
