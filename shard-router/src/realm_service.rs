//! The realm's service on one node.
//!
//! Only the leader carries out orders; others name it. A node may speak for the worlds of its certificate alone.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use marchland_proto::cluster::realm_server::{Realm, RealmServer};
use marchland_proto::cluster::{
    InspectReply, RecordWorldReply, RecordWorldRequest, RegisterNodeRequest, RegisterReply, SeedCharactersReply,
    SeedCharactersRequest, TakeCutReply,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{PeerIdentity, Role, peer_of};
use marchland_proto::storage::realm_entry::Body;
use marchland_proto::storage::{Cut, RealmAnswer};
use marchland_raft::BoxFuture;
use marchland_router_core::encode_realm_entry;
use marchland_storage::keyed::KeyedStore;
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;
use marchland_types::seam::Clock;
use marchland_types::{CutNumber, GroupId, WorldId};
use tonic::{Request, Response, Status};

use crate::group::KeyedGroup;
use crate::inspect::{self, Audited, cut_reply};
use crate::options::DirectoryOptions;
use crate::orders::{OrderError, Orders};
use crate::view::RealmView;

/// The realm on one node.
pub struct RealmService<G, K, C> {
    orders: Orders<G, C>,
    view: RealmView<K>,
}

/// Why a call was not carried out: code, leader, reason.
type Refusal = (Code, u64, String);

impl<G: KeyedGroup, K: KeyedStore, C: Clock> RealmService<G, K, C> {
    /// Over a group and the records of its machine.
    pub fn new(group: G, view: RealmView<K>, clock: C, options: DirectoryOptions) -> Self {
        Self { orders: Orders::new(GroupId::realm(), group, clock, options), view }
    }

    /// The group.
    pub fn group(&self) -> &G {
        &self.orders.group
    }

    /// The records, as new as this replica.
    pub fn view(&self) -> &RealmView<K> {
        &self.view
    }

    /// Commits an order and returns its answer, which may be a refusal. Leaders only.
    ///
    /// An unknown outcome is tried again until the deadline, except a cut without a number: two of those are two cuts.
    pub async fn order(&self, body: Body) -> Result<RealmAnswer, OrderError> {
        let repeatable = !matches!(&body, Body::Cut(cut) if cut.number == 0);
        self.orders.order(repeatable, |now_ms| encode_realm_entry(now_ms, body.clone())).await
    }

    /// Records a world, for one of its nodes.
    pub async fn record_world(&self, peer: &PeerIdentity, request: RecordWorldRequest) -> RecordWorldReply {
        let told = match request.world {
            Some(world) => self.carry_out(peer, WorldId(world.world), Body::World(world)).await,
            None => Err((Code::Malformed, 0, "no world".into())),
        };
        match told {
            Ok(answer) => RecordWorldReply { code: answer.code, leader: 0, reason: answer.reason },
            Err((code, leader, reason)) => RecordWorldReply { code: code as u32, leader, reason },
        }
    }

    /// Gives a folder its incarnation, or takes in the one that it has; for the directory of its world.
    pub async fn register_node(&self, peer: &PeerIdentity, request: RegisterNodeRequest) -> RegisterReply {
        let told = match request.node {
            Some(node) => self.carry_out(peer, WorldId(node.world), Body::Node(node)).await,
            None => Err((Code::Malformed, 0, "no node".into())),
        };
        match told {
            Ok(answer) => RegisterReply {
                code: answer.code,
                incarnation: answer.node.map_or(0, |node| node.incarnation),
                leader: 0,
                reason: answer.reason,
            },
            Err((code, leader, reason)) => RegisterReply { code: code as u32, incarnation: 0, leader, reason },
        }
    }

    async fn carry_out(&self, peer: &PeerIdentity, world: WorldId, order: Body) -> Result<RealmAnswer, Refusal> {
        if !peer.may(Role::Shard, world) {
            return Err((Code::Forbidden, 0, format!("{peer} may not speak for world {world}")));
        }
        let failed = |error: OrderError| {
            let (code, leader) = error.reply();
            (code, leader, error.to_string())
        };
        self.orders.leading().map_err(failed)?;
        let Some(_call) = self.orders.call() else {
            return Err((Code::Unavailable, 0, format!("{} calls are in flight", self.orders.options.calls_in_flight)));
        };
        self.order(order).await.map_err(failed)
    }
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> Audited for RealmService<G, K, C> {
    fn take_cut(&self, number: CutNumber) -> BoxFuture<'_, TakeCutReply> {
        Box::pin(async move {
            let order = Body::Cut(Cut { number: number.0, now_ms: 0 });
            let taken = self.order(order).await.map(|answer| (answer.code, answer.reason, answer.cut));
            cut_reply(self.view.records(), taken).await
        })
    }

    fn inspect(&self, cut: CutNumber) -> BoxFuture<'_, InspectReply> {
        Box::pin(inspect::realm(self.orders.id, self.view.records(), cut))
    }

    fn seed(&self, _request: SeedCharactersRequest, _record: Bytes) -> BoxFuture<'_, SeedCharactersReply> {
        let reason = "the realm has no characters".to_owned();
        Box::pin(std::future::ready(SeedCharactersReply { code: Code::Refused as u32, reason, ..SeedCharactersReply::default() }))
    }
}

/// The realm's replica of a node, once it is open. A node that has none answers as a member that does not lead and does not know
/// who does: the caller asks another one. Cheap to clone; clones share.
pub struct RealmSlot<G, K, C>(Arc<OnceLock<Arc<RealmService<G, K, C>>>>);

impl<G, K, C> Clone for RealmSlot<G, K, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<G, K, C> Default for RealmSlot<G, K, C> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> RealmSlot<G, K, C> {
    /// Serves the realm from here on. The first one stays.
    pub fn set(&self, service: Arc<RealmService<G, K, C>>) {
        let _ = self.0.set(service);
    }

    /// As a server with the cluster's message limits.
    pub fn into_server(self) -> RealmServer<Self> {
        RealmServer::new(self)
            .max_decoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
    }
}

const NOT_HERE: u32 = Code::NotLeader as u32;

#[tonic::async_trait]
impl<G: KeyedGroup, K: KeyedStore, C: Clock> Realm for RealmSlot<G, K, C> {
    async fn record_world(&self, request: Request<RecordWorldRequest>) -> Result<Response<RecordWorldReply>, Status> {
        let peer = peer_of(&request)?.clone();
        Ok(Response::new(match self.0.get() {
            Some(service) => service.record_world(&peer, request.into_inner()).await,
            None => RecordWorldReply { code: NOT_HERE, leader: 0, reason: "no replica of the realm is here".into() },
        }))
    }

    async fn register_node(&self, request: Request<RegisterNodeRequest>) -> Result<Response<RegisterReply>, Status> {
        let peer = peer_of(&request)?.clone();
        Ok(Response::new(match self.0.get() {
            Some(service) => service.register_node(&peer, request.into_inner()).await,
            None => {
                let reason = "no replica of the realm is here".into();
                RegisterReply { code: NOT_HERE, reason, ..RegisterReply::default() }
            }
        }))
    }
}
