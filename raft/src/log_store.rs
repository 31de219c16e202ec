//! One group's part of the node's shared log, as the raft library wants it.
//!
//! Operations are numbered as they are submitted; [`LogProgress`] knows which of them are durable. A checkpoint waits for
//! everything that was submitted before it ([`LogProgress::synced`]): raft applies entries that its own disk does not have
//! yet, and a checkpoint must never be ahead of the log that it allows to purge.
//!
//! A poisoned log is the end of the node: it is reported to [`crate::RaftNode::fatal`] once, and nothing is retried.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use marchland_storage::raft_log::{Done, GroupLogState, LogEntry, LogError, LogOp, RaftLog};
use marchland_types::{GroupId, LogIndex, Position, point};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::{oneshot, watch};

use crate::record;
use crate::types::{LogId, RaftEntry, TypeConfig, Vote, log_id, position};

/// Most bytes of entries that are read for one append, unless a single entry is larger.
const APPEND_BYTES: usize = 1024 * 1024;

/// A [`RaftLog`] without its type.
pub(crate) trait AnyLog: Send + Sync {
    fn groups(&self) -> Vec<GroupId>;
    fn state(&self, group: GroupId) -> GroupLogState;
    fn entries(&self, group: GroupId, range: Range<LogIndex>) -> Vec<LogEntry>;
    fn submit(&self, group: GroupId, op: LogOp, done: Done);
    fn memory_bytes(&self, group: GroupId) -> u64;
    fn room(&self) -> Result<(), LogError>;
}

impl<L: RaftLog> AnyLog for L {
    fn groups(&self) -> Vec<GroupId> {
        RaftLog::groups(self)
    }

    fn state(&self, group: GroupId) -> GroupLogState {
        RaftLog::state(self, group)
    }

    fn entries(&self, group: GroupId, range: Range<LogIndex>) -> Vec<LogEntry> {
        RaftLog::entries(self, group, range)
    }

    fn submit(&self, group: GroupId, op: LogOp, done: Done) {
        RaftLog::submit(self, group, op, done);
    }

    fn memory_bytes(&self, group: GroupId) -> u64 {
        RaftLog::memory_bytes(self, group)
    }

    fn room(&self) -> Result<(), LogError> {
        RaftLog::room(self)
    }
}

/// Why the node can not go on; set once.
pub(crate) type FatalCell = watch::Sender<Option<String>>;

#[derive(Clone, Debug, Default)]
struct Progress {
    submitted: u64,
    synced: u64,
    failed: Option<String>,
}

/// Which operations of a group's log were submitted, and which are durable.
#[derive(Debug)]
pub(crate) struct LogProgress(watch::Sender<Progress>);

impl LogProgress {
    fn new() -> Self {
        Self(watch::Sender::new(Progress::default()))
    }

    fn submit(&self) -> u64 {
        let mut number = 0;
        // Nobody waits for submissions: no wake-up.
        self.0.send_if_modified(|p| {
            p.submitted += 1;
            number = p.submitted;
            false
        });
        number
    }

    fn done(&self, number: u64, result: &Result<(), LogError>) {
        self.0.send_modify(|p| match result {
            Ok(()) => p.synced = p.synced.max(number),
            Err(error) => p.failed = Some(error.to_string()),
        });
    }

    /// Returns when everything that was submitted until now is durable.
    pub(crate) async fn synced(&self) -> Result<(), String> {
        let mut progress = self.0.subscribe();
        let wanted = progress.borrow().submitted;
        let now = progress.wait_for(|p| p.synced >= wanted || p.failed.is_some()).await;
        match now {
            Ok(p) if p.synced >= wanted => Ok(()),
            Ok(p) => Err(p.failed.clone().unwrap_or_default()),
            Err(_) => Err("log is closed".into()),
        }
    }
}

/// The log of one group.
#[derive(Clone)]
pub(crate) struct LogStore {
    group: GroupId,
    log: Arc<dyn AnyLog>,
    progress: Arc<LogProgress>,
    fatal: Arc<FatalCell>,
}

impl LogStore {
    pub(crate) fn new(group: GroupId, log: Arc<dyn AnyLog>, fatal: Arc<FatalCell>) -> Self {
        Self { group, log, progress: Arc::new(LogProgress::new()), fatal }
    }

    pub(crate) fn progress(&self) -> Arc<LogProgress> {
        self.progress.clone()
    }

