//! What a node's raft is told at its start: who it is, whom it can reach, how fast things go, and how much they may hold.

use std::sync::Arc;
use std::time::Duration;

use marchland_types::limits::LOG_MEMORY_MAX_BYTES;
use marchland_types::{GroupId, Incarnation, NodeId, ReplicaId, planted};
use openraft::{Config, SnapshotPolicy};

use crate::probe::Probe;

/// How many steps an election timeout is spread over; see [`Timings`].
const RANKS: u64 = 3;

/// Where nodes are, and which replicas may speak.
pub trait AddressBook: Send + Sync + 'static {
    /// `host:port` of a node's cluster server, if it is known. Asked again at every connection.
    fn address(&self, node: NodeId) -> Option<String>;

    /// What is known of this pair of node and incarnation.
    fn standing(&self, replica: ReplicaId) -> Standing;

    /// Whether a node hosts a replica of the realm. The realm belongs to no world, so no certificate says who may speak for it.
    fn hosts_realm(&self, _node: NodeId) -> bool {
        false
    }
}

/// Whether a pair of node and incarnation may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is its node's newest one.
    Issued,
    /// Its node has a newer one: the folder was lost or replaced, and what is left of the old one must not speak any more.
    Superseded,
    /// Not known here to have been issued. It may speak to a group that has it as a member, and to the group from which
    /// this node would learn of it; to no other.
    Unknown,
}

/// A node's raft.
#[derive(Clone)]
pub struct NodeOptions {
    /// This node.
    pub node: NodeId,
    /// How often its data folder was made.
    pub incarnation: Incarnation,
    /// Where the others are.
    pub addresses: Arc<dyn AddressBook>,
    /// How fast things go.
    pub timings: Timings,
    /// How much they may hold.
    pub limits: Limits,
}

impl NodeOptions {
    /// With defaults.
    pub fn new(node: NodeId, incarnation: Incarnation, addresses: Arc<dyn AddressBook>) -> Self {
        Self { node, incarnation, addresses, timings: Timings::default(), limits: Limits::default() }
    }

    /// This node's replica id.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        ReplicaId::new(self.node, self.incarnation)
    }
}

/// Times, in milliseconds.
///
/// A follower waits until the leader's lease ran out (the end of its own range of election timeouts) and then for one
/// timeout from that range. The range is cut into three steps; a replica takes one by node and group, so that two
/// followers never start together and groups do not all elect the same node:
///
/// ```text
/// step 0   300..340   elects 640–680 ms after the leader was last heard
/// step 1   340..380          720–760 ms
/// step 2   380..420          800–840 ms, and only if neither of the others lives
/// ```
///
/// So a dead leader is replaced within 0.8 s. A leader that hears no majority for as long as its lease takes no proposals and
/// sends no heartbeats for a while, so that whoever can be heard replaces it. Heartbeats are as far apart as that allows: one
/// that is answered later than the next is due counts for nothing, and on a machine with few cores and much to do an answer
/// may take a tenth of a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats; also how long a heartbeat's answer may take. None is sent to a follower that answered an
    /// append within two thirds of this time.
    pub heartbeat_ms: u64,
    /// Start of the lowest step. At least twice the heartbeat.
    pub election_ms: u64,
    /// Width of a step.
    pub election_step_ms: u64,
    /// Until a proposal's outcome is called unknown.
    pub propose_ms: u64,
    /// Until an append without an answer counts as lost. Long: a follower with a slow disk is not helped by repetition, and
    /// whether the leader lives is told by heartbeats on a connection of their own.
    pub append_ms: u64,
    /// Until a snapshot's next chunk must be taken, or come.
    pub chunk_ms: u64,
    /// Until a snapshot that was sent whole must be installed, or a checkpoint written.
    pub install_ms: u64,
    /// Between two looks at which group should be persisted next.
    pub persist_check_ms: u64,
    /// A group that applied anything is persisted at least this often.
    pub persist_age_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 150,
            election_ms: 300,
            election_step_ms: 40,
            propose_ms: 3_000,
            append_ms: 2_000,
            chunk_ms: 10_000,
            install_ms: 120_000,
            persist_check_ms: 500,
            persist_age_ms: 60_000,
        }
    }
}

/// Sizes and counts of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Proposals of one group that are not yet applied. A region has two ticks in flight; a directory, one per request.
    pub proposals_in_flight: usize,
    /// Entries of one group in memory, in bytes, above which proposals are refused.
    pub log_memory_bytes: u64,
    /// Bytes applied since the last checkpoint after which a group is persisted.
    pub persist_bytes: u64,
    /// Entries kept below the last checkpoint for followers that lag, in bytes: beyond, they are sent a snapshot.
    pub kept_bytes: u64,
    /// The same, in entries: two minutes of ticks.
    pub kept_entries: u64,
    /// Snapshots sent, and snapshots received, at once.
    pub snapshots_at_once: usize,
    /// Largest snapshot that is received. It is held in memory until it is complete, so that a connection that breaks
    /// costs nothing but time.
    pub snapshot_bytes: usize,
    /// Messages that wait for one connection to a peer.
    pub link_queue: usize,
    /// Requests of one connection that are being handled. When all are, the peer is not read from.
    pub requests_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            proposals_in_flight: 256,
            log_memory_bytes: LOG_MEMORY_MAX_BYTES as u64,
            persist_bytes: 8 * 1024 * 1024,
            kept_bytes: 4 * 1024 * 1024,
            kept_entries: 2_400,
            snapshots_at_once: 2,
            snapshot_bytes: 512 * 1024 * 1024,
            link_queue: 4_096,
            requests_at_once: 4_096,
        }
    }
}

