//! A node's status as people and scripts read it: one shape for the dashboard, the command line and `--json`.

use marchland_proto::cluster::{GroupStatus, StatusReply};
use marchland_types::{GroupId, ReplicaId};
use serde::Serialize;

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its number.
    pub node: u32,
    /// Version of its build.
    pub version: String,
    /// Time since its process started.
    pub uptime_ms: u64,
    /// Players connected to its edge.
    pub clients: u32,
    /// Whether it serves players.
    pub ready: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub not_ready_because: String,
    /// How often rot was found in what is stored, since the process started.
    pub rot_found: u64,
    /// The replicas on it.
    pub groups: Vec<ReplicaView>,
}

/// One replica of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplicaView {
    /// The group, for example `region(1,1)`.
    pub group: String,
    /// This replica, `node.incarnation`.
    pub replica: String,
    /// `leader`, `follower`, `candidate`, `learner`, `stopped`, or `rebuilding` while it is given another state.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<String>,
    /// Last index of its log.
    pub last_index: u64,
    /// Known to be committed.
    pub committed_index: u64,
    /// Applied to its state.
    pub applied_index: u64,
    /// Part of its last checkpoint.
    pub durable_index: u64,
    /// Replicas that vote.
    pub voters: Vec<String>,
    /// Replicas that learn.
    pub learners: Vec<String>,
    /// Its state's tick.
    pub tick: u64,
    /// Sessions in its state.
    pub sessions: u32,
    /// Entities in its state.
    pub entities: u32,
    /// Percent of real time at which ticks come; 0 where there are none.
    pub time_rate: u32,
    /// Whether it performs the region's effects.
    pub owner: bool,
    /// What stopped it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fault: String,
    /// Whether its state was found to differ from the majority's.
    pub diverged: bool,
    /// The entry that it can not apply, and at which the region halts; 0 when there is none.
    pub halted_index: u64,
    /// Why it can not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub halted_because: String,
    /// Handlers of the game that panicked, in the region's life; each had no effect.
    pub panics: u64,
    /// Messages, orders and timers that were taken and had no effect, in the region's life.
    pub dead_letters: u64,
    /// Entries that were skipped, in the region's life.
    pub skipped_entries: u64,
    /// The last one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_skipped: Option<SkippedView>,
    /// Entries that took too long on this node since it started.
    pub step_overruns: u64,
    /// It does not tick, because nobody wants anything of it.
    pub asleep: bool,
}

/// An entry that was skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SkippedView {
    /// Which.
    pub index: u64,
    /// The number that stands in for its tick.
    pub tick: u64,
    /// Why.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
}

impl ReplicaView {
    /// Whether it is a replica of a region.
    #[must_use]
    pub fn is_region(&self) -> bool {
        self.group.starts_with("region(")
    }
}

impl From<&StatusReply> for NodeView {
    fn from(reply: &StatusReply) -> Self {
        Self {
            node: reply.node,
            version: reply.version.clone(),
            uptime_ms: reply.uptime_ms,
            clients: reply.clients,
            ready: reply.ready,
            not_ready_because: reply.not_ready_because.clone(),
            rot_found: reply.rot_found,
            groups: reply.groups.iter().map(ReplicaView::from).collect(),
        }
    }
}

impl From<&GroupStatus> for ReplicaView {
    fn from(group: &GroupStatus) -> Self {
        let names = |replicas: &[u64]| replicas.iter().map(|id| ReplicaId(*id).to_string()).collect();
        Self {
            group: GroupId(group.group).to_string(),
            replica: ReplicaId(group.replica).to_string(),
            role: group.role.clone(),
            term: group.term,
            leader: (group.leader != 0).then(|| ReplicaId(group.leader).to_string()),
            last_index: group.last_index,
            committed_index: group.committed_index,
            applied_index: group.applied_index,
            durable_index: group.durable_index,
            voters: names(&group.voters),
            learners: names(&group.learners),
            tick: group.tick,
            sessions: group.sessions,
            entities: group.entities,
            time_rate: group.time_rate,
            owner: group.owner,
            fault: group.fault.clone(),
            diverged: group.diverged,
            halted_index: group.halted_index,
            halted_because: group.halted_because.clone(),
            panics: group.panics,
            dead_letters: group.dead_letters,
            skipped_entries: group.skipped_entries,
            last_skipped: (group.last_skipped_index != 0).then(|| SkippedView {
                index: group.last_skipped_index,
                tick: group.last_skipped_tick,
                reason: group.last_skipped_reason.clone(),
                by: group.last_skipped_by.clone(),
            }),
            step_overruns: group.step_overruns,
            asleep: group.asleep,
        }
    }
}