    fn submit(&self, op: LogOp, then: impl FnOnce(Result<(), LogError>) + Send + 'static) {
        let number = self.progress.submit();
        let (progress, fatal) = (self.progress.clone(), self.fatal.clone());
        let done: Done = Box::new(move |result| {
            if let Err(LogError::Poisoned(reason)) = &result {
                fatal.send_if_modified(|cell| {
                    let first = cell.is_none();
                    cell.get_or_insert_with(|| reason.clone());
                    first
                });
            }
            progress.done(number, &result);
            then(result);
        });
        self.log.submit(self.group, op, done);
    }

    /// Submits and waits until it is complete.
    pub(crate) async fn perform(&self, op: LogOp) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.submit(op, move |result| drop(done.send(result)));
        match wait.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other(LogError::Closed)),
        }
    }

    pub(crate) fn state(&self) -> GroupLogState {
        self.log.state(self.group)
    }

    /// Whether new entries should be taken on.
    pub(crate) fn room(&self) -> Result<(), LogError> {
        self.log.room()
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.log.memory_bytes(self.group)
    }

    fn read(&self, range: Range<LogIndex>) -> io::Result<Vec<RaftEntry>> {
        self.log.entries(self.group, range).into_iter().map(to_entry).collect()
    }

    /// The index up to which entries may go so that what is left below `durable` is worth at most `bytes` and `entries`.
    pub(crate) fn purge_target(&self, durable: Position, bytes: u64, entries: u64) -> Option<LogIndex> {
        let end = durable.index.0;
        let start = end.saturating_sub(entries);
        let purged = self.state().purged.map_or(0, |p| p.index.0 + 1);
        let mut keep_from = end + 1;
        let mut kept = 0;
        for entry in self.log.entries(self.group, LogIndex(start.max(purged))..LogIndex(end + 1)).iter().rev() {
            kept += entry.payload.len() as u64;
            if kept > bytes {
                break;
            }
            keep_from = entry.position.index.0;
        }
        keep_from.checked_sub(1).filter(|target| *target >= purged && *target <= end).map(LogIndex)
    }
}

fn to_entry(entry: LogEntry) -> io::Result<RaftEntry> {
    record::to_entry(entry.position, entry.payload).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(LogIndex(start)..LogIndex(end))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let mut size = 0;
        let entries = self.log.entries(self.group, LogIndex(start)..LogIndex(end));
        let fits = entries.iter().take_while(|entry| {
            let first = size == 0;
            size += entry.payload.len();
            first || size <= APPEND_BYTES
        });
        let count = fits.count();
        entries.into_iter().take(count).map(to_entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        match self.state().vote {
            None => Ok(None),
            Some(saved) => record::to_vote(&saved).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        }
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.purged.map(log_id), last_log_id: state.last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.perform(LogOp::Vote(record::of_vote(vote))).await?;
        point!("raft.vote_saved");
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Rides along with whatever is written next. Complete at once, so it says nothing about what was submitted before:
        // it is not counted.
        self.log.submit(self.group, LogOp::Committed(committed.as_ref().map(position)), Box::new(|_| {}));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let state = self.state();
        // The mark is a hint. It can not be ahead of the entries in a log that keeps its order, but costs nothing to check.
        Ok(state.committed.filter(|mark| state.last.is_some_and(|last| *mark <= last)).map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(|entry| record::to_log(&entry)).collect();
        if entries.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.submit(LogOp::Append(entries), move |result| callback.io_completed(result.map_err(io::Error::other)));
        point!("raft.append_submitted");
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.perform(LogOp::TruncateAfter(last.map(|last| LogIndex(last.index)))).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.perform(LogOp::Purge(position(&upto))).await
    }
}

/// Makes the log agree with a state machine that was restored up to `applied`, before the group starts.
///
/// What a machine holds durably was committed. If the log does not reach that far (its tail was never synced), or has another
/// term there (an uncommitted tail that a crash brought back), everything in it up to there is superseded and everything
/// above it was never committed: all of it goes, and the log starts anew after `applied`.
pub(crate) async fn reconcile(store: &LogStore, applied: Position) -> io::Result<()> {
    let state = store.state();
    let there = if state.purged.is_some_and(|p| p.index >= applied.index) {
        state.purged.filter(|p| p.index == applied.index)
    } else {
        store.log.entries(store.group, applied.index..applied.index.next()).first().map(|entry| entry.position)
    };
    if there == Some(applied) || state.purged.is_some_and(|p| p.index > applied.index) {
        return Ok(());
    }
    tracing::warn!(
        group = %store.group, last = ?state.last, restored = %applied,
        "log does not hold the entry that the state machine was restored to; it starts anew behind it"
    );
    if state.last.is_some() && state.last != state.purged {
        store.perform(LogOp::TruncateAfter(state.purged.map(|p| p.index))).await?;
    }
    store.perform(LogOp::Purge(applied)).await
}
