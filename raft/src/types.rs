//! The raft library's types, as this crate fills them in, and their conversions to ours.
//!
//! A log id is term and index alone (one leader per term), so that it is a [`Position`] and nothing more. A node of the
//! library is a [`ReplicaId`]; addresses are looked up elsewhere and never replicated.

use std::fmt;

use bytes::Bytes;
use marchland_types::{LogIndex, Position, ReplicaId, Term};
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::impls::leader_id_std;

use crate::api::Snapshot;
use crate::machine::MachineAdapter;

/// A command as it stands in the log: its record (see [`crate::record`]), so that it is built once and never copied again.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<Vec<u8>> for Command {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Command> for Vec<u8> {
    fn from(command: Command) -> Self {
        command.0.into()
    }
}

/// What a state machine answered to a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub(crate) struct Answer(pub(crate) Bytes);

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Answer> for Vec<u8> {
    fn from(answer: Answer) -> Self {
        answer.0.into()
    }
}

openraft::declare_raft_types!(
    /// The library's type configuration.
    pub(crate) TypeConfig:
        D = Command,
        R = Answer,
        NodeId = u64,
        Node = openraft::EmptyNode,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, MachineAdapter>;
pub(crate) type LogId = LogIdOf<TypeConfig>;
pub(crate) type RaftEntry = EntryOf<TypeConfig>;
pub(crate) type Vote = VoteOf<TypeConfig>;
pub(crate) type StoredMembership = StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub(crate) type RaftSnapshot = SnapshotOf<TypeConfig, Snapshot>;
pub(crate) type Membership = openraft::Membership<u64, openraft::EmptyNode>;

/// As the library's log id.
pub(crate) fn log_id(position: Position) -> LogId {
    LogId { leader_id: position.term.0.into(), index: position.index.0 }
}

/// As ours.
pub(crate) fn position(id: &LogId) -> Position {
    Position { term: Term(id.leader_id.term), index: LogIndex(id.index) }
}

/// A vote.
pub(crate) fn vote(term: u64, replica: u64, committed: bool) -> Vote {
    if committed { Vote::new_committed(term, replica) } else { Vote::new(term, replica) }
}

/// Members that vote, sorted.
pub(crate) fn voters(membership: &StoredMembership) -> Vec<ReplicaId> {
    membership.voter_ids().map(ReplicaId).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// Members that do not, sorted.
pub(crate) fn learners(membership: &StoredMembership) -> Vec<ReplicaId> {
    membership.membership().learner_ids().map(ReplicaId).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
