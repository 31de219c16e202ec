//! The handle of one group on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use marchland_storage::raft_log::LogError;
use marchland_types::limits::LOG_ENTRY_MAX_BYTES;
use marchland_types::{GroupId, LogIndex, Position, ReplicaId, Term, planted};
use openraft::async_runtime::WatchReceiver;
use openraft::error::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
};
use openraft::{ChangeMembers, Instant as _, RaftMetrics, ReadPolicy, ServerState};
use tokio::sync::{Semaphore, watch};

use crate::api::{Committed, GroupStatus, ProposeError, Role, Snapshot};
use crate::log_store::LogStore;
use crate::machine::MachineState;
use crate::node::NodeInner;
use crate::probe::Probe;
use crate::record;
use crate::rest::Rest;
use crate::standby::{Standby, Word};
use crate::types::{self, Raft, TypeConfig, position};

/// Room in an entry for what raft adds to a command.
const RECORD_BYTES: usize = 64;
/// Unacknowledged entries with which a replica still counts as caught up: what is in flight at any moment.
pub(crate) const CAUGHT_UP: u64 = 64;

/// What the node knows of an open group.
pub(crate) struct GroupInner {
    pub(crate) state: Arc<MachineState>,
    pub(crate) store: LogStore,
    raft: Raft,
    standby: Arc<Standby>,
    pub(crate) probe: Arc<Probe>,
    pub(crate) rest: Mutex<Rest>,
    pub(crate) node: std::sync::Weak<NodeInner>,
    pub(crate) proposals: Semaphore,
    propose: Duration,
    pub(crate) limits: crate::options::Limits,
    pub(crate) timings: crate::options::Timings,
    status: watch::Sender<GroupStatus>,
    /// What the machine was told last. Nothing follows [`Role::Stopped`].
    told: Mutex<Option<Role>>,
}

impl GroupInner {
    pub(crate) fn new(
        node: &Arc<NodeInner>,
        state: Arc<MachineState>,
        store: LogStore,
        raft: Raft,
        (standby, probe): (Arc<Standby>, Arc<Probe>),
    ) -> Arc<Self> {
        let limits = node.limits().clone();
        let timings = node.timings().clone();
        let first = status_of(&state, &raft.metrics().borrow_watched());
        let inner = Arc::new(Self {
            state,
            store,
            raft,
            standby,
            probe,
            rest: Mutex::default(),
            node: Arc::downgrade(node),
            proposals: Semaphore::new(limits.proposals_in_flight),
            propose: Duration::from_millis(timings.propose_ms),
            limits,
            timings,
            status: watch::Sender::new(first),
            told: Mutex::new(None),
        });
        tokio::spawn(watch_role(inner.clone()));
        inner
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) fn id(&self) -> GroupId {
        self.state.group
    }

    pub(crate) fn fault(&self) -> Option<String> {
        self.state.fault_now()
    }

