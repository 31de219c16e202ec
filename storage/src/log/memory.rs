//! What the log keeps of one group in memory: its marks, its entries above the purge mark, and in which segments they lie.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use marchland_types::{LogIndex, Position};

use super::format::Marks;
use super::record::entry_bytes;
use crate::raft_log::{GroupLogState, LogEntry};

/// What a record of carried entries takes beside the entries.
const CARRY_RECORD_BYTES: u64 = 21;

/// Entries `first..end` lie in `segment` or in a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    end: u64,
    segment: u64,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct GroupLog {
    vote: Option<Bytes>,
    committed: Option<Position>,
    purged: Option<Position>,
    /// Indices [`GroupLog::first`] and following, without gaps.
    entries: VecDeque<LogEntry>,
    entry_bytes: u64,
    /// Covers the entries in index order.
    runs: VecDeque<Run>,
}

impl GroupLog {
    /// A group with these marks and nothing above them.
    pub fn new(marks: Marks) -> Self {
        Self { vote: marks.vote, committed: marks.committed, purged: marks.purged, ..Self::default() }
    }

    pub fn state(&self) -> GroupLogState {
        GroupLogState { vote: self.vote.clone(), committed: self.committed, purged: self.purged, last: self.last() }
    }

    /// Index of the first entry that is, or would be, here.
    pub fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index.0 + 1)
    }

    fn end(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }

    pub fn last(&self) -> Option<Position> {
        self.entries.back().map(|entry| entry.position).or(self.purged)
    }

    pub fn bytes(&self) -> u64 {
        self.entry_bytes
    }

    pub fn committed(&self) -> Option<Position> {
        self.committed
    }

    pub fn entries(&self, range: Range<LogIndex>) -> Vec<LogEntry> {
        let from = range.start.0.max(self.first());
        let to = range.end.0.min(self.end());
        if from >= to {
            return Vec::new();
        }
        self.entries.range((from - self.first()) as usize..(to - self.first()) as usize).cloned().collect()
    }

    fn get(&self, index: LogIndex) -> Option<&LogEntry> {
        self.entries.get(usize::try_from(index.0.checked_sub(self.first())?).ok()?)
    }

    pub fn set_vote(&mut self, vote: Bytes) {
        self.vote = Some(vote);
    }

    pub fn set_committed(&mut self, committed: Option<Position>) {
        self.committed = committed;
    }

    /// Why these entries cannot follow.
    pub fn check_append(&self, entries: &[LogEntry]) -> Result<(), String> {
        let mut term = self.last().map_or_else(Default::default, |last| last.term);
        for (index, entry) in (self.end()..).zip(entries) {
            if entry.position.index.0 != index {
                return Err(format!("append of entry {}, expected index {index}", entry.position));
            }
            if entry.position.term < term {
                return Err(format!("append of entry {} after term {term}", entry.position));
            }
            term = entry.position.term;
        }
        if self.end().checked_add(entries.len() as u64 + 1).is_none() {
            return Err("append beyond the last index".to_owned());
        }
        Ok(())
    }

    /// Adds entries that [`GroupLog::check_append`] accepts.
    pub fn append(&mut self, entries: &[LogEntry], segment: u64) {
        let (first, end) = (self.end(), self.end() + entries.len() as u64);
        if first == end {
            return;
        }
        self.entries.extend(entries.iter().cloned());
        self.entry_bytes += entries.iter().map(entry_bytes).sum::<u64>();
        match self.runs.back_mut() {
            Some(run) if run.segment == segment => run.end = end,
            _ => self.runs.push_back(Run { first, end, segment }),
        }
    }

    pub fn check_truncate(&self, after: Option<LogIndex>) -> Result<(), String> {
        match (after, self.purged) {
            (Some(after), Some(purged)) if after < purged.index => {
                Err(format!("truncation after {after}, purged up to {purged}"))
            }
            _ => Ok(()),
        }
    }

    pub fn truncate_after(&mut self, after: Option<LogIndex>) {
        let end = after.map_or(0, |after| after.0.saturating_add(1)).max(self.first());
        while self.end() > end {
            let entry = self.entries.pop_back().expect("the end lies above the first");
            self.entry_bytes -= entry_bytes(&entry);
        }
        while let Some(run) = self.runs.back_mut() {
            if run.first >= end {
                self.runs.pop_back();
            } else {
                run.end = run.end.min(end);
                break;
            }
        }
    }

    pub fn check_purge(&self, to: Position) -> Result<(), String> {
        if to.index.0 == u64::MAX {
            return Err("purge up to the last index".to_owned());
        }
        match self.get(to.index) {
            Some(entry) if entry.position != to => Err(format!("purge of {to}, the log has {}", entry.position)),
            None if self.purged.is_some_and(|purged| purged.index == to.index && purged != to) => {
                Err(format!("purge of {to}, purged up to {} already", self.purged.unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }

    pub fn purge(&mut self, to: Position) {
        let first = self.first();
        let end = to.index.0 + 1;
        if end <= first {
            return;
        }
        for _ in 0..(end - first).min(self.entries.len() as u64) {
            let entry = self.entries.pop_front().expect("counted");
            self.entry_bytes -= entry_bytes(&entry);
        }
        self.purged = Some(to);
        while let Some(run) = self.runs.front_mut() {
            if run.end <= end {
                self.runs.pop_front();
            } else {
                run.first = run.first.max(end);
                break;
            }
        }
    }

    /// Whether an entry may lie in `segment` or an older one.
    pub fn lives_in(&self, segment: u64) -> bool {
        self.runs.iter().any(|run| run.segment <= segment)
    }

    /// Encoded size of the record that [`GroupLog::carry`] would make of one entry.
    pub fn peek_carry_bytes(&self, segment: u64) -> u64 {
        let run = self.runs.iter().find(|run| run.segment <= segment);
        run.and_then(|run| self.get(LogIndex(run.first))).map_or(0, |entry| CARRY_RECORD_BYTES + entry_bytes(entry))
    }

    /// Takes entries that may lie in `segment` or older ones and counts them to `to`. At least one, else as many as a record
    /// of `max_bytes` holds.
    pub fn carry(&mut self, segment: u64, to: u64, max_bytes: u64) -> Vec<LogEntry> {
        let Some(at) = self.runs.iter().position(|run| run.segment <= segment) else { return Vec::new() };
        let run = self.runs[at];
        let mut entries = Vec::new();
        let mut bytes = CARRY_RECORD_BYTES;
        for entry in self.entries.range((run.first - self.first()) as usize..(run.end - self.first()) as usize) {
            bytes += entry_bytes(entry);
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        let middle = run.first + entries.len() as u64;
        self.runs[at].segment = to;
        if middle < run.end {
            self.runs[at].end = middle;
            self.runs.insert(at + 1, Run { first: middle, ..run });
        }
        entries
    }

    /// Panics when the parts contradict each other. Called after every change in debug builds.
    pub fn check(&self) {
        if cfg!(debug_assertions) {
            let mut at = self.first();
            for run in &self.runs {
                assert!(run.first == at && run.end > run.first, "runs {:?} do not follow {at}", self.runs);
                at = run.end;
            }
            assert_eq!(at, self.end(), "runs cover the entries");
        }
    }
}
