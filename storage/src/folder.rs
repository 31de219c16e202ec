//! [`DataFolder`]: the folder of one node, and who it belongs to.
//!
//! The file `node` says which format the folder has, which node it belongs to, a random id that was drawn when it was made, and
//! the incarnation that was issued for that id. A node whose folder was lost or replaced therefore never speaks for the one that
//! cast its votes. The folder is locked for as long as the [`DataFolder`] lives.
//!
//! A folder can be started anew: what it held is put aside, and it becomes another folder of the same node, which knows that there
//! was one before.
//!
//! It refuses a folder of another node, of a newer build, in use, nearly full, or that holds anything else.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use marchland_types::seam::Entropy;
use marchland_types::{Incarnation, NodeId, point};

use crate::disk::{Disk, LOCK_FILE, create_dir_synced, read_small_file, replace_file};

/// Format of the folder as a whole.
pub const FOLDER_FORMAT_VERSION: u32 = 1;

const RECORD_FILE: &str = "node";
const RECORD_MAX_BYTES: u64 = 4096;
/// Begins the name of a folder with what was there before.
const ASIDE: &str = "set-aside-";
const MOVING: &str = "moving";
const MOVED: &str = "moved";
const TITLE: &str = "marchland data folder";

/// Random bytes drawn when a folder is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FolderId(pub [u8; 16]);

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FolderId {
    /// A number made of the id, to salt checksums with.
    #[must_use]
    pub fn salt(self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("eight bytes"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
        }
        Some(Self(id))
    }
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The disk failed.
    #[error("cannot use data folder {path}: {source}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder belongs to another node.
    #[error("data folder {path} belongs to node {found}, not to node {expected}")]
    OtherNode {
        /// The folder.
        path: PathBuf,
        /// Its node.
        found: NodeId,
        /// The node that wanted it.
        expected: NodeId,
    },
    /// The folder was written by a newer build.
    #[error("data folder {path} has format {found}, this build reads up to {supported}")]
    NewerVersion {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one that this build reads.
        supported: u32,
    },
    /// Another process has the folder.
    #[error("data folder {path} is in use by another process")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Less is free than the node keeps in reserve.
    #[error("data folder {path} has {free_bytes} bytes free, at least {needed_bytes} are needed to start")]
    Full {
        /// The folder.
        path: PathBuf,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes needed.
        needed_bytes: u64,
    },
    /// The folder holds something, but nothing of ours.
    #[error("folder {path} is neither empty nor a marchland data folder: it holds {found}")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// There is no data folder.
    #[error("{path} is no data folder of a node: it has no record `node`")]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The record of the folder is not readable.
    #[error("data folder {path} has a damaged record `node`: {what}")]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// Whose a folder is, as it says itself. Read without locking it, so that the node may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderOwner {
    /// The node.
    pub node: NodeId,
    /// The folder's random id.
    pub id: FolderId,
    /// The incarnation that was issued for it, if any was recorded.
    pub incarnation: Option<Incarnation>,
}

impl FolderOwner {
    /// Reads whose the folder is. Changes nothing.
    pub fn read<D: Disk>(disk: &D, path: &Path) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { path: path.to_owned(), source };
        if !disk.exists(&path.join(RECORD_FILE)).map_err(io)? {
            return Err(FolderError::Absent { path: path.to_owned() });
        }
        let Record { node, id, incarnation, anew: _ } = read_record(disk, path)?;
        Ok(Self { node, id, incarnation })
    }
}

