//! [`CheckpointReader`]: a checkpoint, checked as it is read.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::format::{
    CHECKPOINT_FORMAT_VERSION, CHUNK_MAX_BYTES, CHUNK_PREFIX_BYTES, CheckpointHeader, HEADER_MAX_BYTES, MAGIC, PREFIX_BYTES,
    chunk_crc,
};
use super::{CheckpointError, CheckpointInfo};
use crate::disk::{Disk, DiskFile};

/// A checkpoint that is being read. Its body counts only when [`CheckpointReader::next_chunk`] has returned `None`.
pub struct CheckpointReader<F> {
    header: CheckpointHeader,
    path: PathBuf,
    file: F,
    size_bytes: u64,
    offset: u64,
    chunks: u64,
    body_bytes: u64,
    ended: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

impl<F: DiskFile> CheckpointReader<F> {
    pub(super) fn open<D: Disk<File = F>>(disk: &D, info: &CheckpointInfo) -> Result<Self, CheckpointError> {
        let path = &info.path;
        let file = disk.open(path).map_err(CheckpointError::io(path))?;
        let size_bytes = file.len().map_err(CheckpointError::io(path))?;
        let mut prefix = [0; PREFIX_BYTES];
        read(&file, path, size_bytes, &mut prefix, 0, 0)?;
        if prefix[..8] != MAGIC {
            return Err(CheckpointError::damaged(path, 0, "no checkpoint header"));
        }
        let version = u32_at(&prefix, 8);
        if version > CHECKPOINT_FORMAT_VERSION {
            return Err(CheckpointError::NewerVersion {
                path: path.clone(),
                found: version,
                supported: CHECKPOINT_FORMAT_VERSION,
            });
        }
        let header_bytes = u32_at(&prefix, 12) as usize;
        if version == 0 || header_bytes > HEADER_MAX_BYTES {
            return Err(CheckpointError::damaged(path, 8, "absurd checkpoint header"));
        }
        let mut encoded = vec![0; header_bytes];
        read(&file, path, size_bytes, &mut encoded, PREFIX_BYTES as u64, 8)?;
        if crc32fast::hash(&encoded) != u32_at(&prefix, 16) {
            return Err(CheckpointError::damaged(path, 8, "checkpoint header fails its checksum"));
        }
        let header = CheckpointHeader::decode(&encoded)
            .filter(|header| (header.group, header.position) == (info.group, info.position))
            .ok_or_else(|| CheckpointError::damaged(path, 8, "checkpoint header contradicts the file's name"))?;
        let offset = (PREFIX_BYTES + header_bytes) as u64;
        Ok(Self { header, path: path.clone(), file, size_bytes, offset, chunks: 0, body_bytes: 0, ended: false })
    }

    /// What the checkpoint says of itself.
    pub fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    /// Size of the whole file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The next piece of the body; `None` at its checked end.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, CheckpointError> {
        if self.ended {
            return Ok(None);
        }
        let mut prefix = [0; CHUNK_PREFIX_BYTES];
        read(&self.file, &self.path, self.size_bytes, &mut prefix, self.offset, self.offset)?;
        let (length, crc) = (u32_at(&prefix, 0) as usize, u32_at(&prefix, 4));
        let at = self.offset + CHUNK_PREFIX_BYTES as u64;
        if length > CHUNK_MAX_BYTES {
            return Err(CheckpointError::damaged(&self.path, self.offset, "absurd chunk size"));
        }
        if length == 0 {
            let mut end = [0; 8];
            read(&self.file, &self.path, self.size_bytes, &mut end, at, self.offset)?;
            if chunk_crc(self.chunks, &end) != crc || u64::from_le_bytes(end) != self.body_bytes || at + 8 != self.size_bytes {
                return Err(CheckpointError::damaged(&self.path, self.offset, "end of the checkpoint fails its checksum"));
            }
            self.ended = true;
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        read(&self.file, &self.path, self.size_bytes, &mut bytes, at, self.offset)?;
        if chunk_crc(self.chunks, &bytes) != crc {
            return Err(CheckpointError::damaged(&self.path, self.offset, "chunk fails its checksum"));
        }
        self.chunks += 1;
        self.body_bytes += length as u64;
        self.offset = at + length as u64;
        Ok(Some(bytes.into()))
    }

    /// The whole body, checked to its end.
    pub fn body(mut self) -> Result<Vec<Bytes>, CheckpointError> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.next_chunk()? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }
}

/// Reads at `offset`, part of something that begins at `from`.
fn read<F: DiskFile>(
    file: &F,
    path: &Path,
    size_bytes: u64,
    out: &mut [u8],
    offset: u64,
    from: u64,
) -> Result<(), CheckpointError> {
    if offset.saturating_add(out.len() as u64) > size_bytes {
        return Err(CheckpointError::damaged(path, from, "file ends too early"));
    }
    file.read_exact_at(out, offset).map_err(CheckpointError::io(path))
}
