//! A region's replica behind raft's state machine interface.
//!
//! Every call becomes a job on the region's executor, so that the state is touched by one thread at a time and the
//! calling task never blocks on it. Checkpoints are encoded and written in the background, from a copy-on-write view.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::cluster::{EdgeToRegion, InspectReply, NodeToEdge};
use marchland_proto::storage::{AdminOrder, ChannelAck, ChannelMessage, CheckpointHeader, Genesis, GhostBatch};
use marchland_raft::{Applied, BoxFuture, Entry, Halt, Machine, MachineFault, Role, Snapshot, SnapshotBody};
use marchland_region_core::{Game, Region, RegionView, skipped_by};
use marchland_storage::checkpoint::{CheckpointHeader as StoredHeader, CheckpointInfo, Checkpoints};
use marchland_storage::disk::Disk;
use marchland_types::limits::SNAPSHOT_CHUNK_BYTES;
use marchland_types::seam::Clock;
use marchland_types::{CutNumber, GroupId, LogIndex, RegionId, ReplicaId, Tick, point};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};

use crate::arrivals::Arrival;
use crate::backlog::BacklogGauge;
use crate::doubt::Suspicion;
use crate::executor::Executor;
use crate::ghosts::GhostPosts;
use crate::outlets::{Outlets, Ownership};
use crate::pace::Next;
use crate::port::{Compared, DeliverOutcome, EdgeId, RegionFacts, RegionPort};
use crate::replica::{Replica, ReplicaOptions, Stop};
use crate::slot::Slot;
use crate::watchdog::{self, StepBudget};

/// Format of a region's checkpoint header.
const CHECKPOINT_FORMAT: u32 = 1;
/// How long a delivery waits for its commit before the sender is told to try again.
const DELIVER_WITHIN: Duration = Duration::from_secs(2);
/// Largest checkpoint that is taken from a peer: far above what a region can hold, far below what would hurt.
const SNAPSHOT_MAX_BYTES: usize = 1 << 30;

/// What a region's replica is made from.
pub struct RegionMachineOptions<G, D: Disk, X, C> {
    /// Its group.
    pub group: GroupId,
    /// The region.
    pub region: RegionId,
    /// This replica.
    pub replica: ReplicaId,
    /// The rules.
    pub game: Arc<G>,
    /// What the region is made from, should it not exist yet.
    pub genesis: Genesis,
    /// Where its checkpoints are.
    pub checkpoints: Checkpoints<D>,
    /// Where it runs.
    pub executor: X,
    /// The node's clock.
    pub clock: C,
    /// Text that tells builds apart, for checkpoint headers.
    pub build: String,
    /// How long rules may take.
    pub budget: StepBudget,
    /// Where what it shows its neighbours waits to be sent: one for all regions of a node.
    pub ghosts: GhostPosts,
}

/// A region's replica on this node.
pub struct RegionMachine<G: Game, D: Disk, X: Executor> {
    group: GroupId,
    region: RegionId,
    slot: Mutex<Arc<Slot<G>>>,
    checkpoints: Checkpoints<D>,
    executor: X,
    outlets: Outlets,
    options: ReplicaOptions,
    game: Arc<G>,
    build: String,
    budget: StepBudget,
    /// Streams of edges, for a replica that takes another one's place. As many as the service lets in.
    edges: Mutex<BTreeMap<EdgeId, mpsc::Sender<NodeToEdge>>>,
    /// The entry that the last call could not apply.
    halted: Mutex<Option<Halted>>,
}

struct Halted {
    halt: Halt,
    /// Tells when a rule that was given up has returned after all.
    returned: Option<watch::Receiver<bool>>,
}

impl<G: Game, D: Disk, X: Executor> RegionMachine<G, D, X> {
    /// A replica that has nothing yet: [`Machine::restored`] loads its newest checkpoint.
    pub fn new<C: Clock>(options: RegionMachineOptions<G, D, X, C>) -> Self {
        let clock = options.clock;
        let outlets = Outlets::default();
        let replica_options = ReplicaOptions {
            group: options.group,
            region: options.region,
            me: options.replica,
            genesis: options.genesis,
            now: Arc::new(move || (clock.monotonic(), clock.wall_ms())),
            step: options.budget.step,
            ghosts: options.ghosts,
        };
        let replica = Replica::new(replica_options.clone(), Region::new(options.game.clone()), outlets.clone());
        Self {
            group: options.group,
            region: options.region,
            slot: Mutex::new(Slot::new(replica)),
            checkpoints: options.checkpoints,
            executor: options.executor,
            outlets,
            options: replica_options,
            game: options.game,
            build: options.build,
            budget: options.budget,
            edges: Mutex::default(),
            halted: Mutex::default(),
        }
    }

