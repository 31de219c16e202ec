//! [`Journal`]: what the log keeps for replay, outside raft's view.
//!
//! Reads the retained segments and then the live ones, oldest first, without changing anything; it may run beside the writer, in
//! which case it sees a whole-batch prefix.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use marchland_types::{GroupId, LogIndex};

use super::error::OpenError;
use super::record::{Record, entry_bytes};
use super::recover::segment_header;
use super::replay::{Batches, records};
use super::segment::{FileKind, kind, read_file};
use crate::disk::Disk;
use crate::raft_log::LogEntry;

/// Something that happened to a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalRecord {
    /// These entries were added.
    Append(Vec<LogEntry>),
    /// These entries, added earlier, were copied forward from a segment that was about to be purged.
    Carried(Vec<LogEntry>),
    /// Everything above the index (`None`: everything) was taken back.
    TruncateAfter(Option<LogIndex>),
    /// The group was forgotten.
    Forget,
}

/// The retained history of a node's log.
pub struct Journal<D> {
    disk: D,
    dir: PathBuf,
}

impl<D: Disk> Journal<D> {
    /// The journal in the folder of a log.
    pub fn new(disk: D, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned() }
    }

    /// Shows every retained record of a group to `visit`, in the order in which it was written, until it returns false.
    pub fn visit(&self, group: GroupId, mut visit: impl FnMut(JournalRecord) -> bool) -> Result<(), OpenError> {
        let mut files = BTreeMap::new();
        for path in self.disk.list(&self.dir).map_err(OpenError::io(&self.dir))? {
            if let FileKind::Segment(number) | FileKind::Journal(number) = kind(&path) {
                files.insert(number, path);
            }
        }
        for (number, path) in files {
            let (_, bytes) = read_file(&self.disk, &path)?;
            let (header, first_offset) = segment_header(&path, number, &bytes)?;
            let mut batches = Batches::new(&header, first_offset, &bytes);
            loop {
                let place = batches.place;
                let Some((header, payload)) = batches.next() else { break };
                let records = records(&header, payload)
                    .ok_or_else(|| OpenError::rot(&path, place.offset, "batch holds no valid records"))?;
                for (id, record) in records {
                    if id != group {
                        continue;
                    }
                    let record = match record {
                        Record::Append(entries) => JournalRecord::Append(entries),
                        Record::Carry(entries) => JournalRecord::Carried(entries),
                        Record::TruncateAfter(after) => JournalRecord::TruncateAfter(after),
                        Record::Forget => JournalRecord::Forget,
                        Record::Vote(_) | Record::Purge(_) | Record::Committed(_) => continue,
                    };
                    if !visit(record) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The retained entries of a group from `from` on, as they stood in the end, up to about `max_bytes` of them. They are consecutive;
    /// the first may lie above `from` when older ones are not retained any more.
    pub fn entries(&self, group: GroupId, from: LogIndex, max_bytes: u64) -> Result<Vec<LogEntry>, OpenError> {
        let mut entries: BTreeMap<u64, LogEntry> = BTreeMap::new();
        let mut bytes = 0;
        self.visit(group, |record| {
            match record {
                JournalRecord::Append(appended) | JournalRecord::Carried(appended) => {
                    for entry in appended.into_iter().filter(|entry| entry.position.index >= from) {
                        bytes += entry_bytes(&entry);
                        if let Some(replaced) = entries.insert(entry.position.index.0, entry) {
                            bytes -= entry_bytes(&replaced);
                        }
                    }
                    while bytes > max_bytes && entries.len() > 1 {
                        let (_, dropped) = entries.pop_last().expect("more than one");
                        bytes -= entry_bytes(&dropped);
                    }
                }
                JournalRecord::TruncateAfter(after) => {
                    let taken_back = entries.split_off(&after.map_or(0, |after| after.0.saturating_add(1)));
                    bytes -= taken_back.values().map(entry_bytes).sum::<u64>();
                }
                JournalRecord::Forget => {
                    entries.clear();
                    bytes = 0;
                }
            }
            true
        })?;
        let first = entries.keys().next().copied().unwrap_or(0);
        Ok((first..).zip(entries).take_while(|(expected, (index, _))| expected == index).map(|(_, (_, entry))| entry).collect())
    }
}