/// Where the raft log of a data folder is.
pub fn log_dir(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// Where the checkpoints of a data folder are.
pub fn checkpoints_dir(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

fn read_record<D: Disk>(disk: &D, path: &Path) -> Result<Record, FolderError> {
    let bytes = read_small_file(disk, &path.join(RECORD_FILE), RECORD_MAX_BYTES)
        .map_err(|source| FolderError::Io { path: path.to_owned(), source })?;
    decode(&bytes).map_err(|error| match error {
        DecodeError::Newer(found) => FolderError::NewerVersion { path: path.to_owned(), found, supported: FOLDER_FORMAT_VERSION },
        DecodeError::Damaged(what) => FolderError::Damaged { path: path.to_owned(), what },
    })
}

/// The locked, checked folder of a node.
pub struct DataFolder<D: Disk> {
    disk: D,
    path: PathBuf,
    record: Record,
    created: bool,
    _lock: Box<dyn Send + Sync>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    node: NodeId,
    id: FolderId,
    incarnation: Option<Incarnation>,
    /// Set when the folder was started anew.
    anew: Option<Anew>,
}

/// What was in a folder before it was started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Anew {
    /// The folder in it where that is now.
    aside: String,
    /// Whether all of it is there.
    moved: bool,
}

impl Record {
    fn encode(&self) -> String {
        let incarnation = self.incarnation.map_or(0, |incarnation| incarnation.0);
        let mut text = format!(
            "{TITLE}\nformat {FOLDER_FORMAT_VERSION}\nnode {}\nfolder {}\nincarnation {incarnation}\n",
            self.node, self.id
        );
        if let Some(Anew { aside, moved }) = &self.anew {
            text += &format!("anew {} {aside}\n", if *moved { MOVED } else { MOVING });
        }
        format!("{text}crc {:08x}\n", crc32fast::hash(text.as_bytes()))
    }
}

enum DecodeError {
    Newer(u32),
    Damaged(&'static str),
}

fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let damaged = DecodeError::Damaged;
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(damaged("no title"));
    }
    let mut value = |key: &str| lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let format: u32 = value("format").and_then(|text| text.parse().ok()).ok_or(damaged("no format"))?;
    if format > FOLDER_FORMAT_VERSION {
        return Err(DecodeError::Newer(format));
    }
    let node = value("node").and_then(|text| text.parse().ok()).ok_or(damaged("no node"))?;
    let id = value("folder").and_then(FolderId::parse).ok_or(damaged("no folder id"))?;
    let incarnation: u32 = value("incarnation").and_then(|text| text.parse().ok()).ok_or(damaged("no incarnation"))?;
    let anew = value("anew").and_then(|text| text.split_once(' '));
    let anew = anew.map(|(state, aside)| Anew { aside: aside.to_owned(), moved: state == MOVED });
    let record = Record { node: NodeId(node), id, incarnation: (incarnation != 0).then_some(Incarnation(incarnation)), anew };
    if record.encode().as_bytes() != bytes {
        return Err(damaged("checksum"));
    }
    Ok(record)
}