    /// The region's group.
    pub fn group_id(&self) -> GroupId {
        self.group
    }

    /// Whether this replica owns the region, as it changes.
    pub fn ownership(&self) -> watch::Receiver<Ownership> {
        self.outlets.ownership.subscribe()
    }

    /// This replica's part in its group, as it changes.
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.outlets.roles.subscribe()
    }

    /// Changes when messages were posted to other groups, or trimmed.
    pub fn posted(&self) -> watch::Receiver<u64> {
        self.outlets.posted.subscribe()
    }

    /// The region.
    pub(crate) fn region_id(&self) -> RegionId {
        self.region
    }

    /// What time this machine believes it is.
    pub(crate) fn wall_ms(&self) -> u64 {
        (self.options.now)().1
    }

    /// The next tick is due so long from now.
    pub(crate) fn ticks_in(&self, due: Duration) {
        self.outlets.next_tick.is_due((self.options.now)().0 + due);
    }

    /// What the ticker does next.
    pub(crate) async fn next(&self) -> Next {
        self.run(Replica::next).await.unwrap_or(Next::NotOwner)
    }

    /// Resolves when somebody has wanted something since the last time.
    pub(crate) async fn wanted(&self) {
        self.outlets.demand.notified().await;
    }

    /// What is doubted about its state, as it changes.
    pub fn doubts(&self) -> watch::Receiver<Option<Suspicion>> {
        self.outlets.doubt.raised()
    }

    /// The majority has judged this replica's state. One that is not sound owns nothing until it has another.
    pub async fn judged(&self, sound: bool) -> Result<(), MachineFault> {
        self.run(move |replica| replica.judged(sound)).await
    }

    /// The group was closed on this node and is about to be opened anew.
    pub async fn reopen(&self) -> Result<(), MachineFault> {
        self.run(Replica::reopen).await
    }

    /// Puts the checkpoints aside, under names that say why: nothing is restored from them any more, and nothing deletes them.
    pub fn set_checkpoints_aside(&self, why: &str) -> Result<(), MachineFault> {
        self.checkpoints.set_aside(self.group, why).map_err(|e| self.fault(e))
    }

    /// Inputs that were taken may be lost: edges and other groups send theirs again.
    pub(crate) fn stumble(&self) {
        self.post(Replica::stumble);
    }

    fn fault(&self, reason: impl ToString) -> MachineFault {
        MachineFault { group: self.group, reason: reason.to_string() }
    }

    /// Runs a job on the region's worker and hands its result back.
    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Replica<G>) -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, MachineFault>> {
        self.run_in(self.slot(), job)
    }

    fn run_in<T: Send + 'static>(
        &self,
        slot: Arc<Slot<G>>,
        job: impl FnOnce(&mut Replica<G>) -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, MachineFault>> {
        let (done, result) = oneshot::channel();
        let submitted = self.executor.submit(
            self.group,
            Box::new(move || {
                slot.run(Box::new(move |replica| {
                    // The caller may have gone: then nobody wants the result.
                    let _ = done.send(job(replica));
                }));
            }),
        );
        let group = self.group;
        Box::pin(async move {
            submitted.map_err(|e| MachineFault { group, reason: e.to_string() })?;
            result.await.map_err(|_| MachineFault { group, reason: "the region's worker dropped the job: it panicked".into() })
        })
    }

    /// Queues a job whose result nobody waits for.
    fn post(&self, job: impl FnOnce(&mut Replica<G>) + Send + 'static) {
        let slot = self.slot();
        if let Err(error) = self.executor.submit(self.group, Box::new(move || slot.run(Box::new(job)))) {
            tracing::error!(group = %self.group, %error, "a region's worker takes no work; its input is dropped");
        }
    }

    fn slot(&self) -> Arc<Slot<G>> {
        lock(&self.slot).clone()
    }

    /// Leaves the replica to the thread that does not return from it, and puts another one in its place, without a state.
    fn give_up(&self, slot: &Slot<G>, halt: Halt) {
        let returned = slot.abandon();
        let mut fresh = Replica::new(self.options.clone(), Region::new(self.game.clone()), self.outlets.clone());
        for (edge, out) in lock(&self.edges).iter() {
            fresh.edge_joined(*edge, out.clone());
        }
        fresh.halt(halt.index);
        *lock(&self.slot) = Slot::new(fresh);
        self.executor.leave_behind(self.group);
        *lock(&self.halted) = Some(Halted { halt, returned: Some(returned) });
    }

    /// Encodes a view and makes it durable.
    fn write_checkpoint(&self, view: RegionView<G>, applied: Applied) -> BoxFuture<'static, Result<Applied, MachineFault>> {
        let (done, result) = oneshot::channel();
        let (checkpoints, group, build) = (self.checkpoints.clone(), self.group, self.build.clone());
        let submitted = self.executor.submit_background(
            self.group,
            Box::new(move || {
                let written = encode_and_write(&checkpoints, group, build, &view, &applied).map(|()| applied);
                let _ = done.send(written);
            }),
        );
        Box::pin(async move {
            submitted.map_err(|e| MachineFault { group, reason: e.to_string() })?;
            result.await.map_err(|_| MachineFault { group, reason: "encoding a checkpoint panicked".into() })?
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under these locks but taking and putting.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode_and_write<G: Game, D: Disk>(
    checkpoints: &Checkpoints<D>,
    group: GroupId,
    build: String,
    view: &RegionView<G>,
    applied: &Applied,
) -> Result<(), MachineFault> {
    let fault = |reason: String| MachineFault { group, reason };
    let Some(position) = applied.position else { return Err(fault("nothing was applied yet".into())) };
    let header = CheckpointHeader {
        format: CHECKPOINT_FORMAT,
        group: group.0,
        index: position.index.0,
        term: position.term.0,
        membership: applied.membership.clone(),
        tick: view.tick().0,
        state_hash: view.state_hash_full(),
        rules_version: view.rules().0,
        content_hash: view.rules().1,
        build,
    };
    let stored =
        StoredHeader { group, position, membership: applied.membership.clone(), meta: Bytes::from(header.encode_to_vec()) };
    let mut body = Bytes::from(view.encode());
    let chunks = std::iter::from_fn(|| (!body.is_empty()).then(|| body.split_to(SNAPSHOT_CHUNK_BYTES.min(body.len()))));
    point!("region.checkpoint_encoded");
    checkpoints.write(&stored, chunks).map(drop).map_err(|e| fault(format!("checkpoint at {position}: {e}")))
}

/// Reads a checkpoint and makes a region of it. The error says what is wrong with it.
fn load<G: Game, D: Disk>(
    checkpoints: &Checkpoints<D>,
    info: &CheckpointInfo,
    game: Arc<G>,
) -> Result<(StoredHeader, Region<G>), String> {
    let reader = checkpoints.read(info).map_err(|e| e.to_string())?;
    let stored = reader.header().clone();
    let header = CheckpointHeader::decode(stored.meta.clone()).map_err(|e| format!("{}: header: {e}", info.path.display()))?;
    if header.format != CHECKPOINT_FORMAT {
        return Err(format!("{}: format {}, this build reads {CHECKPOINT_FORMAT}", info.path.display(), header.format));
    }
    let body = reader.body().map_err(|e| e.to_string())?.concat();
    let region = Region::decode(game, &body).map_err(|e| format!("{}: {e}", info.path.display()))?;
    Ok((stored, region))
}

/// A snapshot's bytes, in memory.
struct MemoryBody(Bytes);

impl SnapshotBody for MemoryBody {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, MachineFault>> {
        let chunk = (!self.0.is_empty()).then(|| self.0.split_to(SNAPSHOT_CHUNK_BYTES.min(self.0.len())));
        Box::pin(async move { Ok(chunk) })
    }
}

impl<G: Game, D: Disk, X: Executor> Machine for RegionMachine<G, D, X> {
    fn restored(&self) -> BoxFuture<'_, Result<Applied, MachineFault>> {
        Box::pin(async move {
            let halted = lock(&self.halted).take();
            if let Some(halted) = halted {
                let region = Region::new(self.game.clone());
                self.run(move |replica| replica.reset(region, halted.halt.index)).await?;
            }
            let candidates = self.checkpoints.candidates(self.group).map_err(|e| self.fault(e))?;
            let mut damaged = false;
            for candidate in candidates {
                match load(&self.checkpoints, &candidate, self.game.clone()) {
                    Ok((stored, region)) => {
                        let applied = Applied { position: Some(stored.position), membership: stored.membership };
                        let restored = applied.clone();
                        self.run(move |replica| replica.install(region, applied)).await?;
                        return Ok(restored);
                    }
                    Err(error) => {
                        tracing::error!(group = %self.group, %error, "checkpoint is not usable; trying the one before");
                        damaged = true;
                    }
                }
            }
            if damaged {
                // From the log, if all of it is there; else raft asks a peer before the group takes part.
                tracing::error!(group = %self.group, "no checkpoint is usable: they are set aside, and the state is rebuilt");
                self.set_checkpoints_aside("unusable")?;
            }
            Ok(Applied::default())
        })
    }

    fn apply(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Bytes>, MachineFault>> {
        let slot = self.slot();
        let result = self.run_in(slot.clone(), move |replica| replica.apply(entries));
        Box::pin(async move {
            let slow = || self.executor.replace(self.group);
            let halt = match watchdog::watch(self.group, self.budget, &slot.doing, slow, result).await {
                Ok(applied) => match applied? {
                    Ok(answers) => return Ok(answers),
                    Err(Stop::Fault(fault)) => return Err(fault),
                    Err(Stop::Halt(halt)) => {
                        *lock(&self.halted) = Some(Halted { halt: halt.clone(), returned: None });
                        halt
                    }
                },
                Err(halt) => {
                    self.give_up(&slot, halt.clone());
                    halt
                }
            };
            Err(self.fault(format!("entry {}: {}", halt.index, halt.reason)))
        })
    }

    fn halted(&self) -> Option<Halt> {
        lock(&self.halted).as_ref().map(|halted| halted.halt.clone())
    }

    fn skips(&self, command: &[u8]) -> Option<LogIndex> {
        skipped_by(command)
    }

    fn skip(&self, _group: GroupId, entry: Entry) -> BoxFuture<'_, Result<Bytes, MachineFault>> {
        let result = self.run(move |replica| replica.skip(entry));
        Box::pin(async move { result.await? })
    }

    fn recovered(&self) -> BoxFuture<'static, ()> {
        let returned = lock(&self.halted).as_ref().and_then(|halted| halted.returned.clone());
        Box::pin(async move {
            if let Some(mut returned) = returned
                && returned.wait_for(|returned| *returned).await.is_ok()
            {
                return;
            }
            // It panicked: it would do so again.
            std::future::pending().await
        })
    }

    fn persist(&self) -> BoxFuture<'_, Result<Applied, MachineFault>> {
        let view = self.run(|replica| replica.view());
        Box::pin(async move {
            let (view, applied) = view.await?;
            if applied.position.is_none() {
                return Ok(applied);
            }
            self.write_checkpoint(view, applied).await
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, MachineFault>> {
        let view = self.run(|replica| replica.view());
        Box::pin(async move {
            let (view, applied) = view.await?;
            let (done, result) = oneshot::channel();
            self.executor
                .submit_background(
                    self.group,
                    Box::new(move || {
                        let _ = done.send(Bytes::from(view.encode()));
                    }),
                )
                .map_err(|e| self.fault(e))?;
            let bytes = result.await.map_err(|_| self.fault("encoding a snapshot panicked"))?;
            Ok(Snapshot { applied, body: Box::new(MemoryBody(bytes)) })
        })
    }

    fn install(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineFault>> {
        Box::pin(async move {
            let Snapshot { applied, mut body } = snapshot;
            let mut bytes = Vec::new();
            while let Some(chunk) = body.next().await? {
                if bytes.len() + chunk.len() > SNAPSHOT_MAX_BYTES {
                    return Err(self.fault(format!("snapshot is larger than {SNAPSHOT_MAX_BYTES} bytes")));
                }
                bytes.extend_from_slice(&chunk);
            }
            let region = Region::decode(self.game.clone(), &bytes).map_err(|e| self.fault(e))?;
            // Durable before it counts: raft forgets the log below it.
            self.write_checkpoint(region.view(), applied.clone()).await?;
            point!("region.snapshot_durable");
            *lock(&self.halted) = None;
            self.run(move |replica| replica.supersede(region, applied)).await
        })
    }

    fn role(&self, role: Role) {
        self.post(move |replica| replica.role(role));
    }
}

impl<G: Game, D: Disk, X: Executor> RegionPort for RegionMachine<G, D, X> {
    fn group(&self) -> GroupId {
        self.group
    }

    fn region(&self) -> RegionId {
        self.region
    }

    fn backlog(&self) -> BacklogGauge {
        self.outlets.gauge.clone()
    }

    fn edge_joined(self: Arc<Self>, edge: EdgeId, out: mpsc::Sender<NodeToEdge>) {
        lock(&self.edges).insert(edge, out.clone());
        self.outlets.arrivals.push(edge, Arrival::Joined(out));
        self.post(Replica::look_at_arrivals);
    }

    fn edge_left(self: Arc<Self>, edge: EdgeId) {
        lock(&self.edges).remove(&edge);
        self.outlets.arrivals.push(edge, Arrival::Left);
        self.post(Replica::look_at_arrivals);
    }

    fn edge_message(self: Arc<Self>, edge: EdgeId, message: EdgeToRegion) {
        self.outlets.arrivals.push(edge, Arrival::Message(message));
        self.outlets.demand.notify_one();
        // An owner looks when it ticks. One that stops owning looks once more after it said so.
        if !self.outlets.ownership.borrow().owner {
            self.post(Replica::look_at_arrivals);
        }
    }

    fn deliver(self: Arc<Self>, messages: Vec<ChannelMessage>) -> BoxFuture<'static, DeliverOutcome> {
        Box::pin(async move {
            let Ok(waiting) = self.run(move |replica| replica.deliver(messages)).await else { return DeliverOutcome::Busy };
            self.outlets.demand.notify_one();
            match waiting {
                Ok(taken) => tokio::time::timeout(DELIVER_WITHIN, taken).await.map_or(DeliverOutcome::Busy, |taken| {
                    taken.map_or(DeliverOutcome::Busy, |(taken, cut)| DeliverOutcome::Taken(taken, cut))
                }),
                Err(outcome) => outcome,
            }
        })
    }

    fn receivers(self: Arc<Self>) -> BoxFuture<'static, Vec<GroupId>> {
        let receivers = self.run(|replica| replica.receivers());
        Box::pin(async move { receivers.await.unwrap_or_default() })
    }

    fn pending(self: Arc<Self>, to: GroupId, limit: usize) -> BoxFuture<'static, Vec<ChannelMessage>> {
        let messages = self.run(move |replica| replica.pending(to, limit));
        Box::pin(async move { messages.await.unwrap_or_default() })
    }

    fn acked(self: Arc<Self>, ack: ChannelAck) {
        self.post(move |replica| replica.acked(ack));
        self.outlets.demand.notify_one();
    }

    fn shown(&self, ghosts: GhostBatch) -> Result<(), Option<ReplicaId>> {
        if self.outlets.ownership.borrow().owner {
            let wakes = ghosts.lively;
            self.outlets.ghosts.put(ghosts);
            if wakes {
                self.outlets.demand.notify_one();
            }
            return Ok(());
        }
        Err(match *self.outlets.roles.borrow() {
            Role::Follower { leader, .. } | Role::Learner { leader } => leader,
            Role::Leader(_) | Role::Stopped => None,
        })
    }

    fn order(self: Arc<Self>, order: AdminOrder) {
        self.post(move |replica| replica.order(order));
        self.outlets.demand.notify_one();
    }

    fn inspect(self: Arc<Self>, cut: CutNumber) -> BoxFuture<'static, InspectReply> {
        let reply = self.run(move |replica| replica.inspect(cut));
        Box::pin(async move {
            reply.await.unwrap_or_else(|e| InspectReply { code: 1, reason: e.to_string(), ..InspectReply::default() })
        })
    }

    fn compare(self: Arc<Self>, tick: Tick, hash: u64) -> BoxFuture<'static, Option<Compared>> {
        let compared = self.run(move |replica| replica.compare(tick, hash));
        Box::pin(async move { compared.await.ok() })
    }

    fn facts(&self) -> RegionFacts {
        self.outlets.facts.borrow().clone()
    }
}
