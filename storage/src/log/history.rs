//! [`History`]: what a log has kept of one group, for replay; outside raft's view, and without changing anything.
//!
//! Retained segments and live ones are read alike, oldest first, and each entry's place is noted; its bytes are read when they are asked
//! for. The node that writes the log may run: what it has not finished is the end.
//!
//! What always holds:
//! - An entry that was taken back, or that may have been, is not shown. Where a part of the log is not readable, only entries that were
//!   known to be committed before it are kept of what came before it, for the unreadable part may have replaced the others.
//! - Damage below what was synced is never taken for an end. It is kept with file and offset, for whoever needs what stood there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use marchland_types::{GroupId, LogIndex, Term};

use super::error::OpenError;
use super::format::{Place, SegmentHeader};
use super::record::Record;
use super::recover::segment_header;
use super::replay::{Batches, records};
use super::segment::{FileKind, journal_path, kind, read_file, segment_path};
use crate::disk::{Disk, DiskFile};
use crate::raft_log::LogEntry;

/// Looks at the folder's names before a number that is absent is believed to be: a segment that is renamed meanwhile may be missed.
const LOOKS: usize = 3;

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
struct Noted {
    term: Term,
    batch: Place,
}

struct Segment<F> {
    path: PathBuf,
    file: F,
    header: SegmentHeader,
}

/// A segment's path, file and bytes.
type Opened<F> = (PathBuf, F, Vec<u8>);

/// A segment's bytes, and the batch that was decoded last.
struct Loaded {
    segment: u64,
    bytes: Vec<u8>,
    batch: Place,
    entries: Vec<LogEntry>,
}

/// What a log has kept of one group.
pub struct History<D: Disk> {
    group: GroupId,
    dir: PathBuf,
    segments: BTreeMap<u64, Segment<D::File>>,
    entries: BTreeMap<u64, Noted>,
    committed: Option<LogIndex>,
    damage: Vec<OpenError>,
    loaded: Option<Loaded>,
}

impl<D: Disk> History<D> {
    /// Reads the log in `dir`. What is damaged or absent in it is no error here: see [`History::damage`].
    pub fn read(disk: &D, dir: &Path, group: GroupId) -> Result<Self, OpenError> {
        let mut history = Self {
            group,
            dir: dir.to_owned(),
            segments: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: None,
            damage: Vec::new(),
            loaded: None,
        };
        let mut previous: Option<(u64, Vec<u8>, u64)> = None;
        let mut batch_number = None;
        for number in numbers(disk, dir)? {
            let Some((path, file, bytes)) = open(disk, dir, number)? else { continue };
            let opened = match segment_header(&path, number, &bytes) {
                Err(error @ OpenError::Rot { .. }) => Err(error),
                header => Ok(header?),
            };
            let follows = opened.as_ref().ok().map(|(header, _)| (header.number, header.synced));
            if let Some((before, bytes, first_offset)) = previous.take() {
                let stop = match follows {
                    Some((number, synced)) if number == before + 1 && synced.segment == before => Some(synced.offset),
                    _ => None,
                };
                history.note_finished(before, &bytes, first_offset, stop, &mut batch_number);
                if number != before + 1 {
                    history.broken(OpenError::MissingSegment { dir: dir.to_owned(), segment: before + 1 });
                    batch_number = None;
                }
            }
            match opened {
                Ok((header, first_offset)) => {
                    if history.segments.is_empty() {
                        let marks = header.marks.iter().find(|(id, _)| *id == group);
                        history.committed = marks.and_then(|(_, marks)| marks.committed).map(|position| position.index);
                    }
                    history.segments.insert(number, Segment { path, file, header });
                    previous = Some((number, bytes, first_offset));
                }
                Err(damage) => {
                    history.broken(damage);
                    batch_number = None;
                }
            }
        }
        if let Some((number, bytes, first_offset)) = previous {
            history.note_last(number, bytes, first_offset, &mut batch_number)?;
        }
        Ok(history)
    }

    /// A segment that is followed by another one, which says where it ended.
    fn note_finished(&mut self, number: u64, bytes: &[u8], from: u64, stop: Option<u64>, batch_number: &mut Option<u64>) {
        let noted = self.note(number, bytes, from, stop.unwrap_or(u64::MAX), batch_number);
        let damage = noted.and_then(|(end, _)| match stop {
            Some(stop) if end < stop => Err((end, "damaged batch in a finished segment")),
            _ => Ok(()),
        });
        if let Err((offset, what)) = damage {
            self.rot(number, offset, what);
            *batch_number = None;
        }
    }