/// Options that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("raft options: {0}")]
pub struct BadOptions(pub String);

impl NodeOptions {
    /// Checks the relations between the values.
    pub fn validate(&self) -> Result<(), BadOptions> {
        let t = &self.timings;
        let bad = |text: String| Err(BadOptions(text));
        if self.node.0 == 0 || self.incarnation.0 == 0 {
            return bad(format!("node {} and incarnation {} count from 1", self.node, self.incarnation));
        }
        if t.election_ms < 2 * t.heartbeat_ms {
            return bad(format!(
                "election_ms is {}, but must be at least twice heartbeat_ms ({})",
                t.election_ms, t.heartbeat_ms
            ));
        }
        if t.heartbeat_ms < 30 || t.election_step_ms < 1 {
            return bad("heartbeat_ms is at least 30, election_step_ms at least 1".into());
        }
        if t.append_ms < t.heartbeat_ms || t.propose_ms == 0 || t.chunk_ms == 0 || t.install_ms == 0 || t.persist_check_ms == 0 {
            return bad("append_ms is at least heartbeat_ms, and no deadline is 0".into());
        }
        let l = &self.limits;
        if [l.proposals_in_flight, l.snapshots_at_once, l.link_queue, l.requests_at_once].contains(&0) {
            return bad("a limit of 0 lets nothing through".into());
        }
        if l.persist_bytes + l.kept_bytes > l.log_memory_bytes {
            return bad(format!(
                "persist_bytes and kept_bytes ({}) exceed log_memory_bytes ({})",
                l.persist_bytes + l.kept_bytes,
                l.log_memory_bytes
            ));
        }
        self.config(GroupId(0)).map(drop)
    }

    /// How long a leader without a majority keeps on, and how long it keeps still then.
    pub(crate) fn probe(&self) -> Probe {
        let t = &self.timings;
        let longest = Duration::from_millis(t.election_ms + RANKS * t.election_step_ms);
        Probe::new(longest, longest * 2)
    }

    /// How long a follower of a group that wakes waits for its leader, before its election timer starts.
    pub(crate) fn patience(&self, group: GroupId) -> Duration {
        let rank = (u64::from(self.node.0) + u64::from(group.serial())) % RANKS;
        Duration::from_millis(self.timings.election_ms + rank * 2 * self.timings.election_step_ms)
    }

    /// The library's configuration for this node's replica of a group.
    pub(crate) fn config(&self, group: GroupId) -> Result<Arc<Config>, BadOptions> {
        let t = &self.timings;
        let rank = (u64::from(self.node.0) + u64::from(group.serial())) % RANKS;
        let election_timeout_min = t.election_ms + rank * t.election_step_ms;
        let election_timeout_max = election_timeout_min + t.election_step_ms;
        Config {
            cluster_name: "marchland".into(),
            heartbeat_interval: t.heartbeat_ms,
            heartbeat_min_interval: Some(t.heartbeat_ms * 2 / 3),
            election_timeout_min,
            election_timeout_max,
            install_snapshot_timeout: t.install_ms,
            // Our own scheduler persists and purges, by bytes and one group at a time.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            max_payload_entries: 256,
            max_append_entries: Some(1024),
            api_channel_size: Some(1024),
            notification_channel_size: Some(1024),
            state_machine_channel_size: Some(64),
            // A leader that comes back with its own term can hand out log ids twice when its tail was not synced.
            // Planted: it does.
            enable_leader_restore: Some(planted!("leader-restored")),
            enable_pre_vote: Some(true),
            // Our own: see [`crate::probe`].
            quorum_loss_probe_interval: None,
            backoff: "50ms 100ms 200ms ...500ms".into(),
            ..Config::default()
        }
        .validate()
        .map(Arc::new)
        .map_err(|e| BadOptions(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_types::{GroupKind, WorldId};

    struct Nowhere;

    impl AddressBook for Nowhere {
        fn address(&self, _: NodeId) -> Option<String> {
            None
        }

        fn standing(&self, _: ReplicaId) -> Standing {
            Standing::Issued
        }
    }

    fn options() -> NodeOptions {
        NodeOptions::new(NodeId(1), Incarnation(1), Arc::new(Nowhere))
    }

    #[test]
    fn defaults_are_valid_and_keep_the_promise() {
        let options = options();
        options.validate().unwrap();
        let t = &options.timings;
        // One of two survivors waits in step 0 or 1.
        assert!(2 * (t.election_ms + 2 * t.election_step_ms) < 800, "failover takes too long");
    }

    #[test]
    fn relations_are_checked() {
        for spoil in [
            (|o: &mut NodeOptions| o.timings.election_ms = 200) as fn(&mut NodeOptions),
            |o| o.timings.election_step_ms = 0,
            |o| o.limits.link_queue = 0,
            |o| o.limits.kept_bytes = o.limits.log_memory_bytes,
            |o| o.incarnation = Incarnation(0),
        ] {
            let mut options = options();
            spoil(&mut options);
            options.validate().unwrap_err();
        }
    }

    #[test]
    fn replicas_of_a_group_wait_for_different_times() {
        let mut starts = std::collections::BTreeSet::new();
        for node in 1..=3 {
            let mut options = options();
            options.node = NodeId(node);
            let config = options.config(GroupId::new(GroupKind::Bench, WorldId(1), 7)).unwrap();
            assert_eq!(config.enable_leader_restore, Some(false));
            starts.insert((config.election_timeout_min, config.election_timeout_max));
        }
        let ends: Vec<_> = starts.iter().collect();
        assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{starts:?}");
    }
}
