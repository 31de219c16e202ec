//! What a peer may not do, whatever it sends.

mod support;

use marchland_proto::cluster::raft_envelope::Body;
use marchland_proto::cluster::raft_transport_client::RaftTransportClient;
use marchland_proto::cluster::snapshot_chunk::Body as Chunk;
use marchland_proto::cluster::{
    RaftAppend, RaftBatch, RaftEnvelope, RaftVote, RaftVoteId, SnapshotBegin, SnapshotChunk, SnapshotRequest,
};
use marchland_proto::net::{ClusterClient, ClusterSecurity, PeerIdentity, Role as PeerRole, cluster_channel};
use marchland_raft::{AddressBook, Standing};
use marchland_types::{GroupId, Incarnation, NodeId, ReplicaId, Term, WorldId};
use support::{Cluster, eventually, group_id, identity, propose, replica};

const UNKNOWN_GROUP: u32 = 1;
const OTHER_REPLICA: u32 = 2;
const FORBIDDEN: u32 = 4;
const MALFORMED: u32 = 6;

fn client(cluster: &Cluster, who: PeerIdentity) -> RaftTransportClient<tonic::transport::Channel> {
    let address = cluster.book.address(NodeId(1)).unwrap();
    let security = ClusterSecurity::simulated(who);
    RaftTransportClient::over(cluster_channel(&cluster.transport(2), &security, &address))
}

fn vote(term: u64) -> Body {
    Body::Vote(RaftVote { vote: Some(RaftVoteId { term, replica: replica(2).0, committed: false }), ..RaftVote::default() })
}

/// Sends one envelope and returns the answer's body.
async fn ask(cluster: &Cluster, who: PeerIdentity, from: ReplicaId, to: ReplicaId, group: GroupId, body: Option<Body>) -> Body {
    let envelope = RaftEnvelope { group: group.0, request: 77, body };
    let batch = RaftBatch { from: from.0, to: to.0, envelopes: vec![envelope] };
    let requests = futures::stream::iter([batch]).chain_pending();
    let mut answers = client(cluster, who).control(requests).await.unwrap().into_inner();
    let mut batch = answers.message().await.unwrap().expect("an answer");
    let envelope = batch.envelopes.remove(0);
    assert_eq!(envelope.request, 77);
    envelope.body.expect("a body")
}

trait ChainPending: futures::Stream + Sized {
    fn chain_pending(self) -> impl futures::Stream<Item = Self::Item> + Send + 'static;
}

impl<S> ChainPending for S
where
    S: futures::Stream + Send + 'static,
    S::Item: Send,
{
    fn chain_pending(self) -> impl futures::Stream<Item = Self::Item> + Send + 'static {
        futures::StreamExt::chain(self, futures::stream::pending())
    }
}

