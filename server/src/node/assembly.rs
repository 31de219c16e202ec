//! Puts a node together, and takes it apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marchland_admin::AdminService;
use marchland_edge::{Edge, EdgeOptions, EdgeStats, OtherEdge, SessionConfig};
use marchland_proto::cluster::directory_server::DirectoryServer;
use marchland_proto::cluster::regions_server::RegionsServer;
use marchland_proto::net::{ClusterSecurity, Transport, serve_cluster};
use marchland_proto::storage::{DirectoryGenesis, Genesis, GroupPlan, Neighbour};
use marchland_raft::{AddressBook, BadOptions, Group, NodeOptions, OpenError, ProposeError, RaftNode, Standing};
use marchland_region::{RegionMachine, RegionMachineOptions, RegionsService, RegionsServiceOptions};
use marchland_region_core::{Game, Ground};
use marchland_router::{
    Directory, DirectoryOptions, OpenDirectoryError, PeerDelivery, Peers, PumpOptions, Registry, keep_members,
};
use marchland_storage::checkpoint::{CheckpointError, Checkpoints};
use marchland_storage::folder::{DataFolder, FolderError};
use marchland_storage::keyed::KeyedError;
use marchland_storage::log::{LogOptions, OpenError as LogOpenError, SharedLog};
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, Incarnation, NodeId, RegionId, ReplicaId};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinSet;

use super::admin::NodeAdmin;
use super::birth;
use super::front::{Front, FrontRegions};
use super::keeper::{Keeper, open_with_state};
use super::scrubber::Scrubber;
use super::settings::{Member, NodeSettings};
use crate::seams::{Seams, WriterEnd};
use crate::served::Served;