    /// The last segment. It may grow meanwhile: what seems damaged is looked at again, for what a batch calls synced is there.
    fn note_last(&mut self, number: u64, bytes: Vec<u8>, from: u64, batch_number: &mut Option<u64>) -> Result<(), OpenError> {
        let (mut bytes, mut from, mut looked) = (bytes, from, false);
        loop {
            let (end, newest) = match self.note(number, &bytes, from, u64::MAX, batch_number) {
                Ok(noted) => noted,
                Err((offset, what)) => {
                    self.rot(number, offset, what);
                    return Ok(());
                }
            };
            let Some(segment) = self.segments.get(&number) else { return Ok(()) };
            let ahead = Batches::new(&segment.header, end, &bytes).highest_synced_ahead();
            let here = Place { segment: number, offset: end };
            if ahead.max(newest).is_none_or(|synced| synced <= here) {
                return Ok(());
            }
            if looked && end == from {
                self.rot(number, end, "damaged batch below the synced end");
                return Ok(());
            }
            let size_bytes = bytes.len();
            bytes = vec![0; size_bytes];
            segment.file.read_exact_at(&mut bytes, 0).map_err(OpenError::io(&segment.path))?;
            (from, looked) = (end, true);
        }
    }

    /// Notes what the batches from `from` up to `stop` hold. Returns where they end, and the highest place that they call synced; or where
    /// something is wrong, and what.
    fn note(
        &mut self,
        number: u64,
        bytes: &[u8],
        from: u64,
        stop: u64,
        batch_number: &mut Option<u64>,
    ) -> Result<(u64, Option<Place>), (u64, &'static str)> {
        let Some(segment) = self.segments.get(&number) else { return Ok((from, None)) };
        let header = segment.header.clone();
        let mut batches = Batches::new(&header, from, bytes);
        let mut newest = None;
        while batches.place.offset < stop {
            let place = batches.place;
            let Some((header, payload)) = batches.next() else { break };
            if batch_number.is_some_and(|before| header.batch != before.wrapping_add(1)) {
                return Err((place.offset, "batch out of order"));
            }
            *batch_number = Some(header.batch);
            newest = newest.max(Some(header.synced));
            let records = records(&header, payload).ok_or((place.offset, "batch holds no valid records"))?;
            for (id, record) in records {
                if id == self.group {
                    self.note_record(record, place).map_err(|what| (place.offset, what))?;
                }
            }
        }
        Ok((batches.place.offset, newest))
    }