fn code(body: &Body) -> u32 {
    match body {
        Body::Error(error) => error.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn role_world_sender_receiver_and_group_are_checked() {
    let cluster = Cluster::three().await;
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 1).await;
    let term = leader.status().term;
    let (me, you) = (replica(2), replica(1));
    let mine = || cluster.identity(2);

    let edge = PeerIdentity { roles: [PeerRole::Edge, PeerRole::Admin].into(), ..mine() };
    assert_eq!(code(&ask(&cluster, edge.clone(), me, you, group_id(), Some(vote(99))).await), FORBIDDEN);
    let elsewhere = PeerIdentity { worlds: Some([WorldId(2)].into()), ..mine() };
    assert_eq!(code(&ask(&cluster, elsewhere.clone(), me, you, group_id(), Some(vote(99))).await), FORBIDDEN);

    // The realm belongs to no world: whoever hosts it may speak, of whichever world, and nobody else.
    let realm = GroupId::realm();
    assert_eq!(code(&ask(&cluster, mine(), me, you, realm, Some(vote(99))).await), FORBIDDEN);
    cluster.book.enter_realm_host(NodeId(2));
    assert_eq!(code(&ask(&cluster, elsewhere.clone(), me, you, realm, Some(vote(99))).await), UNKNOWN_GROUP);
    assert_eq!(code(&ask(&cluster, edge, me, you, realm, Some(vote(99))).await), FORBIDDEN);
    assert_eq!(code(&ask(&cluster, elsewhere, me, you, group_id(), Some(vote(99))).await), FORBIDDEN);

    // Speaks for another node; to another incarnation; as a replica that was never issued.
    assert_eq!(code(&ask(&cluster, mine(), replica(3), you, group_id(), Some(vote(99))).await), OTHER_REPLICA);
    let older = ReplicaId::new(NodeId(1), Incarnation(2));
    assert_eq!(code(&ask(&cluster, mine(), me, older, group_id(), Some(vote(99))).await), OTHER_REPLICA);
    let forged = ReplicaId::new(NodeId(2), Incarnation(9));
    cluster.book.set_standing(forged, Standing::Unknown);
    assert_eq!(code(&ask(&cluster, mine(), forged, you, group_id(), Some(vote(99))).await), OTHER_REPLICA);

    let other = marchland_raft::testkit::bench_group(5);
    assert_eq!(code(&ask(&cluster, mine(), me, you, other, Some(vote(99))).await), UNKNOWN_GROUP);

    for rubbish in [None, Some(Body::Append(RaftAppend::default())), Some(Body::Vote(RaftVote::default()))] {
        assert_eq!(code(&ask(&cluster, mine(), me, you, group_id(), rubbish).await), MALFORMED);
    }
    // None of it did anything.
    assert_eq!(cluster.group(1).status().term, term);
    assert!(cluster.group(1).status().fault.is_none());
    // The same question from who may ask it is answered.
    assert!(matches!(ask(&cluster, mine(), me, you, group_id(), Some(vote(0))).await, Body::VoteAnswer(_)));
}

#[tokio::test]
async fn snapshots_are_checked_alike() {
    let cluster = Cluster::three().await;
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 2).await;
    cluster.converge(2).await;
    let edge = PeerIdentity { roles: [PeerRole::Edge].into(), ..cluster.identity(2) };
    let request = SnapshotRequest { group: group_id().0, from: replica(2).0, to: replica(1).0 };
    assert!(client(&cluster, edge.clone()).fetch_snapshot(request).await.is_err());
    let mut chunks = client(&cluster, cluster.identity(2)).fetch_snapshot(request).await.unwrap().into_inner();
    assert!(matches!(chunks.message().await.unwrap().unwrap().body, Some(Chunk::Begin(_))));

    let begin = SnapshotBegin {
        group: group_id().0,
        from: replica(2).0,
        to: replica(1).0,
        vote: Some(RaftVoteId { term: 99, replica: replica(2).0, committed: true }),
        ..SnapshotBegin::default()
    };
    let stream = || futures::stream::iter([SnapshotChunk { body: Some(Chunk::Begin(begin.clone())) }]);
    let answer = client(&cluster, edge).snapshot(stream()).await.unwrap().into_inner();
    assert_eq!(answer.error.unwrap().code, FORBIDDEN);
    // Ends without an end: nothing is installed.
    let answer = client(&cluster, cluster.identity(2)).snapshot(stream()).await.unwrap().into_inner();
    assert!(answer.error.is_some());
    assert_eq!(cluster.tally(1).count, 2);
    assert!(cluster.group(1).status().term < Term(99));
}

#[tokio::test]
async fn a_node_whose_data_folder_was_made_anew_is_another_replica() {
    let mut cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    let lost = 1 + node % 3;
    cluster.kill(lost).await;
    cluster.folders.remove(&lost);
    cluster.book.set_standing(replica(lost), Standing::Superseded);
    cluster.start_as(lost, Incarnation(2)).await;
    let group = cluster.open(lost, group_id()).await;
    let new = ReplicaId::new(NodeId(lost), Incarnation(2));
    // Nothing reaches it under the old name.
    propose(&leader, 3, 3).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(cluster.tally(lost).count, 0);
    // It comes back as a learner, then as a voter in the place of the one that was lost.
    leader.add_learner(new).await.unwrap();
    eventually("it follows", || cluster.tally(lost).count == 6).await;
    eventually("the leader knows", || leader.status().matched.iter().any(|(id, at)| *id == new && *at == leader.status().last))
        .await;
    let voters = (1..=3).map(|n| if n == lost { new } else { replica(n) }).collect();
    leader.change_voters(&voters).await.unwrap();
    assert!(group.status().fault.is_none());
    propose(&leader, 6, 2).await;
    cluster.converge(8).await;
}

#[tokio::test]
async fn mutual_tls_carries_raft() {
    use marchland_proto::net::{TokioTransport, make_authority, make_node_certificate};
    use marchland_raft::testkit::commit_latencies;
    use marchland_storage::disk::SimDisk;
    use marchland_storage::log::{LogOptions, SharedLog};
    let authority = make_authority("test").unwrap();
    let security = |node: NodeId| {
        let (certificate, key) = make_node_certificate(&authority, &identity("test", node)).unwrap();
        let authority = authority.certificate_pem.as_bytes();
        ClusterSecurity::from_pem(authority, certificate.as_bytes(), key.as_bytes()).unwrap()
    };
    let log = |seed| {
        let options = LogOptions { reserve_bytes: 0, ..LogOptions::default() };
        let (log, writer) = SharedLog::open(SimDisk::new(seed), std::path::Path::new("/log"), options).unwrap();
        tokio::spawn(writer.run_task(|| std::time::Duration::from_micros(100)));
        log
    };
    let pause = std::time::Duration::from_millis(20);
    let length = std::time::Duration::from_millis(500);
    let logs = [log(1), log(2), log(3)];
    let figures = commit_latencies(&TokioTransport, &security, logs, 4, 300, pause, length).await.unwrap();
    assert_eq!(figures.failed, 0);
    assert!(figures.latencies_us.len() >= 4, "{figures:?}");
}
