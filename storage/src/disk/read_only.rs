//! [`ReadOnlyDisk`]: the machine's own file system, for whoever must not change anything in it.
//!
//! Files are opened for reading alone, so that a folder of another user, of a backup or of a node that runs can be looked at.
//! Whatever would write, sync, rename, remove or lock is refused.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Disk, DiskFile};

/// Files of the operating system, to be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk;

/// An open file of a [`ReadOnlyDisk`].
#[derive(Debug)]
pub struct ReadOnlyFile(File);

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened to be read only"))
}

impl Disk for ReadOnlyDisk {
    type File = ReadOnlyFile;

    fn open(&self, path: &Path) -> io::Result<ReadOnlyFile> {
        File::open(path).map(ReadOnlyFile)
    }

    fn create(&self, _path: &Path) -> io::Result<ReadOnlyFile> {
        refused()
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        refused()
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(0)
    }

    fn lock(&self, _dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        refused()
    }
}

impl DiskFile for ReadOnlyFile {
    fn write_all_at(&mut self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        refused()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn set_len(&mut self, _size_bytes: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&mut self) -> io::Result<()> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"kept").unwrap();
        let disk = ReadOnlyDisk;
        let mut file = disk.open(&path).unwrap();
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((&bytes, file.len().unwrap()), (b"kept", 4));
        let other = dir.path().join("b");
        assert!(file.write_all_at(b"lost", 0).is_err() && file.set_len(0).is_err() && file.sync_data().is_err());
        assert!(disk.create(&other).is_err() && disk.create_dir_all(&other).is_err() && disk.remove(&path).is_err());
        assert!(disk.rename(&path, &other).is_err() && disk.sync_dir(dir.path()).is_err() && disk.lock(dir.path()).is_err());
        assert_eq!(disk.list(dir.path()).unwrap(), vec![path.clone()]);
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }
}
