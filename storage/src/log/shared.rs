//! [`SharedLog`]: the handle through which every group submits and reads, and the queue between it and the writer.
//!
//! An operation takes effect in memory and joins the queue under one lock, so that what is read and what will be written never
//! disagree about an order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use marchland_types::{GroupId, LogIndex, level};
use tokio::sync::Notify;

use super::error::OpenError;
use super::format::VOTE_MAX_BYTES;
use super::memory::GroupLog;
use super::options::LogOptions;
use super::record::{Record, entry_bytes};
use super::writer::LogWriter;
use crate::disk::Disk;
use crate::raft_log::{Done, GroupLogState, LogEntry, LogError, LogOp, RaftLog};

/// An append is queued in pieces of about this size, so that each fits in a segment with others.
const APPEND_PIECE_BYTES: u64 = 1024 * 1024;

/// Something for the writer to write.
pub(super) struct Queued {
    pub group: GroupId,
    pub record: Record,
    pub bytes: u64,
    pub done: Option<Done>,
}

/// What the handles and the writer share.
#[derive(Default)]
pub(super) struct State {
    pub groups: BTreeMap<GroupId, GroupLog>,
    pub queue: VecDeque<Queued>,
    pub queue_bytes: u64,
    /// Groups whose committed mark is to be written with whatever is written next.
    pub committed_dirty: BTreeSet<GroupId>,
    /// Entries of all groups.
    pub live_bytes: u64,
    /// New entries go to this segment or a later one.
    pub current_segment: u64,
    /// Segments up to this one are to go, whatever it costs to copy what lives in them.
    pub superseded: u64,
    pub free_bytes: u64,
    pub poisoned: Option<String>,
    /// The writer is gone.
    pub writer_gone: bool,
    /// Every handle is gone.
    pub handles_gone: bool,
}

/// What the writer has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Operations completed.
    pub operations: u64,
    /// Batches written.
    pub batches: u64,
    /// Calls of `fdatasync` for batches.
    pub syncs: u64,
    /// Bytes written in batches, padding included.
    pub bytes: u64,
    /// Entry bytes copied forward from old segments.
    pub carried_bytes: u64,
    /// Bytes that wait for the disk now.
    pub queued_bytes: u64,
    /// Bytes of entries in memory now.
    pub memory_bytes: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub operations: AtomicU64,
    pub batches: AtomicU64,
    pub syncs: AtomicU64,
    pub bytes: AtomicU64,
    pub carried_bytes: AtomicU64,
}

pub(super) struct Inner {
    state: Mutex<State>,
    pub counters: Counters,
    reserve_bytes: u64,
    queue_bytes_max: u64,
    queue_ops_max: usize,
    /// Wakes the writer's thread. Holds one ring: more say nothing more.
    bell: Sender<()>,
    /// Operations queued so far: changes with the queue, and is read without the lock.
    pub submitted: AtomicU64,
    pub bell_heard: Receiver<()>,
    /// Wakes the writer's task.
    pub notify: Notify,
}

impl Inner {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        let _ = self.bell.try_send(());
        self.notify.notify_one();
    }
}

/// Closes the log when the last [`SharedLog`] goes.
struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().handles_gone = true;
        self.0.ring();
    }
}

/// The raft log of a node. Cheap to clone; when the last clone is dropped, the writer finishes what is queued and ends.
#[derive(Clone)]
pub struct SharedLog {
    handle: Arc<Handle>,
}

