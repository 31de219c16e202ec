//! [`Map`]: what an engine has to be: an ordered map on disk, used by one thread.
//!
//! Namespaces, generations, snapshots and installs are the same for every engine and stand in [`super::engine`]. Keys are those of
//! [`super::layout`].

use bytes::Bytes;

use super::KeyedError;

/// Changes that take effect together; later ones win. `None` removes the key.
pub(super) type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Gets a pair and says whether to go on.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// An ordered map on disk.
pub(super) trait Map: Send {
    /// Values of this size and above come in pieces of it.
    fn piece_bytes(&self) -> usize;

    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KeyedError>;

    /// Visits the pairs from `from`, inclusive, to `to`, exclusive (`None`: no end), in order.
    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), KeyedError>;

    /// Applies changes atomically: visible at its return, durable when [`Durable::sync`] and then [`Map::commit`] have returned.
    fn write(&mut self, changes: Changes) -> Result<(), KeyedError>;

    /// Removes everything whose key begins with `prefix`, not atomically.
    fn clear(&mut self, prefix: &[u8]) -> Result<(), KeyedError>;

    /// The part of making things durable that has to be done by the thread that uses the map.
    fn commit(&mut self) -> Result<(), KeyedError>;
}

/// The part of making things durable that waits for the disk, on a thread of its own.
pub(super) trait Durable: Send {
    /// To be followed by [`Map::commit`].
    fn sync(&mut self) -> Result<(), KeyedError>;
}

/// Why an engine does not open.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The content is damaged: rebuilding helps.
    Unusable(String),
    /// The disk failed, or something else that rebuilding does not help.
    Failed(KeyedError),
}

/// A fault that is due to the content, not to the disk.
pub(super) fn damaged(what: impl std::fmt::Display) -> KeyedError {
    KeyedError::Fault(format!("{DAMAGED}{what}"))
}

/// How the reason of a [`damaged`] fault begins.
pub(super) const DAMAGED: &str = "damaged: ";

impl From<KeyedError> for OpenError {
    fn from(error: KeyedError) -> Self {
        match error {
            KeyedError::Fault(reason) if reason.starts_with(DAMAGED) => Self::Unusable(reason),
            error => Self::Failed(error),
        }
    }
}