    pub(crate) async fn snapshot(&self) -> Result<Option<Snapshot>, String> {
        match self.raft.get_snapshot().await {
            Ok(snapshot) => Ok(snapshot.map(|s| s.snapshot)),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn status(&self) -> GroupStatus {
        status_of(&self.state, &self.raft.metrics().borrow_watched())
    }

    /// What this replica says of itself to whoever leads.
    pub(crate) fn word(&self) -> Word {
        let applied = self.state.applied().unwrap_or_default().index;
        Word { applied, short_of_room: self.is_short_of_room() }
    }

    fn is_short_of_room(&self) -> bool {
        matches!(self.store.room(), Err(LogError::Full { .. }))
    }

    /// Makes the state durable and purges the log below it, but for what lagging followers may need.
    pub(crate) async fn persist(&self) -> Result<Option<Position>, String> {
        let Some(applied) = self.state.applied() else { return Ok(None) };
        if let Some(halt) = self.state.halts().halted() {
            return Err(format!("halted at entry {}", halt.index));
        }
        let deadline = Duration::from_millis(self.timings.install_ms);
        if self.state.durable() < Some(applied) {
            self.raft.trigger().snapshot().await.map_err(|e| self.reason(&e))?;
            let reached = |m: &RaftMetrics<TypeConfig>| m.snapshot.as_ref().map(position) >= Some(applied);
            let mut halts = self.state.halts().watch();
            let waits = self.raft.wait(Some(deadline));
            tokio::select! {
                biased;
                made = waits.metrics(reached, "the checkpoint") => {
                    made.map_err(|e| self.fault().unwrap_or_else(|| e.to_string()))?;
                }
                // Nothing is made durable before the group goes on, which may take as long as it takes. Others must not wait for it.
                Ok(halt) = halts.wait_for(Option::is_some) => {
                    return Err(format!("halted at entry {}", halt.as_ref().map_or(LogIndex(0), |halt| halt.index)));
                }
            }
        }
        let Some(durable) = self.state.durable() else { return Ok(None) };
        if let Some(upto) = self.store.purge_target(durable, self.limits.kept_bytes, self.limits.kept_entries) {
            self.raft.trigger().purge_log(upto.0).await.map_err(|e| self.reason(&e))?;
        }
        Ok(Some(durable))
    }

    fn reason(&self, fatal: &Fatal<TypeConfig>) -> String {
        self.fault().unwrap_or_else(|| fatal.to_string())
    }

    /// Stops the replica: nothing is applied, answered or proposed from here on. Its log and state stay.
    pub(crate) async fn stop(self: &Arc<Self>) {
        self.tell_that_it_ended();
        self.state.halts().close();
        // The only error is a panic within the library, which its own task has reported.
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = %self.id(), %error, "group did not stop cleanly");
        }
        self.ended();
    }

    /// Publishes a status, and tells the machine its role if that changed.
    fn publish(&self, status: GroupStatus) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == Some(Role::Stopped) {
            return;
        }
        let (role, term) = (status.role, status.term);
        if told.is_none() || self.status.borrow().term != term {
            metrics::gauge!("marchland_group_term", "group" => self.id().to_string()).set(term.0 as f64);
        }
        self.status.send_if_modified(|now| {
            let changed = (now.role, now.term, now.leader, &now.voters, &now.learners, &now.fault)
                != (status.role, status.term, status.leader, &status.voters, &status.learners, &status.fault);
            *now = status;
            changed
        });
        if *told != Some(role) {
            *told = Some(role);
            tracing::info!(group = %self.id(), ?role, "role");
            if let Role::Leader(_) = role {
                self.ticks_again();
                metrics::counter!("marchland_leaderships_total", "group" => self.id().to_string()).increment(1);
            }
            self.state.machine().role(role);
        }
    }

    /// The replica stopped: of itself, for want of its machine or log, or as it was told to.
    fn ended(&self) {
        let mut status = self.status();
        let reason = match &self.raft.metrics().borrow_watched().running_state {
            Ok(()) | Err(Fatal::Stopped) => None,
            Err(fatal @ (Fatal::StorageError(_) | Fatal::Panicked)) => Some(fatal.to_string()),
        };
        status.role = Role::Stopped;
        status.fault = self.fault().or(reason);
        self.publish(status);
    }
}

fn role_of(metrics: &RaftMetrics<TypeConfig>) -> Role {
    let leader = metrics.current_leader.map(ReplicaId);
    let term = Term(metrics.current_term);
    match metrics.state {
        ServerState::Leader => Role::Leader(term),
        ServerState::Follower | ServerState::Candidate => Role::Follower { term, leader },
        ServerState::Learner => Role::Learner { leader },
        ServerState::Shutdown => Role::Stopped,
    }
}

