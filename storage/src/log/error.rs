//! Why a log cannot be opened or read.

use std::io;
use std::path::{Path, PathBuf};

use marchland_types::{GroupId, LogIndex};

/// Why a log cannot be opened or read. Nothing of it is hidden by going on: each needs a person, or a rebuild from peers.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("cannot use log file {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log was written by a newer build.
    #[error("log file {path} has format {found}, this build reads up to {supported}")]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one that this build reads.
        supported: u32,
    },
    /// Data that had been synced is damaged. The replica must be rebuilt from its peers under a new id.
    #[error("log file {path} is damaged at byte {offset}: {what}")]
    Rot {
        /// The file.
        path: PathBuf,
        /// Where the damaged part begins.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// A file in the middle of the sequence is absent.
    #[error("log folder {dir} lacks segment {segment}")]
    MissingSegment {
        /// The folder.
        dir: PathBuf,
        /// The number that is absent.
        segment: u64,
    },
    /// The log lacks entries of a group between its purge mark and its last entry.
    #[error("log folder {dir} lacks entry {index} of {group}")]
    MissingEntry {
        /// The folder.
        dir: PathBuf,
        /// The group.
        group: GroupId,
        /// The first absent index.
        index: LogIndex,
    },
    /// The options contradict each other.
    #[error("log options: {0}")]
    Options(&'static str),
}

impl OpenError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn rot(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Rot { path: path.to_owned(), offset, what }
    }
}
