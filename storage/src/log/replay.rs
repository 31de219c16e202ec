//! From bytes to batches, and from records to the state of every group.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position};

use super::error::OpenError;
use super::format::{BatchHeader, Marks, Place, Reader, SECTOR_BYTES, SegmentHeader};
use super::memory::GroupLog;
use super::record::Record;
use crate::raft_log::LogEntry;

/// Walks the batches of one segment, as far as they are whole and follow each other.
pub(super) struct Batches<'a> {
    salt: u64,
    bytes: &'a [u8],
    /// Where the next batch begins: the end of all that was valid.
    pub place: Place,
}

impl<'a> Batches<'a> {
    pub fn new(header: &SegmentHeader, first_offset: u64, bytes: &'a [u8]) -> Self {
        Self { salt: header.salt, bytes, place: Place { segment: header.number, offset: first_offset } }
    }

    /// The next batch with its payload.
    pub fn next(&mut self) -> Option<(BatchHeader, &'a [u8])> {
        let header = BatchHeader::decode(self.salt, self.place, self.bytes)?;
        let payload = header.payload(self.salt, self.bytes)?;
        self.place.offset = header.end();
        Some((header, payload))
    }

    /// The highest end that any batch header at or behind the current place says was synced.
    pub fn highest_synced_ahead(&self) -> Option<Place> {
        let mut highest = None;
        let mut offset = self.place.offset;
        while offset < self.bytes.len() as u64 {
            let header = BatchHeader::decode(self.salt, Place { offset, ..self.place }, self.bytes);
            highest = highest.max(header.map(|header| header.synced));
            offset += SECTOR_BYTES;
        }
        highest
    }
}

/// The records of a batch, or `None` when the payload is not exactly the declared number of them.
pub(super) fn records(header: &BatchHeader, payload: &[u8]) -> Option<Vec<(GroupId, Record)>> {
    let mut reader = Reader(payload);
    let mut records = Vec::new();
    for _ in 0..header.records {
        records.push(Record::decode(&mut reader)?);
    }
    reader.0.is_empty().then_some(records)
}

/// One group while the log is read. Entries may have gaps until the end: those of removed segments follow as carried ones.
#[derive(Default)]
struct ReplayGroup {
    vote: Option<Bytes>,
    committed: Option<Position>,
    purged: Option<Position>,
    entries: BTreeMap<u64, (LogEntry, u64)>,
}

/// All groups while the log is read.
#[derive(Default)]
pub(super) struct Replay {
    groups: BTreeMap<GroupId, ReplayGroup>,
}

impl Replay {
    /// Starts from the marks of the oldest segment; those of later ones repeat what the records said.
    pub fn begin(marks: &[(GroupId, Marks)]) -> Self {
        let group = |marks: &Marks| ReplayGroup {
            vote: marks.vote.clone(),
            committed: marks.committed,
            purged: marks.purged,
            entries: BTreeMap::new(),
        };
        Self { groups: marks.iter().map(|(id, marks)| (*id, group(marks))).collect() }
    }

    /// Applies one record; an error says what is wrong with it.
    pub fn apply(&mut self, id: GroupId, record: Record, segment: u64) -> Result<(), &'static str> {
        if record == Record::Forget {
            self.groups.remove(&id);
            return Ok(());
        }
        let group = self.groups.entry(id).or_default();
        match record {
            Record::Vote(vote) => group.vote = Some(vote),
            Record::Committed(committed) => group.committed = committed,
            Record::Append(entries) => {
                for entry in entries {
                    let index = entry.position.index.0;
                    if group.entries.last_key_value().is_some_and(|(last, _)| *last >= index) {
                        return Err("appended entry is there already");
                    }
                    group.entries.insert(index, (entry, segment));
                }
            }
            Record::Carry(entries) => {
                for entry in entries {
                    let index = entry.position.index.0;
                    let known = group.entries.insert(index, (entry.clone(), segment));
                    if known.is_some_and(|(known, _)| known.position != entry.position) {
                        return Err("carried entry contradicts the log");
                    }
                }
            }
            Record::TruncateAfter(after) => {
                let end = after.map_or(0, |after| after.0.saturating_add(1));
                group.entries.split_off(&end);
            }
            Record::Purge(to) => {
                if group.purged.is_none_or(|purged| purged.index < to.index) {
                    group.purged = Some(to);
                    group.entries = group.entries.split_off(&(to.index.0 + 1));
                }
            }
            Record::Forget => unreachable!("handled above"),
        }
        Ok(())
    }

    /// The groups, if no entry is missing.
    pub fn finish(self, dir: &Path) -> Result<BTreeMap<GroupId, GroupLog>, OpenError> {
        let mut groups = BTreeMap::new();
        for (id, replay) in self.groups {
            let holds = |position: Position| {
                replay.purged == Some(position)
                    || replay.entries.get(&position.index.0).is_some_and(|(entry, _)| entry.position == position)
            };
            // A hint: kept only if the log has that very entry, or else nothing is known beyond the purge mark.
            let committed = replay.committed.filter(|committed| holds(*committed)).max(replay.purged);
            let mut group = GroupLog::new(Marks { vote: replay.vote, committed, purged: replay.purged });
            let first = group.first();
            for (expected, (index, (entry, segment))) in (first..).zip(replay.entries.range(first..)) {
                let entry = std::slice::from_ref(entry);
                if *index != expected || group.check_append(entry).is_err() {
                    return Err(OpenError::MissingEntry { dir: dir.to_owned(), group: id, index: LogIndex(expected) });
                }
                group.append(entry, *segment);
            }
            group.check();
            groups.insert(id, group);
        }
        Ok(groups)
    }
}
