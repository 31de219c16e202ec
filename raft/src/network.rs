//! The raft library's network, over [`crate::link`] and [`crate::snapshots`].
//!
//! Three connections for each ordered pair of nodes: appends of all groups; heartbeats, pre-votes, votes and transfers;
//! snapshots. Appends are pipelined: the next is sent before the one before it is answered, answers are yielded in order.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use marchland_proto::cluster::raft_envelope::Body;
use marchland_types::{GroupId, LogIndex, ReplicaId};
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::api::Snapshot;
use crate::link::{ChannelCell, Connector, Endpoint, Haste, Lane, Link, LinkError};
use crate::options::{AddressBook, Limits, Timings};
use crate::probe::Probe;
use crate::snapshots::{self, Outgoing};
use crate::standby::{Standby, Word};
use crate::types::{LogId, RaftSnapshot, TypeConfig, Vote};
use crate::wire::{self, Malformed};

/// Appends of one group to one follower that are under way at once.
const PIPELINE: usize = 16;
/// Why a heartbeat is not sent.
const STILL: &str = "no majority was heard of late: this leader keeps still for a while";

/// All connections of a node to its peers.
pub(crate) struct Links {
    pub(crate) me: ReplicaId,
    pub(crate) timings: Timings,
    pub(crate) limits: Limits,
    addresses: Arc<dyn AddressBook>,
    connector: Connector,
    /// Snapshots sent at once.
    sending: Semaphore,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Peers {
    links: BTreeMap<(ReplicaId, Lane), (Link, AbortHandle)>,
    snapshots: BTreeMap<ReplicaId, Arc<Mutex<ChannelCell>>>,
    closed: bool,
}

impl Links {
    pub(crate) fn new(
        me: ReplicaId,
        timings: Timings,
        limits: Limits,
        addresses: Arc<dyn AddressBook>,
        connector: Connector,
    ) -> Self {
        let sending = Semaphore::new(limits.snapshots_at_once);
        Self { me, timings, limits, addresses, connector, sending, peers: Mutex::default() }
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, to: ReplicaId, lane: Lane) -> Result<Link, LinkError> {
        let mut peers = self.peers();
        if peers.closed {
            return Err(LinkError::Unreachable("node is stopping".into()));
        }
        let entry = peers.links.entry((to, lane)).or_insert_with(|| {
            Endpoint {
                from: self.me,
                to,
                lane,
                queue: self.limits.link_queue,
                addresses: self.addresses.clone(),
                connector: self.connector.clone(),
            }
            .start()
        });
        Ok(entry.0.clone())
    }

    /// Asks a peer something that is no matter of the raft library.
    pub(crate) async fn ask(&self, to: ReplicaId, group: GroupId, body: Body, deadline: Duration) -> Result<Body, LinkError> {
        self.link(to, Lane::Control)?.call(group, body, Haste::Now, deadline).await
    }

    /// The channel for snapshots to or from a replica's node.
    pub(crate) fn snapshot_channel(&self, to: ReplicaId) -> Result<tonic::transport::Channel, LinkError> {
        let cell = {
            let mut peers = self.peers();
            if peers.closed {
                return Err(LinkError::Unreachable("node is stopping".into()));
            }
            let make = || ChannelCell::new(to.node(), self.addresses.clone(), self.connector.clone());
            peers.snapshots.entry(to).or_insert_with(|| Arc::new(Mutex::new(make()))).clone()
        };
        let channel = cell.lock().unwrap_or_else(PoisonError::into_inner).channel();
        channel.map_err(LinkError::Unreachable)
    }

    /// Ends every connection. Requests fail from here on.
    pub(crate) fn close(&self) {
        let mut peers = self.peers();
        peers.closed = true;
        for (_, task) in std::mem::take(&mut peers.links).into_values() {
            task.abort();
        }
        peers.snapshots.clear();
    }
}

/// Makes the network of one group.
pub(crate) struct Factory {
    pub(crate) group: GroupId,
    pub(crate) links: Arc<Links>,
    pub(crate) standby: Arc<Standby>,
    pub(crate) probe: Arc<Probe>,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, _: &openraft::EmptyNode) -> Network {
        self.client(target, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _: &openraft::EmptyNode) -> Network {
        // Made anew for every term that this replica leads.
        self.probe.follows(ReplicaId(target), Instant::now());
        self.client(target, Lane::Control)
    }
}

impl Factory {
    fn client(&self, target: u64, appends: Lane) -> Network {
        Network {
            group: self.group,
            to: ReplicaId(target),
            appends,
            links: self.links.clone(),
            standby: self.standby.clone(),
            probe: self.probe.clone(),
        }
    }
}

/// One group's way to one replica.
pub(crate) struct Network {
    group: GroupId,
    to: ReplicaId,
    /// Which connection appends take: heartbeats do not share the one of entries.
    appends: Lane,
    links: Arc<Links>,
    standby: Arc<Standby>,
    probe: Arc<Probe>,
}

type Failure = RPCError<TypeConfig>;

fn unreachable(why: impl ToString) -> Failure {
    RPCError::Unreachable(Unreachable::from_string(why))
}

impl Network {
    fn failure(&self, error: LinkError, action: RPCTypes) -> Failure {
        match error {
            LinkError::Timeout(timeout) => RPCError::Timeout(Timeout { action, id: self.links.me.0, target: self.to.0, timeout }),
            // A refusal does not go away by asking again at once.
            error @ (LinkError::Unreachable(_) | LinkError::Refused(_)) => unreachable(error),
        }
    }

