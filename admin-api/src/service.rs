//! The admin service of a node: gRPC over the cluster's mutual TLS.
//!
//! A caller needs both a certificate with the role `admin` and the token: neither a node's certificate nor a stolen token
//! alone opens it. What it asks for is bounded by the backend; a refused call says which of the two was missing.

use std::sync::Arc;

use marchland_proto::cluster::admin_server::{Admin, AdminServer};
use marchland_proto::cluster::{
    ChangeMapReply, ChangeMapRequest, InspectReply, InspectRequest, MoveOwnerReply, MoveOwnerRequest, SeedCharactersReply,
    SeedCharactersRequest, SkipEntryReply, SkipEntryRequest, StatusReply, StatusRequest, TakeCutReply, TakeCutRequest,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{Role, peer_of};
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;
use marchland_types::{CutNumber, GroupId, LogIndex, NodeId};
use tonic::{Request, Response, Status};

use crate::map::MAP_REGIONS_MAX;
use crate::{AdminBackend, AdminToken};

/// Largest request: a map of as many regions as there may be, at 39 bytes each.
const REQUEST_MAX_BYTES: usize = 256 * 1024;
const _: () = assert!(MAP_REGIONS_MAX * 39 + 1024 <= REQUEST_MAX_BYTES);

/// gRPC's `Admin` over an [`AdminBackend`].
pub struct AdminService {
    backend: Arc<dyn AdminBackend>,
    token: Option<AdminToken>,
}

impl AdminService {
    /// The service, ready to be added to the routes of [`marchland_proto::net::serve_cluster`]. Without a token it refuses
    /// every call: an operator has not set one up.
    #[must_use]
    pub fn server(backend: Arc<dyn AdminBackend>, token: Option<AdminToken>) -> AdminServer<Self> {
        AdminServer::new(Self { backend, token })
            .max_decoding_message_size(REQUEST_MAX_BYTES)
            .max_encoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn admit<M>(&self, request: &Request<M>) -> Result<(), Status> {
        let peer = peer_of(request)?;
        if !peer.roles.contains(&Role::Admin) {
            return Err(Status::permission_denied(format!("{peer} has not the role admin")));
        }
        let Some(token) = &self.token else {
            return Err(Status::permission_denied("this node has no admin token configured and refuses every admin call"));
        };
        let presented = request.metadata().get("authorization").ok_or_else(|| Status::unauthenticated("no admin token"))?;
        let presented = presented.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        match presented {
            Some(presented) if token.admits(presented) => Ok(()),
            Some(_) => {
                tracing::warn!(%peer, "admin call with a wrong token");
                Err(Status::unauthenticated("wrong admin token"))
            }
            None => Err(Status::unauthenticated("authorization must be \"Bearer TOKEN\"")),
        }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        self.admit(&request)?;
        Ok(Response::new(self.backend.status().await))
    }

    async fn take_cut(&self, request: Request<TakeCutRequest>) -> Result<Response<TakeCutReply>, Status> {
        self.admit(&request)?;
        let peer = peer_of(&request)?.to_string();
        let TakeCutRequest { group, number } = request.into_inner();
        let group = GroupId(group);
        let reply = self.backend.take_cut(group, CutNumber(number)).await;
        tracing::info!(%peer, %group, asked = number, taken = reply.number, code = reply.code, "admin: cut");
        Ok(Response::new(reply))
    }

    async fn inspect(&self, request: Request<InspectRequest>) -> Result<Response<InspectReply>, Status> {
        self.admit(&request)?;
        let InspectRequest { group, cut } = request.into_inner();
        Ok(Response::new(self.backend.inspect(GroupId(group), CutNumber(cut)).await))
    }

    async fn move_owner(&self, request: Request<MoveOwnerRequest>) -> Result<Response<MoveOwnerReply>, Status> {
        self.admit(&request)?;
        let peer = peer_of(&request)?.to_string();
        let MoveOwnerRequest { group, node } = request.into_inner();
        let group = GroupId(group);
        let reply = self.backend.move_owner(group, (node != 0).then_some(NodeId(node))).await;
        tracing::warn!(%peer, %group, to = node, code = reply.code, said = reply.reason, "audit: move");
        Ok(Response::new(reply))
    }

    async fn seed_characters(&self, request: Request<SeedCharactersRequest>) -> Result<Response<SeedCharactersReply>, Status> {
        self.admit(&request)?;
        let peer = peer_of(&request)?.to_string();
        let request = request.into_inner();
        let (group, first, count) = (GroupId(request.group), request.first, request.count);
        let reply = self.backend.seed(request).await;
        tracing::info!(%peer, %group, first, count, code = reply.code, said = reply.reason, "audit: characters made");
        Ok(Response::new(reply))
    }

    async fn change_map(&self, request: Request<ChangeMapRequest>) -> Result<Response<ChangeMapReply>, Status> {
        self.admit(&request)?;
        let peer = peer_of(&request)?.to_string();
        let request = request.into_inner();
        let (group, epoch, regions) = (GroupId(request.group), request.map_epoch, request.map.len());
        let refuse = |code: Code, reason: String| ChangeMapReply { code: code as u32, reason, ..ChangeMapReply::default() };
        let reply = if regions > MAP_REGIONS_MAX {
            refuse(Code::TooLarge, format!("a map has at most {MAP_REGIONS_MAX} regions"))
        } else if epoch == 0 && regions > 0 {
            refuse(Code::Malformed, "a map comes with its epoch".to_owned())
        } else {
            self.backend.change_map(request).await
        };
        // Whoever only asks changes nothing, and asks often.
        if epoch != 0 {
            tracing::warn!(%peer, %group, epoch, regions, code = reply.code, said = reply.reason, "audit: map");
        }
        Ok(Response::new(reply))
    }

    async fn skip_entry(&self, request: Request<SkipEntryRequest>) -> Result<Response<SkipEntryReply>, Status> {
        self.admit(&request)?;
        let peer = peer_of(&request)?.to_string();
        let SkipEntryRequest { group, index, reason } = request.into_inner();
        let group = GroupId(group);
        let reply = self.backend.skip_entry(group, LogIndex(index), &reason, &peer).await;
        tracing::warn!(%peer, %group, entry = index, why = reason, code = reply.code, said = reply.reason, "audit: skip-entry");
        Ok(Response::new(reply))
    }
}
