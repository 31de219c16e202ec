//! All groups of one node: opening and recovering them, their connections, and the order in which they are persisted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use marchland_proto::net::{ClusterSecurity, Transport};
use marchland_storage::raft_log::{LogOp, RaftLog};
use marchland_types::{GroupId, LogIndex, NodeId, ReplicaId, planted};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::api::{Machine, MachineFault, Snapshot};
use crate::group::{Group, GroupInner};
use crate::link::{LinkError, connector};
use crate::log_store::{AnyLog, FatalCell, LogStore, reconcile};
use crate::machine::{MachineAdapter, MachineState};
use crate::network::{Factory, Links};
use crate::options::{BadOptions, Limits, NodeOptions, Standing, Timings};
use crate::rest::{self, Pulses};
use crate::scheduler;
use crate::service::RaftService;
use crate::snapshots;
use crate::standby::Standby;
use crate::types::Raft;

/// Why a group could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is open already.
    #[error("{0} is open already")]
    AlreadyOpen(GroupId),
    /// The node is stopping.
    #[error("{0} can not be opened: node is stopping")]
    Stopping(GroupId),
    /// The state machine's store is older than what is left in the log. See [`RaftNode::rebuild_group`].
    #[error("{group} was restored to {restored:?}, but its log begins after {purged}: its state must come from a peer")]
    StateLost {
        /// The group.
        group: GroupId,
        /// What the state machine holds.
        restored: Option<LogIndex>,
        /// The last entry that is gone from the log.
        purged: LogIndex,
    },
    /// No peer gave a snapshot.
    #[error("no peer has a snapshot of {group}: {reason}")]
    NoSnapshot {
        /// The group.
        group: GroupId,
        /// What the last peer said.
        reason: String,
    },
    /// The state machine failed.
    #[error(transparent)]
    Machine(#[from] MachineFault),
    /// The log failed, or holds something unreadable.
    #[error("{group} can not be recovered: {reason}")]
    Recovery {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
}

/// What the parts of a node share.
pub(crate) struct NodeInner {
    options: NodeOptions,
    log: Arc<dyn AnyLog>,
    links: Arc<Links>,
    slots: Mutex<Slots>,
    fatal: Arc<FatalCell>,
    closing: watch::Sender<bool>,
    received: Arc<Semaphore>,
    fetched: Arc<Semaphore>,
    pulses: Arc<Pulses>,
    /// Until when other groups that were opened have their turn to elect.
    turns_until: Mutex<Option<Instant>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The groups of a node.
#[derive(Default)]
struct Slots {
    by_id: BTreeMap<GroupId, Slot>,
    /// Those that are open, as long as nothing has changed: there may be thousands, and many look at them several times a second.
    open: Option<Arc<[Group]>>,
}

enum Slot {
    Opening,
    Open(Arc<GroupInner>),
}

impl NodeInner {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<GroupInner>> {
        match self.slots().by_id.get(&id) {
            Some(Slot::Open(group)) => Some(group.clone()),
            Some(Slot::Opening) | None => None,
        }
    }

    /// Whether a replica is a member of a group, as far as this node's replica of it knows.
    pub(crate) fn has_member(&self, id: GroupId, replica: ReplicaId) -> bool {
        self.group(id).is_some_and(|group| {
            let status = group.status();
            status.voters.contains(&replica) || status.learners.contains(&replica)
        })
    }

    pub(crate) fn groups(&self) -> Arc<[Group]> {
        let Slots { by_id, open } = &mut *self.slots();
        let is_open = |slot: &Slot| if let Slot::Open(group) = slot { Some(Group(group.clone())) } else { None };
        open.get_or_insert_with(|| by_id.values().filter_map(is_open).collect()).clone()
    }

    pub(crate) fn forget(&self, id: GroupId) {
        let mut slots = self.slots();
        slots.by_id.remove(&id);
        slots.open = None;
    }

    pub(crate) fn me(&self) -> ReplicaId {
        self.options.replica()
    }

    pub(crate) fn standing(&self, replica: ReplicaId) -> Standing {
        self.options.addresses.standing(replica)
    }

    pub(crate) fn hosts_realm(&self, node: NodeId) -> bool {
        self.options.addresses.hosts_realm(node)
    }

    pub(crate) fn timings(&self) -> &Timings {
        &self.options.timings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) fn pulses(&self) -> &Pulses {
        &self.pulses
    }

    /// When a group that was opened just now begins to elect: those of many groups do not all at once.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        let mut until = self.turns_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let turn = until.map_or(now, |until| until.max(now));
        *until = Some(turn + rest::TURN);
        (turn > now + rest::AT_ONCE).then_some(turn)
    }

    pub(crate) fn patience(&self, group: GroupId) -> Duration {
        self.options.patience(group)
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(crate) fn received(&self) -> Arc<Semaphore> {
        self.received.clone()
    }

    pub(crate) fn fetched(&self) -> Arc<Semaphore> {
        self.fetched.clone()
    }

    async fn open(self: &Arc<Self>, id: GroupId, machine: Arc<dyn Machine>) -> Result<Arc<GroupInner>, OpenError> {
        let recovery = |reason: String| OpenError::Recovery { group: id, reason };
        let store = LogStore::new(id, self.log.clone(), self.fatal.clone());
        let restored = machine.restored().await?;
        let purged = store.state().purged;
        if let Some(purged) = purged
            && restored.position.is_none_or(|p| p.index < purged.index)
        {
            let restored = restored.position.map(|p| p.index);
            return Err(OpenError::StateLost { group: id, restored, purged: purged.index });
        }
        if let Some(applied) = restored.position {
            reconcile(&store, applied).await.map_err(|e| recovery(e.to_string()))?;
        }
        store.follow(machine.clone()).map_err(|e| recovery(e.to_string()))?;
        let state = MachineState::new(id, machine, restored, &store).map_err(|e| recovery(e.to_string()))?;
        let state = Arc::new(state);
        let config = self.options.config(id).map_err(|e| recovery(e.to_string()))?;
        let standby = Arc::new(Standby::default());
        let probe = Arc::new(self.options.probe());
        let factory = Factory { group: id, links: self.links.clone(), standby: standby.clone(), probe: probe.clone() };
        let me = self.me().0;
        // What was committed above the restored state is applied once a leader says so.
        let raft = Raft::new(me, config, factory, store.clone(), MachineAdapter(state.clone())).await;
        let raft = raft.map_err(|e| recovery(state.fault().borrow().clone().unwrap_or_else(|| e.to_string())))?;
        state.start();
        let group = GroupInner::new(self, state, store, raft, (standby, probe));
        group.take_turn(self);
        Ok(group)
    }
}

/// The raft of one node.
#[derive(Clone)]
pub struct RaftNode(Arc<NodeInner>);

impl RaftNode {
    /// Starts without any group open. Must be called within a tokio runtime.
    pub fn start<T: Transport, L: RaftLog>(
        options: NodeOptions,
        transport: &T,
        security: &ClusterSecurity,
        log: L,
    ) -> Result<Self, BadOptions> {
        options.validate()?;
        let me = options.replica();
        let connector = connector(transport, security);
        let links = Links::new(me, options.timings.clone(), options.limits.clone(), options.addresses.clone(), connector);
        let at_once = options.limits.snapshots_at_once;
        let pulses = Arc::new(Pulses::new(Duration::from_millis(options.timings.heartbeat_ms)));
        let inner = Arc::new(NodeInner {
            options,
            log: Arc::new(log),
            links: Arc::new(links),
            slots: Mutex::default(),
            fatal: Arc::new(FatalCell::new(None)),
            closing: watch::Sender::new(false),
            received: Arc::new(Semaphore::new(at_once)),
            fetched: Arc::new(Semaphore::new(at_once)),
            pulses: pulses.clone(),
            turns_until: Mutex::default(),
            tasks: Mutex::default(),
        });
        let persists = tokio::spawn(scheduler::run(Arc::downgrade(&inner))).abort_handle();
        let rests = tokio::spawn(rest::run(Arc::downgrade(&inner), pulses)).abort_handle();
        *inner.tasks.lock().unwrap_or_else(PoisonError::into_inner) = vec![persists, rests];
        Ok(Self(inner))
    }

    /// This node's replica id.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.0.me()
    }

    /// Every group that the log knows, open or not, sorted: a node opens all of them at its start.
    #[must_use]
    pub fn known_groups(&self) -> Vec<GroupId> {
        self.0.log.groups()
    }

    /// Opens a group: restores it, and takes part from then on. What was committed above the restored state is applied as soon as
    /// there is a leader.
    ///
    /// A group whose log is empty waits to be initialised, or to be added as a learner.
    pub async fn open_group(&self, id: GroupId, machine: Arc<dyn Machine>) -> Result<Group, OpenError> {
        self.enter(id)?;
        self.finish(id, self.0.open(id, machine).await).await
    }

    /// Opens a group whose state machine lost its store while log and vote are whole: the first of `peers` that gives a
    /// snapshot not older than the log restores it. Nothing is fetched when nothing is missing. A peer with incarnation 0
    /// is whichever replica its node has now.
    pub async fn rebuild_group(&self, id: GroupId, machine: Arc<dyn Machine>, peers: &[ReplicaId]) -> Result<Group, OpenError> {
        self.enter(id)?;
        let opened = match self.0.open(id, machine.clone()).await {
            // Planted: the log is cleared like the store, and the replica goes on under its id.
            Err(OpenError::StateLost { .. }) if planted!("log-cleared-id-kept") => {
                let store = LogStore::new(id, self.0.log.clone(), self.0.fatal.clone());
                drop(store.perform(LogOp::Forget).await);
                self.0.open(id, machine).await
            }
            Err(OpenError::StateLost { purged, .. }) => match self.refill(id, &machine, peers, purged).await {
                Ok(()) => self.0.open(id, machine).await,
                Err(error) => Err(error),
            },
            opened => opened,
        };
        self.finish(id, opened).await
    }

    /// Opens a group that is closed here with a peer's state instead of its own, while log and vote stay: for a replica whose state is
    /// not the majority's. `discard` puts the old state aside; it is called when the new one has arrived.
    pub async fn replace_state(
        &self,
        id: GroupId,
        machine: Arc<dyn Machine>,
        peers: &[ReplicaId],
        discard: impl FnOnce() -> Result<(), MachineFault>,
    ) -> Result<Group, OpenError> {
        self.enter(id)?;
        let purged = self.0.log.state(id).purged.map_or(LogIndex(0), |purged| purged.index);
        let opened = match self.fetch_any(id, peers, purged).await {
            Ok((peer, snapshot)) => {
                tracing::warn!(group = %id, %peer, at = ?snapshot.applied.position, "state replaced by a peer's");
                let installed = match discard() {
                    Ok(()) => machine.install(snapshot).await,
                    Err(fault) => Err(fault),
                };
                match installed {
                    Ok(()) => self.0.open(id, machine).await,
                    Err(fault) => Err(fault.into()),
                }
            }
            Err(error) => Err(error),
        };
        self.finish(id, opened).await
    }

    async fn refill(
        &self,
        id: GroupId,
        machine: &Arc<dyn Machine>,
        peers: &[ReplicaId],
        purged: LogIndex,
    ) -> Result<(), OpenError> {
        let (peer, snapshot) = self.fetch_any(id, peers, purged).await?;
        tracing::warn!(group = %id, %peer, at = ?snapshot.applied.position, "state rebuilt from a peer");
        Ok(machine.install(snapshot).await?)
    }

    /// The first snapshot that is not older than what is left of the log.
    async fn fetch_any(&self, id: GroupId, peers: &[ReplicaId], purged: LogIndex) -> Result<(ReplicaId, Snapshot), OpenError> {
        let mut reason = "there are no peers".to_owned();
        for peer in peers.iter().filter(|peer| peer.node() != self.0.me().node()) {
            match self.fetch(id, *peer).await {
                Ok(snapshot) if snapshot.applied.position.is_some_and(|p| p.index >= purged) => {
                    return Ok((*peer, snapshot));
                }
                Ok(snapshot) => {
                    reason = format!("replica {peer} is at {:?}, {purged} is needed", snapshot.applied.position);
                }
                Err(error) => reason = format!("replica {peer}: {error}"),
            }
        }
        Err(OpenError::NoSnapshot { group: id, reason })
    }

    async fn fetch(&self, id: GroupId, peer: ReplicaId) -> Result<Snapshot, LinkError> {
        let channel = self.0.links.snapshot_channel(peer)?;
        let limits = self.0.limits();
        snapshots::fetch(channel, id, self.0.me(), peer, self.0.timings(), limits.snapshot_bytes).await
    }

    fn enter(&self, id: GroupId) -> Result<(), OpenError> {
        if *self.0.closing.borrow() {
            return Err(OpenError::Stopping(id));
        }
        let mut slots = self.0.slots();
        if slots.by_id.contains_key(&id) {
            return Err(OpenError::AlreadyOpen(id));
        }
        slots.by_id.insert(id, Slot::Opening);
        Ok(())
    }

    async fn finish(&self, id: GroupId, opened: Result<Arc<GroupInner>, OpenError>) -> Result<Group, OpenError> {
        let group = match opened {
            Ok(group) => group,
            Err(error) => {
                self.0.forget(id);
                return Err(error);
            }
        };
        if *self.0.closing.borrow() {
            self.0.forget(id);
            group.stop().await;
            return Err(OpenError::Stopping(id));
        }
        let mut slots = self.0.slots();
        slots.by_id.insert(id, Slot::Open(group.clone()));
        slots.open = None;
        drop(slots);
        Ok(Group(group))
    }

    /// Forgets log and vote of a group whose replica left it for good. The group must be closed here.
    pub async fn forget_group(&self, id: GroupId) -> Result<(), OpenError> {
        self.enter(id)?;
        let store = LogStore::new(id, self.0.log.clone(), self.0.fatal.clone());
        let done = store.perform(LogOp::Forget).await;
        self.0.forget(id);
        done.map_err(|e| OpenError::Recovery { group: id, reason: e.to_string() })
    }

    /// An open group.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<Group> {
        self.0.group(id).map(Group)
    }

    /// Every open group, sorted by id. Costs next to nothing while none is opened or closed.
    #[must_use]
    pub fn groups(&self) -> Arc<[Group]> {
        self.0.groups()
    }

    /// What peers call.
    #[must_use]
    pub fn service(&self) -> RaftService {
        RaftService(self.0.clone())
    }

    /// Resolves, with the reason, when the log was poisoned: the node must stop, and recovers by a restart.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.0.fatal.subscribe();
        // Cloned at once, so that no lock is held while waiting and the future can be sent.
        let reason = fatal.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(reason) => reason.unwrap_or_default(),
            // The sender lives as long as this node.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops every group and connection. Log and state stay; nothing is persisted that is not durable already.
    pub async fn shutdown(&self) {
        self.0.closing.send_replace(true);
        for task in self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        let groups = self.0.groups();
        futures::future::join_all(groups.iter().map(|group| group.0.stop())).await;
        *self.0.slots() = Slots::default();
        self.0.links.close();
    }
}