    async fn call(&self, lane: Lane, body: Body, deadline: Duration, action: RPCTypes) -> Result<Body, Failure> {
        let link = self.links.link(self.to, lane).map_err(|e| self.failure(e, action))?;
        link.call(self.group, body, Haste::Now, deadline).await.map_err(|e| self.failure(e, action))
    }
}

fn odd(body: &Body) -> Malformed {
    Malformed(format!("answer of another kind, about {} bytes", wire::size_of(body)))
}

/// What a stream of appends knows of its follower.
#[derive(Default)]
struct Course {
    /// Last entry of the last append.
    sent: Option<LogId>,
    /// The follower took an append of this stream.
    agreed: bool,
}

impl Course {
    /// Whether an append may wait, and notes that it is sent.
    fn haste(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> Haste {
        let last = wire::last_of(request);
        let says_nothing_new = self.agreed && request.entries.is_empty() && last.is_some() && last == self.sent;
        self.sent = last;
        if says_nothing_new { Haste::MayWait } else { Haste::Now }
    }
}

async fn append(
    link: Link,
    group: GroupId,
    request: AppendEntriesRequest<TypeConfig>,
    course: Arc<Mutex<Course>>,
    deadline: Duration,
    heard: impl FnOnce(Word),
) -> Result<StreamAppendResult<TypeConfig>, LinkError> {
    let course = || course.lock().unwrap_or_else(PoisonError::into_inner);
    let haste = course().haste(&request);
    let (prev, last) = (request.prev_log_id, wire::last_of(&request));
    let body = Body::Append(wire::append_out(&request));
    drop(request);
    let refused = |m: Malformed| LinkError::Refused(m.into());
    let answer = match link.call(group, body, haste, deadline).await? {
        Body::AppendAnswer(answer) => {
            heard(Word { applied: LogIndex(answer.applied), short_of_room: answer.short_of_room });
            wire::append_answer_in(&answer).map_err(refused)?
        }
        other => return Err(refused(odd(&other))),
    };
    if answer.is_conflict() && prev.is_none() {
        return Err(refused(Malformed("conflict before the first entry".into())));
    }
    course().agreed |= answer.is_success();
    Ok(answer.into_stream_result(prev, last))
}

impl NetStreamAppend<TypeConfig> for Network {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> futures::future::BoxFuture<
        's,
        Result<futures::stream::BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Failure>>, Failure>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let deadline = match self.appends {
            Lane::Control => option.soft_ttl(),
            Lane::Append => Duration::from_millis(self.links.timings.append_ms),
        };
        let (group, to, standby, probe) = (self.group, self.to, self.standby.clone(), self.probe.clone());
        let beats = self.appends == Lane::Control;
        let link = self.links.link(self.to, self.appends).map_err(|e| self.failure(e, RPCTypes::AppendEntries));
        let this: &'s Self = self;
        Box::pin(async move {
            let link = link?;
            let course = Arc::new(Mutex::new(Course::default()));
            let answers = input
                .map(move |request| {
                    let (standby, probe, sent) = (standby.clone(), probe.clone(), Instant::now());
                    let keeps_still = beats && !probe.may_send(sent);
                    let heard = move |word| {
                        probe.answered(to, sent);
                        standby.heard(to, word);
                    };
                    let sending = append(link.clone(), group, request, course.clone(), deadline, heard);
                    async move { if keeps_still { Err(LinkError::Unreachable(STILL.into())) } else { sending.await } }
                })
                .buffered(PIPELINE)
                .map(|result| result.map_err(|e| this.failure(e, RPCTypes::AppendEntries)));
            Ok(answers.boxed())
        })
    }
}

impl NetVote<TypeConfig> for Network {
    async fn vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.ask(&request, false, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.ask(&request, true, option).await
    }
}

impl Network {
    async fn ask(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let body = Body::Vote(wire::vote_request_out(request, pre));
        match self.call(Lane::Control, body, option.soft_ttl(), RPCTypes::Vote).await? {
            Body::VoteAnswer(answer) => wire::vote_answer_in(&answer).map_err(unreachable),
            other => Err(unreachable(odd(&other))),
        }
    }
}

impl NetTransferLeader<TypeConfig> for Network {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let body = Body::Transfer(wire::transfer_out(&request));
        match self.call(Lane::Control, body, option.soft_ttl(), RPCTypes::TransferLeader).await? {
            Body::TransferAnswer(answer) => wire::transfer_answer_in(&answer).map_err(unreachable),
            other => Err(unreachable(odd(&other))),
        }
    }
}

impl NetBackoff<TypeConfig> for Network {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetSnapshot<TypeConfig> for Network {
    type SnapshotData = Snapshot;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let links = self.links.clone();
        let send = async {
            // Closed by nobody.
            let _turn = links.sending.acquire().await;
            let channel = links.snapshot_channel(self.to)?;
            let outgoing =
                Outgoing { group: self.group, from: links.me, to: self.to, vote: Some(vote), timings: links.timings.clone() };
            snapshots::send(channel, outgoing, snapshot.snapshot).await
        };
        tokio::pin!(cancel);
        tokio::select! {
            biased;
            closed = &mut cancel => Err(StreamingError::Closed(closed)),
            sent = send => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => {
                    tracing::warn!(group = %self.group, to = %self.to, %error, "snapshot was not taken");
                    Err(self.failure(error, RPCTypes::InstallSnapshot).into())
                }
            },
        }
    }
}
