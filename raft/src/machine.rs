//! A [`Machine`] as the raft library wants it.
//!
//! - Entries are applied in batches, under a gate that a checkpoint also takes: the machine's view is taken between two
//!   batches, after everything in the log up to there is durable.
//! - What the library calls "building a snapshot" is [`Machine::persist`]; the snapshot that a follower needs is taken from
//!   the live state, when it is needed.
//! - A machine that fails, or panics, stops its own group: the first reason is kept and shown, later calls are refused.
//! - A machine that can not apply one entry halts its group: see [`crate::halt`].

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::{FutureExt, Stream, TryStreamExt};
use marchland_types::{GroupId, LogIndex, Position, point};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking::Shared;
use tokio::sync::{Mutex, watch};

use crate::api::{Applied, BoxFuture, Entry, Halt, Machine, MachineFault, Payload, Snapshot, SnapshotBody};
use crate::halt::{Halts, Way};
use crate::log_store::LogStore;
use crate::record;
use crate::types::{Answer, LogId, RaftEntry, RaftSnapshot, SnapshotMeta, StoredMembership, TypeConfig, log_id, position};

/// Entries that a machine is given at once.
const APPLY_ENTRIES: usize = 256;
/// Bytes of commands after which a batch is given to the machine.
const APPLY_BYTES: usize = 4 * 1024 * 1024;

/// A value behind a lock that is never held across an await.
mod parking {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    #[derive(Debug, Default)]
    pub(super) struct Shared<T>(Mutex<T>);

    impl<T> Shared<T> {
        pub(super) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// What the adapter, the handle and the scheduler of one group share.
pub(crate) struct MachineState {
    pub(crate) group: GroupId,
    machine: Arc<dyn Machine>,
    store: LogStore,
    halts: Arc<Halts>,
    /// Held while entries are applied, and while a view is taken.
    gate: Mutex<()>,
    /// Held while the durable state is replaced, by a checkpoint or an installed snapshot.
    persisting: Mutex<()>,
    applied: Shared<(Option<LogId>, StoredMembership)>,
    durable: Shared<Applied>,
    /// Bytes of commands applied since the last checkpoint.
    unpersisted: AtomicU64,
    running: AtomicBool,
    fault: watch::Sender<Option<String>>,
}

impl MachineState {
    pub(crate) fn new(
        group: GroupId,
        machine: Arc<dyn Machine>,
        restored: Applied,
        store: &LogStore,
    ) -> Result<Self, record::BadRecord> {
        let membership = record::to_membership(&restored.membership)?;
        Ok(Self {
            group,
            machine,
            store: store.clone(),
            halts: store.halts(),
            gate: Mutex::new(()),
            persisting: Mutex::new(()),
            applied: Shared::new((restored.position.map(log_id), membership)),
            durable: Shared::new(restored),
            unpersisted: AtomicU64::new(0),
            running: AtomicBool::new(false),
            fault: watch::Sender::new(None),
        })
    }

    /// From here on, snapshots are of the live state.
    pub(crate) fn start(&self) {
        self.running.store(true, Ordering::Release);
    }

    pub(crate) fn machine(&self) -> &Arc<dyn Machine> {
        &self.machine
    }

    pub(crate) fn fault_now(&self) -> Option<String> {
        self.fault.borrow().clone()
    }

    pub(crate) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    pub(crate) fn halts(&self) -> &Halts {
        &self.halts
    }

    pub(crate) fn durable(&self) -> Option<Position> {
        self.durable.lock().position
    }

    pub(crate) fn applied(&self) -> Option<Position> {
        self.applied.lock().0.as_ref().map(position)
    }

    pub(crate) fn unpersisted_bytes(&self) -> u64 {
        self.unpersisted.load(Ordering::Relaxed)
    }

    /// Records the reason; the first one stays.
    pub(crate) fn fail(&self, reason: String) -> io::Error {
        let mut first = false;
        self.fault.send_if_modified(|cell| {
            first = cell.is_none();
            cell.get_or_insert_with(|| reason.clone());
            first
        });
        if first {
            tracing::error!(group = %self.group, %reason, "group stops: its state machine failed");
        }
        io::Error::other(reason)
    }

    /// Runs a call of the machine; an error or panic stops the group.
    async fn guarded<T>(&self, call: BoxFuture<'_, Result<T, MachineFault>>) -> io::Result<T> {
        if let Some(reason) = self.fault.borrow().clone() {
            return Err(io::Error::other(reason));
        }
        match AssertUnwindSafe(call).catch_unwind().await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(fault)) => Err(self.fail(fault.reason)),
            Err(panic) => Err(self.fail(format!("panicked: {}", panic_text(&*panic)))),
        }
    }

