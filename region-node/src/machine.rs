//! A region's replica behind raft's state machine interface.
//!
//! Every call becomes a job on the region's executor, so that the state is touched by one thread at a time and the
//! calling task never blocks on it. Checkpoints are encoded and written in the background, from a copy-on-write view.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::cluster::{EdgeToRegion, InspectReply, NodeToEdge};
use marchland_proto::storage::{AdminOrder, ChannelAck, ChannelMessage, CheckpointHeader, Genesis};
use marchland_raft::{Applied, BoxFuture, Entry, Machine, MachineFault, Role, Snapshot, SnapshotBody};
use marchland_region_core::{Game, Region, RegionView};
use marchland_storage::checkpoint::{CheckpointHeader as StoredHeader, CheckpointInfo, Checkpoints};
use marchland_storage::disk::Disk;
use marchland_types::limits::SNAPSHOT_CHUNK_BYTES;
use marchland_types::seam::Clock;
use marchland_types::{CutNumber, GroupId, RegionId, ReplicaId, point};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};

use crate::arrivals::{Arrival, Arrivals};
use crate::backlog::BacklogGauge;
use crate::executor::Executor;
use crate::port::{DeliverOutcome, EdgeId, RegionFacts, RegionPort};
use crate::replica::{Ownership, Replica};

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
}

/// A region's replica on this node.
pub struct RegionMachine<G: Game, D: Disk, X: Executor> {
    group: GroupId,
    region: RegionId,
    replica: Arc<Mutex<Replica<G>>>,
    checkpoints: Checkpoints<D>,
    executor: X,
    ownership: watch::Receiver<Ownership>,
    roles: watch::Receiver<Role>,
    posted: watch::Receiver<u64>,
    facts: watch::Receiver<RegionFacts>,
    backlog: BacklogGauge,
    arrivals: Arrivals,
    game: Arc<G>,
    build: String,
}

impl<G: Game, D: Disk, X: Executor> RegionMachine<G, D, X> {
    /// A replica that has nothing yet: [`Machine::restored`] loads its newest checkpoint.
    pub fn new<C: Clock>(options: RegionMachineOptions<G, D, X, C>) -> Self {
        let clock = options.clock;
        let now: Box<dyn Fn() -> (Duration, u64) + Send> = Box::new(move || (clock.monotonic(), clock.wall_ms()));
        let replica = Replica::new(
            (options.group, options.region, options.replica),
            Region::new(options.game.clone()),
            options.genesis,
            now,
        );
        Self {
            group: options.group,
            region: options.region,
            ownership: replica.ownership(),
            roles: replica.roles(),
            posted: replica.posted(),
            facts: replica.facts(),
            backlog: replica.gauge(),
            arrivals: replica.arrivals(),
            replica: Arc::new(Mutex::new(replica)),
            checkpoints: options.checkpoints,
            executor: options.executor,
            game: options.game,
            build: options.build,
        }
    }

    /// The region's group.
    pub fn group_id(&self) -> GroupId {
        self.group
    }

    /// Whether this replica owns the region, as it changes.
    pub fn ownership(&self) -> watch::Receiver<Ownership> {
        self.ownership.clone()
    }

    /// This replica's part in its group, as it changes.
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.roles.clone()
    }

    /// Changes when messages were posted to other groups, or trimmed.
    pub fn posted(&self) -> watch::Receiver<u64> {
        self.posted.clone()
    }

    /// The entry of the next tick; `None` when this replica does not own the region.
    pub async fn next_tick(&self) -> Option<Bytes> {
        self.run(Replica::next_tick).await.ok().flatten()
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
        let (done, result) = oneshot::channel();
        let replica = self.replica.clone();
        let submitted = self.executor.submit(
            self.group,
            Box::new(move || {
                // The caller may have gone: then nobody wants the result.
                let _ = done.send(job(&mut lock(&replica)));
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
        let replica = self.replica.clone();
        if let Err(error) = self.executor.submit(self.group, Box::new(move || job(&mut lock(&replica)))) {
            tracing::error!(group = %self.group, %error, "a region's worker takes no work; its input is dropped");
        }
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

fn lock<G: Game>(replica: &Mutex<Replica<G>>) -> MutexGuard<'_, Replica<G>> {
    // A job that panicked dropped its answer channel, which stops the group; whoever still looks sees the last state.
    replica.lock().unwrap_or_else(PoisonError::into_inner)
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
            let candidates = self.checkpoints.candidates(self.group).map_err(|e| self.fault(e))?;
            let mut errors = Vec::new();
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
                        errors.push(error);
                    }
                }
            }
            match errors.is_empty() {
                true => Ok(Applied::default()),
                false => Err(self.fault(format!("no checkpoint is usable: {}", errors.join("; ")))),
            }
        })
    }

    fn apply(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Bytes>, MachineFault>> {
        let result = self.run(move |replica| replica.apply(entries));
        Box::pin(async move { result.await? })
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
            self.run(move |replica| replica.install(region, applied)).await
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
        self.backlog.clone()
    }

    fn edge_joined(self: Arc<Self>, edge: EdgeId, out: mpsc::Sender<NodeToEdge>) {
        self.arrivals.push(edge, Arrival::Joined(out));
        self.post(Replica::look_at_arrivals);
    }

    fn edge_left(self: Arc<Self>, edge: EdgeId) {
        self.arrivals.push(edge, Arrival::Left);
        self.post(Replica::look_at_arrivals);
    }

    fn edge_message(self: Arc<Self>, edge: EdgeId, message: EdgeToRegion) {
        self.arrivals.push(edge, Arrival::Message(message));
        // An owner looks when it ticks. One that stops owning looks once more after it said so.
        if !self.ownership.borrow().owner {
            self.post(Replica::look_at_arrivals);
        }
    }

    fn deliver(self: Arc<Self>, messages: Vec<ChannelMessage>) -> BoxFuture<'static, DeliverOutcome> {
        Box::pin(async move {
            let Ok(waiting) = self.run(move |replica| replica.deliver(messages)).await else { return DeliverOutcome::Busy };
            match waiting {
                Ok(taken) => tokio::time::timeout(DELIVER_WITHIN, taken)
                    .await
                    .map_or(DeliverOutcome::Busy, |taken| taken.map_or(DeliverOutcome::Busy, DeliverOutcome::Taken)),
                Err(outcome) => outcome,
            }
        })
    }

    fn outbox(self: Arc<Self>, limit: usize) -> BoxFuture<'static, Vec<(GroupId, Vec<ChannelMessage>)>> {
        let messages = self.run(move |replica| replica.outbox(limit));
        Box::pin(async move { messages.await.unwrap_or_default() })
    }

    fn acked(self: Arc<Self>, ack: ChannelAck) {
        self.post(move |replica| replica.acked(ack));
    }

    fn order(self: Arc<Self>, order: AdminOrder) {
        self.post(move |replica| replica.order(order));
    }

    fn inspect(self: Arc<Self>, cut: CutNumber) -> BoxFuture<'static, InspectReply> {
        let reply = self.run(move |replica| replica.inspect(cut));
        Box::pin(async move {
            reply.await.unwrap_or_else(|e| InspectReply { code: 1, reason: e.to_string(), ..InspectReply::default() })
        })
    }

    fn facts(&self) -> RegionFacts {
        self.facts.borrow().clone()
    }
}
