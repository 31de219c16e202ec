//! The [`Disk`] seam: files, as the log and the checkpoints use them.
//!
//! Synchronous on purpose: the raft log's writer is a thread of its own in production and a task in the simulator, and
//! both run the same code between two waits. Nothing here caches; what an implementation promises is exactly POSIX: a
//! write is visible at once, durable after [`DiskFile::sync_data`]; a name is durable after [`Disk::sync_dir`].

mod read_only;
mod real;
mod sim;

use std::io;
use std::path::{Path, PathBuf};

pub use read_only::{ReadOnlyDisk, ReadOnlyFile};
pub use real::{LOCK_FILE, RealDisk, RealFile};
pub use sim::{SimCounters, SimDisk, SimFile};

/// A folder tree on which a node keeps its files.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Creates a file that must not exist yet, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Creates a folder with its parents; it may exist.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Full paths of the entries of a folder, sorted. An absent folder is an error.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Whether a file or folder exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Renames a file, replacing the target. Durable only after [`Disk::sync_dir`] of the parent.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that can still be written to the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Takes the folder for this process alone; released when the guard is dropped or the process dies. `WouldBlock` when
    /// somebody else has it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync + 'static {
    /// Writes all of `bytes` at `offset`, extending the file if needed.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `out` from `offset`; an early end of the file is `UnexpectedEof`.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;

    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends the file.
    fn set_len(&mut self, size_bytes: u64) -> io::Result<()>;

    /// Makes data and size durable (`fdatasync`).
    fn sync_data(&mut self) -> io::Result<()>;

    /// A hint that these bytes may go to the disk now, so that a later [`DiskFile::sync_data`] finds little to do. Promises nothing.
    fn begin_writing_back(&self, offset: u64, size_bytes: u64) {
        let _ = (offset, size_bytes);
    }
}

/// Creates a folder with its parents and makes their names durable, its own even if it existed: its maker may have died
/// before it synced the parent.
pub fn create_dir_synced<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    let mut parents = Vec::new();
    for folder in path.ancestors() {
        if folder.as_os_str().is_empty() || (folder != path && disk.exists(folder)?) {
            break;
        }
        parents.extend(folder.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }));
    }
    disk.create_dir_all(path)?;
    for parent in parents.into_iter().rev() {
        disk.sync_dir(parent)?;
    }
    Ok(())
}

/// Writes a small file so that a crash leaves the old content or the new one: temporary name, sync, rename, sync of the folder.
pub fn replace_file<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".part");
    let temporary = PathBuf::from(temporary);
    if disk.exists(&temporary)? {
        disk.remove(&temporary)?;
    }
    let mut file = disk.create(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}

/// The whole content of a small file; one larger than `max_bytes` is refused.
pub fn read_small_file<D: Disk>(disk: &D, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let size_bytes = file.len()?;
    if size_bytes > max_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{size_bytes} bytes, at most {max_bytes} expected")));
    }
    let mut bytes = vec![0; size_bytes as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
