//! The [`KeyedStore`] seam: an ordered map on disk, for state machines that do not live in memory.
//!
//! Off the acknowledgement path: a write is applied at once and becomes durable at the next [`KeyedStore::persist`]. Every
//! batch is atomic and survives whole or not at all; after a crash the store is some whole-batch prefix at or after the
//! last persist. The applied raft index travels in the batch that it belongs to.

mod disk_store;
mod durable;
mod engine;
mod layout;
mod map;
mod open;
mod redb_map;
mod sim;
mod sled_map;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use marchland_types::GroupId;

pub use disk_store::{DiskKeyed, DiskKeyedNode, KeyedThreads, Opened};
pub use open::{KeyedEngine, KeyedOptions};
pub use sim::{Pause, SimKeyed, SimKeyedNode};

/// Longest key.
pub const KEY_MAX_BYTES: usize = 1024;
/// Largest value. sled gets it in pieces; one as large as a log entry is the most that a state machine may ask for.
pub const VALUE_MAX_BYTES: usize = marchland_types::limits::LOG_ENTRY_MAX_BYTES;

/// Changes that take effect together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Key and new value, or `None` to remove the key. Later entries win.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
}

/// Why the keyed store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeyedError {
    /// The engine or the disk failed; the store must be reopened, and rebuilt from a peer if that fails.
    #[error("keyed store failed: {0}")]
    Fault(String),
    /// The store has been closed.
    #[error("keyed store is closed")]
    Closed,
    /// A snapshot of this namespace is being read already.
    #[error("keyed store has a snapshot of {0} open already")]
    SnapshotOpen(GroupId),
    /// The snapshot cannot be continued: too much changed while it was read, or the content was replaced.
    #[error("snapshot of {group} cannot be continued: {reason}")]
    SnapshotLost {
        /// The group.
        group: GroupId,
        /// Why.
        reason: &'static str,
    },
    /// A key or value beyond the limits.
    #[error("keyed store refuses {what} of {size_bytes} bytes")]
    TooLarge {
        /// "key" or "value".
        what: &'static str,
        /// Its size.
        size_bytes: usize,
    },
}

impl Batch {
    /// Refuses what is beyond the limits.
    pub fn check(&self) -> Result<(), KeyedError> {
        for (key, value) in &self.writes {
            if key.len() > KEY_MAX_BYTES {
                return Err(KeyedError::TooLarge { what: "key", size_bytes: key.len() });
            }
            if let Some(value) = value
                && value.len() > VALUE_MAX_BYTES
            {
                return Err(KeyedError::TooLarge { what: "value", size_bytes: value.len() });
            }
        }
        Ok(())
    }
}

/// The keyed store of a node, with a namespace for each group.
pub trait KeyedNode: Clone + Send + Sync + 'static {
    /// One namespace.
    type Store: KeyedStore;

    /// The namespace of a group; empty until something is written to it.
    fn namespace(&self, group: GroupId) -> Self::Store;

    /// Groups that hold anything, sorted.
    fn groups(&self) -> impl Future<Output = Result<Vec<GroupId>, KeyedError>> + Send;

    /// Removes everything of a group that was retired, durably.
    fn remove(&self, group: GroupId) -> impl Future<Output = Result<(), KeyedError>> + Send;
}

/// One namespace (a group) of the keyed store of a node.
pub trait KeyedStore: Clone + Send + Sync + 'static {
    /// The value of a key. Values larger than the engine likes are split and joined inside.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Bytes>, KeyedError>> + Send;

    /// Up to `limit` pairs with keys in `from..to` (`to` empty: no upper end), in order.
    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> impl Future<Output = Result<Pairs, KeyedError>> + Send;

    /// Applies a batch atomically. Returns when it is visible, not when it is durable.
    fn apply(&self, batch: Batch) -> impl Future<Output = Result<(), KeyedError>> + Send;

    /// Returns when everything applied before the call is on disk, in truth.
    fn persist(&self) -> impl Future<Output = Result<(), KeyedError>> + Send;

    /// An exact view of this moment: later writes do not show in it. At most one at a time per namespace.
    fn snapshot(&self) -> impl Future<Output = Result<Box<dyn KeyedSnapshot>, KeyedError>> + Send;

    /// Replaces the whole content by what the source yields, in one synced step: a crash leaves the old or the new content.
    /// Nothing else may be applied to the namespace meanwhile; a snapshot of it is lost.
    fn install(&self, source: Box<dyn KeyedSnapshot>) -> impl Future<Output = Result<(), KeyedError>> + Send;
}

/// Pairs in key order.
pub type Pairs = Vec<(Bytes, Bytes)>;

/// What [`KeyedSnapshot::next`] returns.
pub type SnapshotNext<'a> = Pin<Box<dyn Future<Output = Result<Pairs, KeyedError>> + Send + 'a>>;

/// A stream of pairs in key order.
pub trait KeyedSnapshot: Send {
    /// The next pairs, at most about `max_bytes` of them but at least one; empty at the end.
    fn next(&mut self, max_bytes: usize) -> SnapshotNext<'_>;
}