impl<D: Disk> DataFolder<D> {
    /// Opens the folder of `node`, or makes it if it is absent or empty. `reserve_bytes` must be free.
    pub fn open(disk: D, path: &Path, node: NodeId, reserve_bytes: u64, entropy: &impl Entropy) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { path: path.to_owned(), source };
        create_dir_synced(&disk, path).map_err(io)?;
        let lock = disk.lock(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => FolderError::Locked { path: path.to_owned() },
            _ => io(error),
        })?;
        let file = path.join(RECORD_FILE);
        let known = disk.exists(&file).map_err(io)?;
        let record = if known {
            read_record(&disk, path)?
        } else {
            let ours = [LOCK_FILE.to_owned(), format!("{RECORD_FILE}.part")];
            for entry in disk.list(path).map_err(io)? {
                let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if !ours.contains(&name) {
                    return Err(FolderError::Foreign { path: path.to_owned(), found: name });
                }
            }
            let mut id = FolderId::default();
            entropy.fill(&mut id.0);
            Record { node, id, incarnation: None, anew: None }
        };
        if record.node != node {
            return Err(FolderError::OtherNode { path: path.to_owned(), found: record.node, expected: node });
        }
        let free_bytes = disk.free_bytes(path).map_err(io)?;
        if free_bytes < reserve_bytes {
            return Err(FolderError::Full { path: path.to_owned(), free_bytes, needed_bytes: reserve_bytes });
        }
        let mut folder = Self { disk, path: path.to_owned(), record, created: !known, _lock: lock };
        if known {
            folder.disk.sync_dir(path).map_err(io)?;
        } else {
            folder.save()?;
        }
        folder.finish_moving()?;
        Ok(folder)
    }

    /// Whether the folder has lost its raft log: it had one before its incarnation was recorded, and has no segment of it now.
    pub fn has_lost_log(&self) -> Result<bool, FolderError> {
        if self.record.incarnation.is_none() {
            return Ok(false);
        }
        let dir = self.log_dir();
        let io = |source| FolderError::Io { path: dir.clone(), source };
        if !self.disk.exists(&dir).map_err(io)? {
            return Ok(true);
        }
        let names = self.disk.list(&dir).map_err(io)?;
        Ok(!names.iter().any(|path| path.extension().is_some_and(|extension| extension == "log")))
    }

    /// Makes another folder of this one: a new id, no incarnation, nothing in it. What it held is put aside in a folder within it that is
    /// named after `why`, and never deleted; its path is returned. A crash on the way is made up for by the next [`DataFolder::open`].
    pub fn start_anew(&mut self, why: &str, entropy: &impl Entropy) -> Result<PathBuf, FolderError> {
        let mut number = 1;
        let aside = loop {
            let name = format!("{ASIDE}{why}-{number}");
            let exists = self.disk.exists(&self.path.join(&name));
            match exists.map_err(|source| FolderError::Io { path: self.path.clone(), source })? {
                true => number += 1,
                false => break name,
            }
        };
        let mut id = FolderId::default();
        entropy.fill(&mut id.0);
        let path = self.path.join(&aside);
        self.record = Record { node: self.record.node, id, incarnation: None, anew: Some(Anew { aside, moved: false }) };
        self.save()?;
        self.finish_moving()?;
        Ok(path)
    }

    /// Whether it was started anew: there was a folder of this node before.
    pub fn is_anew(&self) -> bool {
        self.record.anew.is_some()
    }

    /// Puts aside what was there before the folder was started anew, unless that is done.
    fn finish_moving(&mut self) -> Result<(), FolderError> {
        let Some(Anew { aside, moved: false }) = self.record.anew.clone() else { return Ok(()) };
        point!("folder.moving");
        let to = self.path.join(&aside);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        for from in [self.log_dir(), self.checkpoints_dir(), self.keyed_dir()] {
            if !self.disk.exists(&from).map_err(io(&from))? {
                continue;
            }
            let target = to.join(from.file_name().unwrap_or_default());
            create_dir_synced(&self.disk, &target).map_err(io(&target))?;
            for entry in self.disk.list(&from).map_err(io(&from))? {
                self.disk.rename(&entry, &target.join(entry.file_name().unwrap_or_default())).map_err(io(&entry))?;
            }
            self.disk.sync_dir(&target).map_err(io(&target))?;
            self.disk.sync_dir(&from).map_err(io(&from))?;
        }
        self.record.anew = Some(Anew { aside, moved: true });
        self.save()
    }

    fn save(&self) -> Result<(), FolderError> {
        point!("folder.before_save");
        let saved = replace_file(&self.disk, &self.path.join(RECORD_FILE), self.record.encode().as_bytes());
        saved.map_err(|source| FolderError::Io { path: self.path.clone(), source })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk that it is on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The node that it belongs to.
    pub fn node(&self) -> NodeId {
        self.record.node
    }

    /// Its random id.
    pub fn id(&self) -> FolderId {
        self.record.id
    }

    /// Whether it was made by this call of [`DataFolder::open`].
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// The incarnation that was issued for it, if any was recorded.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.record.incarnation
    }

    /// Records the incarnation. Returns once it is on disk.
    pub fn set_incarnation(&mut self, incarnation: Incarnation) -> Result<(), FolderError> {
        let before = self.record.incarnation.replace(incarnation);
        self.save().inspect_err(|_| self.record.incarnation = before)
    }

    /// Where the raft log is.
    pub fn log_dir(&self) -> PathBuf {
        log_dir(&self.path)
    }

    /// Where the checkpoints are.
    pub fn checkpoints_dir(&self) -> PathBuf {
        checkpoints_dir(&self.path)
    }

    /// Where the keyed store is.
    pub fn keyed_dir(&self) -> PathBuf {
        self.path.join("keyed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskFile, RealDisk, SimDisk};

    #[derive(Clone)]
    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }

    fn open<D: Disk>(disk: &D, path: &Path, node: u32) -> Result<DataFolder<D>, FolderError> {
        DataFolder::open(disk.clone(), path, NodeId(node), 0, &Fixed(7))
    }

    #[test]
    fn a_folder_keeps_its_id_and_incarnation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let mut folder = open(&RealDisk, &path, 3).unwrap();
        assert!(folder.was_created());
        assert_eq!((folder.id(), folder.incarnation()), (FolderId([7; 16]), None));
        folder.set_incarnation(Incarnation(2)).unwrap();
        assert!(matches!(open(&RealDisk, &path, 3), Err(FolderError::Locked { .. })));
        drop(folder);
        let folder = DataFolder::open(RealDisk, &path, NodeId(3), 0, &Fixed(9)).unwrap();
        assert_eq!((folder.id(), folder.incarnation(), folder.was_created()), (FolderId([7; 16]), Some(Incarnation(2)), false));
    }

    #[test]
    fn a_folder_that_is_started_anew_is_another_one_and_keeps_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mut folder = open(&RealDisk, &path, 3).unwrap();
        assert!(!folder.has_lost_log().unwrap(), "it never had one");
        for sub in [folder.log_dir(), folder.checkpoints_dir(), folder.keyed_dir()] {
            std::fs::create_dir_all(&sub).unwrap();
            std::fs::write(sub.join("000000000001.log"), b"x").unwrap();
        }
        folder.set_incarnation(Incarnation(1)).unwrap();
        assert!(!folder.has_lost_log().unwrap());
        let aside = folder.start_anew("because", &Fixed(9)).unwrap();
        assert_eq!(aside, path.join("set-aside-because-1"));
        assert_eq!((folder.id(), folder.incarnation(), folder.is_anew()), (FolderId([9; 16]), None, true));
        assert_eq!(std::fs::read(aside.join("log/000000000001.log")).unwrap(), b"x");
        assert!(aside.join("keyed/000000000001.log").is_file() && aside.join("checkpoints/000000000001.log").is_file());
        assert_eq!(std::fs::read_dir(folder.log_dir()).unwrap().count(), 0);
        folder.set_incarnation(Incarnation(2)).unwrap();
        drop(folder);
        let mut folder = DataFolder::open(RealDisk, &path, NodeId(3), 0, &Fixed(1)).unwrap();
        assert_eq!((folder.id(), folder.incarnation(), folder.is_anew()), (FolderId([9; 16]), Some(Incarnation(2)), true));
        assert!(folder.has_lost_log().unwrap(), "its log is gone, or was never written");
        std::fs::remove_dir(folder.log_dir()).unwrap();
        assert!(folder.has_lost_log().unwrap());
        assert_eq!(folder.start_anew("because", &Fixed(5)).unwrap(), path.join("set-aside-because-2"));
    }

    #[test]
    fn a_power_cut_while_it_is_started_anew_is_made_up_for() {
        let mut half_done = 0;
        for cut in 0..60 {
            let disk = SimDisk::new(cut);
            let path = Path::new("/data");
            let mut folder = open(&disk, path, 1).unwrap();
            folder.set_incarnation(Incarnation(1)).unwrap();
            for sub in [folder.log_dir(), folder.checkpoints_dir()] {
                create_dir_synced(&disk, &sub).unwrap();
                for name in ["1.log", "2.log"] {
                    disk.create(&sub.join(name)).unwrap().sync_data().unwrap();
                }
                disk.sync_dir(&sub).unwrap();
            }
            disk.cut_after(cut);
            let done = folder.start_anew("rot", &Fixed(9));
            drop(folder);
            disk.crash(cut);
            let folder = open(&disk, path, 1).unwrap();
            assert!(done.is_err() || folder.is_anew(), "forgotten after cut {cut}");
            let aside = path.join("set-aside-rot-1");
            for (sub, name) in [("log", "1.log"), ("log", "2.log"), ("checkpoints", "1.log"), ("checkpoints", "2.log")] {
                let (old, new) = (path.join(sub).join(name), aside.join(sub).join(name));
                let places = (disk.exists(&old).unwrap(), disk.exists(&new).unwrap());
                assert_eq!(places, (!folder.is_anew(), folder.is_anew()), "{sub}/{name} after cut {cut}");
            }
            half_done += u32::from(done.is_err() && folder.is_anew());
        }
        assert!(half_done > 0, "no cut fell into the move");
    }

    #[test]
    fn wrong_folders_are_refused_and_left_alone() {
        let disk = SimDisk::new(1);
        let path = Path::new("/data");
        drop(open(&disk, path, 3).unwrap());
        assert!(matches!(open(&disk, path, 4), Err(FolderError::OtherNode { found: NodeId(3), expected: NodeId(4), .. })));
        disk.set_capacity_bytes(Some(1_000));
        let full = DataFolder::open(disk.clone(), path, NodeId(3), 5_000, &Fixed(1));
        assert!(matches!(full, Err(FolderError::Full { needed_bytes: 5_000, .. })));
        disk.set_capacity_bytes(None);
        // "format 1" becomes "format 3".
        disk.rot(&path.join("node"), TITLE.len() as u64 + 8, b'1' ^ b'3').unwrap();
        assert!(matches!(open(&disk, path, 3), Err(FolderError::NewerVersion { found: 3, supported: 1, .. })));
        disk.rot(&path.join("node"), TITLE.len() as u64 + 8, b'1' ^ b'3').unwrap();
        disk.rot(&path.join("node"), TITLE.len() as u64 + 25, 1).unwrap();
        assert!(matches!(open(&disk, path, 3), Err(FolderError::Damaged { .. })));
        let other = Path::new("/home");
        disk.create_dir_all(other).unwrap();
        disk.create(&other.join("thesis.txt")).unwrap().write_all_at(b"x", 0).unwrap();
        let foreign = open(&disk, other, 3).err().map(|error| error.to_string()).unwrap();
        assert_eq!(foreign, "folder /home is neither empty nor a marchland data folder: it holds thesis.txt");
    }

    #[test]
    fn a_power_cut_leaves_the_old_record_or_the_new_one() {
        for cut in 0..40 {
            let disk = SimDisk::new(cut);
            disk.cut_after(cut);
            let mut recorded = None;
            if let Ok(mut folder) = open(&disk, Path::new("/x/data"), 1) {
                for incarnation in 1..4 {
                    if folder.set_incarnation(Incarnation(incarnation)).is_ok() {
                        recorded = Some(Incarnation(incarnation));
                    }
                }
            }
            disk.crash(cut);
            let folder = open(&disk, Path::new("/x/data"), 1).unwrap();
            let found = folder.incarnation();
            assert!(
                found >= recorded && found <= Some(Incarnation(recorded.map_or(1, |i| i.0 + 1))),
                "{found:?} after {recorded:?}"
            );
        }
    }
}
