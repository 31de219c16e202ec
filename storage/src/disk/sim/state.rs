//! What a simulated disk holds, and what a crash makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SimCounters;
use crate::seeded::Seeded;

/// A write is torn at multiples of this.
const SECTOR_BYTES: u64 = 512;
/// Free space of a disk without a limit.
const UNLIMITED_BYTES: u64 = 1 << 50;

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Dir,
    File(u64),
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Default)]
struct Inode {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Open files of this epoch.
    handles: u32,
}

/// A change of names that is not durable yet.
#[derive(Clone)]
enum NameChange {
    Add { path: PathBuf, name: Name },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Add { path, .. } | Self::Remove { path } => path.parent() == Some(dir),
            Self::Rename { from, to } => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    /// Whether the names had what this change needs.
    fn apply(&self, names: &mut BTreeMap<PathBuf, Name>) -> bool {
        match self {
            Self::Add { path, name } => {
                names.insert(path.clone(), *name);
                true
            }
            Self::Rename { from, to } => {
                let Some(name) = names.remove(from) else { return false };
                names.insert(to.clone(), name);
                true
            }
            Self::Remove { path } => names.remove(path).is_some(),
        }
    }
}

#[derive(Clone)]
pub(super) struct SimState {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    pub visible: BTreeMap<PathBuf, Name>,
    durable: BTreeMap<PathBuf, Name>,
    name_changes: Vec<NameChange>,
    pub locks: BTreeSet<PathBuf>,
    /// Raised when open files go.
    pub epoch: u64,
    pub capacity_bytes: Option<u64>,
    pub used_bytes: u64,
    /// Changes until the power fails.
    pub cut_after: Option<u64>,
    pub fail_syncs: u32,
    pub fail_writes: u32,
    pub fail_reads: u32,
    pub latency: Duration,
    seeded: Seeded,
    pub counters: SimCounters,
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn injected(what: &str) -> io::Error {
    io::Error::other(format!("injected failure of {what}"))
}

/// Counts down a number of injected faults.
fn strikes(left: &mut u32) -> bool {
    let strikes = *left > 0;
    *left = left.saturating_sub(1);
    strikes
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => write(image, *offset, bytes),
        Change::SetLen(size_bytes) => image.resize(*size_bytes as usize, 0),
    }
}

fn write(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if image.len() < end {
        image.resize(end, 0);
    }
    image[start..end].copy_from_slice(bytes);
}

