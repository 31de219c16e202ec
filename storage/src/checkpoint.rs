//! Checkpoints: the state of a group at one position of its log, as plain files.
//!
//! A file is written under a temporary name, synced, renamed, and its folder synced: a name stands for a whole, checked file. A damaged
//! one is reported with file and offset and never guessed at; the caller takes an older one only if its log still reaches
//! back that far, which is why the log is purged up to the older of the two that are kept.
//!
//! Everything here blocks for as long as the disk takes. Writing a large state belongs on a worker, not on the path of a tick.
//!
//! ```text
//! file   magic[8] version:u32 header_bytes:u32 header_crc:u32, header, then chunks
//! header group:u64 term:u64 index:u64 membership: u32 length, bytes; meta: u32 length, bytes
//! chunk  length:u32 crc:u32 bytes          the checksum covers the chunk's number
//! end    0:u32 crc:u32 body_bytes:u64      the checksum covers the number of chunks and the size
//! ```

mod format;
mod reader;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position, Term};

pub use self::format::{CHECKPOINT_FORMAT_VERSION, CheckpointHeader};
pub use self::reader::CheckpointReader;
pub use self::writer::CheckpointWriter;
use crate::disk::{Disk, create_dir_synced};

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// Checkpoints that every group keeps, at least 1. With two, a damaged one costs nothing.
    pub keep_min: usize,
    /// Beyond those, the oldest go when all files together exceed this.
    pub retain_bytes: u64,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self { keep_min: 2, retain_bytes: 256 * 1024 * 1024 }
    }
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk failed.
    #[error("cannot use checkpoint {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk has no room. Nothing is left of the attempt; a later one may succeed.
    #[error("no room for checkpoint {path}")]
    Full {
        /// The file that would have been.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error("checkpoint {path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged part begins.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The file was written by a newer build.
    #[error("checkpoint {path} has format {found}, this build reads up to {supported}")]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one that this build reads.
        supported: u32,
    },
}

impl CheckpointError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    fn damaged(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), offset, what }
    }
}

/// A checkpoint as its file's name tells it; whether it is whole shows when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The group.
    pub group: GroupId,
    /// The last entry that the state contains.
    pub position: Position,
    /// The file.
    pub path: PathBuf,
}

/// The checkpoints of a node. Cheap to clone. One checkpoint of a group is written at a time.
#[derive(Clone)]
pub struct Checkpoints<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: CheckpointOptions,
}

impl<D: Disk> Checkpoints<D> {
    /// Opens the folder, which is created if absent, and removes what unfinished attempts left.
    pub fn open(disk: D, dir: &Path, options: CheckpointOptions) -> Result<Self, CheckpointError> {
        let at_dir = || CheckpointError::io(dir);
        create_dir_synced(&disk, dir).map_err(at_dir())?;
        for path in disk.list(dir).map_err(at_dir())? {
            if path.extension().is_some_and(|extension| extension == "part") {
                disk.remove(&path).map_err(CheckpointError::io(&path))?;
            }
        }
        disk.sync_dir(dir).map_err(at_dir())?;
        Ok(Self { disk, dir: dir.to_owned(), options })
    }

