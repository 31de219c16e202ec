//! A node that hosts the counter, and writes to it while it leads.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::net::{ClusterSecurity, PeerIdentity, Role as PeerRole, Transport, serve_cluster};
use marchland_raft::{AddressBook, Group, Limits, NodeOptions, RaftNode, Role, Standing, Timings};
use marchland_storage::log::{LogOptions, SharedLog};
use marchland_storage::raft_log::RaftLog;
use marchland_types::{CommandSeq, Incarnation, NodeId, ReplicaId};

use super::machine::Counter;
use super::{Counters, GROUP, NODES};
use crate::fact::{ClientId, Fact, tell};
use crate::trace_line;
use crate::world::Boot;

/// Between two commands of a writer.
const WRITE_EVERY: Duration = Duration::from_millis(15);

thread_local! {
    static STOPPED: Cell<bool> = const { Cell::new(false) };
}

/// Stops every writer, so that replicas come to rest at the same entry.
pub(super) fn stop_writing(stopped: bool) {
    STOPPED.set(stopped);
}

struct Addresses;

impl AddressBook for Addresses {
    fn address(&self, node: NodeId) -> Option<String> {
        (1..=NODES).contains(&node.0).then(|| format!("n{node}:7100"))
    }

    fn standing(&self, replica: ReplicaId) -> Standing {
        if replica.incarnation() == Incarnation(1) { Standing::Issued } else { Standing::Unknown }
    }
}

fn replica(node: u32) -> ReplicaId {
    ReplicaId::new(NodeId(node), Incarnation(1))
}

pub(super) async fn run(node: u32, boot: Boot, counters: Counters) -> anyhow::Result<()> {
    let disk = boot.hardware.disk.clone();
    // Small segments, so that they roll, are copied forward and deleted all the time.
    let options = LogOptions { segment_bytes: 32 * 1024, retain_bytes: 64 * 1024, reserve_bytes: 0, ..LogOptions::default() };
    let (log, writer) = SharedLog::open(disk.clone(), Path::new("/data/log"), options)?;
    let latency = disk.clone();
    tokio::spawn(writer.run_task(move || latency.latency()));

    let found = log.state(GROUP);
    trace_line!("recovers a log from {:?} to {:?}, committed {:?}", found.purged, found.last, found.committed);
    let security = ClusterSecurity::simulated(PeerIdentity {
        cluster: "sim".to_owned(),
        node: NodeId(node),
        roles: [PeerRole::Shard].into(),
        worlds: None,
    });
    let mut options = NodeOptions::new(NodeId(node), Incarnation(1), Arc::new(Addresses));
    options.timings = Timings { persist_check_ms: 200, persist_age_ms: 1_500, ..Timings::default() };
    options.limits = Limits { kept_entries: 40, kept_bytes: 4 * 1024, persist_bytes: 8 * 1024, ..Limits::default() };
    let raft = RaftNode::start(options, &boot.transport, &security, log)?;
    let listener = boot.transport.listen("0.0.0.0:7100").await?;
    let routes = tonic::service::Routes::new(raft.service().into_server());
    tokio::spawn(serve_cluster(listener, security, routes, std::future::pending()));

    let counter = Arc::new(Counter::open(disk, replica(node))?);
    trace_line!("restores {}", counter.final_state().applied);
    counters.borrow_mut().insert(node, counter.clone());
    let group = raft.rebuild_group(GROUP, counter, &(1..=NODES).map(replica).collect::<Vec<_>>()).await?;
    group.initialize(&(1..=NODES).map(replica).collect()).await?;
    let client = ClientId(u64::from(node) * 1_000 + u64::from(boot.number));
    tokio::select! {
        reason = raft.fatal() => anyhow::bail!("log: {reason}"),
        fault = write(group, client) => fault,
    }
}

/// Writes while this node leads; returns when the group has failed.
async fn write(group: Group, client: ClientId) -> anyhow::Result<()> {
    let mut seq = CommandSeq(0);
    loop {
        tokio::time::sleep(WRITE_EVERY).await;
        let status = group.status();
        if let Some(fault) = status.fault {
            anyhow::bail!("group: {fault}");
        }
        if STOPPED.get() || !matches!(status.role, Role::Leader(_)) {
            continue;
        }
        seq = seq.next();
        let (group, command) = (group.clone(), [client.0.to_le_bytes(), seq.0.to_le_bytes()].concat());
        // Several in flight: a commit takes longer than the pause on a slow disk.
        tokio::spawn(async move {
            if group.propose(Bytes::from(command)).await.is_ok() {
                tell(&Fact::Acknowledged { client, seq });
            }
        });
    }
}