/// The one region of a world, until there are more.
pub(super) const FIRST_REGION: RegionId = RegionId(1);
/// How long raft's last checkpoints may take when the node stops.
const PERSIST_WITHIN: Duration = Duration::from_secs(8);
/// How long connections may take to end when the node stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// Why a node can not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data folder is not usable.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The raft log is not usable.
    #[error(transparent)]
    Log(#[from] LogOpenError),
    /// The checkpoints are not usable.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// The keyed store is not usable.
    #[error(transparent)]
    Keyed(#[from] KeyedError),
    /// Raft's options contradict each other.
    #[error(transparent)]
    Options(#[from] BadOptions),
    /// A group can not be opened.
    #[error(transparent)]
    Group(#[from] OpenError),
    /// The directory can not be opened.
    #[error(transparent)]
    Directory(#[from] OpenDirectoryError),
    /// A group can not be founded.
    #[error(transparent)]
    Found(#[from] ProposeError),
    /// A socket or thread is not to be had.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The edge can not start.
    #[error(transparent)]
    Edge(#[from] marchland_edge::EdgeError),
    /// The configuration names something that does not fit.
    #[error("{0}")]
    Settings(String),
}

/// Addresses from the configuration, incarnations from the directory.
struct Book {
    members: BTreeMap<NodeId, Member>,
    registry: Registry,
}

impl AddressBook for Book {
    fn address(&self, node: NodeId) -> Option<String> {
        self.members.get(&node).map(|m| m.grpc.clone())
    }

    fn standing(&self, replica: ReplicaId) -> Standing {
        match self.registry.standing(replica) {
            // A founder speaks before there is a directory that could know of it.
            Standing::Unknown if replica.incarnation() == birth::FIRST && self.members.contains_key(&replica.node()) => {
                Standing::Issued
            }
            standing => standing,
        }
    }
}

/// A running node. Cheap to clone.
pub struct Node<S: Seams>(Arc<Inner<S>>);

impl<S: Seams> Clone for Node<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<S: Seams> {
    settings: NodeSettings,
    source: Arc<NodeAdmin<S::Clock>>,
    raft: Option<RaftNode>,
    edge: Option<Edge>,
    seams: S,
    /// Parts that end when the node stops, taken by [`Node::stop`].
    parts: Mutex<Option<Parts<S>>>,
    fatal: watch::Receiver<Option<String>>,
}

struct Parts<S: Seams> {
    tasks: JoinSet<()>,
    /// They never end by themselves.
    watchers: JoinSet<()>,
    stop_server: oneshot::Sender<()>,
    edge_end: Option<WriterEnd>,
    writer_end: Option<WriterEnd>,
    folder: Option<DataFolder<S::Disk>>,
}

impl<S: Seams> Node<S> {
    /// Starts a node that runs a game: everything is open, and its groups take part, when this returns.
    pub async fn start<G: Game>(
        seams: S,
        settings: NodeSettings,
        served: Served<G>,
        security: ClusterSecurity,
    ) -> Result<Self, NodeError> {
        let (fatal_tx, fatal) = watch::channel(None);
        let mut tasks = JoinSet::new();
        let mut watchers = JoinSet::new();
        let front = Front::new();
        let peers = Peers::new(seams.transport(), security.clone());
        let regions = RegionsService::new(RegionsServiceOptions::default());
        let (stop_server, server_stopped) = oneshot::channel::<()>();
        let mut routes = tonic::service::Routes::builder();
        let source = Arc::new(NodeAdmin::new(settings.node, seams.clock()));
        routes.add_service(
            DirectoryServer::new(front.clone())
                .max_decoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
                .max_encoding_message_size(CLUSTER_MESSAGE_MAX_BYTES),
        );
        routes.add_service(
            RegionsServer::new(FrontRegions::new(regions.clone(), front.clone()))
                .max_decoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
                .max_encoding_message_size(CLUSTER_MESSAGE_MAX_BYTES),
        );
        routes.add_service(AdminService::server(source.clone(), settings.admin_token.clone()));

        let mut raft = None;
        let mut writer_end = None;
        let mut folder = None;
        let listener = seams.transport().listen(&settings.listen_grpc).await?;
        if settings.shard {
            let disk = seams.disk();
            let mut opened =
                DataFolder::open(disk.clone(), &settings.data, settings.node, settings.reserve_bytes, &seams.entropy())?;
            if opened.has_lost_log()? {
                // It has forgotten its votes, so it must not speak as who it was.
                let aside = opened.start_anew("lost-log", &seams.entropy())?;
                tracing::error!(aside = %aside.display(), "the raft log is lost: what is left is put aside, and the node rejoins");
                metrics::counter!("marchland_folders_started_anew_total").increment(1);
            }
            let wall = seams.clock();
            let log_options = LogOptions {
                salt: opened.id().salt(),
                wall_clock: Some(Arc::new(move || wall.wall_ms())),
                ..settings.log.clone()
            };
            let (log, writer) = SharedLog::open(disk.clone(), &opened.log_dir(), log_options)?;
            writer_end = Some(seams.run_log_writer(writer)?);
            let checkpoints = Checkpoints::open(disk, &opened.checkpoints_dir(), settings.checkpoints)?;

            // The port answers "unborn" to others that start for the first time, so it must be served before this node
            // learns its own incarnation.
            let raft_slot = super::front::RaftSlot::default();
            routes.add_service(raft_slot.clone().into_server());
            spawn_server(&mut tasks, listener, &security, routes.routes(), server_stopped, fatal_tx.clone());
            let incarnation = birth::incarnation::<S>(&peers, &settings, &mut opened).await?;
            let registry = Registry::default();
            let options = NodeOptions {
                node: settings.node,
                incarnation,
                addresses: Arc::new(Book { members: settings.members.clone(), registry: registry.clone() }),
                timings: settings.timings.clone(),
                limits: settings.limits.clone(),
            };
            let node = RaftNode::start(options, &seams.transport(), &security, log.clone())?;
            raft_slot.set(node.service());
            let fatal_node = node.clone();
            let told = fatal_tx.clone();
            tasks.spawn(async move {
                let reason = fatal_node.fatal().await;
                told.send_replace(Some(reason));
            });
            let opening = Opening { seams: &seams, settings: &settings, raft: &node, peers: &peers, registry: &registry };
            opening.open_groups(served, &checkpoints, &opened, &front, &regions, &source, &mut tasks).await?;
            let scrubber = Scrubber {
                disk: seams.disk(),
                log_dir: opened.log_dir(),
                log,
                checkpoints: checkpoints.clone(),
                raft: node.clone(),
                executor: seams.executor(),
                found: source.rot_found(),
            };
            watchers.spawn(scrubber.run());
            watchers.spawn(super::handover::make_way(node.clone()));
            watchers.spawn(keep_members(node.clone(), registry.clone()));
            watchers.spawn(birth::stand_down(registry, node.replica(), fatal_tx.clone()));
            tasks.spawn(birth::register::<S>(peers.clone(), settings.clone(), opened.id(), incarnation, fatal_tx.clone()));
            raft = Some(node);
            folder = Some(opened);
        } else {
            spawn_server(&mut tasks, listener, &security, routes.routes(), server_stopped, fatal_tx.clone());
        }

        let mut edge = None;
        let mut edge_end = None;
        if let Some(listen) = settings.listen_ws.clone() {
            let nodes = settings.members.iter().map(|(node, m)| (*node, m.grpc.clone())).collect();
            let others = settings.members.iter().filter(|(node, _)| **node != settings.node);
            let options = EdgeOptions {
                workers: settings.edge_workers,
                limits: settings.edge_limits.clone(),
                session: SessionConfig::of_world(&settings.world_name),
                interest: settings.interest,
                tls: settings.edge_tls.clone(),
                own_node: settings.members.contains_key(&settings.node).then_some(settings.node),
                other_edges: others.map(|(node, m)| OtherEdge { node: *node, ws: m.ws.clone() }).collect(),
                ..EdgeOptions::of_world(&listen, settings.world, &settings.world_name, nodes)
            };
            let (bound, workers) =
                Edge::bind(options, seams.transport(), security.clone(), seams.clock(), seams.entropy()).await?;
            edge_end = Some(seams.run_edge(workers)?);
            source.set_edge(bound.clone());
            edge = Some(bound);
        }
        let parts = Parts { tasks, watchers, stop_server, edge_end, writer_end, folder };
        Ok(Self(Arc::new(Inner { settings, source, raft, edge, seams, parts: Mutex::new(Some(parts)), fatal })))
    }

    /// Status, cuts and inspection of this node.
    #[must_use]
    pub fn admin(&self) -> Arc<NodeAdmin<S::Clock>> {
        self.0.source.clone()
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &NodeSettings {
        &self.0.settings
    }

    /// Counters of its edge.
    #[must_use]
    pub fn edge_stats(&self) -> Option<EdgeStats> {
        self.0.edge.as_ref().map(Edge::stats)
    }

    /// Its raft groups.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        self.0.raft.as_ref().map(RaftNode::groups).unwrap_or_default()
    }

    /// The seams that it runs on.
    #[must_use]
    pub fn seams(&self) -> &S {
        &self.0.seams
    }

    /// Resolves with the reason when the node can not go on: its log failed, or a task died.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.0.fatal.clone();
        let reason = fatal.wait_for(Option::is_some).await.map(|r| r.clone());
        match reason {
            Ok(Some(reason)) => reason,
            _ => std::future::pending().await,
        }
    }

    /// Stops in order: clients are told where to go, states are made durable, raft leaves, the log is closed.
    pub async fn stop(&self) -> Result<(), NodeError> {
        let Some(mut parts) = self.0.parts.lock().await.take() else { return Ok(()) };
        if let Some(edge) = &self.0.edge {
            edge.shutdown();
        }
        if let Some(end) = parts.edge_end {
            end.await;
        }
        parts.watchers.shutdown().await;
        let mut result = Ok(());
        if let Some(raft) = &self.0.raft {
            for group in raft.groups() {
                match tokio::time::timeout(PERSIST_WITHIN, group.persist_now()).await {
                    Ok(Ok(_)) => {}
                    // The log has everything; the next start just takes longer.
                    Ok(Err(error)) => tracing::warn!(group = %group.id(), %error, "no last checkpoint"),
                    Err(_) => tracing::warn!(group = %group.id(), "the last checkpoint takes too long"),
                }
            }
            raft.shutdown().await;
        }
        // The server may have ended by itself.
        let _ = parts.stop_server.send(());
        let drained = tokio::time::timeout(DRAIN_WITHIN, async { while parts.tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            parts.tasks.shutdown().await;
        }
        drop(parts.folder);
        if let Some(reason) = self.0.fatal.borrow().clone() {
            result = Err(NodeError::Settings(reason));
        }
        drop(parts.writer_end);
        result
    }
}

fn spawn_server<L>(
    tasks: &mut JoinSet<()>,
    listener: L,
    security: &ClusterSecurity,
    routes: tonic::service::Routes,
    stopped: oneshot::Receiver<()>,
    fatal: watch::Sender<Option<String>>,
) where
    L: marchland_proto::net::Listener,
    L::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + marchland_proto::net::Tune + Unpin + Send + 'static,
{
    let security = security.clone();
    tasks.spawn(async move {
        let stop = async {
            // Dropped or sent: either way it is time.
            let _ = stopped.await;
        };
        if let Err(error) = serve_cluster(listener, security, routes, stop).await {
            fatal.send_replace(Some(format!("cluster port failed: {error}")));
        }
    });
}

/// What is needed to open a node's groups.
struct Opening<'a, S: Seams> {
    seams: &'a S,
    settings: &'a NodeSettings,
    raft: &'a RaftNode,
    peers: &'a Peers<S::Transport>,
    registry: &'a Registry,
}

impl<S: Seams> Opening<'_, S> {
    #[allow(clippy::too_many_arguments, reason = "each is a part of the node that is being put together")]
    async fn open_groups<G: Game>(
        &self,
        served: Served<G>,
        checkpoints: &Checkpoints<S::Disk>,
        folder: &DataFolder<S::Disk>,
        front: &Front<S::Keyed, S::Clock>,
        regions: &RegionsService,
        source: &Arc<NodeAdmin<S::Clock>>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), NodeError> {
        let Self { seams, settings, raft, peers, registry } = self;
        let world = settings.world;
        let voters = settings.voters();
        // Whichever replicas the nodes have now.
        let replicas: Vec<_> = settings.members.keys().map(|node| ReplicaId::new(*node, Incarnation(0))).collect();
        let directory_id = GroupId::directory(world);
        let region_id = GroupId::region(world, FIRST_REGION);

        let store = seams.open_keyed(&folder.keyed_dir(), directory_id, settings.keyed_cache_bytes).await?;
        let directory =
            Directory::open(raft, world, store, (seams.clock(), (*registry).clone()), &replicas, DirectoryOptions::default())
                .await?;

        let genesis = region_genesis(settings, &served)?;
        let machine: Arc<RegionMachine<G, S::Disk, S::Executor>> = Arc::new(RegionMachine::new(RegionMachineOptions {
            group: region_id,
            region: FIRST_REGION,
            replica: raft.replica(),
            game: served.game,
            genesis: genesis.clone(),
            checkpoints: checkpoints.clone(),
            executor: seams.executor(),
            clock: seams.clock(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            budget: settings.budget,
        }));
        let region = open_with_state(raft, region_id, machine.clone(), &replicas).await?;
        regions.add(machine.clone());

        // Idempotent, and at every start: a node that was away when a group was founded comes in the same way. A later
        // incarnation founds nothing: whoever leads a group takes it in.
        if raft.replica().incarnation() == birth::FIRST {
            directory.group().initialize(&voters).await?;
            region.initialize(&voters).await?;
        } else {
            tracing::warn!(replica = %raft.replica(), "not a founding replica: waits to be a member of its groups");
        }

        front.directories().insert(directory.service());
        let plan = |group: GroupId| GroupPlan { group: group.0, replicas: voters.iter().map(|r| r.0).collect() };
        let directory_genesis = DirectoryGenesis {
            world: world.0,
            name: settings.world_name.clone(),
            map_epoch: genesis.map_epoch,
            map: genesis.map.clone(),
            plans: vec![plan(directory_id), plan(region_id)],
            token_key: Bytes::copy_from_slice(&settings.token_key),
            ..DirectoryGenesis::default()
        };
        tasks.spawn(birth::found(directory.service(), directory_genesis));
        let members: Vec<_> = settings.members.iter().map(|(node, m)| (*node, m.grpc.clone())).collect();
        let delivery = Arc::new(PeerDelivery::new((*peers).clone(), members));
        tasks.spawn(directory.pump(delivery.clone(), PumpOptions::default()));
        source.set_groups((*raft).clone(), vec![directory_id, region_id], machine.clone(), (*registry).clone());
        let keeper = Keeper {
            raft: (*raft).clone(),
            machine,
            peers: (*peers).clone(),
            members: settings.members.iter().map(|(node, m)| (*node, m.grpc.clone())).collect(),
            delivery,
        };
        tasks.spawn(keeper.run(region));
        Ok(())
    }
}

fn region_genesis<G: Game>(settings: &NodeSettings, served: &Served<G>) -> Result<Genesis, NodeError> {
    let ground = served.game.ground(&served.parameters).map_err(|bad| NodeError::Settings(bad.to_string()))?;
    // The one region holds all of the ground.
    let [[min_x, min_z], [max_x, max_z]] = ground.bounds();
    let group = GroupId::region(settings.world, FIRST_REGION).0;
    let own = Neighbour { region: FIRST_REGION.0, group, min_x, min_z, max_x, max_z };
    Ok(Genesis {
        world: settings.world.0,
        region: FIRST_REGION.0,
        seed: settings.seed,
        rules_version: served.game.rules_version(),
        content_hash: served.game.content_hash(),
        parameters: served.parameters.clone(),
        map: vec![own],
        map_epoch: 1,
    })
}
