//! The gRPC service that edges and other groups' owners call.
//!
//! One stream per (edge worker, node), for every region of the node. Reading from a stream pauses while a region's backlog
//! is long, so pressure goes back to the edge; batches towards the edge never wait (see [`crate::hub`]).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::{Stream, StreamExt};
use marchland_proto::cluster::regions_server::Regions;
use marchland_proto::cluster::{
    CompareReply, CompareRequest, DeliverAnswer, DeliverRequest, EdgeToNode, EdgeToRegion, GhostAnswer, GhostRequest, GroupOwner,
    NodeToEdge,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{PeerIdentity, Role, peer_of};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{GroupId, Tick, point};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::hub::EDGE_BATCHES_MAX;
use crate::port::{Compared, DeliverOutcome, EdgeId, RegionPort};

/// Most streams of edges at a time. An edge has one per worker thread.
const EDGE_STREAMS_MAX: usize = 1024;
/// Pause of a reader while a backlog is long.
const PAUSE: Duration = Duration::from_millis(5);

/// Limits of the service.
#[derive(Clone, Copy, Debug)]
pub struct RegionsServiceOptions {
    /// Most streams of edges at a time.
    pub edge_streams_max: usize,
}

impl Default for RegionsServiceOptions {
    fn default() -> Self {
        Self { edge_streams_max: EDGE_STREAMS_MAX }
    }
}

#[derive(Default)]
struct Shared {
    regions: RwLock<BTreeMap<GroupId, Arc<dyn RegionPort>>>,
    /// Streams that are open, with the sender that each region gets.
    edges: RwLock<BTreeMap<EdgeId, mpsc::Sender<NodeToEdge>>>,
    next_edge: AtomicU64,
}

/// Serves the regions of a node. Cheap to clone.
#[derive(Clone, Default)]
pub struct RegionsService {
    shared: Arc<Shared>,
    options: RegionsServiceOptions,
}

impl RegionsService {
    /// A service without regions.
    #[must_use]
    pub fn new(options: RegionsServiceOptions) -> Self {
        Self { shared: Arc::default(), options }
    }

    /// Adds a region. Edges whose streams are open learn of it when it speaks.
    pub fn add(&self, region: Arc<dyn RegionPort>) {
        // Both locks, in the order in which `open` takes them: no stream is missed in between.
        let edges = self.shared.edges.read().unwrap_or_else(PoisonError::into_inner);
        for (edge, out) in edges.iter() {
            region.clone().edge_joined(*edge, out.clone());
        }
        self.shared.regions.write().unwrap_or_else(PoisonError::into_inner).insert(region.group(), region);
    }

    /// Every region of this node.
    #[must_use]
    pub fn regions(&self) -> Vec<Arc<dyn RegionPort>> {
        self.shared.regions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The region of a group, if its replica is here.
    #[must_use]
    pub fn region(&self, group: GroupId) -> Option<Arc<dyn RegionPort>> {
        self.shared.regions.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    fn open(&self, out: mpsc::Sender<NodeToEdge>) -> Option<EdgeId> {
        let mut edges = self.shared.edges.write().unwrap_or_else(PoisonError::into_inner);
        if edges.len() >= self.options.edge_streams_max {
            return None;
        }
        let edge = EdgeId(self.shared.next_edge.fetch_add(1, Ordering::Relaxed));
        for region in self.shared.regions.read().unwrap_or_else(PoisonError::into_inner).values() {
            region.clone().edge_joined(edge, out.clone());
        }
        edges.insert(edge, out);
        Some(edge)
    }

    fn close(&self, edge: EdgeId) {
        self.shared.edges.write().unwrap_or_else(PoisonError::into_inner).remove(&edge);
        for region in self.regions() {
            region.edge_left(edge);
        }
    }

    /// Hands what an edge sent to its regions. A group that is not here, or not of the peer's worlds, is refused.
    #[allow(clippy::result_large_err)]
    fn take(&self, edge: EdgeId, peer: &PeerIdentity, message: EdgeToNode) -> Result<bool, Status> {
        let mut long = false;
        let asks = message.regions.iter().any(is_question);
        for part in message.regions {
            let group = GroupId(part.group);
            if !peer.may(Role::Edge, group.world()) {
                return Err(Status::permission_denied(format!("{peer} is no edge of world {}", group.world())));
            }
            // A group that is not here: the edge has an old map, and asks another node when it hears nothing.
            if let Some(region) = self.region(group) {
                long |= region.backlog().is_long();
                region.edge_message(edge, part);
            }
        }
        if asks {
            self.answer(edge);
        }
        Ok(long)
    }

    /// Lets an edge know that this node is there, whatever its regions have to say: one that halts says nothing.
    fn answer(&self, edge: EdgeId) {
        let edges = self.shared.edges.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(out) = edges.get(&edge) {
            // A stream that is full has answers enough.
            let _ = out.try_send(NodeToEdge::default());
        }
    }

    /// Whether the backlog of any region is long.
    fn long(&self) -> bool {
        self.regions().iter().any(|r| r.backlog().is_long())
    }
}

/// Whether an edge says nothing of a region, and so asks whether anybody is there.
fn is_question(part: &EdgeToRegion) -> bool {
    *part == EdgeToRegion { group: part.group, ..EdgeToRegion::default() }
}

/// Ends an edge's part in every region when its stream is dropped, however that happens.
struct Closing {
    service: RegionsService,
    edge: EdgeId,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.service.close(self.edge);
    }
}

#[tonic::async_trait]
impl Regions for RegionsService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<NodeToEdge, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<EdgeToNode>>) -> Result<Response<Self::AttachStream>, Status> {
        let peer = peer_of(&request)?.clone();
        if !peer.roles.contains(&Role::Edge) {
            return Err(Status::permission_denied(format!("{peer} is no edge")));
        }
        let (out, batches) = mpsc::channel(EDGE_BATCHES_MAX);
        let Some(edge) = self.open(out) else {
            return Err(Status::resource_exhausted(format!("{} streams of edges are open", self.options.edge_streams_max)));
        };
        let closing = Closing { service: self.clone(), edge };
        tracing::info!(edge = edge.0, %peer, "edge stream opened");
        let service = self.clone();
        let mut incoming = request.into_inner();
        let reader = async move {
            loop {
                match incoming.message().await {
                    Ok(Some(message)) => {
                        point!("region.inputs_heard");
                        let mut long = service.take(edge, &peer, message)?;
                        while long {
                            tokio::time::sleep(PAUSE).await;
                            long = service.long();
                        }
                    }
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(status),
                }
            }
        };
        // The outgoing stream drives the reader, so that both end together and no task is left behind.
        let mut reader: Pin<Box<dyn Future<Output = Result<(), Status>> + Send>> = Box::pin(reader);
        let mut batches = ReceiverStream::new(batches);
        let stream = futures::stream::poll_fn(move |cx| {
            let _ = &closing;
            if let std::task::Poll::Ready(ended) = reader.as_mut().poll(cx) {
                reader = Box::pin(std::future::pending());
                return std::task::Poll::Ready(ended.err().map(Err));
            }
            batches.poll_next_unpin(cx).map(|batch| batch.map(Ok))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn compare(&self, request: Request<CompareRequest>) -> Result<Response<CompareReply>, Status> {
        let peer = peer_of(&request)?;
        let CompareRequest { group, tick, hash } = *request.get_ref();
        let group = GroupId(group);
        if !peer.may(Role::Shard, group.world()) {
            return Err(Status::permission_denied(format!("{peer} hosts nothing of world {}", group.world())));
        }
        let compared = match self.region(group) {
            Some(region) => region.compare(Tick(tick), hash).await,
            None => None,
        };
        let (code, hash) = match compared {
            Some(Compared::Known(hash)) => (0, hash),
            Some(Compared::NotYet) => (1, 0),
            Some(Compared::Forgotten) => (2, 0),
            None => (3, 0),
        };
        Ok(Response::new(CompareReply { code, hash, replica: 0 }))
    }

    async fn show_ghosts(&self, request: Request<GhostRequest>) -> Result<Response<GhostAnswer>, Status> {
        let peer = peer_of(&request)?.clone();
        let mut answer = GhostAnswer::default();
        for post in request.into_inner().posts {
            let group = GroupId(post.to_group);
            let from = post.batch.as_ref().map(|batch| GroupId(batch.from_group));
            if !peer.may(Role::Shard, group.world()) || from.is_some_and(|from| from.world() != group.world()) {
                return Err(Status::permission_denied(format!("{peer} hosts nothing of world {}", group.world())));
            }
            let shown = match (self.region(group), post.batch) {
                (Some(region), Some(batch)) => region.shown(batch),
                (None, _) => Err(None),
                (Some(_), None) => return Err(Status::invalid_argument("a post without ghosts")),
            };
            if let Err(leader) = shown {
                answer.elsewhere.push(GroupOwner { group: group.0, leader: leader.map_or(0, |leader| leader.0) });
            }
        }
        Ok(Response::new(answer))
    }

    async fn deliver(&self, request: Request<DeliverRequest>) -> Result<Response<DeliverAnswer>, Status> {
        let group = GroupId(request.get_ref().to_group);
        let peer = peer_of(&request)?;
        if !peer.may(Role::Shard, group.world()) {
            return Err(Status::permission_denied(format!("{peer} hosts nothing of world {}", group.world())));
        }
        let Some(region) = self.region(group) else {
            return Err(Status::not_found(format!("no replica of {group} is here")));
        };
        let messages = request.into_inner().messages;
        point!("region.messages_heard");
        if messages.len() > CHANNEL_MESSAGES_MAX {
            return Err(Status::resource_exhausted(format!("{} messages at once", messages.len())));
        }
        Ok(Response::new(match region.deliver(messages).await {
            DeliverOutcome::Taken(taken_seq, cut) => DeliverAnswer { code: Code::Ok as u32, taken_seq, leader: 0, cut: cut.0 },
            DeliverOutcome::NotOwner(leader) => {
                DeliverAnswer { code: Code::NotLeader as u32, leader: leader.map_or(0, |l| l.0), ..DeliverAnswer::default() }
            }
            DeliverOutcome::Busy => DeliverAnswer { code: Code::Unavailable as u32, ..DeliverAnswer::default() },
        }))
    }
}
