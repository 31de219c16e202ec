//! What an operator may choose about the log.

use std::fmt;
use std::sync::Arc;

use super::error::OpenError;

/// Milliseconds since 1970 as this node believes, for the age of retained segments.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Sizes and bounds of a [`SharedLog`](super::SharedLog).
#[derive(Clone)]
pub struct LogOptions {
    /// Size of a segment. Preallocated, so that a sync never waits for the file system's own journal.
    pub segment_bytes: u64,
    /// Purged segments are kept as the journal up to this size, outside raft's view.
    pub retain_bytes: u64,
    /// And no longer than this; 0 is no limit of age. Needs [`LogOptions::wall_clock`].
    pub retain_ms: u64,
    /// With less than this free, [`SharedLog::room`](super::SharedLog::room) refuses new work; with less than half of it,
    /// appends are refused too.
    pub reserve_bytes: u64,
    /// Encoded bytes that may wait for the writer. Raft bounds what each group has in flight, so this is met only when the
    /// disk stands still; appends are refused beyond it, other operations (small, a few per group) at four times as much.
    pub queue_bytes_max: u64,
    /// Operations that may wait for the writer, likewise.
    pub queue_ops_max: usize,
    /// Mixed into every checksum, so that no payload can imitate a batch. Best random, chosen once for a data folder; it is
    /// stored in each segment, so a later choice does no harm.
    pub salt: u64,
    /// Dates segments, if given.
    pub wall_clock: Option<WallClock>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 32 * 1024 * 1024,
            retain_bytes: 256 * 1024 * 1024,
            retain_ms: 0,
            reserve_bytes: 128 * 1024 * 1024,
            queue_bytes_max: 256 * 1024 * 1024,
            queue_ops_max: 256 * 1024,
            salt: 0,
            wall_clock: None,
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("segment_bytes", &self.segment_bytes)
            .field("retain_bytes", &self.retain_bytes)
            .field("retain_ms", &self.retain_ms)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("queue_ops_max", &self.queue_ops_max)
            .finish_non_exhaustive()
    }
}

impl LogOptions {
    /// Checks the relations between the values.
    pub fn validate(&self) -> Result<(), OpenError> {
        if self.segment_bytes < 16 * 1024 {
            return Err(OpenError::Options("segment_bytes must be at least 16384"));
        }
        if self.segment_bytes > 1 << 30 {
            return Err(OpenError::Options("segment_bytes must be at most 2^30"));
        }
        if self.queue_bytes_max == 0 || self.queue_ops_max == 0 {
            return Err(OpenError::Options("queue bounds must not be 0"));
        }
        if self.retain_ms > 0 && self.wall_clock.is_none() {
            return Err(OpenError::Options("retain_ms needs a wall clock"));
        }
        Ok(())
    }
}