    /// The checkpoints in a folder, to be read: nothing is created, removed or synced. Those of a node that runs may go meanwhile.
    pub fn looked_at(disk: D, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned(), options: CheckpointOptions::default() }
    }

    /// Writes a checkpoint and returns once it is on disk in truth; then lets go of those that need not be kept.
    pub fn write(
        &self,
        header: &CheckpointHeader,
        body: impl IntoIterator<Item = Bytes>,
    ) -> Result<CheckpointInfo, CheckpointError> {
        let mut writer = self.begin(header)?;
        for chunk in body {
            writer.write(&chunk)?;
        }
        writer.finish()
    }

    /// Begins a checkpoint that is written piece by piece. Dropped unfinished, it leaves nothing.
    pub fn begin(&self, header: &CheckpointHeader) -> Result<CheckpointWriter<D>, CheckpointError> {
        CheckpointWriter::begin(self.clone(), header)
    }

    /// Every checkpoint, ordered by group and then from the oldest to the newest.
    pub fn list(&self) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        let paths = self.disk.list(&self.dir).map_err(CheckpointError::io(&self.dir))?;
        let mut infos: Vec<_> = paths.into_iter().filter_map(parse_name).collect();
        infos.sort_by_key(|info| (info.group, info.position.index, info.position.term));
        Ok(infos)
    }

    /// The checkpoints of a group, the newest first.
    pub fn candidates(&self, group: GroupId) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        let mut infos = self.list()?;
        infos.retain(|info| info.group == group);
        infos.reverse();
        Ok(infos)
    }

    /// Opens a checkpoint: its header is checked now, its body as it is read.
    pub fn read(&self, info: &CheckpointInfo) -> Result<CheckpointReader<D::File>, CheckpointError> {
        CheckpointReader::open(&self.disk, info)
    }

    /// The newest checkpoint of a group; `None` if it has none. A damaged one is an error, for the caller to weigh
    /// against [`Checkpoints::candidates`].
    pub fn latest(&self, group: GroupId) -> Result<Option<CheckpointReader<D::File>>, CheckpointError> {
        self.candidates(group)?.first().map(|info| self.read(info)).transpose()
    }

    /// Up to where a group's log may be purged: everything that it keeps at least reaches that far. `None`: nowhere yet.
    pub fn purgeable(&self, group: GroupId) -> Result<Option<Position>, CheckpointError> {
        let candidates = self.candidates(group)?;
        Ok(candidates.get(self.options.keep_min.max(1) - 1).or(candidates.last()).map(|info| info.position))
    }

    /// Puts every checkpoint of a group aside, for a person to look at: `NAME.checkpoint.WHY`, or `.WHY-2` and so on.
    pub fn set_aside(&self, group: GroupId, why: &str) -> Result<(), CheckpointError> {
        for info in self.candidates(group)? {
            self.set_one_aside(&info, why)?;
        }
        Ok(())
    }

    /// Puts one checkpoint aside, and tells its new name.
    pub fn set_one_aside(&self, info: &CheckpointInfo, why: &str) -> Result<PathBuf, CheckpointError> {
        let at = || CheckpointError::io(&info.path);
        let mut to = PathBuf::from(format!("{}.{why}", info.path.display()));
        let mut number = 2;
        while self.disk.exists(&to).map_err(at())? {
            to = PathBuf::from(format!("{}.{why}-{number}", info.path.display()));
            number += 1;
        }
        self.disk.rename(&info.path, &to).map_err(at())?;
        self.disk.sync_dir(&self.dir).map_err(at())?;
        Ok(to)
    }

    /// Removes every checkpoint of a group that was retired.
    pub fn remove_group(&self, group: GroupId) -> Result<(), CheckpointError> {
        for info in self.candidates(group)? {
            self.disk.remove(&info.path).map_err(CheckpointError::io(&info.path))?;
        }
        self.disk.sync_dir(&self.dir).map_err(CheckpointError::io(&self.dir))
    }

    /// Lets go of the oldest checkpoints beyond what is to be kept.
    fn retire(&self) -> Result<(), CheckpointError> {
        let infos = self.list()?;
        let mut sized = Vec::new();
        for info in infos {
            let size_bytes = self.disk.open(&info.path).and_then(|file| crate::disk::DiskFile::len(&file));
            sized.push((size_bytes.map_err(CheckpointError::io(&info.path))?, info));
        }
        let mut total_bytes: u64 = sized.iter().map(|(size_bytes, _)| size_bytes).sum();
        let mut removed = false;
        for (at, (size_bytes, info)) in sized.iter().enumerate() {
            let newer = sized[at + 1..].iter().take_while(|(_, other)| other.group == info.group).count();
            if total_bytes > self.options.retain_bytes && newer >= self.options.keep_min.max(1) {
                self.disk.remove(&info.path).map_err(CheckpointError::io(&info.path))?;
                total_bytes -= size_bytes;
                removed = true;
            }
        }
        if removed {
            self.disk.sync_dir(&self.dir).map_err(CheckpointError::io(&self.dir))?;
        }
        Ok(())
    }

    fn path(&self, group: GroupId, position: Position) -> PathBuf {
        self.dir.join(format!("{:016x}-{:020}-{:020}.checkpoint", group.0, position.index.0, position.term.0))
    }
}

fn parse_name(path: PathBuf) -> Option<CheckpointInfo> {
    let mut parts = path.file_name()?.to_str()?.strip_suffix(".checkpoint")?.split('-');
    let group = GroupId(u64::from_str_radix(parts.next()?, 16).ok()?);
    let index = LogIndex(parts.next()?.parse().ok()?);
    let term = Term(parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(CheckpointInfo { group, position: Position { term, index }, path })
}

#[cfg(test)]
mod tests;