fn status_of(state: &MachineState, metrics: &RaftMetrics<TypeConfig>) -> GroupStatus {
    let fault = state.fault_now();
    let stopped = fault.is_some() || metrics.running_state.is_err();
    let index = |id: &types::LogId| LogIndex(id.index);
    let matched = metrics.replication.as_ref().filter(|_| !stopped).map(|replication| {
        replication
            .iter()
            .map(|(id, matched)| {
                let own = *id == metrics.id;
                let matched = if own { metrics.last_log_index.map(LogIndex) } else { matched.as_ref().map(index) };
                (ReplicaId(*id), matched)
            })
            .collect()
    });
    GroupStatus {
        role: if stopped { Role::Stopped } else { role_of(metrics) },
        term: Term(metrics.current_term),
        leader: metrics.current_leader.map(ReplicaId),
        last: metrics.last_log_index.map(LogIndex),
        committed: metrics.cluster_committed.as_ref().or(metrics.local_committed.as_ref()).map(index),
        applied: state.applied().map(|p| p.index),
        durable: state.durable().map(|p| p.index),
        voters: types::voters(&metrics.membership_config),
        learners: types::learners(&metrics.membership_config),
        matched: matched.unwrap_or_default(),
        fault,
        halted: state.halts().halted(),
    }
}

/// Tells the machine its role, and whoever watches the status, whenever role, term, leader, members or fault change.
async fn watch_role(group: Arc<GroupInner>) {
    let mut server = group.raft.server_metrics();
    let mut fault = group.state.fault();
    loop {
        // A fault is seen before the library has stopped; the library may also have stopped of itself, for want of its log.
        let failed = fault.borrow_and_update().is_some();
        if failed || group.raft.metrics().borrow_watched().running_state.is_err() {
            return group.ended();
        }
        group.publish(group.status());
        tokio::select! {
            biased;
            _ = fault.changed() => {}
            changed = server.changed() => if changed.is_err() {
                return group.ended();
            },
        }
    }
}

/// A group on this node. Cheap to clone.
#[derive(Clone)]
pub struct Group(pub(crate) Arc<GroupInner>);

