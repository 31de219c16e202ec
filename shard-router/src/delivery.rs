//! Bringing messages to the owner of the group that they are for.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use marchland_proto::cluster::regions_client::RegionsClient;
use marchland_proto::cluster::{DeliverAnswer, DeliverRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterClient, Transport};
use marchland_raft::BoxFuture;
use marchland_storage::keyed::KeyedStore;
use marchland_types::{GroupId, NodeId, ReplicaId};
use tokio::time::timeout;

use crate::peers::Peers;
use crate::view::DirectoryView;

/// Why a delivery has no answer of the receiver's owner. It may have arrived: deliver again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("messages to {to} are not delivered: {reason}")]
pub struct DeliverError {
    /// The receiver.
    pub to: GroupId,
    /// What happened.
    pub reason: String,
}

/// Brings messages to a group's owner.
pub trait Deliver: Send + Sync + 'static {
    /// Delivers, and returns the owner's answer.
    fn deliver(&self, request: DeliverRequest) -> impl Future<Output = Result<DeliverAnswer, DeliverError>> + Send;
}

/// Knows which nodes host a group, and their addresses.
pub trait Routes: Send + Sync + 'static {
    /// Nodes and `host:port`, in the order of nodes; empty when unknown.
    fn members(&self, group: GroupId) -> BoxFuture<'_, Vec<(NodeId, String)>>;

    /// Who leads the group, as far as this node knows by itself.
    fn leader(&self, _group: GroupId) -> Option<NodeId> {
        None
    }
}

/// By plans and registrations, as this replica knows them: what is old leads to a wrong node, which says so.
impl<K: KeyedStore> Routes for DirectoryView<K> {
    fn members(&self, group: GroupId) -> BoxFuture<'_, Vec<(NodeId, String)>> {
        Box::pin(async move {
            let plan = match self.plan(group).await {
                Ok(plan) => plan.unwrap_or_default(),
                Err(error) => {
                    tracing::error!(%group, %error, "plan can not be read");
                    return Vec::new();
                }
            };
            let mut members = BTreeMap::new();
            for replica in plan.replicas {
                let node = ReplicaId(replica).node();
                match self.node(node).await {
                    Ok(Some(record)) => drop(members.insert(node, record.grpc)),
                    Ok(None) => tracing::debug!(%group, %node, "node has not registered"),
                    Err(error) => tracing::error!(%group, %node, %error, "node can not be read"),
                }
            }
            members.into_iter().collect()
        })
    }
}

/// Fixed routes: every group is on the same nodes.
impl Routes for Vec<(NodeId, String)> {
    fn members(&self, _group: GroupId) -> BoxFuture<'_, Vec<(NodeId, String)>> {
        Box::pin(std::future::ready(self.clone()))
    }
}

/// How long one member may take. An owner answers with its next tick; whoever has lost its power does not say so.
const MEMBER_WITHIN: Duration = Duration::from_secs(1);

/// Delivery by `Regions.Deliver` to whichever member owns the group. The caller sets the deadline.
pub struct PeerDelivery<T, R> {
    peers: Peers<T>,
    routes: R,
    /// Who owned a group last, or is asked next. One entry a receiver.
    owners: Mutex<BTreeMap<GroupId, NodeId>>,
}

impl<T: Transport, R: Routes> PeerDelivery<T, R> {
    /// To members that `routes` names.
    pub fn new(peers: Peers<T>, routes: R) -> Self {
        Self { peers, routes, owners: Mutex::default() }
    }

    fn remember(&self, group: GroupId, node: NodeId) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(group, node);
    }
}

/// A member is being asked. If that ends without its answer, the next delivery begins with another one: others may be under way
/// meanwhile, which ask the same.
struct Asking<'a, T, R> {
    delivery: &'a PeerDelivery<T, R>,
    to: GroupId,
    /// Whom to ask if this one is silent.
    next: Option<NodeId>,
}

impl<T, R> Drop for Asking<'_, T, R> {
    fn drop(&mut self) {
        if let Some(next) = self.next {
            self.delivery.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(self.to, next);
        }
    }
}

impl<T: Transport, R: Routes> Deliver for PeerDelivery<T, R> {
    /// Asks each member once at most, leaders, owners and hinted ones first.
    async fn deliver(&self, request: DeliverRequest) -> Result<DeliverAnswer, DeliverError> {
        let to = GroupId(request.to_group);
        let mut left = self.routes.members(to).await;
        let last = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(&to).copied();
        let mut hint = self.routes.leader(to).or(last);
        let mut reason = "no member is known".to_owned();
        while !left.is_empty() {
            let at = hint.and_then(|hint| left.iter().position(|(node, _)| *node == hint)).unwrap_or(0);
            let (node, address) = left.remove(at);
            hint = None;
            let mut asking = Asking { delivery: self, to, next: left.first().map(|(next, _)| *next) };
            let mut client = RegionsClient::over(self.peers.channel(&address));
            match timeout(MEMBER_WITHIN, client.deliver(request.clone())).await {
                Ok(Ok(answer)) => {
                    asking.next = None;
                    let answer = answer.into_inner();
                    if answer.code == Code::NotLeader as u32 {
                        hint = Some(ReplicaId(answer.leader).node()).filter(|_| answer.leader != 0);
                        reason = format!("node {node} does not own it");
                        continue;
                    }
                    self.remember(to, node);
                    return Ok(answer);
                }
                Ok(Err(status)) => reason = format!("node {node}: {status}"),
                Err(_) => reason = format!("node {node}: no answer within {MEMBER_WITHIN:?}"),
            }
        }
        Err(DeliverError { to, reason })
    }
}
