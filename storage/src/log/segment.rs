//! Names of the log's files, and the preparation of the next segment.
//!
//! `000000000007.log` is a segment, `000000000003.journal` one that raft no longer needs, `next.spare` a file of zeros or stale
//! bytes that becomes the next segment by a rename, `second.spare` the one after it, `next.part` one that is still being filled.

use std::io;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use crate::disk::{Disk, DiskFile};

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// What a file in the log's folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment(u64),
    Journal(u64),
    Spare,
    SecondSpare,
    Part,
    Foreign,
}

pub(super) fn kind(path: &Path) -> FileKind {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return FileKind::Foreign };
    let number = |text: &str| (text.len() >= 12 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten();
    match name.rsplit_once('.') {
        Some((text, "log")) => number(text).map_or(FileKind::Foreign, FileKind::Segment),
        Some((text, "journal")) => number(text).map_or(FileKind::Foreign, FileKind::Journal),
        Some(("next", "spare")) => FileKind::Spare,
        Some(("second", "spare")) => FileKind::SecondSpare,
        Some(("next", "part")) => FileKind::Part,
        _ => FileKind::Foreign,
    }
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.log"))
}

pub(super) fn journal_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.journal"))
}

pub(super) fn spare_path(dir: &Path) -> PathBuf {
    dir.join("next.spare")
}

pub(super) fn second_spare_path(dir: &Path) -> PathBuf {
    dir.join("second.spare")
}

pub(super) fn part_path(dir: &Path) -> PathBuf {
    dir.join("next.part")
}

/// The whole content of a file.
pub(super) fn read_file<D: Disk>(disk: &D, path: &Path) -> Result<(D::File, Vec<u8>), OpenError> {
    let file = disk.open(path).map_err(OpenError::io(path))?;
    let size_bytes = file.len().map_err(OpenError::io(path))?;
    let size = usize::try_from(size_bytes).map_err(|_| OpenError::rot(path, 0, "absurd file size"))?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).map_err(OpenError::io(path))?;
    Ok((file, bytes))
}

/// Whether an error means that there is no room, which passes, rather than that the disk failed.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file that will be the next segment.
pub(super) enum Spare<F> {
    None,
    /// `next.part`, zeros up to `filled_bytes` of `size_bytes`.
    Filling {
        file: F,
        filled_bytes: u64,
        size_bytes: u64,
    },
    /// `next.spare` of this size, on disk.
    Ready {
        size_bytes: u64,
    },
}

impl<F: DiskFile> Spare<F> {
    /// Begins a file, if there is none.
    pub fn begin<D: Disk<File = F>>(&mut self, disk: &D, dir: &Path, size_bytes: u64) -> io::Result<()> {
        if matches!(self, Self::None) {
            let path = part_path(dir);
            if disk.exists(&path)? {
                disk.remove(&path)?;
            }
            *self = Self::Filling { file: disk.create(&path)?, filled_bytes: 0, size_bytes };
        }
        Ok(())
    }

    /// Writes up to about `max_bytes` of zeros. Ready once all are on disk. When there is no room the file is removed again.
    pub fn fill<D: Disk<File = F>>(&mut self, disk: &D, dir: &Path, max_bytes: u64) -> io::Result<()> {
        let result = self.try_fill(disk, dir, max_bytes);
        if result.as_ref().is_err_and(is_full) {
            self.discard(disk, dir)?;
        }
        result
    }

    fn try_fill<D: Disk<File = F>>(&mut self, disk: &D, dir: &Path, max_bytes: u64) -> io::Result<()> {
        let Self::Filling { file, filled_bytes, size_bytes } = self else { return Ok(()) };
        let end = filled_bytes.saturating_add(max_bytes).min(*size_bytes);
        while *filled_bytes < end {
            let piece = (end - *filled_bytes).min(ZEROS.len() as u64);
            file.write_all_at(&ZEROS[..piece as usize], *filled_bytes)?;
            file.begin_writing_back(*filled_bytes, piece);
            *filled_bytes += piece;
        }
        if *filled_bytes == *size_bytes {
            file.sync_data()?;
            let size_bytes = *size_bytes;
            disk.rename(&part_path(dir), &spare_path(dir))?;
            *self = Self::Ready { size_bytes };
        }
        Ok(())
    }

    /// Removes whatever there is.
    pub fn discard<D: Disk<File = F>>(&mut self, disk: &D, dir: &Path) -> io::Result<()> {
        match std::mem::replace(self, Self::None) {
            Self::None => Ok(()),
            Self::Filling { .. } => disk.remove(&part_path(dir)),
            Self::Ready { .. } => disk.remove(&spare_path(dir)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let dir = Path::new("/d");
        assert_eq!(kind(&segment_path(dir, 7)), FileKind::Segment(7));
        assert_eq!(kind(&segment_path(dir, 1_234_567_890_123)), FileKind::Segment(1_234_567_890_123));
        assert_eq!(kind(&journal_path(dir, 3)), FileKind::Journal(3));
        assert_eq!((kind(&spare_path(dir)), kind(&part_path(dir))), (FileKind::Spare, FileKind::Part));
        assert_eq!(kind(&second_spare_path(dir)), FileKind::SecondSpare);
        for foreign in ["7.log", "lock", "+00000000001.log", "99999999999999999999999.log", "notes.txt"] {
            assert_eq!(kind(&dir.join(foreign)), FileKind::Foreign, "{foreign}");
        }
    }
}