impl SimState {
    pub fn new(seed: u64) -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Name::Dir)]);
        Self {
            inodes: BTreeMap::new(),
            next_inode: 1,
            visible: root.clone(),
            durable: root,
            name_changes: Vec::new(),
            locks: BTreeSet::new(),
            epoch: 0,
            capacity_bytes: None,
            used_bytes: 0,
            cut_after: None,
            fail_syncs: 0,
            fail_writes: 0,
            fail_reads: 0,
            latency: Duration::from_micros(200),
            seeded: Seeded::new(seed),
            counters: SimCounters::default(),
        }
    }

    pub fn next_latency(&mut self) -> Duration {
        let micros = self.latency.as_micros() as u64;
        Duration::from_micros(micros / 2 + self.seeded.below(micros + 1))
    }

    pub fn file(&self, path: &Path) -> io::Result<u64> {
        match self.visible.get(path) {
            Some(Name::File(inode)) => Ok(*inode),
            Some(Name::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(not_found(path)),
        }
    }

    /// Called before every change.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.cut_after {
            Some(0) => Err(io::Error::other("the disk has lost power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub fn open(&mut self, path: &Path) -> io::Result<u64> {
        let inode = self.file(path)?;
        self.inode(inode).handles += 1;
        Ok(inode)
    }

    pub fn close(&mut self, inode: u64) {
        if let Some(file) = self.inodes.get_mut(&inode) {
            file.handles -= 1;
        }
    }

    fn parent_must_exist(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        match self.visible.get(parent) {
            Some(Name::Dir) => Ok(()),
            Some(Name::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found(parent)),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.visible);
        self.name_changes.push(change);
    }

    pub fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.step()?;
        self.parent_must_exist(path)?;
        if self.visible.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.free_bytes() == 0 {
            return Err(self.full());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode { handles: 1, ..Inode::default() });
        self.change_name(NameChange::Add { path: path.to_owned(), name: Name::File(inode) });
        Ok(inode)
    }

    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            match self.visible.get(ancestor) {
                Some(Name::Dir) => break,
                Some(Name::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => missing.push(ancestor.to_owned()),
            }
        }
        for path in missing.into_iter().rev() {
            self.change_name(NameChange::Add { path, name: Name::Dir });
        }
        Ok(())
    }

    pub fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        match self.visible.get(dir) {
            Some(Name::Dir) => Ok(self.visible.keys().filter(|path| path.parent() == Some(dir)).cloned().collect()),
            Some(Name::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found(dir)),
        }
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.file(from)?;
        self.parent_must_exist(to)?;
        if self.visible.get(to) == Some(&Name::Dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
        self.count_used();
        Ok(())
    }

    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.file(path)?;
        self.change_name(NameChange::Remove { path: path.to_owned() });
        self.count_used();
        Ok(())
    }

    pub fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.step()?;
        if self.visible.get(dir) != Some(&Name::Dir) {
            return Err(not_found(dir));
        }
        let (synced, pending) =
            std::mem::take(&mut self.name_changes).into_iter().partition(|change: &NameChange| change.is_in(dir));
        self.name_changes = pending;
        for change in synced {
            change.apply(&mut self.durable);
        }
        self.counters.dir_syncs += 1;
        self.free_inodes();
        Ok(())
    }

    /// Forgets files that have neither a name, now or after a crash, nor a handle.
    fn free_inodes(&mut self) {
        let files = |names: &BTreeMap<PathBuf, Name>| -> Vec<u64> {
            let inodes = names.values().filter_map(|name| match name {
                Name::File(inode) => Some(*inode),
                Name::Dir => None,
            });
            inodes.collect()
        };
        let pending = self.name_changes.iter().filter_map(|change| match change {
            NameChange::Add { name: Name::File(inode), .. } => Some(*inode),
            NameChange::Add { .. } | NameChange::Rename { .. } | NameChange::Remove { .. } => None,
        });
        let named: BTreeSet<u64> = files(&self.visible).into_iter().chain(files(&self.durable)).chain(pending).collect();
        self.inodes.retain(|inode, file| file.handles > 0 || named.contains(inode));
    }

    fn count_used(&mut self) {
        let files = self.visible.values().filter_map(|name| match name {
            Name::File(inode) => self.inodes.get(inode),
            Name::Dir => None,
        });
        self.used_bytes = files.map(|inode| inode.visible.len() as u64).sum();
    }

    pub fn free_bytes(&self) -> u64 {
        self.capacity_bytes.unwrap_or(UNLIMITED_BYTES).saturating_sub(self.used_bytes)
    }

    fn full(&mut self) -> io::Error {
        self.counters.refused_full += 1;
        io::ErrorKind::StorageFull.into()
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an open file has an inode")
    }

    pub fn len(&self, inode: u64) -> u64 {
        self.inodes[&inode].visible.len() as u64
    }

    pub fn read(&mut self, inode: u64, out: &mut [u8], offset: u64) -> io::Result<()> {
        if strikes(&mut self.fail_reads) {
            return Err(injected("a read"));
        }
        let image = &self.inode(inode).visible;
        let bytes = usize::try_from(offset).ok().and_then(|start| image.get(start..start.checked_add(out.len())?));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Makes room for the file to have this size.
    fn grow(&mut self, inode: u64, size_bytes: u64) -> io::Result<()> {
        let more_bytes = size_bytes.saturating_sub(self.len(inode));
        if more_bytes > self.free_bytes() {
            return Err(self.full());
        }
        self.used_bytes += more_bytes;
        Ok(())
    }

    pub fn write(&mut self, inode: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.step()?;
        if strikes(&mut self.fail_writes) {
            self.counters.failed_writes += 1;
            return Err(injected("a write"));
        }
        self.grow(inode, offset + bytes.len() as u64)?;
        let file = self.inode(inode);
        write(&mut file.visible, offset, bytes);
        file.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
        self.counters.writes += 1;
        Ok(())
    }

    pub fn set_len(&mut self, inode: u64, size_bytes: u64) -> io::Result<()> {
        self.step()?;
        self.grow(inode, size_bytes)?;
        let file = self.inode(inode);
        file.visible.resize(size_bytes as usize, 0);
        file.pending.push(Change::SetLen(size_bytes));
        self.count_used();
        Ok(())
    }

    pub fn sync_data(&mut self, inode: u64) -> io::Result<()> {
        self.step()?;
        if strikes(&mut self.fail_syncs) {
            // Some of it may have been written; the rest will never be, though it is still read from the cache.
            self.counters.failed_syncs += 1;
            let mut seeded = self.seeded.clone();
            let file = self.inode(inode);
            for change in std::mem::take(&mut file.pending) {
                if seeded.coin() {
                    apply(&mut file.durable, &change);
                }
            }
            self.seeded = seeded;
            return Err(injected("a sync"));
        }
        let file = self.inode(inode);
        for change in std::mem::take(&mut file.pending) {
            apply(&mut file.durable, &change);
        }
        self.counters.syncs += 1;
        Ok(())
    }

    pub fn rot(&mut self, path: &Path, offset: u64, flip: u8) -> io::Result<()> {
        let inode = self.file(path)?;
        let file = self.inode(inode);
        for image in [&mut file.visible, &mut file.durable] {
            *image.get_mut(offset as usize).ok_or(io::ErrorKind::UnexpectedEof)? ^= flip;
        }
        Ok(())
    }

    pub fn kill(&mut self) {
        self.epoch += 1;
        for file in self.inodes.values_mut() {
            file.handles = 0;
        }
        self.locks.clear();
    }

    pub fn crash(&mut self, seed: u64) {
        let mut seeded = Seeded::new(seed);
        self.kill();
        self.cut_after = None;
        self.counters.crashes += 1;
        for file in self.inodes.values_mut() {
            for change in std::mem::take(&mut file.pending) {
                crash_change(&mut file.durable, change, &mut seeded, &mut self.counters);
            }
            file.visible.clone_from(&file.durable);
        }
        for change in std::mem::take(&mut self.name_changes) {
            if !(seeded.coin() && change.apply(&mut self.durable)) {
                self.counters.undone_names += 1;
            }
        }
        // What lies in a folder that is gone is gone.
        let names = self.durable.clone();
        self.durable.retain(|path, _| path.ancestors().skip(1).all(|folder| names.get(folder) == Some(&Name::Dir)));
        self.visible.clone_from(&self.durable);
        self.free_inodes();
        self.count_used();
    }

    pub fn durable_checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for (path, name) in &self.durable {
            hasher.update(path.as_os_str().as_encoded_bytes());
            if let Name::File(inode) = name {
                hasher.update(&self.inodes[inode].durable);
            }
        }
        hasher.finalize()
    }
}

