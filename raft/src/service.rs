//! The receiving side: requests of peers, checked and handed to their groups.
//!
//! Every batch is checked for sender and receiver, every envelope for group, role and world. Requests of a stream are first
//! polled in the order in which they came, so that the requests of a group reach it in order, while a slow group does not
//! hold up the others. When too many are under way, the stream is not read.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use marchland_proto::cluster::raft_envelope::Body;
use marchland_proto::cluster::raft_transport_server::{RaftTransport, RaftTransportServer};
use marchland_proto::cluster::{
    RaftBatch, RaftEnvelope, RaftError, RaftPulse, RaftRestAnswer, SnapshotAnswer, SnapshotChunk, SnapshotRequest,
};
use marchland_proto::net::{PeerIdentity, Role, peer_of};
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;
use marchland_types::{GroupId, GroupKind, Incarnation, LogIndex, ReplicaId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::group::GroupInner;
use crate::node::NodeInner;
use crate::options::Standing;
use crate::snapshots::{self, Outgoing};
use crate::types::RaftSnapshot;
use crate::wire::{self, Refusal};

/// Answers that go into one message at most.
const ANSWERS: usize = 512;
/// Envelopes that a batch may hold. Senders stay below.
const ENVELOPES_MAX: usize = 1024;

/// The gRPC service of a node's groups, to be mounted on its cluster server.
#[derive(Clone)]
pub struct RaftService(pub(crate) Arc<NodeInner>);

impl RaftService {
    /// As a server with the cluster's message limits.
    pub fn into_server(self) -> RaftTransportServer<Self> {
        RaftTransportServer::new(self)
            .max_decoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
    }
}

/// Whether a peer may speak about this group at all.
fn may_speak(node: &NodeInner, peer: &PeerIdentity, group: GroupId) -> bool {
    match group.kind() {
        // Its hosts are of whichever worlds: this node was told which ones they are.
        Some(GroupKind::Realm) => peer.roles.contains(&Role::Shard) && node.hosts_realm(peer.node),
        Some(GroupKind::Directory | GroupKind::Vault | GroupKind::Region | GroupKind::Service | GroupKind::Bench) | None => {
            peer.may(Role::Shard, group.world())
        }
    }
}

/// Whether `from`, on a connection of `peer`, may speak to `to` about this group.
fn admit(node: &NodeInner, peer: &PeerIdentity, from: ReplicaId, to: ReplicaId, group: GroupId) -> Result<(), RaftError> {
    if !may_speak(node, peer, group) {
        return Err(Refusal::Forbidden.with(format!("{peer} may not speak raft for {group}")));
    }
    if from.node() != peer.node {
        return Err(Refusal::OtherReplica.with(format!("replica {from} on a connection of node {}", peer.node)));
    }
    if to != node.me() {
        return Err(Refusal::OtherReplica.with(format!("this is replica {}, not {to}", node.me())));
    }
    match node.standing(from) {
        Standing::Issued => Ok(()),
        Standing::Superseded => {
            Err(Refusal::OtherReplica.with(format!("replica {from} was superseded: its node has another data folder now")))
        }
        // From their own logs this node learns who was issued: it can not know that before it is told.
        Standing::Unknown if matches!(group.kind(), Some(GroupKind::Realm | GroupKind::Directory)) => Ok(()),
        Standing::Unknown if node.has_member(group, from) => Ok(()),
        Standing::Unknown => Err(Refusal::OtherReplica.with(format!("replica {from} was never issued"))),
    }
}

fn group(node: &NodeInner, id: GroupId) -> Result<Arc<GroupInner>, RaftError> {
    let group = node.group(id).ok_or_else(|| Refusal::UnknownGroup.with(format!("{id} is not open here")))?;
    match group.fault() {
        None => Ok(group),
        Some(reason) => Err(Refusal::Stopped.with(reason)),
    }
}

async fn handle(group: &Arc<GroupInner>, from: ReplicaId, body: Option<Body>) -> Result<Body, RaftError> {
    let raft = group.raft();
    let stopped = |error: &dyn std::fmt::Display| Refusal::Stopped.with(error.to_string());
    match body {
        Some(Body::Append(append)) => {
            // Entries that the log has no room for would stop the group. The leader tries again.
            if !append.entries.is_empty() {
                group.store.room().map_err(|e| Refusal::Busy.with(e.to_string()))?;
            }
            let request = wire::append_in(append)?;
            let wakes = !request.entries.is_empty() || group.is_other_vote(&request.vote);
            let answer = raft.append_entries(request).await.map_err(|e| stopped(&e))?;
            // Its leader was heard: its timer begins now.
            if wakes {
                group.wake(Duration::ZERO);
            }
            Ok(Body::AppendAnswer(wire::append_answer_out(&answer, group.word())))
        }
        Some(Body::Vote(vote)) => {
            let request = wire::vote_request_in(&vote)?;
            let rest = group.rest();
            group.wake(Duration::ZERO);
            if vote.pre
                && let Some(answer) = group.declines(rest, from)
            {
                return Ok(Body::VoteAnswer(wire::vote_answer_out(&answer)));
            }
            let answer = if vote.pre { raft.pre_vote(request).await } else { raft.vote(request).await };
            Ok(Body::VoteAnswer(wire::vote_answer_out(&answer.map_err(|e| stopped(&e))?)))
        }
        Some(Body::Transfer(transfer)) => {
            group.wake(Duration::ZERO);
            let answer = raft.handle_transfer_leader(wire::transfer_in(&transfer)?).await.map_err(|e| stopped(&e))?;
            Ok(Body::TransferAnswer(wire::transfer_answer_out(&answer)))
        }
        Some(Body::Rest(rest)) if rest.wake => {
            group.wake(Duration::ZERO);
            Ok(Body::RestAnswer(RaftRestAnswer { agreed: true }))
        }
        Some(Body::Rest(rest)) => {
            let (Some(last), vote) = (&rest.last, wire::vote_in(&rest.vote)?) else {
                return Err(Refusal::Malformed.with("rest without a last entry"));
            };
            let agreed = group.rests_with(from, &vote, &wire::id_in(last)?);
            Ok(Body::RestAnswer(RaftRestAnswer { agreed }))
        }
        Some(
            Body::AppendAnswer(_)
            | Body::VoteAnswer(_)
            | Body::TransferAnswer(_)
            | Body::RestAnswer(_)
            | Body::Pulse(_)
            | Body::Error(_),
        )
        | None => Err(Refusal::Malformed.with("not a request")),
    }
}

type Envelopes = Pin<Box<dyn Stream<Item = Result<RaftBatch, Status>> + Send>>;

impl RaftService {
    #[allow(clippy::result_large_err)]
    fn stream(&self, request: Request<Streaming<RaftBatch>>) -> Result<Response<Envelopes>, Status> {
        let peer = peer_of(&request)?.clone();
        let (out, answers) = mpsc::channel(1);
        tokio::spawn(serve(self.0.clone(), peer, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }
}

/// Serves one stream until either side ends it, or the node stops.
async fn serve(
    node: Arc<NodeInner>,
    peer: PeerIdentity,
    mut requests: Streaming<RaftBatch>,
    out: mpsc::Sender<Result<RaftBatch, Status>>,
) {
    let mut closing = node.closing();
    let limit = node.limits().requests_at_once;
    let mut running = FuturesUnordered::new();
    let mut answers: Vec<RaftEnvelope> = Vec::new();
    let mut from = ReplicaId::default();
    let reason = loop {
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break "node is stopping".to_owned(),
            Some(answer) = running.next(), if !running.is_empty() && answers.len() < ANSWERS => {
                answers.push(answer);
                while answers.len() < ANSWERS
                    && let Some(Some(answer)) = running.next().now_or_never()
                {
                    answers.push(answer);
                }
            }
            permit = out.reserve(), if !answers.is_empty() => match permit {
                Ok(permit) => {
                    let envelopes = std::mem::take(&mut answers);
                    permit.send(Ok(RaftBatch { from: node.me().0, to: from.0, envelopes }));
                }
                Err(_) => break "peer has gone".to_owned(),
            },
            batch = requests.message(), if running.len() < limit => match batch {
                Ok(Some(batch)) if batch.envelopes.len() > ENVELOPES_MAX => {
                    break format!("batch of {} envelopes", batch.envelopes.len());
                }
                Ok(Some(batch)) => {
                    from = ReplicaId(batch.from);
                    let to = ReplicaId(batch.to);
                    for envelope in batch.envelopes {
                        let id = GroupId(envelope.group);
                        let is_pulse = matches!(envelope.body, Some(Body::Pulse(_)));
                        let find = |()| if is_pulse { Ok(None) } else { group(&node, id).map(Some) };
                        let admitted = admit(&node, &peer, from, to, id).and_then(find);
                        if let Err(error) = &admitted {
                            tracing::debug!(%peer, group = %id, %from, reason = %error.reason, "raft request refused");
                        }
                        running.push(async move {
                            let body = match admitted {
                                Ok(Some(group)) => handle(&group, from, envelope.body).await,
                                // A pulse is about no group: that it is answered is all.
                                Ok(None) => Ok(Body::Pulse(RaftPulse {})),
                                Err(error) => Err(error),
                            };
                            let body = Some(body.unwrap_or_else(Body::Error));
                            RaftEnvelope { group: envelope.group, request: envelope.request, body }
                        });
                    }
                }
                Ok(None) => break "peer ended the stream".to_owned(),
                Err(status) => break status.to_string(),
            },
        }
    };
    tracing::debug!(%peer, %reason, "raft stream ended");
}

#[tonic::async_trait]
impl RaftTransport for RaftService {
    type AppendStream = Envelopes;
    type ControlStream = Envelopes;
    type FetchSnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotChunk, Status>> + Send>>;

    async fn append(&self, request: Request<Streaming<RaftBatch>>) -> Result<Response<Envelopes>, Status> {
        self.stream(request)
    }

    async fn control(&self, request: Request<Streaming<RaftBatch>>) -> Result<Response<Envelopes>, Status> {
        self.stream(request)
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotAnswer>, Status> {
        let peer = peer_of(&request)?.clone();
        let answer = match self.install(&peer, request.into_inner()).await {
            Ok(vote) => SnapshotAnswer { vote: Some(vote), error: None },
            Err(error) => SnapshotAnswer { vote: None, error: Some(error) },
        };
        Ok(Response::new(answer))
    }

    async fn fetch_snapshot(&self, request: Request<SnapshotRequest>) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let peer = peer_of(&request)?.clone();
        let request = request.into_inner();
        let (id, from) = (GroupId(request.group), ReplicaId(request.from));
        let refused = |error: RaftError| Status::failed_precondition(error.reason);
        admit(&self.0, &peer, from, self.me_or(ReplicaId(request.to)), id).map_err(refused)?;
        let group = group(&self.0, id).map_err(refused)?;
        let turn = self.0.fetched().try_acquire_owned().map_err(|_| Status::resource_exhausted("too many snapshots at once"))?;
        let snapshot = group.snapshot().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let Some(snapshot) = snapshot else { return Err(Status::unavailable("nothing is applied yet")) };
        let outgoing = Outgoing { group: id, from: self.0.me(), to: from, vote: None, timings: self.0.timings().clone() };
        Ok(Response::new(snapshots::serve(outgoing, snapshot, turn).boxed()))
    }
}

impl RaftService {
    /// This replica, if whichever its node has is meant: who asks for a snapshot may not know that a folder was replaced.
    fn me_or(&self, to: ReplicaId) -> ReplicaId {
        let me = self.0.me();
        if to == ReplicaId::new(me.node(), Incarnation(0)) { me } else { to }
    }

    async fn install(
        &self,
        peer: &PeerIdentity,
        mut chunks: Streaming<SnapshotChunk>,
    ) -> Result<marchland_proto::cluster::RaftVoteId, RaftError> {
        let node = &self.0;
        let begin = snapshots::receive_begin(&mut chunks, node.timings()).await?;
        let id = GroupId(begin.group);
        admit(node, peer, ReplicaId(begin.from), ReplicaId(begin.to), id)?;
        let group = group(node, id)?;
        let vote = wire::vote_in(&begin.vote)?;
        group.wake(Duration::ZERO);
        let _turn = node.received().try_acquire_owned().map_err(|_| Refusal::Busy.with("too many snapshots at once"))?;
        let received = snapshots::receive_rest(&mut chunks, begin, node.timings(), node.limits().snapshot_bytes).await?;
        let meta = crate::machine::meta_of(&received.snapshot.applied).map_err(|e| Refusal::Malformed.with(e.to_string()))?;
        tracing::info!(group = %id, from = %ReplicaId(received.begin.from), last = ?meta.last_log_id, "snapshot received");
        let makes_way = group.state.halts().supersede(meta.last_log_id.as_ref().map(|last| LogIndex(last.index)));
        let snapshot = RaftSnapshot { meta, snapshot: received.snapshot };
        let answer = group.raft().install_full_snapshot(vote, snapshot).await;
        if makes_way && group.state.halts().is_superseded() {
            // Entries were passed over for a state that did not come. A restart begins from what is durable.
            group.state.fail("a peer's state was refused after this one had made way for it".into());
        }
        answer.map(|answer| wire::vote_out(&answer.vote)).map_err(|e| Refusal::Stopped.with(e.to_string()))
    }
}
