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
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use tokio::sync::{oneshot, watch};

use crate::api::Machine;
use crate::halt::Halts;
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
    halts: Arc<Halts>,
}

impl LogStore {
    pub(crate) fn new(group: GroupId, log: Arc<dyn AnyLog>, fatal: Arc<FatalCell>) -> Self {
        Self { group, log, progress: Arc::new(LogProgress::new()), fatal, halts: Arc::new(Halts::new(group)) }
    }

    /// Looks in the log, and in what is appended from here on, for orders to skip entries.
    pub(crate) fn follow(&self, machine: Arc<dyn Machine>) -> io::Result<()> {
        let state = self.state();
        let committed = state.committed.filter(|mark| state.last.is_some_and(|last| *mark <= last));
        self.halts.follow(machine, committed.map(|mark| mark.index));
        for entry in self.read(LogIndex(0)..LogIndex(u64::MAX))? {
            self.note(&entry);
        }
        Ok(())
    }

    fn note(&self, entry: &RaftEntry) {
        if let EntryPayload::Normal(command) = &entry.payload {
            self.halts.appended(LogIndex(entry.log_id.index), &record::command_body(command));
        }
    }

    pub(crate) fn halts(&self) -> Arc<Halts> {
        self.halts.clone()
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

    pub(crate) fn read(&self, range: Range<LogIndex>) -> io::Result<Vec<RaftEntry>> {
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
        self.halts.committed(committed.map(|id| LogIndex(id.index)));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        // With a mark the library replays up to there before the group takes part, and a machine that halts in between would keep
        // it from ever taking part, on every node at once: then nobody could commit the order that leads past the entry. Without
        // one it takes part first, and applies as soon as it hears from a leader what is committed.
        Ok(None)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> =
            entries.into_iter().inspect(|entry| self.note(entry)).map(|entry| record::to_log(&entry)).collect();
        if entries.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.submit(LogOp::Append(entries), move |result| callback.io_completed(result.map_err(io::Error::other)));
        point!("raft.append_submitted");
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let after = last.map(|last| LogIndex(last.index));
        self.halts.truncated(after);
        self.perform(LogOp::TruncateAfter(after)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.halts.purged(LogIndex(upto.index));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Applied;
    use crate::machine::{MachineAdapter, MachineState};
    use crate::testkit::{Counted, Tally};
    use bytes::Bytes;
    use marchland_storage::disk::SimDisk;
    use marchland_storage::log::{LogOptions, LogWriter, SharedLog};
    use marchland_types::Term;
    use openraft::RaftSnapshotBuilder;
    use std::sync::Mutex;

    const GROUP: GroupId = crate::testkit::bench_group(1);

    fn at(term: u64, index: u64) -> Position {
        Position { term: Term(term), index: LogIndex(index) }
    }

    fn open() -> (LogStore, LogWriter<SimDisk>) {
        let options = LogOptions { reserve_bytes: 0, segment_bytes: 1 << 16, ..LogOptions::default() };
        let (log, writer) = SharedLog::open(SimDisk::new(1), std::path::Path::new("/log"), options).unwrap();
        (LogStore::new(GROUP, Arc::new(log), Arc::new(FatalCell::new(None))), writer)
    }

    fn append(store: &LogStore, term: u64, indices: Range<u64>, size: usize) {
        let entry = |index| LogEntry { position: at(term, index), payload: record::command(&vec![1; size]).0 };
        let fits = |result: Result<(), LogError>| assert!(!matches!(result, Err(LogError::Misuse(_))), "{result:?}");
        store.submit(LogOp::Append(indices.map(entry).collect()), fits);
    }

    /// A machine that is restored to `applied`.
    fn machine(applied: Position) -> Tally {
        let applied = Applied { position: Some(applied), membership: Bytes::new() };
        Tally::new(GROUP, Arc::new(Mutex::new(Counted { applied, ..Counted::default() })))
    }

    async fn reconciled(store: &LogStore, writer: &mut LogWriter<SimDisk>, applied: Position) -> GroupLogState {
        let work = reconcile(store, applied);
        tokio::pin!(work);
        while futures::poll!(work.as_mut()).is_pending() {
            writer.turn();
        }
        store.state()
    }

    #[tokio::test]
    async fn a_checkpoint_waits_until_the_log_below_it_is_durable() {
        let (store, mut writer) = open();
        append(&store, 1, 0..3, 10);
        let tally = machine(at(1, 2));
        let restored = tally.restored().await.unwrap();
        let state = MachineState::new(GROUP, Arc::new(tally), restored, &store).unwrap();
        let mut adapter = MachineAdapter(Arc::new(state));
        {
            let persist = adapter.build_snapshot();
            tokio::pin!(persist);
            for _ in 0..3 {
                assert!(futures::poll!(persist.as_mut()).is_pending(), "ahead of the log");
            }
            writer.turn();
            assert_eq!(persist.await.unwrap().meta.last_log_id, Some(log_id(at(1, 2))));
        }
        // A log that has failed lets nothing through.
        append(&store, 1, 3..4, 10);
        writer.turn();
        store.progress.done(99, &Err(LogError::Closed));
        append(&store, 1, 4..5, 10);
        assert!(adapter.build_snapshot().await.is_err());
    }

    #[tokio::test]
    async fn a_log_that_holds_the_restored_entry_is_left_alone() {
        let (store, mut writer) = open();
        append(&store, 1, 0..5, 10);
        let before = store.state();
        assert_eq!(reconciled(&store, &mut writer, at(1, 3)).await, before);
        store.submit(LogOp::Purge(at(1, 3)), |_| {});
        let before = store.state();
        assert_eq!(reconciled(&store, &mut writer, at(1, 3)).await, before);
    }

    #[tokio::test]
    async fn a_log_that_ends_below_the_restored_entry_starts_behind_it() {
        let (store, mut writer) = open();
        append(&store, 1, 0..5, 10);
        let state = reconciled(&store, &mut writer, at(2, 9)).await;
        assert_eq!((state.purged, state.last), (Some(at(2, 9)), Some(at(2, 9))));
        append(&store, 2, 10..12, 10);
        assert_eq!(store.state().last, Some(at(2, 11)));
    }

    #[tokio::test]
    async fn an_uncommitted_tail_of_another_term_goes() {
        let (store, mut writer) = open();
        append(&store, 1, 0..5, 10);
        append(&store, 3, 5..9, 10);
        // The library would call this corrupted: the log's last entry is of a later term, its index is not lower.
        let state = reconciled(&store, &mut writer, at(2, 6)).await;
        assert_eq!((state.purged, state.last), (Some(at(2, 6)), Some(at(2, 6))));
    }

    #[tokio::test]
    async fn what_is_kept_below_a_checkpoint_is_bounded_by_bytes_and_entries() {
        let (store, _writer) = open();
        append(&store, 1, 0..100, 99);
        // 100 bytes each.
        assert_eq!(store.purge_target(at(1, 99), 1000, 1000), Some(LogIndex(89)));
        assert_eq!(store.purge_target(at(1, 99), 1_000_000, 10), Some(LogIndex(88)));
        assert_eq!(store.purge_target(at(1, 99), 0, 1000), Some(LogIndex(99)));
        assert_eq!(store.purge_target(at(1, 5), 1_000_000, 1000), None);
        store.submit(LogOp::Purge(at(1, 89)), |_| {});
        assert_eq!(store.purge_target(at(1, 99), 1000, 1000), None);
    }

    #[tokio::test]
    async fn reads_for_an_append_are_bounded_but_never_empty() {
        let (mut store, _writer) = open();
        append(&store, 1, 0..3, APPEND_BYTES);
        append(&store, 1, 3..20, 10);
        assert_eq!(store.limited_get_log_entries(0, 20).await.unwrap().len(), 1);
        assert_eq!(store.limited_get_log_entries(3, 20).await.unwrap().len(), 17);
        assert_eq!(store.try_get_log_entries(1..=4).await.unwrap().len(), 4);
    }
}
