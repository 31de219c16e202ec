//! Wrong peers at the cluster port: no certificate, one of another authority, of another cluster, without the role, of another
//! world. Each is refused with a clear error, and nothing of it reaches a group.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use marchland_admin::client::{AdminEndpoint, CallError, Worlds};
use marchland_jepsen::cluster::{Cluster, REGION};
use marchland_proto::cluster::raft_transport_client::RaftTransportClient;
use marchland_proto::cluster::{RaftBatch, RaftEnvelope, RaftVote, RaftVoteId, raft_envelope};
use marchland_proto::net::{
    Authority, ClusterClient, ClusterSecurity, PeerIdentity, Role, TokioTransport, cluster_channel, make_authority,
    make_node_certificate,
};
use marchland_types::{GroupId, Incarnation, NodeId, ReplicaId, WorldId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::scene::{Outcome, Scene};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Whose place the wrong peers take.
const NODE: NodeId = NodeId(3);
/// Would depose every leader. Elections of the cluster's own never come so far.
const FORGED_TERM: u64 = 1_000_000;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start().await?;
    let ours = authority(&cluster.data())?;
    let name = cluster_name(&cluster)?;
    let address = cluster.ready()?.nodes[0].grpc.clone();
    let mut shown = Vec::new();

    let nobody = without_certificate(&address).await?;
    shown.push(format!("no TLS: {nobody}"));

    let (stranger, name) = (make_authority(&name)?, name.as_str());
    let cases = [
        ("another authority", &stranger, name, Role::Shard, 1, ""),
        ("another cluster", &ours, "elsewhere", Role::Shard, 1, "peer is of cluster"),
        ("an edge sending raft", &ours, name, Role::Edge, 1, "may not speak raft"),
        ("another world's node sending raft", &ours, name, Role::Shard, 2, "may not speak raft"),
        ("an admin sending raft", &ours, name, Role::Admin, 1, "may not speak raft"),
    ];
    for (what, authority, cluster_name, role, world, says) in cases {
        let security = security(&ours, authority, cluster_name, NODE, role, world)?;
        let reason = vote(&address, &security, NODE, REGION).await.with_context(|| what.to_owned())?;
        ensure!(reason.contains(says), "{what}: does not say {says:?}: {reason}");
        shown.push(format!("{what}: {reason}"));
    }
    // The realm belongs to no world: a shard node of any may speak for it, if it is configured to host it.
    let cases = [
        ("an edge sending raft for the realm", NODE, Role::Edge, 1),
        ("an admin sending raft for the realm", NODE, Role::Admin, 1),
        ("a node that does not host it sending raft for the realm", NodeId(9), Role::Shard, 1),
        ("another world's node sending raft for the realm", NodeId(9), Role::Shard, 2),
    ];
    for (what, node, role, world) in cases {
        let security = security(&ours, &ours, name, node, role, world)?;
        let reason = vote(&address, &security, node, GroupId::realm()).await.with_context(|| what.to_owned())?;
        ensure!(reason.contains("may not speak raft"), "{what}: {reason}");
        shown.push(format!("{what}: {reason}"));
    }
    // A stranger's handshake ends in an alert or with the connection, and the caller refuses the second by itself: another
    // cluster's authority has another name. What the node says of both is what its operator sees.
    let said = std::fs::read_to_string(cluster.data().join("node-1/node.log"))?;
    for says in ["invalid peer certificate: BadSignature", "invalid peer certificate: UnknownIssuer"] {
        ensure!(said.contains(says), "the node does not say {says:?}:\n{}", cluster.last_words());
    }

    // A node's certificate with the right token, and the right certificate with another token.
    let good = AdminEndpoint::from_ready_file(&cluster.ready_file(), Worlds::Only)?;
    let as_node = AdminEndpoint { security: security(&ours, &ours, name, NODE, Role::Shard, 1)?, ..good.clone() };
    let as_guesser = AdminEndpoint { token: "0".repeat(64), ..good };
    for (what, endpoint) in [("a node asking for status", as_node), ("a wrong admin token", as_guesser)] {
        match endpoint.connect(&TokioTransport)?.nodes[0].status().await {
            Err(CallError::Refused { reason, .. }) => shown.push(format!("{what}: {reason}")),
            other => bail!("{what}: {other:?}"),
        }
    }
    for group in [REGION, GroupId::realm()] {
        ensure!(term(&cluster, group).await? < FORGED_TERM, "somebody's vote was counted in {group}");
    }
    cluster.unharmed()?;
    ensure!(cluster.verify().await?.sound(), "the world is damaged");
    cluster.stop().await?;
    Ok(Outcome::Shown(shown.join("; ")))
}