impl Group {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.0.id()
    }

    /// Lets the group rest, which this replica leads, if nothing is under way and the other voters agree. Returns whether it rests. Whatever
    /// is wanted of it wakes it; until then it costs nothing.
    pub async fn rest(&self) -> bool {
        match self.0.node.upgrade() {
            Some(node) => self.0.try_rest(&node).await,
            None => false,
        }
    }

    /// Whether it is at rest here.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.0.rest(), Rest::Quiet(_))
    }

    /// Proposes a command and waits until it is committed and applied here.
    ///
    /// Proposals of one group enter the log in the order in which their futures are first polled. Dropping the future does
    /// not withdraw the proposal.
    pub async fn propose(&self, command: Bytes) -> Result<Committed, ProposeError> {
        let inner = &self.0;
        if command.len() > LOG_ENTRY_MAX_BYTES - RECORD_BYTES {
            return Err(self.refused(format!("command of {} bytes, at most {LOG_ENTRY_MAX_BYTES} fit", command.len())));
        }
        self.check_running()?;
        if let Some(halt) = inner.state.halts().halted() {
            return Err(self.refused(format!("halted at entry {}: {}", halt.index, halt.reason)));
        }
        let Ok(_permit) = inner.proposals.try_acquire() else {
            return Err(self.refused(format!("{} proposals are in flight", inner.limits.proposals_in_flight)));
        };
        if let Err(error) = inner.store.room() {
            return Err(self.refused(error.to_string()));
        }
        inner.wake_and_be_heard().await;
        let held = inner.store.memory_bytes();
        if held + command.len() as u64 > inner.limits.log_memory_bytes {
            return Err(self.refused(format!("{held} bytes of log wait for a checkpoint")));
        }
        let write = inner.raft.client_write(record::command(&command));
        drop(command);
        let outcome = match tokio::time::timeout(inner.propose, write).await {
            Ok(Ok(done)) => Ok(Committed { position: position(&done.log_id), answer: done.data.0 }),
            Ok(Err(error)) => Err(self.write_error(error)),
            Err(_) => Err(self.unknown(format!("not committed within {:?}", inner.propose))),
        };
        match outcome {
            // Planted: an unknown outcome is taken for success.
            Err(ProposeError::Unknown { .. }) if planted!("unknown-taken-for-done") => {
                Ok(Committed { position: self.applied().unwrap_or_default(), answer: Bytes::new() })
            }
            outcome => outcome,
        }
    }

    /// Proposes a command that orders an entry to be skipped, at which this replica halts and which it leads past; returns when the
    /// group went on here. Refused when this replica does not halt there: the outcome of an order for another entry would be that replicas
    /// differ.
    pub async fn skip(&self, index: LogIndex, order: Bytes) -> Result<Committed, ProposeError> {
        self.check_running()?;
        let status = self.status();
        if !matches!(status.role, Role::Leader(_)) {
            return Err(ProposeError::NotLeader { group: self.id(), leader: status.leader });
        }
        match status.halted {
            Some(halt) if halt.index == index => {}
            Some(halt) => return Err(self.refused(format!("entry {index} is not where it halts, which is entry {}", halt.index))),
            None => {
                return Err(self.refused(format!("it does not halt; entry {} is applied", status.applied.unwrap_or_default())));
            }
        }
        let deadline = Duration::from_millis(self.0.timings.chunk_ms);
        match tokio::time::timeout(deadline, self.0.raft.client_write(record::command(&order))).await {
            Ok(Ok(done)) => Ok(Committed { position: position(&done.log_id), answer: done.data.0 }),
            Ok(Err(error)) => Err(self.write_error(error)),
            Err(_) => Err(self.unknown(format!("it did not go on within {deadline:?}"))),
        }
    }

    /// The group as it stands.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let mut status = self.0.status();
        let watched = self.0.status.borrow();
        if watched.role == Role::Stopped {
            status.role = Role::Stopped;
            status.fault.clone_from(&watched.fault);
        }
        status
    }

    /// Changes whenever role, term, leader, members or fault do; the indices in it are those of that moment.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.0.status.subscribe()
    }

    /// The last entry that is applied here.
    #[must_use]
    pub fn applied(&self) -> Option<Position> {
        self.0.state.applied()
    }

    /// By how many entries the state of the majority is behind the state here, as far as they told this leader: they do with every append
    /// that they answer, heartbeats included.
    #[must_use]
    pub fn standby_lag(&self) -> u64 {
        let voters = types::voters(&self.0.raft.metrics().borrow_watched().membership_config);
        let me = self.0.node.upgrade().map_or(ReplicaId(0), |node| node.me());
        self.0.standby.lag(me, self.applied().unwrap_or_default().index, &voters)
    }

    /// Whether the disk here has no room for new work: what is proposed is refused until there is some.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.0.is_short_of_room()
    }

    /// Voters whom leadership could be handed to: not this one, and none whose disk has no room, as far as this leader was told.
    /// Whoever is furthest comes first.
    #[must_use]
    pub fn heirs(&self) -> Vec<ReplicaId> {
        let status = self.status();
        let furthest = |id: &ReplicaId| status.matched.iter().find(|(other, _)| other == id).and_then(|(_, matched)| *matched);
        let fit = |id: &ReplicaId| Some(*id) != status.leader && !self.0.standby.is_short_of_room(*id);
        let mut heirs: Vec<_> = status.voters.iter().copied().filter(fit).collect();
        heirs.sort_by_key(|id| std::cmp::Reverse(furthest(id)));
        heirs
    }

    /// Gives a new group its founding members, of which this replica is one. Does nothing when the group has any log or vote
    /// already, so every member may call it at every start, with the same members.
    pub async fn initialize(&self, voters: &BTreeSet<ReplicaId>) -> Result<(), ProposeError> {
        let members: BTreeMap<u64, openraft::EmptyNode> =
            voters.iter().map(|id| (id.0, openraft::EmptyNode::default())).collect();
        self.check_running()?;
        match self.0.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error @ InitializeError::NotInMembers(_))) => Err(self.refused(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(self.stopped(self.0.reason(&fatal))),
        }
    }

    /// Returns when the state here holds everything that was acknowledged anywhere before the call (ReadIndex: the leader
    /// asks a majority whether it still leads). Leaders only.
    pub async fn read_barrier(&self) -> Result<LogIndex, ProposeError> {
        self.check_running()?;
        // Planted: whoever thinks that it leads reads what it has.
        if planted!("stale-read") {
            return Ok(self.applied().unwrap_or_default().index);
        }
        self.0.wake_and_be_heard().await;
        let read = self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(self.0.propose, read).await {
            Ok(Ok(read)) => Ok(LogIndex(read.index())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => Err(self.forward(&forward)),
            Ok(Err(RaftError::APIError(error @ LinearizableReadError::QuorumNotEnough(_)))) => {
                Err(self.refused(error.to_string()))
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.stopped(self.0.reason(&fatal))),
            Err(_) => Err(self.refused(format!("no majority answered within {:?}", self.0.propose))),
        }
    }

    /// Hands leadership to another voter, if that one answers heartbeats and has caught up; returns when it leads. A
    /// transfer to any other would leave the group without a leader for an election, and is refused.
    pub async fn transfer_leadership(&self, to: ReplicaId) -> Result<(), ProposeError> {
        self.check_running()?;
        self.0.wake_and_be_heard().await;
        let status = self.status();
        if !matches!(status.role, Role::Leader(_)) {
            return Err(ProposeError::NotLeader { group: self.id(), leader: status.leader });
        }
        if !status.voters.contains(&to) {
            return Err(self.refused(format!("replica {to} is no voter")));
        }
        if status.leader == Some(to) {
            return Ok(());
        }
        let matched = status.matched.iter().find(|(id, _)| *id == to).and_then(|(_, matched)| *matched);
        let last = status.last.map_or(0, |last| last.0);
        if matched.is_none_or(|matched| matched.0 + CAUGHT_UP < last) {
            return Err(self.refused(format!("replica {to} is at {matched:?} of {last}")));
        }
        let quiet = Duration::from_millis(self.0.timings.heartbeat_ms * 3);
        let metrics = self.0.raft.metrics();
        let heard = metrics.borrow_watched().heartbeat.as_ref().and_then(|h| h.get(&to.0).copied().flatten());
        if heard.is_none_or(|at| at.into_inner().elapsed() > quiet) {
            return Err(self.refused(format!("replica {to} was not heard for {quiet:?}")));
        }
        self.0.raft.trigger().transfer_leader(to.0).await.map_err(|e| self.stopped(self.0.reason(&e)))?;
        let arrived = |m: &RaftMetrics<TypeConfig>| m.current_leader == Some(to.0);
        match self.0.raft.wait(Some(self.0.propose)).metrics(arrived, "the new leader").await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.unknown(error.to_string())),
        }
    }

    /// Adds a replica that receives entries and does not vote. Returns when that is committed, not when it caught up.
    pub async fn add_learner(&self, replica: ReplicaId) -> Result<(), ProposeError> {
        self.check_running()?;
        let add = self.0.raft.add_learner(replica.0, openraft::EmptyNode::default(), false);
        self.changed(add.map(|result| result.map(drop))).await
    }

    /// Replaces the voters. New ones must be learners that caught up; voters that are left out leave the group.
    pub async fn change_voters(&self, voters: &BTreeSet<ReplicaId>) -> Result<(), ProposeError> {
        self.check_running()?;
        let status = self.status();
        let last = status.last.map_or(0, |last| last.0);
        if matches!(status.role, Role::Leader(_)) {
            for new in voters.iter().filter(|id| !status.voters.contains(id)) {
                let matched = status.matched.iter().find(|(id, _)| id == new).and_then(|(_, matched)| *matched);
                if matched.is_none_or(|matched| matched.0 + CAUGHT_UP < last) {
                    return Err(self.refused(format!("replica {new} is at {matched:?} of {last}")));
                }
            }
        }
        let ids: BTreeSet<u64> = voters.iter().map(|id| id.0).collect();
        let change = self.0.raft.change_membership(ChangeMembers::ReplaceAllVoters(ids), false);
        self.changed(change.map(|result| result.map(drop))).await
    }

    /// Takes a replica out of the group, voter or learner.
    pub async fn remove(&self, replica: ReplicaId) -> Result<(), ProposeError> {
        self.check_running()?;
        let ids = BTreeSet::from([replica.0]);
        let change = if self.status().voters.contains(&replica) {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        };
        let change = self.0.raft.change_membership(change, false);
        self.changed(change.map(|result| result.map(drop))).await
    }

    /// Makes the applied state durable now and purges the log below. Returns what is durable.
    pub async fn persist_now(&self) -> Result<Option<Position>, ProposeError> {
        self.check_running()?;
        self.0.persist().await.map_err(|reason| self.stopped(reason))
    }

    /// Asks for an election, after a pre-vote: it disturbs no leader that a majority follows. For tests.
    pub async fn trigger_election(&self) -> Result<(), ProposeError> {
        self.0.raft.trigger().elect(true).await.map_err(|e| self.stopped(self.0.reason(&e)))
    }

    /// Stops this replica and closes the group on this node. Log and state stay as they are.
    pub async fn shutdown(&self) {
        if let Some(node) = self.0.node.upgrade() {
            node.forget(self.id());
        }
        self.0.stop().await;
    }

    async fn changed(
        &self,
        change: impl Future<Output = Result<(), RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
    ) -> Result<(), ProposeError> {
        self.0.wake_and_be_heard().await;
        let deadline = Duration::from_millis(self.0.timings.install_ms);
        match tokio::time::timeout(deadline, change).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.write_error(error)),
            Err(_) => Err(self.unknown(format!("not committed within {deadline:?}"))),
        }
    }

    fn check_running(&self) -> Result<(), ProposeError> {
        if let Some(reason) = self.0.fault() {
            return Err(self.stopped(reason));
        }
        let watched = self.0.status.borrow();
        if watched.role == Role::Stopped {
            let reason = watched.fault.clone().unwrap_or_else(|| "closed on this node".into());
            return Err(self.stopped(reason));
        }
        Ok(())
    }

    fn write_error(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ProposeError {
        match error {
            // Refused before anything was appended.
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => self.forward(&forward),
            // Appended here, then given up for another leader's log; may live on elsewhere.
            RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => self.unknown(error.to_string()),
            RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_))
            | RaftError::APIError(error @ ClientWriteError::PreconditionFailed(_)) => self.refused(error.to_string()),
            // Stopped while it was on its way.
            RaftError::Fatal(fatal) => self.unknown(self.0.reason(&fatal)),
        }
    }

    fn forward(&self, forward: &ForwardToLeader<TypeConfig>) -> ProposeError {
        match forward.reason {
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                ProposeError::NotLeader { group: self.id(), leader: forward.leader_id.map(ReplicaId) }
            }
            ForwardReason::LeaseExpired => self.refused("no majority was heard of late; try again".into()),
        }
    }

    fn refused(&self, reason: String) -> ProposeError {
        ProposeError::Refused { group: self.id(), reason }
    }

    fn unknown(&self, reason: String) -> ProposeError {
        ProposeError::Unknown { group: self.id(), reason }
    }

    fn stopped(&self, reason: String) -> ProposeError {
        ProposeError::Fault { group: self.id(), reason }
    }
}
