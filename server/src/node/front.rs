//! Services that are served before what is behind them is open.
//!
//! A node that starts for the first time asks the others who it is ([`super::birth`]), and they may be asking it: so the
//! cluster port answers from the start. Raft is not there yet then, and the directory says "unborn" until this replica has
//! applied the world's first entry.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use futures::Stream;
use marchland_proto::cluster::directory_server::Directory;
use marchland_proto::cluster::raft_transport_server::{RaftTransport, RaftTransportServer};
use marchland_proto::cluster::regions_server::Regions;
use marchland_proto::cluster::{
    CompareReply, CompareRequest, DeliverAnswer, DeliverRequest, EdgeToNode, GhostAnswer, GhostRequest, LocateReply,
    LocateRequest, NodeToEdge, RaftBatch, RegisterReply, RegisterRequest, SignInReply, SignInRequest, SnapshotAnswer,
    SnapshotChunk, SnapshotRequest,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{PeerIdentity, peer_of};
use marchland_raft::{Group, RaftService};
use marchland_region::RegionsService;
use marchland_router::{Directories, RealmSlot, Vaults};
use marchland_storage::keyed::KeyedStore;
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, GroupKind, WorldId};
use tonic::{Request, Response, Status, Streaming};

/// Raft's service, once there is one.
#[derive(Clone, Default)]
pub(super) struct RaftSlot(Arc<OnceLock<RaftService>>);

impl RaftSlot {
    /// Raft has started.
    pub(super) fn set(&self, service: RaftService) {
        // Called once in a node's life.
        let _ = self.0.set(service);
    }

    pub(super) fn into_server(self) -> RaftTransportServer<Self> {
        RaftTransportServer::new(self)
            .max_decoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn get(&self) -> Result<&RaftService, Status> {
        self.0.get().ok_or_else(|| Status::unavailable("raft has not started here yet"))
    }
}

#[tonic::async_trait]
impl RaftTransport for RaftSlot {
    type AppendStream = <RaftService as RaftTransport>::AppendStream;
    type ControlStream = <RaftService as RaftTransport>::ControlStream;
    type FetchSnapshotStream = <RaftService as RaftTransport>::FetchSnapshotStream;

    async fn append(&self, request: Request<Streaming<RaftBatch>>) -> Result<Response<Self::AppendStream>, Status> {
        self.get()?.append(request).await
    }

    async fn control(&self, request: Request<Streaming<RaftBatch>>) -> Result<Response<Self::ControlStream>, Status> {
        self.get()?.control(request).await
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotAnswer>, Status> {
        self.get()?.snapshot(request).await
    }

    async fn fetch_snapshot(&self, request: Request<SnapshotRequest>) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        self.get()?.fetch_snapshot(request).await
    }
}

/// The directories and vaults of this node and its replica of the realm, with an answer for those who ask before the world is made.
pub(super) struct Front<K, C> {
    directories: Directories<Group, K, C>,
    vaults: Vaults<Group, K, C>,
    realm: RealmSlot<Group, K, C>,
}

impl<K, C> Clone for Front<K, C> {
    fn clone(&self) -> Self {
        Self { directories: self.directories.clone(), vaults: self.vaults.clone(), realm: self.realm.clone() }
    }
}

impl<K: KeyedStore, C: Clock> Front<K, C> {
    pub(super) fn new() -> Self {
        Self { directories: Directories::default(), vaults: Vaults::default(), realm: RealmSlot::default() }
    }

    /// Where directories are put when they are open.
    pub(super) fn directories(&self) -> &Directories<Group, K, C> {
        &self.directories
    }

    /// Where vaults are put when they are open.
    pub(super) fn vaults(&self) -> &Vaults<Group, K, C> {
        &self.vaults
    }

    /// Where the realm is put when it is open, if it is hosted here.
    pub(super) fn realm(&self) -> &RealmSlot<Group, K, C> {
        &self.realm
    }

    /// Takes messages for a directory or a vault of this node; `None` when they are for none.
    async fn deliver(&self, peer: &PeerIdentity, message: DeliverRequest) -> Option<DeliverAnswer> {
        match GroupId(message.to_group).kind() {
            Some(GroupKind::Vault) => self.vaults.deliver(peer, message).await,
            _ => self.directories.deliver(peer, message).await,
        }
    }

    /// Whether this replica knows that the world was made.
    async fn is_born(&self, world: WorldId) -> bool {
        match self.directories.get(world) {
            // A store that fails has something in it.
            Some(service) => service.view().world().await.map_or(true, |world| world.is_some()),
            None => false,
        }
    }
}

#[tonic::async_trait]
impl<K: KeyedStore, C: Clock> Directory for Front<K, C> {
    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInReply>, Status> {
        self.directories.sign_in(request).await
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateReply>, Status> {
        self.directories.locate(request).await
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        let world = WorldId(request.get_ref().world);
        if !self.is_born(world).await {
            peer_of(&request)?;
            let reason = format!("world {world} is not made yet, as far as this node knows");
            return Ok(Response::new(RegisterReply { code: Code::Unborn as u32, incarnation: 0, leader: 0, reason }));
        }
        self.directories.register(request).await
    }
}

/// The regions of this node; messages for a directory or a vault come by the same call and go there.
pub(super) struct FrontRegions<K, C> {
    regions: RegionsService,
    front: Front<K, C>,
}

impl<K, C> FrontRegions<K, C> {
    pub(super) fn new(regions: RegionsService, front: Front<K, C>) -> Self {
        Self { regions, front }
    }
}

#[tonic::async_trait]
impl<K: KeyedStore, C: Clock> Regions for FrontRegions<K, C> {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<NodeToEdge, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<EdgeToNode>>) -> Result<Response<Self::AttachStream>, Status> {
        self.regions.attach(request).await
    }

    async fn compare(&self, request: Request<CompareRequest>) -> Result<Response<CompareReply>, Status> {
        self.regions.compare(request).await
    }

    async fn show_ghosts(&self, request: Request<GhostRequest>) -> Result<Response<GhostAnswer>, Status> {
        self.regions.show_ghosts(request).await
    }

    async fn deliver(&self, request: Request<DeliverRequest>) -> Result<Response<DeliverAnswer>, Status> {
        if self.regions.region(GroupId(request.get_ref().to_group)).is_none() {
            let peer = peer_of(&request)?.clone();
            let message = request.into_inner();
            let group = GroupId(message.to_group);
            return match self.front.deliver(&peer, message).await {
                Some(answer) => Ok(Response::new(answer)),
                None => Err(Status::not_found(format!("no replica of {group} is here"))),
            };
        }
        self.regions.deliver(request).await
    }
}
