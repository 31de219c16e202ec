//! [`CheckpointWriter`]: one checkpoint in the making.

use std::path::PathBuf;

use marchland_types::point;

use super::format::{
    CHECKPOINT_FORMAT_VERSION, CHUNK_MAX_BYTES, CHUNK_PREFIX_BYTES, HEADER_MAX_BYTES, MAGIC, PREFIX_BYTES, chunk_crc,
};
use super::{CheckpointError, CheckpointHeader, CheckpointInfo, Checkpoints};
use crate::disk::{Disk, DiskFile};

/// Chunks are gathered up to this before they are written.
const BUFFER_BYTES: usize = 1024 * 1024;

/// A checkpoint in the making. Dropped unfinished, it removes its file.
pub struct CheckpointWriter<D: Disk> {
    checkpoints: Checkpoints<D>,
    info: CheckpointInfo,
    temporary: PathBuf,
    /// `None` once finished.
    file: Option<D::File>,
    buffer: Vec<u8>,
    offset: u64,
    chunks: u64,
    body_bytes: u64,
}

impl<D: Disk> CheckpointWriter<D> {
    pub(super) fn begin(checkpoints: Checkpoints<D>, header: &CheckpointHeader) -> Result<Self, CheckpointError> {
        let path = checkpoints.path(header.group, header.position);
        let temporary = path.with_extension("part");
        let disk = &checkpoints.disk;
        let encoded = header.encode();
        if encoded.len() > HEADER_MAX_BYTES {
            return Err(CheckpointError::damaged(&path, 0, "header is too large to be written"));
        }
        let create = || {
            if disk.exists(&temporary)? {
                disk.remove(&temporary)?;
            }
            disk.create(&temporary)
        };
        let file = create().map_err(CheckpointError::io(&temporary))?;
        let mut buffer = Vec::with_capacity(PREFIX_BYTES + encoded.len());
        buffer.extend_from_slice(&MAGIC);
        buffer.extend_from_slice(&CHECKPOINT_FORMAT_VERSION.to_le_bytes());
        buffer.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&crc32fast::hash(&encoded).to_le_bytes());
        buffer.extend_from_slice(&encoded);
        let info = CheckpointInfo { group: header.group, position: header.position, path };
        Ok(Self { checkpoints, info, temporary, file: Some(file), buffer, offset: 0, chunks: 0, body_bytes: 0 })
    }

    /// Adds bytes to the body.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        for piece in bytes.chunks(CHUNK_MAX_BYTES) {
            self.buffer.extend_from_slice(&(piece.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(&chunk_crc(self.chunks, piece).to_le_bytes());
            self.buffer.extend_from_slice(piece);
            self.chunks += 1;
            self.body_bytes += piece.len() as u64;
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        if let Some(file) = &mut self.file {
            file.write_all_at(&self.buffer, self.offset).map_err(CheckpointError::io(&self.temporary))?;
            self.offset += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends the body. Returns once the checkpoint is on disk under its name.
    pub fn finish(mut self) -> Result<CheckpointInfo, CheckpointError> {
        let end = self.body_bytes.to_le_bytes();
        self.buffer.extend_from_slice(&[0; CHUNK_PREFIX_BYTES / 2]);
        self.buffer.extend_from_slice(&chunk_crc(self.chunks, &end).to_le_bytes());
        self.buffer.extend_from_slice(&end);
        self.flush()?;
        point!("checkpoint.written");
        let disk = &self.checkpoints.disk;
        if let Some(file) = &mut self.file {
            file.sync_data().map_err(CheckpointError::io(&self.temporary))?;
        }
        point!("checkpoint.synced");
        disk.rename(&self.temporary, &self.info.path).map_err(CheckpointError::io(&self.info.path))?;
        self.file = None;
        point!("checkpoint.renamed");
        disk.sync_dir(&self.checkpoints.dir).map_err(CheckpointError::io(&self.checkpoints.dir))?;
        point!("checkpoint.durable");
        if let Err(error) = self.checkpoints.retire() {
            // The checkpoint is there; what should have gone is tried again with the next one.
            tracing::warn!(%error, "cannot remove old checkpoints");
        }
        Ok(self.info.clone())
    }
}

impl<D: Disk> Drop for CheckpointWriter<D> {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Err(error) = self.checkpoints.disk.remove(&self.temporary)
        {
            // The next start removes it.
            tracing::warn!(path = %self.temporary.display(), %error, "cannot remove an unfinished checkpoint");
        }
    }
}
