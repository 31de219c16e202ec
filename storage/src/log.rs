//! The raft log of a node: one file sequence, shared by all its groups.
//!
//! ```text
//! submit ─▶ memory (at once) ─▶ queue ─▶ LogWriter::turn: one write, one fdatasync, every callback
//! ```
//!
//! What always holds:
//! - A callback says "durable" only after `fdatasync` returned for everything before it.
//! - A sector that was synced is never written again: batches start on sector boundaries, so a torn write damages nothing
//!   but itself.
//! - Every batch says up to where the log was synced when it was written. On recovery, damage below the highest such end is rot
//!   and the log refuses to open, naming file and offset; damage at or above it is the torn tail of a write that nobody was
//!   told of, and is cut off.
//! - Recovery writes the tail anew and syncs it before it reports anything: what the page cache shows after a kill, or
//!   after a failed sync, may not be on the disk.
//! - After a failed write or sync nothing is written any more (the log is poisoned) until a restart has recovered it.
//! - Every segment opens with the vote and the marks of every group, so any suffix of segments is complete but for
//!   entries; those that are still live are copied forward, and synced, before the oldest segment goes.
//!
//! What it refuses: a gap between entries, an entry below the purge mark, appends when the disk is nearly full.

mod clean;
mod drive;
mod error;
mod format;
mod history;
mod memory;
mod options;
mod record;
mod recover;
mod replay;
mod scrub;
mod segment;
mod shared;
mod writer;

pub use drive::LogThread;
pub use error::OpenError;
pub use format::FORMAT_VERSION;
pub use history::{History, groups};
pub use options::LogOptions;
pub use scrub::{SegmentFile, SegmentScrub, finished_segments};
pub use shared::{LogStats, SharedLog};
pub use writer::{LogWriter, Turn};

#[cfg(test)]
mod tests;