/// A third node's identity, signed by the cluster's own authority.
pub fn peer(cluster: &Cluster, role: Role, world: u32) -> anyhow::Result<ClusterSecurity> {
    let ours = authority(&cluster.data())?;
    security(&ours, &ours, &cluster_name(cluster)?, NODE, role, world)
}

fn authority(data: &Path) -> anyhow::Result<Authority> {
    Ok(Authority {
        certificate_pem: std::fs::read_to_string(data.join("authority.pem"))?,
        key_pem: std::fs::read_to_string(data.join("authority.key"))?,
    })
}

fn cluster_name(cluster: &Cluster) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(cluster.node_config(1))?;
    let line = text.lines().find(|line| line.starts_with("cluster = ")).context("no cluster in the configuration")?;
    Ok(line.split('"').nth(1).context("no name")?.to_owned())
}

/// The identity of a node, signed by `signer`; it trusts the cluster's own authority, so that only the server can refuse.
fn security(
    ours: &Authority,
    signer: &Authority,
    cluster: &str,
    node: NodeId,
    role: Role,
    world: u32,
) -> anyhow::Result<ClusterSecurity> {
    let identity =
        PeerIdentity { cluster: cluster.to_owned(), node, roles: [role].into(), worlds: Some([WorldId(world)].into()) };
    let (certificate, key) = make_node_certificate(signer, &identity)?;
    Ok(ClusterSecurity::from_pem(ours.certificate_pem.as_bytes(), certificate.as_bytes(), key.as_bytes())?)
}

/// A group's term, as the first node has it.
async fn term(cluster: &Cluster, id: GroupId) -> anyhow::Result<u64> {
    let status = cluster.admin()?.nodes[0].status().await?;
    Ok(status.groups.iter().find(|group| group.group == id.0).with_context(|| format!("no {id} on the first node"))?.term)
}

/// Asks for a vote with a term that would depose every leader. Returns how it was refused.
async fn vote(address: &str, security: &ClusterSecurity, node: NodeId, group: GroupId) -> anyhow::Result<String> {
    let (from, to) = (ReplicaId::new(node, Incarnation(1)), ReplicaId::new(NodeId(1), Incarnation(1)));
    let vote = RaftVoteId { term: FORGED_TERM, replica: from.0, committed: false };
    let body = raft_envelope::Body::Vote(RaftVote { vote: Some(vote), last: None, pre: false, transfer: true });
    let envelope = RaftEnvelope { group: group.0, request: 1, body: Some(body) };
    let batch = RaftBatch { from: from.0, to: to.0, envelopes: vec![envelope] };
    let mut client = RaftTransportClient::over(cluster_channel(&TokioTransport, security, address));
    // Kept open: a stream that ends at once might be answered by nothing.
    let (keep, batches) = tokio::sync::mpsc::channel(1);
    keep.send(batch).await?;
    let call = async {
        let mut answers = match client.control(tokio_stream::wrappers::ReceiverStream::new(batches)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return anyhow::Ok(innermost(&status)),
        };
        match answers.message().await {
            Err(status) => Ok(innermost(&status)),
            Ok(None) => Ok("the stream was ended".into()),
            Ok(Some(batch)) => match batch.envelopes.into_iter().next().and_then(|envelope| envelope.body) {
                Some(raft_envelope::Body::Error(error)) => Ok(format!("code {}: {}", error.code, error.reason)),
                other => bail!("it was answered: {other:?}"),
            },
        }
    };
    let answer = timeout(ANSWER_WITHIN, call).await.context("neither an answer nor a refusal")?;
    drop(keep);
    answer
}

/// The cause at the bottom: what the others say is only that something failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// Speaks HTTP/2 without TLS: the connection must be closed without an answer in it.
async fn without_certificate(address: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut answer = Vec::new();
    let read = timeout(ANSWER_WITHIN, stream.read_to_end(&mut answer)).await.context("the connection stays open")?;
    // A TLS alert (record type 21) is all that may come.
    ensure!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    Ok(match read {
        Ok(_) => "closed".into(),
        Err(error) => error.kind().to_string(),
    })
}
