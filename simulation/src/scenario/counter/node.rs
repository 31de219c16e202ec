//! A node that hosts the counter, and writes to it while it leads.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::net::{ClusterSecurity, PeerIdentity, Role as PeerRole, Transport, serve_cluster};
use marchland_raft::{AddressBook, Group, Limits, NodeOptions, OpenError, RaftNode, Role, Standing, Timings};
use marchland_storage::log::{LogOptions, SharedLog};
use marchland_storage::raft_log::RaftLog;
use marchland_types::{CommandSeq, Incarnation, LogIndex, NodeId, ReplicaId};

use super::machine::Counter;
use super::{Counters, GROUP, NODES};
use crate::fact::{ClientId, Fact, tell};
use crate::trace_line;
use crate::world::Boot;

/// Between two commands of a writer.
const WRITE_EVERY: Duration = Duration::from_millis(15);
/// Between two attempts to get the state from a peer.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Every so many commands there is one that does not fit into a sector, so that it can be torn.
const LARGE_EVERY: u64 = 3;
/// Its size.
const LARGE_BYTES: usize = 1_200;
/// Between two reads of a leader.
const READ_EVERY: Duration = Duration::from_millis(40);

thread_local! {
    static STOPPED: Cell<bool> = const { Cell::new(false) };
    /// The newest entry that any writer was told of.
    static ACKNOWLEDGED: Cell<LogIndex> = const { Cell::new(LogIndex(0)) };
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

/// Runs the node. One that `loses_store` finds it gone at every other boot, as if it had been damaged and set aside; the log is whole.
pub(super) async fn run(node: u32, boot: Boot, counters: Counters, loses_store: bool) -> anyhow::Result<()> {
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

    if loses_store && boot.number.is_multiple_of(2) {
        Counter::lose(&disk)?;
    }
    let counter = Arc::new(Counter::open(disk, replica(node))?);
    trace_line!("restores {}", counter.final_state().applied);
    counters.borrow_mut().insert(node, counter.clone());
    let peers: Vec<ReplicaId> = (1..=NODES).map(replica).collect();
    let group = loop {
        match raft.rebuild_group(GROUP, counter.clone(), &peers).await {
            // Whoever has the state is down, or was not told of it yet.
            Err(OpenError::NoSnapshot { .. }) => tokio::time::sleep(ASK_AGAIN_AFTER).await,
            opened => break opened?,
        }
    };
    group.initialize(&(1..=NODES).map(replica).collect()).await?;
    let client = ClientId(u64::from(node) * 1_000 + u64::from(boot.number));
    tokio::select! {
        reason = raft.fatal() => anyhow::bail!("log: {reason}"),
        fault = write(group.clone(), client) => fault,
        () = read(group, &counter) => Ok(()),
    }
}

/// Reads whatever this node has while it thinks that it leads.
async fn read(group: Group, counter: &Counter) {
    loop {
        tokio::time::sleep(READ_EVERY).await;
        let acknowledged = ACKNOWLEDGED.get();
        if matches!(group.status().role, Role::Leader(_)) && group.read_barrier().await.is_ok() {
            tell(&Fact::Read { group: GROUP, replica: counter.replica(), acknowledged, saw: counter.applied() });
        }
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
        let (group, mut command) = (group.clone(), [client.0.to_le_bytes(), seq.0.to_le_bytes()].concat());
        if seq.0.is_multiple_of(LARGE_EVERY) {
            command.resize(LARGE_BYTES, seq.0 as u8 | 1);
        }
        // Several in flight: a commit takes longer than the pause on a slow disk.
        tokio::spawn(async move {
            if let Ok(done) = group.propose(Bytes::from(command)).await {
                tell(&Fact::Acknowledged { client, seq });
                if !crate::machine::is_ghost() {
                    ACKNOWLEDGED.set(ACKNOWLEDGED.get().max(done.position.index));
                }
            }
        });
    }
}
