//! What raft asks of a log that all groups of a node share.
//!
//! One writer serves every group: it drains the queue, writes once, syncs once, then completes every operation. Entries
//! above a group's purge mark stay in memory, so reads never wait for a disk.

use std::ops::Range;

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position};

/// One entry of a group's log. What the payload means is raft's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Term and index.
    pub position: Position,
    /// Opaque here.
    pub payload: Bytes,
}

/// Everything that the log knows of a group when it is opened, or now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLogState {
    /// The last vote that was saved; opaque here.
    pub vote: Option<Bytes>,
    /// The last committed mark that was saved (a hint: it may lag).
    pub committed: Option<Position>,
    /// Entries up to here, inclusive, are gone.
    pub purged: Option<Position>,
    /// The last entry, or the purge mark when there is none above it.
    pub last: Option<Position>,
}

/// An operation on one group's log. Operations of a group take effect in the order in which they were submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOp {
    /// Replaces the vote. Complete when durable.
    Vote(Bytes),
    /// Adds consecutive entries after the last one. Complete when durable.
    Append(Vec<LogEntry>),
    /// Removes every entry above the position (`None`: all). Complete when durable.
    TruncateAfter(Option<LogIndex>),
    /// Removes every entry up to the position, inclusive; also raises `last` when it lies below. Complete when written.
    Purge(Position),
    /// Remembers how far the group was committed. Complete when written; need not survive.
    Committed(Option<Position>),
    /// Forgets the group with its vote: it was retired, or its replica starts over under a new id. Complete when durable.
    Forget,
}

/// Why a log operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The disk has no room; nothing of the operation took effect and later ones may succeed.
    #[error("log refuses new entries: {free_bytes} bytes free, {needed_bytes} needed")]
    Full {
        /// Bytes free on the file system.
        free_bytes: u64,
        /// Bytes that the log keeps in reserve for itself.
        needed_bytes: u64,
    },
    /// An earlier write or sync failed. Nothing is written any more; the node must stop and recover by a restart.
    #[error("log is poisoned: {0}")]
    Poisoned(String),
    /// More waits for the disk than the log may hold; nothing of the operation took effect.
    #[error("log is busy: {queued_bytes} bytes wait for the disk")]
    Busy {
        /// Bytes that wait.
        queued_bytes: u64,
    },
    /// The writer has been shut down.
    #[error("log is closed")]
    Closed,
    /// The caller broke a rule (a gap, an entry below the purge mark).
    #[error("log misuse: {0}")]
    Misuse(String),
}

/// Called once when an operation is complete or has failed. Usually on the writer; on the caller, before `submit` returns, for
/// what is refused at once and for [`LogOp::Committed`]. No lock of the log is held: it may submit. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// A node's raft log.
pub trait RaftLog: Clone + Send + Sync + 'static {
    /// Every group that the log knows, sorted.
    fn groups(&self) -> Vec<GroupId>;

    /// The state of a group as seen by reads: submitted operations count, durable or not.
    fn state(&self, group: GroupId) -> GroupLogState;

    /// Entries with indices in the half-open range, as far as they exist and are not purged, in order.
    fn entries(&self, group: GroupId, range: Range<LogIndex>) -> Vec<LogEntry>;

    /// Hands an operation to the writer. In memory it takes effect at once; `done` tells when it is durable.
    fn submit(&self, group: GroupId, op: LogOp, done: Done);

    /// Bytes of a group's entries that are held in memory.
    fn memory_bytes(&self, group: GroupId) -> u64;

    /// Whether new entries should be taken on: ask before proposing, and before accepting a leader's. Refuses while the disk
    /// is short of room or the writer lags far behind, before anything in flight would fail.
    fn room(&self) -> Result<(), LogError> {
        Ok(())
    }
}
