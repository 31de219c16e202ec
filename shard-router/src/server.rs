//! The gRPC service of all directories on a node.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use marchland_proto::cluster::directory_server::{Directory, DirectoryServer};
use marchland_proto::cluster::{
    DeliverAnswer, DeliverRequest, LocateReply, LocateRequest, RegisterReply, RegisterRequest, SignInReply, SignInRequest,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{PeerIdentity, peer_of};
use marchland_storage::keyed::KeyedStore;
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, GroupKind, WorldId};
use tonic::{Request, Response, Status};

use crate::group::KeyedGroup;
use crate::service::DirectoryService;

type Worlds<G, K, C> = RwLock<BTreeMap<WorldId, Arc<DirectoryService<G, K, C>>>>;

/// The directories of a node, by world. A world that has none here is answered as by a member that does not lead and does not
/// know who does: the caller asks another one.
pub struct Directories<G, K, C>(Arc<Worlds<G, K, C>>);

impl<G, K, C> Clone for Directories<G, K, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<G, K, C> Default for Directories<G, K, C> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> Directories<G, K, C> {
    /// Serves a world's directory from here on.
    pub fn insert(&self, service: Arc<DirectoryService<G, K, C>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(service.world(), service);
    }

    /// Serves it no more.
    pub fn remove(&self, world: WorldId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&world);
    }

    /// A world's directory, if it is here.
    pub fn get(&self, world: WorldId) -> Option<Arc<DirectoryService<G, K, C>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&world).cloned()
    }

    /// Takes messages for a directory. They come by the same call as messages for regions: whoever serves that call
    /// passes on here what is addressed to a directory. `None` when this is none of ours.
    pub async fn deliver(&self, peer: &PeerIdentity, request: DeliverRequest) -> Option<DeliverAnswer> {
        let group = GroupId(request.to_group);
        let service = self.get(group.world()).filter(|_| group.kind() == Some(GroupKind::Directory))?;
        Some(service.deliver(peer, request).await)
    }

    /// As a server with the cluster's message limits.
    pub fn into_server(self) -> DirectoryServer<Self> {
        DirectoryServer::new(self)
            .max_decoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
    }
}

const NOT_HERE: u32 = Code::NotLeader as u32;

#[tonic::async_trait]
impl<G: KeyedGroup, K: KeyedStore, C: Clock> Directory for Directories<G, K, C> {
    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInReply>, Status> {
        let peer = peer_of(&request)?.clone();
        let request = request.into_inner();
        Ok(Response::new(match self.get(WorldId(request.world)) {
            Some(service) => service.sign_in(&peer, request).await,
            None => SignInReply { code: NOT_HERE, reason: "no directory of this world here".into(), ..SignInReply::default() },
        }))
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateReply>, Status> {
        let peer = peer_of(&request)?.clone();
        let request = request.into_inner();
        Ok(Response::new(match self.get(WorldId(request.world)) {
            Some(service) => service.locate(&peer, request).await,
            None => LocateReply { code: NOT_HERE, ..LocateReply::default() },
        }))
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        let peer = peer_of(&request)?.clone();
        let request = request.into_inner();
        Ok(Response::new(match self.get(WorldId(request.world)) {
            Some(service) => service.register(&peer, request).await,
            None => {
                RegisterReply { code: NOT_HERE, reason: "no directory of this world here".into(), ..RegisterReply::default() }
            }
        }))
    }
}
