//! What the services of a node may do with a region, whatever game it runs.

use std::sync::Arc;

use marchland_proto::cluster::{EdgeToRegion, InspectReply, NodeToEdge};
use marchland_proto::storage::{AdminOrder, ChannelAck, ChannelMessage, GhostBatch};
use marchland_raft::BoxFuture;
use marchland_types::{CutNumber, GroupId, LogIndex, RegionId, ReplicaId, Tick};
use tokio::sync::mpsc;

use crate::backlog::BacklogGauge;

/// One stream of an edge to this node, for as long as it lasts. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(pub u64);

/// What became of messages from another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliverOutcome {
    /// Committed up to this number, and the newest cut that was taken by then.
    Taken(u64, CutNumber),
    /// This node does not own the region.
    NotOwner(Option<ReplicaId>),
    /// Not committed within the time; the sender sends them again.
    Busy,
}

/// What a replica knows of its own state after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Its hash.
    Known(u64),
    /// The tick is still to come here.
    NotYet,
    /// It is too long ago, or before this replica was restored.
    Forgotten,
}

/// A region as status pages show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionFacts {
    /// Last tick that was applied.
    pub tick: Tick,
    /// The newest cut that was taken.
    pub cut: CutNumber,
    /// Sessions in it.
    pub sessions: u32,
    /// Entities in it.
    pub entities: u32,
    /// Percent of real time at which ticks come; of an owner.
    pub time_rate: u32,
    /// Whether this replica performs effects.
    pub owner: bool,
    /// Whether it does not tick, because nobody wants anything of it.
    pub asleep: bool,
    /// Whether its state differs from the owner's, and the majority has not said yet that it is the owner's which is wrong.
    pub diverged: bool,
    /// Handlers of the game that panicked; each had no effect.
    pub panics: u64,
    /// Messages, orders and timers that were taken and had no effect.
    pub dead_letters: u64,
    /// Entries that were skipped.
    pub skipped: u64,
    /// The last one of them.
    pub last_skipped: Option<SkippedFact>,
    /// Entries that took longer than they should, on this node, since it started.
    pub overruns: u64,
}

/// An entry that was skipped, as every replica remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedFact {
    /// Which.
    pub index: LogIndex,
    /// The number that stands in for its tick.
    pub tick: Tick,
    /// Why, once the order to skip it is applied as well.
    pub reason: String,
    /// Who ordered it.
    pub actor: String,
}

/// A region's replica on this node, for services that do not know its game.
pub trait RegionPort: Send + Sync + 'static {
    /// The region's group.
    fn group(&self) -> GroupId;

    /// The region.
    fn region(&self) -> RegionId;

    /// How long the queue for the next tick is.
    fn backlog(&self) -> BacklogGauge;

    /// A stream of an edge opened; batches for it go to `out`.
    fn edge_joined(self: Arc<Self>, edge: EdgeId, out: mpsc::Sender<NodeToEdge>);

    /// A stream of an edge closed.
    fn edge_left(self: Arc<Self>, edge: EdgeId);

    /// What an edge sent.
    fn edge_message(self: Arc<Self>, edge: EdgeId, message: EdgeToRegion);

    /// Messages of another group, consecutive. Resolves when they are committed or can not be.
    fn deliver(self: Arc<Self>, messages: Vec<ChannelMessage>) -> BoxFuture<'static, DeliverOutcome>;

    /// Groups with unacknowledged messages of this one.
    fn receivers(self: Arc<Self>) -> BoxFuture<'static, Vec<GroupId>>;

    /// Unacknowledged messages for `to`, oldest first, at most `limit`.
    fn pending(self: Arc<Self>, to: GroupId, limit: usize) -> BoxFuture<'static, Vec<ChannelMessage>>;

    /// Another group took messages of this one: goes into the next tick.
    fn acked(self: Arc<Self>, ack: ChannelAck);

    /// What a neighbour shows: goes into the next tick, unless a newer one comes before. Otherwise: this node does not own the region, and
    /// who does as far as is known.
    fn shown(&self, ghosts: GhostBatch) -> Result<(), Option<ReplicaId>>;

    /// An operator's order: goes into the next tick.
    fn order(self: Arc<Self>, order: AdminOrder);

    /// What this replica held at a cut, or holds now for cut 0.
    fn inspect(self: Arc<Self>, cut: CutNumber) -> BoxFuture<'static, InspectReply>;

    /// Another replica has this hash after a tick. Tells this one's; if they differ, this one begins to doubt itself.
    fn compare(self: Arc<Self>, tick: Tick, hash: u64) -> BoxFuture<'static, Option<Compared>>;

    /// For status pages.
    fn facts(&self) -> RegionFacts;
}
