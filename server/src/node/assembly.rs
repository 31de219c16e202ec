//! Puts a node together, and takes it apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use marchland_admin::AdminService;
use marchland_edge::{Edge, EdgeOptions, EdgeStats, OtherEdge, SessionConfig};
use marchland_proto::cluster::directory_server::DirectoryServer;
use marchland_proto::cluster::regions_server::RegionsServer;
use marchland_proto::net::{ClusterSecurity, Transport, serve_cluster};
use marchland_raft::{AddressBook, BadOptions, Group, NodeOptions, OpenError, ProposeError, RaftNode, Standing};
use marchland_region::{GhostPosts, RegionsService, RegionsServiceOptions};
use marchland_region_core::Game;
use marchland_router::{OpenDirectoryError, Peers, Registry, keep_members};
use marchland_storage::checkpoint::{CheckpointError, Checkpoints};
use marchland_storage::folder::{DataFolder, FolderError};
use marchland_storage::keyed::KeyedError;
use marchland_storage::log::{LogOptions, OpenError as LogOpenError, SharedLog};
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;
use marchland_types::seam::Clock;
use marchland_types::{NodeId, ReplicaId};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinSet;

use super::admin::NodeAdmin;
use super::birth;
use super::front::{Front, FrontRegions};
use super::groups::Opening;
use super::neighbours::Neighbours;
use super::scrubber::Scrubber;
use super::settings::{Member, NodeSettings};
use crate::seams::{Seams, WriterEnd};
use crate::served::Served;

/// How long raft's last checkpoints may take when the node stops, all together.
const PERSIST_WITHIN: Duration = Duration::from_secs(8);
/// Last checkpoints that are made at a time: enough to keep the disk busy, and few enough states encoded at once.
const PERSIST_AT_ONCE: usize = 16;
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

/// Addresses from the configuration, incarnations from directory and realm.
struct Book {
    members: BTreeMap<NodeId, Member>,
    realm: BTreeMap<NodeId, String>,
    registry: Registry,
}

impl AddressBook for Book {
    fn address(&self, node: NodeId) -> Option<String> {
        self.members.get(&node).map(|m| &m.grpc).or_else(|| self.realm.get(&node)).cloned()
    }

    fn standing(&self, replica: ReplicaId) -> Standing {
        match self.registry.standing(replica) {
            // A founder speaks before there is a directory that could know of it.
            Standing::Unknown if replica.incarnation() == birth::FIRST && self.address(replica.node()).is_some() => {
                Standing::Issued
            }
            standing => standing,
        }
    }

    fn hosts_realm(&self, node: NodeId) -> bool {
        self.realm.contains_key(&node)
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
        routes.add_service(front.realm().clone().into_server());
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
                addresses: Arc::new(Book {
                    members: settings.members.clone(),
                    realm: settings.realm.clone(),
                    registry: registry.clone(),
                }),
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
            let ghosts = GhostPosts::default();
            let opening = Opening {
                seams: &seams,
                settings: &settings,
                raft: &node,
                peers: &peers,
                registry: &registry,
                checkpoints: &checkpoints,
                fatal: &fatal_tx,
                ghosts: ghosts.clone(),
            };
            opening.open_groups(served, &opened, &front, &regions, &source, &mut tasks).await?;
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
            let neighbours = Neighbours {
                raft: node.clone(),
                regions: regions.clone(),
                peers: peers.clone(),
                members: settings.members.iter().map(|(node, m)| (*node, m.grpc.clone())).collect(),
                posts: ghosts,
            };
            watchers.spawn(neighbours.run());
            watchers.spawn(super::handover::make_way(node.clone()));
            watchers.spawn(super::quiet::let_rest(node.clone()));
            watchers.spawn(super::spread::spread(node.clone(), settings.voters()));
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
        self.0.raft.as_ref().map(|raft| raft.groups().to_vec()).unwrap_or_default()
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
            persist_all(raft.groups().to_vec()).await;
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

/// Makes what every group has applied durable, so that the next start is quick. The log has everything: without it that one just takes
/// longer.
async fn persist_all(groups: Vec<Group>) {
    let end = tokio::time::Instant::now() + PERSIST_WITHIN;
    let persist = async |group: Group| match tokio::time::timeout_at(end, group.persist_now()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(group = %group.id(), %error, "no last checkpoint"),
        Err(_) => tracing::warn!(group = %group.id(), "the last checkpoint takes too long"),
    };
    futures::stream::iter(groups).for_each_concurrent(PERSIST_AT_ONCE, persist).await;
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