impl SharedLog {
    /// Opens the log in `dir` (created if absent), which the caller has locked, and recovers it: whatever is reported afterwards
    /// is on disk. The [`LogWriter`] must be run, by a thread or a task, for anything to complete.
    pub fn open<D: Disk>(disk: D, dir: &Path, options: LogOptions) -> Result<(Self, LogWriter<D>), OpenError> {
        options.validate()?;
        let (bell, bell_heard) = crossbeam_channel::bounded(1);
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            counters: Counters::default(),
            reserve_bytes: options.reserve_bytes,
            queue_bytes_max: options.queue_bytes_max,
            queue_ops_max: options.queue_ops_max,
            bell,
            submitted: AtomicU64::new(0),
            bell_heard,
            notify: Notify::new(),
        });
        let writer = LogWriter::open(disk, dir, options, inner.clone())?;
        Ok((Self { handle: Arc::new(Handle(inner)) }, writer))
    }

    fn inner(&self) -> &Inner {
        &self.handle.0
    }

    /// Whether new work should be taken on: ask before proposing, and before accepting entries of a leader. Refuses while less
    /// than the reserve is free on disk (and recovers by itself), when the writer lags far behind, and after a fault.
    pub fn room(&self) -> Result<(), LogError> {
        let inner = self.inner();
        let state = inner.lock();
        check_alive(&state)?;
        if state.free_bytes < inner.reserve_bytes {
            return Err(LogError::Full { free_bytes: state.free_bytes, needed_bytes: inner.reserve_bytes });
        }
        if state.queue_bytes > inner.queue_bytes_max / 2 || state.queue.len() > inner.queue_ops_max / 2 {
            return Err(LogError::Busy { queued_bytes: state.queue_bytes });
        }
        Ok(())
    }

    /// Writes whatever still lives in the finished segments up to this one anew, and lets go of them, since one of them can not be
    /// read any more: what lives is in memory. Done when none of them is called `.log` any more.
    pub fn supersede(&self, segment: u64) {
        let inner = self.inner();
        let mut state = inner.lock();
        state.superseded = state.superseded.max(segment.min(state.current_segment.saturating_sub(1)));
        drop(state);
        inner.ring();
    }

    /// What the writer has done so far.
    pub fn stats(&self) -> LogStats {
        let inner = self.inner();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = inner.lock();
        LogStats {
            operations: get(&inner.counters.operations),
            batches: get(&inner.counters.batches),
            syncs: get(&inner.counters.syncs),
            bytes: get(&inner.counters.bytes),
            carried_bytes: get(&inner.counters.carried_bytes),
            queued_bytes: state.queue_bytes,
            memory_bytes: state.live_bytes,
        }
    }

    /// Applies the operation in memory and queues what must be written. `Ok(true)`: it is complete already.
    fn try_submit(&self, id: GroupId, op: LogOp, done: &mut Option<Done>) -> Result<bool, LogError> {
        let inner = self.inner();
        let mut guard = inner.lock();
        let state = &mut *guard;
        check_alive(state)?;
        let is_append = matches!(op, LogOp::Append(_));
        let factor = if is_append { 1 } else { 4 };
        if state.queue_bytes > inner.queue_bytes_max.saturating_mul(factor)
            || state.queue.len() > inner.queue_ops_max.saturating_mul(factor as usize)
        {
            return Err(LogError::Busy { queued_bytes: state.queue_bytes });
        }
        if is_append && state.free_bytes < inner.reserve_bytes / 2 {
            return Err(LogError::Full { free_bytes: state.free_bytes, needed_bytes: inner.reserve_bytes / 2 });
        }
        let was_empty = state.queue.is_empty();
        let segment = state.current_segment;
        let fresh = GroupLog::default();
        check_op(state.groups.get(&id).unwrap_or(&fresh), &op).map_err(LogError::Misuse)?;
        let group = state.groups.entry(id).or_default();
        let before_bytes = group.bytes();
        let records = match op {
            LogOp::Committed(committed) => {
                group.set_committed(committed);
                state.committed_dirty.insert(id);
                return Ok(true);
            }
            LogOp::Vote(vote) => {
                group.set_vote(vote.clone());
                vec![Record::Vote(vote)]
            }
            LogOp::Append(entries) if entries.is_empty() => return Ok(true),
            LogOp::Append(entries) => {
                group.append(&entries, segment);
                append_pieces(entries)
            }
            LogOp::TruncateAfter(after) => {
                group.truncate_after(after);
                vec![Record::TruncateAfter(after)]
            }
            LogOp::Purge(to) => {
                group.purge(to);
                vec![Record::Purge(to)]
            }
            LogOp::Forget => {
                state.groups.remove(&id);
                state.committed_dirty.remove(&id);
                vec![Record::Forget]
            }
        };
        let after_bytes = state.groups.get(&id).map_or(0, |group| {
            group.check();
            group.bytes()
        });
        state.live_bytes = state.live_bytes - before_bytes + after_bytes;
        let last = records.len() - 1;
        for (at, record) in records.into_iter().enumerate() {
            let bytes = record.encoded_bytes();
            state.queue_bytes += bytes;
            let done = if at == last { done.take() } else { None };
            state.queue.push_back(Queued { group: id, record, bytes, done });
        }
        // What may not wait (a vote) is taken on up to four times the bound, and one operation beyond it.
        level!("log.queue_ops", state.queue.len(), inner.queue_ops_max * 4 + last + 1);
        inner.submitted.fetch_add(last as u64 + 1, Ordering::Release);
        drop(guard);
        if was_empty {
            inner.ring();
        }
        Ok(false)
    }
}

fn check_alive(state: &State) -> Result<(), LogError> {
    if let Some(reason) = &state.poisoned {
        return Err(LogError::Poisoned(reason.clone()));
    }
    if state.writer_gone {
        return Err(LogError::Closed);
    }
    Ok(())
}

/// Why a caller may not do this to the group.
fn check_op(group: &GroupLog, op: &LogOp) -> Result<(), String> {
    match op {
        LogOp::Vote(vote) if vote.len() > VOTE_MAX_BYTES => Err(format!("vote of {} bytes", vote.len())),
        LogOp::Append(entries) => group.check_append(entries),
        LogOp::TruncateAfter(after) => group.check_truncate(*after),
        LogOp::Purge(to) => group.check_purge(*to),
        LogOp::Vote(_) | LogOp::Committed(_) | LogOp::Forget => Ok(()),
    }
}

fn append_pieces(entries: Vec<LogEntry>) -> Vec<Record> {
    if entries.iter().map(entry_bytes).sum::<u64>() <= APPEND_PIECE_BYTES {
        return vec![Record::Append(entries)];
    }
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        if bytes + entry_bytes(&entry) > APPEND_PIECE_BYTES && !piece.is_empty() {
            pieces.push(Record::Append(std::mem::take(&mut piece)));
            bytes = 0;
        }
        bytes += entry_bytes(&entry);
        piece.push(entry);
    }
    pieces.push(Record::Append(piece));
    pieces
}

impl RaftLog for SharedLog {
    fn groups(&self) -> Vec<GroupId> {
        self.inner().lock().groups.keys().copied().collect()
    }

    fn state(&self, group: GroupId) -> GroupLogState {
        self.inner().lock().groups.get(&group).map(GroupLog::state).unwrap_or_default()
    }

    fn entries(&self, group: GroupId, range: Range<LogIndex>) -> Vec<LogEntry> {
        self.inner().lock().groups.get(&group).map(|group| group.entries(range)).unwrap_or_default()
    }

    fn submit(&self, group: GroupId, op: LogOp, done: Done) {
        let mut done = Some(done);
        let result = self.try_submit(group, op, &mut done);
        let now = match result {
            Ok(false) => return,
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(done) = done {
            done(now);
        }
    }

    fn memory_bytes(&self, group: GroupId) -> u64 {
        self.inner().lock().groups.get(&group).map_or(0, GroupLog::bytes)
    }

    fn room(&self) -> Result<(), LogError> {
        SharedLog::room(self)
    }
}
