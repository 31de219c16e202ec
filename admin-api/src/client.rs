//! Asks the nodes of a cluster, as operators' tools do: over mutual TLS, with the token, every call with a deadline.
//!
//! A node that does not answer is part of every answer here: never left out, never taken for a healthy one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use marchland_proto::cluster::admin_client::AdminClient as Grpc;
use marchland_proto::cluster::{
    ChangeMapReply, ChangeMapRequest, InspectReply, InspectRequest, MoveOwnerReply, MoveOwnerRequest, SeedCharactersReply,
    SeedCharactersRequest, SkipEntryReply, SkipEntryRequest, StatusReply, StatusRequest, TakeCutReply, TakeCutRequest,
};
use marchland_proto::net::{CALL_TIMEOUT, ClusterClient, ClusterSecurity, SecurityError, TlsFiles, Transport, cluster_channel};
use marchland_types::{CutNumber, GroupId, NodeId};
use serde::{Deserialize, Serialize};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::status::NodeView;

/// Longest time for one node to say how it is.
const STATUS_WITHIN: Duration = CALL_TIMEOUT;
/// Longest time for a region to go on: the node itself gives it 10 s to restore its state.
const SKIP_WITHIN: Duration = Duration::from_secs(15);
/// Longest time for a thousand characters to be made.
const SEED_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for a directory to take a map: the node itself tries for 5 s.
const MAP_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for a region to be handed over: the node itself tries for 3 s.
const MOVE_WITHIN: Duration = Duration::from_secs(6);

/// Why the nodes can not be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A file could not be read.
    #[error("can not read {path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not what `marchland up` writes.
    #[error("{path} is not a ready file: {reason}")]
    NotReadyFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no world of that name.
    #[error("there is no world {named:?}, but {worlds}")]
    NoWorld {
        /// What was asked for.
        named: String,
        /// What there is.
        worlds: String,
    },
    /// There are several worlds.
    #[error("--world must name one of {worlds}")]
    WhichWorld {
        /// What there is.
        worlds: String,
    },
    /// No node was named.
    #[error("no address of a node was given")]
    NoAddress,
    /// The token can not stand in a header.
    #[error("the admin token is empty or has characters that a header may not have")]
    BadToken,
    /// A certificate or key can not be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
}

/// A call that got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing came: the node is away, slow, or not of this cluster.
    #[error("node at {address} gave no answer: {reason}")]
    NoAnswer {
        /// Where it should be.
        address: String,
        /// What happened.
        reason: String,
    },
    /// It refuses this caller.
    #[error("node at {address} refuses: {reason}")]
    Refused {
        /// Where it is.
        address: String,
        /// Why.
        reason: String,
    },
}

/// Whose nodes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worlds<'a> {
    /// Those of all worlds.
    All,
    /// Those of the world of this name.
    Named(&'a str),
    /// Those of the only world; an error when there are several.
    Only,
}

/// How to reach the nodes of a cluster, and as whom.
#[derive(Clone)]
pub struct AdminEndpoint {
    /// Cluster addresses of the nodes, `host:port`.
    pub addresses: Vec<String>,
    /// Certificates with the role `admin`.
    pub security: ClusterSecurity,
    /// The admin token.
    pub token: String,
}

/// What is used of a ready file; `marchland up` writes more.
#[derive(Deserialize)]
struct ReadyFile {
    nodes: Vec<ReadyNode>,
    #[serde(default)]
    worlds: Vec<String>,
    admin_token: String,
    authority: PathBuf,
    admin_certificate: PathBuf,
    admin_key: PathBuf,
}

#[derive(Deserialize)]
struct ReadyNode {
    grpc: String,
    #[serde(default)]
    world: String,
}

impl AdminEndpoint {
    /// From the ready file of `marchland up`: the nodes of one world, or of all.
    pub fn from_ready_file(path: &Path, worlds: Worlds<'_>) -> Result<Self, EndpointError> {
        let text = std::fs::read(path).map_err(|error| EndpointError::Unreadable { path: path.to_owned(), error })?;
        let file: ReadyFile = serde_json::from_slice(&text)
            .map_err(|e| EndpointError::NotReadyFile { path: path.to_owned(), reason: e.to_string() })?;
        let files = TlsFiles { authority: file.authority, certificate: file.admin_certificate, key: file.admin_key };
        let world = match (worlds, &file.worlds[..]) {
            (Worlds::All, _) | (Worlds::Only, [] | [_]) => None,
            (Worlds::Named(name), worlds) if worlds.iter().any(|world| world == name) => Some(name),
            (Worlds::Named(name), worlds) => {
                return Err(EndpointError::NoWorld { named: name.to_owned(), worlds: worlds.join(", ") });
            }
            (Worlds::Only, worlds) => return Err(EndpointError::WhichWorld { worlds: worlds.join(", ") }),
        };
        let of_world = |node: &ReadyNode| world.is_none_or(|world| node.world == world);
        Ok(Self {
            addresses: file.nodes.into_iter().filter(|node| of_world(node)).map(|node| node.grpc).collect(),
            security: ClusterSecurity::load(&files)?,
            token: file.admin_token,
        })
    }