    /// Applies entries, or waits until that is possible. `None`: they are passed over, for a peer's state is about to replace this one.
    async fn apply(&self, entries: Vec<Entry>) -> io::Result<Option<Vec<Bytes>>> {
        if self.halts.is_superseded() {
            return Ok(None);
        }
        let Some(first) = entries.first().map(|entry| entry.position.index) else { return Ok(Some(Vec::new())) };
        let mut outcome = self.apply_or_skip(&entries).await;
        loop {
            let halt = match outcome {
                Ok(answers) => {
                    self.halts.resumed();
                    return Ok(Some(answers));
                }
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Halted(halt)) => halt,
            };
            match self.halts.park(&halt, self.machine.recovered()).await {
                Way::Again => {}
                Way::Superseded => return Ok(None),
                Way::Closing => return Err(io::Error::other(format!("halted at entry {}", halt.index))),
            }
            outcome = match self.restore(first).await {
                Ok(()) => self.apply_or_skip(&entries).await,
                Err(stop) => Err(stop),
            };
        }
    }

    /// Applies entries, standing in for those that are to be skipped.
    async fn apply_or_skip(&self, entries: &[Entry]) -> Result<Vec<Bytes>, Stop> {
        let mut answers = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while let Some(next) = rest.first() {
            if self.halts.is_skipped(next.position.index) {
                tracing::warn!(group = %self.group, entry = %next.position, "entry is skipped, as was ordered");
                answers.push(self.guarded(self.machine.skip(self.group, next.clone())).await?);
                rest = &rest[1..];
                continue;
            }
            let run = rest.iter().take_while(|entry| !self.halts.is_skipped(entry.position.index)).count();
            answers.append(&mut self.apply_run(rest[..run].to_vec()).await?);
            rest = &rest[run..];
        }
        Ok(answers)
    }

    async fn apply_run(&self, entries: Vec<Entry>) -> Result<Vec<Bytes>, Stop> {
        let count = entries.len();
        if let Some(reason) = self.fault.borrow().clone() {
            return Err(io::Error::other(reason).into());
        }
        let reason = match AssertUnwindSafe(self.machine.apply(entries)).catch_unwind().await {
            Ok(Ok(answers)) if answers.len() == count => return Ok(answers),
            Ok(Ok(answers)) => format!("{count} entries applied, {} answers returned", answers.len()),
            Ok(Err(fault)) => fault.reason,
            Err(panic) => format!("panicked: {}", panic_text(&*panic)),
        };
        Err(match self.machine.halted() {
            Some(halt) => Stop::Halted(halt),
            None => Stop::Failed(self.fail(reason)),
        })
    }

    /// Takes the state back to what is durable, and from there to just before `first`.
    async fn restore(&self, first: LogIndex) -> Result<(), Stop> {
        let restored = self.guarded(self.machine.restored()).await?.position;
        let mut next = restored.map_or(LogIndex(0), |position| position.index.next());
        while next < first {
            let end = LogIndex(next.0.saturating_add(APPLY_ENTRIES as u64).min(first.0));
            let entries = self.store.read(next..end)?;
            let (Some(begin), Some(last)) = (entries.first(), entries.last()) else {
                return Err(self
                    .fail(format!("restored up to {restored:?}, but entry {next} is not in the log any more"))
                    .into());
            };
            if begin.log_id.index != next.0 {
                return Err(self.fail(format!("restored up to {restored:?}, but the log begins at {}", begin.log_id)).into());
            }
            next = LogIndex(last.log_id.index + 1);
            self.apply_or_skip(&entries.iter().map(to_machine).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Makes the machine's state durable, after the log up to it. Entries are applied meanwhile.
    async fn persist(&self) -> io::Result<Applied> {
        let _exclusive = self.persisting.lock().await;
        let gate = self.gate.lock().await;
        if self.halts.is_superseded() {
            // The state is none; what is durable stays so.
            return Ok(self.durable.lock().clone());
        }
        self.store.progress().synced().await.map_err(io::Error::other)?;
        let bytes = self.unpersisted.load(Ordering::Relaxed);
        point!("raft.persist");
        let mut persist = std::pin::pin!(self.guarded(self.machine.persist()));
        // The view is taken before the call first waits; from there on, entries may be applied.
        let early = futures::poll!(persist.as_mut());
        drop(gate);
        let durable = match early {
            Poll::Ready(done) => done?,
            Poll::Pending => persist.await?,
        };
        point!("raft.persisted");
        let before = std::mem::replace(&mut *self.durable.lock(), durable.clone()).position;
        if durable.position < before {
            return Err(self.fail(format!("checkpoint went back from {before:?} to {:?}", durable.position)));
        }
        let less = |now: u64| Some(now.saturating_sub(bytes));
        // Never fails: the closure always has a value.
        let _ = self.unpersisted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Ok(durable)
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

pub(crate) fn meta_of(applied: &Applied) -> io::Result<SnapshotMeta> {
    let last_membership =
        record::to_membership(&applied.membership).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(SnapshotMeta { last_log_id: applied.position.map(log_id), last_membership })
}

/// A snapshot of nothing: the library wants one where only its description matters.
struct Described;

impl SnapshotBody for Described {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, MachineFault>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

fn described(applied: Applied) -> io::Result<RaftSnapshot> {
    let meta = meta_of(&applied)?;
    Ok(RaftSnapshot { meta, snapshot: Snapshot { applied, body: Box::new(Described) } })
}

/// The state machine that the library drives.
#[derive(Clone)]
pub(crate) struct MachineAdapter(pub(crate) Arc<MachineState>);

impl RaftSnapshotBuilder<TypeConfig> for MachineAdapter {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        described(self.0.persist().await?)
    }
}

/// Why entries were not applied.
enum Stop {
    /// For good, on this node.
    Failed(io::Error),
    /// One of them can not be.
    Halted(Halt),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// An entry as machines see it.
fn to_machine(entry: &RaftEntry) -> Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(command) => Payload::Command(record::command_body(command)),
        EntryPayload::Membership(members) => {
            Payload::Membership(record::of_membership(&StoredMembership::new(Some(entry.log_id), members.clone())))
        }
    };
    Entry { position: position(&entry.log_id), payload }
}

/// An entry of a log, as machines see it when it is applied: for whoever replays a log without a group.
///
/// # Errors
/// The record is none of a format that this build knows.
pub fn logged_entry(entry: &marchland_storage::raft_log::LogEntry) -> Result<Entry, record::BadRecord> {
    record::to_entry(entry.position, entry.payload.clone()).map(|entry| to_machine(&entry))
}

struct Batch {
    entries: Vec<Entry>,
    responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    bytes: usize,
    last: Option<LogId>,
    membership: Option<StoredMembership>,
}

impl Batch {
    fn new() -> Self {
        Self { entries: Vec::new(), responders: Vec::new(), bytes: 0, last: None, membership: None }
    }

    fn push(&mut self, (entry, responder): EntryResponder<TypeConfig>) {
        let ours = to_machine(&entry);
        if let Payload::Command(bytes) = &ours.payload {
            self.bytes += bytes.len();
        }
        if let EntryPayload::Membership(members) = entry.payload {
            self.membership = Some(StoredMembership::new(Some(entry.log_id), members));
        }
        self.last = Some(entry.log_id);
        self.entries.push(ours);
        self.responders.push(responder);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= APPLY_ENTRIES || self.bytes >= APPLY_BYTES
    }
}

impl MachineAdapter {
    async fn apply_batch(&self, batch: Batch) -> io::Result<()> {
        let state = &self.0;
        if batch.entries.is_empty() {
            return Ok(());
        }
        let gate = state.gate.lock().await;
        let Some(answers) = state.apply(batch.entries).await? else { return Ok(()) };
        {
            let mut applied = state.applied.lock();
            applied.0 = batch.last;
            if let Some(membership) = batch.membership {
                applied.1 = membership;
            }
        }
        // Every entry weighs something, so that a group with empty commands is persisted, too.
        state.unpersisted.fetch_add((batch.bytes + answers.len()) as u64, Ordering::Relaxed);
        drop(gate);
        point!("raft.applied");
        for (responder, answer) in batch.responders.into_iter().zip(answers) {
            if let Some(responder) = responder {
                responder.send(Answer(answer));
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for MachineAdapter {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.0.applied.lock();
        Ok((applied.0, applied.1.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::new();
        while let Some(entry) = entries.try_next().await? {
            batch.push(entry);
            if batch.is_full() {
                self.apply_batch(std::mem::replace(&mut batch, Batch::new())).await?;
            }
        }
        self.apply_batch(batch).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Snapshot) -> io::Result<()> {
        let state = &self.0;
        let _exclusive = state.persisting.lock().await;
        let _gate = state.gate.lock().await;
        let applied = snapshot.applied.clone();
        point!("raft.install");
        state.guarded(state.machine.install(snapshot)).await?;
        point!("raft.installed");
        state.halts.installed();
        *state.applied.lock() = (meta.last_log_id, meta.last_membership.clone());
        *state.durable.lock() = applied;
        state.unpersisted.store(0, Ordering::Relaxed);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let state = &self.0;
        if !state.running.load(Ordering::Acquire) {
            // At start the library compares this with what is applied, and never reads it.
            let durable = state.durable.lock().clone();
            return if durable.position.is_some() { described(durable).map(Some) } else { Ok(None) };
        }
        if state.halts.is_superseded() {
            return Ok(None);
        }
        let snapshot = state.guarded(state.machine.snapshot()).await?;
        if snapshot.applied.position.is_none() {
            return Ok(None);
        }
        Ok(Some(RaftSnapshot { meta: meta_of(&snapshot.applied)?, snapshot }))
    }
}
