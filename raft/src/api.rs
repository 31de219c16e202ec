//! The small interface that the rest of the workspace sees of raft.
//!
//! Nothing here names the raft library. A group is a [`Machine`] that applies committed entries in order, and a
//! [`crate::Group`] handle that proposes them. What a state machine reports as [`Machine::restored`] is what is durable in its own store:
//! raft replays everything above it from the log.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position, ReplicaId, Term};

/// A boxed future, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a state machine has taken in: the last entry, and the members of the group as of then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry that is part of the state; `None` before the first.
    pub position: Option<Position>,
    /// Raft's own description of the members; opaque, stored beside the state and handed back.
    pub membership: Bytes,
}

/// What a committed entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The first entry of a leader's term. A leader is owner only after applying its own.
    Blank,
    /// A command.
    Command(Bytes),
    /// New members; the bytes are [`Applied::membership`] from here on.
    Membership(Bytes),
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the log.
    pub position: Position,
    /// What it holds.
    pub payload: Payload,
}

/// Why a state machine can not go on. The replica stops; nothing else on the node does.
#[derive(Clone, Debug, thiserror::Error)]
#[error("state machine of {group} failed: {reason}")]
pub struct MachineFault {
    /// Whose it is.
    pub group: GroupId,
    /// What happened.
    pub reason: String,
}

/// An entry that a state machine can not apply. The replica goes no further, and waits for an order to skip it; nothing else on the
/// node notices, and the group's log goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Which.
    pub index: LogIndex,
    /// Why, for operators.
    pub reason: String,
}

/// A snapshot on its way out of or into a state machine: `applied` and a stream of bytes.
pub struct Snapshot {
    /// What the bytes hold.
    pub applied: Applied,
    /// The machine's own encoding.
    pub body: Box<dyn SnapshotBody>,
}

/// Bytes of a snapshot, a chunk at a time.
pub trait SnapshotBody: Send + Sync {
    /// The next chunk of at most [`marchland_types::limits::SNAPSHOT_CHUNK_BYTES`]; `None` at the end.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, MachineFault>>;
}

/// A group's state machine on one node. Calls for one group never overlap, except [`Machine::snapshot`], which may run
/// while entries are applied.
pub trait Machine: Send + Sync + 'static {
    /// What is durable in the machine's own store, when the group is opened; the state is as of then. Called again after a halt
    /// (see [`Machine::halted`]), to go on from there.
    fn restored(&self) -> BoxFuture<'_, Result<Applied, MachineFault>>;

    /// Applies entries in order, and returns one answer for each (empty for none), which the proposer receives.
    fn apply(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Bytes>, MachineFault>>;

    /// Makes the state durable in the machine's own store (a checkpoint, or a confirmed flush), and says what now is. Taken
    /// from a copy-on-write view: entries are applied meanwhile. The log is purged up to it, never further.
    fn persist(&self) -> BoxFuture<'_, Result<Applied, MachineFault>>;

    /// The state for another replica. May be newer than what was persisted last.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, MachineFault>>;

    /// Replaces the state, durably, before it returns.
    fn install(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineFault>>;

    /// This replica's part in the group changed. Must not block.
    fn role(&self, role: Role);

    /// Why the last call of [`Machine::apply`] failed, if that was for the sake of one entry, past which an order to skip it would
    /// lead. The state may be anything from then on until it is restored or replaced; nothing is applied before that.
    fn halted(&self) -> Option<Halt> {
        None
    }

    /// Which entry a command orders to be skipped, if it is such an order. Asked of every command: must be cheap.
    fn skips(&self, _command: &[u8]) -> Option<LogIndex> {
        None
    }

    /// Stands in for an entry that is to be skipped. Every replica must do the same.
    fn skip(&self, group: GroupId, entry: Entry) -> BoxFuture<'_, Result<Bytes, MachineFault>> {
        let reason = format!("entry {} can not be skipped", entry.position);
        Box::pin(std::future::ready(Err(MachineFault { group, reason })))
    }

    /// Resolves when what made the machine halt is over although nobody did anything: it was only slow.
    fn recovered(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// A replica's part in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Leads in this term. Owner once the term's first entry is applied.
    Leader(Term),
    /// Follows, or looks for, a leader.
    Follower {
        /// The term it is in.
        term: Term,
        /// Who leads, if known.
        leader: Option<ReplicaId>,
    },
    /// Receives entries but does not vote.
    Learner {
        /// Who leads, if known.
        leader: Option<ReplicaId>,
    },
    /// The group stopped on this node.
    Stopped,
}

/// A group as it stands on this node, for status pages and decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Its part.
    pub role: Role,
    /// The current term.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// Last entry in the log.
    pub last: Option<LogIndex>,
    /// Last entry known to be committed.
    pub committed: Option<LogIndex>,
    /// Last entry applied.
    pub applied: Option<LogIndex>,
    /// Last entry that the machine's own store holds durably.
    pub durable: Option<LogIndex>,
    /// Members that vote.
    pub voters: Vec<ReplicaId>,
    /// Members that do not.
    pub learners: Vec<ReplicaId>,
    /// On a leader: how far each member's log is known to match.
    pub matched: Vec<(ReplicaId, Option<LogIndex>)>,
    /// Why the group stopped, if it did.
    pub fault: Option<String>,
    /// The entry that this replica can not apply, if there is one.
    pub halted: Option<Halt>,
}

/// A proposal that was committed and applied here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it stands.
    pub position: Position,
    /// What the machine answered.
    pub answer: Bytes,
}

/// Why a proposal did not come back committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Refused before anything was done: this replica does not lead.
    #[error("{group} is not led here")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who does, if known.
        leader: Option<ReplicaId>,
    },
    /// Refused before anything was done: too large, too many in flight, or no room on disk.
    #[error("{group} refuses the proposal: {reason}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// It may or may not be committed, now or later.
    #[error("outcome of a proposal to {group} is unknown: {reason}")]
    Unknown {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// The group stopped on this node.
    #[error("{group} stopped: {reason}")]
    Fault {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}