    /// Clients for every node. Nothing is connected before the first call.
    pub fn connect<T: Transport>(&self, transport: &T) -> Result<AdminCluster, EndpointError> {
        if self.addresses.is_empty() {
            return Err(EndpointError::NoAddress);
        }
        let token = self.token.trim();
        let mut bearer: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().ok().filter(|_| !token.is_empty()).ok_or(EndpointError::BadToken)?;
        bearer.set_sensitive(true);
        let node = |address: &String| AdminNode {
            address: address.clone(),
            grpc: Grpc::over(cluster_channel(transport, &self.security, address)),
            bearer: bearer.clone(),
        };
        Ok(AdminCluster { nodes: self.addresses.iter().map(node).collect() })
    }
}

/// Every node of a cluster.
pub struct AdminCluster {
    /// One client per address, in the order that was given.
    pub nodes: Vec<AdminNode>,
}

/// One node.
pub struct AdminNode {
    address: String,
    grpc: Grpc<Channel>,
    bearer: MetadataValue<Ascii>,
}

impl AdminNode {
    /// Where it is, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How it is.
    pub async fn status(&self) -> Result<StatusReply, CallError> {
        let request = self.request(StatusRequest {});
        self.within(STATUS_WITHIN, self.grpc.clone().status(request)).await
    }

    /// Has it commit a cut in a group that it owns. The outcome of a call without an answer is unknown.
    pub async fn take_cut(&self, group: GroupId, number: CutNumber) -> Result<TakeCutReply, CallError> {
        let request = self.request(TakeCutRequest { group: group.0, number: number.0 });
        self.within(CALL_TIMEOUT, self.grpc.clone().take_cut(request)).await
    }

    /// What its replica of a group looked like at a cut.
    pub async fn inspect(&self, group: GroupId, cut: CutNumber) -> Result<InspectReply, CallError> {
        let request = self.request(InspectRequest { group: group.0, cut: cut.0 });
        self.within(CALL_TIMEOUT, self.grpc.clone().inspect(request)).await
    }

    /// Has a region whose group it leads go on without an entry. The outcome of a call without an answer is unknown.
    pub async fn skip_entry(&self, request: SkipEntryRequest) -> Result<SkipEntryReply, CallError> {
        let request = self.request(request);
        self.within(SKIP_WITHIN, self.grpc.clone().skip_entry(request)).await
    }

    /// Has it hand a region that it owns to another node; `None` is whoever is furthest.
    pub async fn move_owner(&self, group: GroupId, to: Option<NodeId>) -> Result<MoveOwnerReply, CallError> {
        let request = self.request(MoveOwnerRequest { group: group.0, node: to.map_or(0, |node| node.0) });
        self.within(MOVE_WITHIN, self.grpc.clone().move_owner(request)).await
    }

    /// Has it do a part of making many characters. Given again, it changes nothing.
    pub async fn seed(&self, request: SeedCharactersRequest) -> Result<SeedCharactersReply, CallError> {
        let request = self.request(request);
        self.within(SEED_WITHIN, self.grpc.clone().seed_characters(request)).await
    }

    /// Has it tell the region map, or change it. Given again, the same order changes nothing.
    pub async fn change_map(&self, request: ChangeMapRequest) -> Result<ChangeMapReply, CallError> {
        let request = self.request(request);
        self.within(MAP_WITHIN, self.grpc.clone().change_map(request)).await
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    async fn within<M>(&self, limit: Duration, call: impl Future<Output = Result<Response<M>, Status>>) -> Result<M, CallError> {
        let address = self.address.clone();
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(match status.code() {
                tonic::Code::Unauthenticated | tonic::Code::PermissionDenied | tonic::Code::Unimplemented => {
                    CallError::Refused { address, reason: status.message().to_owned() }
                }
                _ => CallError::NoAnswer { address, reason: reason(&status) },
            }),
            Err(_) => Err(CallError::NoAnswer { address, reason: format!("none within {} ms", limit.as_millis()) }),
        }
    }
}

/// The innermost cause says what went wrong: "connection refused", not "transport error".
fn reason(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if cause.source().is_none() && std::ptr::addr_eq(cause, std::ptr::from_ref::<Status>(status)) {
        status.message().to_owned()
    } else {
        cause.to_string()
    }
}

/// What every node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// One answer per address.
    pub nodes: Vec<NodeAnswer>,
}

/// One node's answer, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeAnswer {
    /// Where it is, `host:port`.
    pub address: String,
    /// Its status.
    pub status: Option<NodeView>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ClusterView {
    /// Whether every node answered, is ready, and no replica has stopped or differs.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.status
                .as_ref()
                .is_some_and(|s| s.ready && s.groups.iter().all(|g| g.fault.is_empty() && !g.diverged && g.halted_index == 0))
        })
    }
}

/// Asks every node how it is.
pub async fn cluster_status(cluster: &AdminCluster) -> ClusterView {
    let mut nodes = Vec::new();
    for node in &cluster.nodes {
        let address = node.address().to_owned();
        nodes.push(match node.status().await {
            Ok(reply) => NodeAnswer { address, status: Some(NodeView::from(&reply)), error: None },
            Err(error) => NodeAnswer { address, status: None, error: Some(error.to_string()) },
        });
    }
    ClusterView { nodes }
}