    fn note_record(&mut self, record: Record, batch: Place) -> Result<(), &'static str> {
        match record {
            Record::Append(entries) | Record::Carry(entries) => {
                for entry in entries {
                    let noted = Noted { term: entry.position.term, batch };
                    let known = self.entries.insert(entry.position.index.0, noted);
                    if known.is_some_and(|known| known.term != noted.term) {
                        return Err("entry contradicts the one that is there");
                    }
                }
            }
            Record::TruncateAfter(after) => {
                if self.committed.is_some_and(|committed| after.is_none_or(|after| after < committed)) {
                    return Err("committed entries are taken back");
                }
                let _ = self.entries.split_off(&after.map_or(0, |after| after.0.saturating_add(1)));
            }
            Record::Committed(committed) => self.committed = self.committed.max(committed.map(|position| position.index)),
            // Whatever replaces the group begins with a state from elsewhere.
            Record::Forget => {
                self.entries.clear();
                self.committed = None;
            }
            // Purging is raft's affair; what was purged is what a history is for.
            Record::Vote(_) | Record::Purge(_) => {}
        }
        Ok(())
    }

    fn rot(&mut self, number: u64, offset: u64, what: &'static str) {
        if let Some(segment) = self.segments.get(&number) {
            let damage = OpenError::rot(&segment.path, offset, what);
            self.broken(damage);
        }
    }

    /// A part is not readable from here on: it may have replaced what was not committed.
    fn broken(&mut self, damage: OpenError) {
        self.damage.push(damage);
        let _ = self.entries.split_off(&self.committed.map_or(0, |committed| committed.0 + 1));
    }

    /// What is damaged or absent, in the order of the log.
    #[must_use]
    pub fn damage(&self) -> &[OpenError] {
        &self.damage
    }

    /// The last entry that is known to be committed.
    #[must_use]
    pub fn committed(&self) -> Option<LogIndex> {
        self.committed
    }

    /// It is known from elsewhere that the entries up to `upto` are committed: the log's own word for it may lag.
    pub fn know_committed(&mut self, upto: LogIndex) {
        self.committed = self.committed.max(Some(upto));
    }

    /// Entries behind the last one that is known to be committed.
    #[must_use]
    pub fn undecided(&self) -> usize {
        self.entries.range(self.committed.map_or(0, |committed| committed.0 + 1)..).count()
    }

    /// Committed entries that are there without a gap, in order.
    #[must_use]
    pub fn runs(&self) -> Vec<RangeInclusive<LogIndex>> {
        let Some(committed) = self.committed else { return Vec::new() };
        let mut runs: Vec<RangeInclusive<LogIndex>> = Vec::new();
        for (index, _) in self.entries.range(..=committed.0) {
            match runs.last_mut() {
                Some(run) if run.end().0 + 1 == *index => *run = *run.start()..=LogIndex(*index),
                _ => runs.push(LogIndex(*index)..=LogIndex(*index)),
            }
        }
        runs
    }

    /// A committed entry; `None` if it is not there.
    pub fn entry(&mut self, index: LogIndex) -> Result<Option<LogEntry>, OpenError> {
        if self.committed.is_none_or(|committed| index > committed) {
            return Ok(None);
        }
        let Some(noted) = self.entries.get(&index.0).copied() else { return Ok(None) };
        let Some(segment) = self.segments.get(&noted.batch.segment) else { return Ok(None) };
        if self.loaded.as_ref().is_none_or(|loaded| loaded.segment != noted.batch.segment) {
            let io = || OpenError::io(&segment.path);
            let size_bytes = usize::try_from(segment.file.len().map_err(io())?).unwrap_or(usize::MAX);
            let mut bytes = vec![0; size_bytes];
            segment.file.read_exact_at(&mut bytes, 0).map_err(io())?;
            self.loaded = Some(Loaded { segment: noted.batch.segment, bytes, batch: Place::default(), entries: Vec::new() });
        }
        let Some(loaded) = &mut self.loaded else { return Ok(None) };
        if loaded.batch != noted.batch {
            // It was whole when it was noted. The node that writes the log has let go of the segment since, or somebody wrote to it.
            let changed = || OpenError::rot(&segment.path, noted.batch.offset, "changed while it was read");
            let (header, payload) =
                Batches::new(&segment.header, noted.batch.offset, &loaded.bytes).next().ok_or_else(changed)?;
            let records = records(&header, payload).ok_or_else(changed)?;
            loaded.entries = records
                .into_iter()
                .filter(|(id, _)| *id == self.group)
                .flat_map(|(_, record)| match record {
                    Record::Append(entries) | Record::Carry(entries) => entries,
                    Record::Vote(_) | Record::TruncateAfter(_) | Record::Purge(_) | Record::Committed(_) | Record::Forget => {
                        Vec::new()
                    }
                })
                .collect();
            loaded.batch = noted.batch;
        }
        let found = loaded.entries.iter().rev().find(|entry| (entry.position.index, entry.position.term) == (index, noted.term));
        Ok(found.cloned())
    }

    /// The error of an entry that is needed and not there.
    #[must_use]
    pub fn missing(&self, index: LogIndex) -> OpenError {
        OpenError::MissingEntry { dir: self.dir.clone(), group: self.group, index }
    }
}

/// Every group that the log in `dir` has anything of, as far as it is readable. Changes nothing.
pub fn groups<D: Disk>(disk: &D, dir: &Path) -> Result<BTreeSet<GroupId>, OpenError> {
    let mut groups = BTreeSet::new();
    for number in numbers(disk, dir)? {
        let Some((path, _, bytes)) = open(disk, dir, number)? else { continue };
        let Ok((header, first_offset)) = segment_header(&path, number, &bytes) else { continue };
        groups.extend(header.marks.iter().map(|(group, _)| *group));
        let mut batches = Batches::new(&header, first_offset, &bytes);
        while let Some((header, payload)) = batches.next() {
            groups.extend(records(&header, payload).into_iter().flatten().map(|(group, _)| group));
        }
    }
    Ok(groups)
}

/// Numbers of the segments in a folder, retained or live.
fn numbers<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for _ in 0..LOOKS {
        numbers = disk
            .list(dir)
            .map_err(OpenError::io(dir))?
            .iter()
            .filter_map(|path| match kind(path) {
                FileKind::Segment(number) | FileKind::Journal(number) => Some(number),
                FileKind::Spare | FileKind::SecondSpare | FileKind::Part | FileKind::Foreign => None,
            })
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
            break;
        }
    }
    Ok(numbers)
}

/// A segment under whichever name it has now; `None` when it went meanwhile.
fn open<D: Disk>(disk: &D, dir: &Path, number: u64) -> Result<Option<Opened<D::File>>, OpenError> {
    for path in [segment_path(dir, number), journal_path(dir, number)] {
        match read_file(disk, &path) {
            Ok((file, bytes)) => return Ok(Some((path, file, bytes))),
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