/// One pending change meets the end of the power.
fn crash_change(image: &mut Vec<u8>, change: Change, seeded: &mut Seeded, counters: &mut SimCounters) {
    let fate = seeded.below(3);
    match (fate, change) {
        (0, change) => {
            counters.kept_writes += 1;
            apply(image, &change);
        }
        (1, _) | (_, Change::SetLen(_)) => counters.lost_writes += 1,
        (_, Change::Write { offset, bytes }) => {
            counters.torn_writes += 1;
            let end = offset + bytes.len() as u64;
            let mut at = offset;
            while at < end {
                let next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let piece = &bytes[(at - offset) as usize..(next.min(end) - offset) as usize];
                if seeded.coin() {
                    write(image, at, piece);
                }
                at = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SimDisk;
    use crate::disk::{Disk, DiskFile};
    use std::path::Path;

    fn disk_with_file() -> (SimDisk, super::super::SimFile) {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let file = disk.create(Path::new("/d/f")).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        (disk, file)
    }

    #[test]
    fn a_crash_keeps_drops_and_tears_what_was_not_synced() {
        let (mut kept, mut dropped, mut torn) = (0, 0, 0);
        for seed in 0..60 {
            let (disk, mut file) = disk_with_file();
            file.write_all_at(&[1; 2048], 0).unwrap();
            file.sync_data().unwrap();
            file.write_all_at(&[2; 2048], 0).unwrap();
            disk.crash(seed);
            assert!(file.len().is_err(), "a handle from before the crash");
            let file = disk.open(Path::new("/d/f")).unwrap();
            let mut bytes = [0; 2048];
            file.read_exact_at(&mut bytes, 0).unwrap();
            for sector in bytes.chunks(512) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors are whole");
            }
            match bytes.iter().filter(|byte| **byte == 2).count() {
                2048 => kept += 1,
                0 => dropped += 1,
                _ => torn += 1,
            }
        }
        assert!(kept > 5 && dropped > 5 && torn > 5, "{kept} {dropped} {torn}");
    }

    #[test]
    fn a_crash_undoes_renames_that_were_not_synced() {
        let mut seen = [false; 2];
        for seed in 0..20 {
            let (disk, _file) = disk_with_file();
            disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
            disk.crash(seed);
            let (old, new) = (disk.exists(Path::new("/d/f")).unwrap(), disk.exists(Path::new("/d/g")).unwrap());
            assert!(old != new);
            seen[usize::from(new)] = true;
            let (disk, _file) = disk_with_file();
            disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            disk.crash(seed);
            assert!(disk.exists(Path::new("/d/g")).unwrap());
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn what_a_failed_sync_dropped_stays_lost_though_later_syncs_succeed() {
        let mut lost = false;
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            let mut file = disk.create(Path::new("/f")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            file.write_all_at(&[7; 10], 0).unwrap();
            disk.fail_syncs(1);
            assert!(file.sync_data().is_err());
            let mut byte = [0];
            file.read_exact_at(&mut byte, 0).unwrap();
            assert_eq!(byte, [7], "the cache still shows it");
            file.sync_data().unwrap();
            disk.crash(seed);
            lost |= disk.open(Path::new("/f")).unwrap().len().unwrap() == 0;
        }
        assert!(lost);
    }

    #[test]
    fn the_same_seeds_give_the_same_disk() {
        let run = |seed| {
            let (disk, mut file) = disk_with_file();
            for at in 0..20 {
                file.write_all_at(&[at as u8; 700], at * 600).unwrap();
            }
            disk.crash(seed);
            disk.durable_checksum()
        };
        assert_eq!(run(5), run(5));
        assert!((0..10).any(|seed| run(seed) != run(5)));
    }

    #[test]
    fn a_full_disk_refuses_and_recovers() {
        let (disk, mut file) = disk_with_file();
        disk.set_capacity_bytes(Some(1000));
        file.write_all_at(&[1; 1000], 0).unwrap();
        assert_eq!(file.write_all_at(&[1; 1], 1000).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        file.write_all_at(&[2; 1000], 0).unwrap();
        disk.remove(Path::new("/d/f")).unwrap();
        assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 1000);
    }
}
