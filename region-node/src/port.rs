//! What the services of a node may do with a region, whatever game it runs.

use std::sync::Arc;

use marchland_proto::cluster::{EdgeToRegion, InspectReply, NodeToEdge};
use marchland_proto::storage::{AdminOrder, ChannelAck, ChannelMessage};
use marchland_raft::BoxFuture;
use marchland_types::{CutNumber, GroupId, RegionId, ReplicaId, Tick};
use tokio::sync::mpsc;

use crate::backlog::BacklogGauge;

/// One stream of an edge to this node, for as long as it lasts. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(pub u64);

/// What became of messages from another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliverOutcome {
    /// Committed up to this number.
    Taken(u64),
    /// This node does not own the region.
    NotOwner(Option<ReplicaId>),
    /// Not committed within the time; the sender sends them again.
    Busy,
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
    /// Whether its state differs, or differed, from the owner's.
    pub diverged: bool,
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

    /// Unacknowledged messages for `to`, oldest first, at most `limit`.
    fn outbox(self: Arc<Self>, limit: usize) -> BoxFuture<'static, Vec<(GroupId, Vec<ChannelMessage>)>>;

    /// Another group took messages of this one: goes into the next tick.
    fn acked(self: Arc<Self>, ack: ChannelAck);

    /// An operator's order: goes into the next tick.
    fn order(self: Arc<Self>, order: AdminOrder);

    /// What this replica held at a cut, or holds now for cut 0.
    fn inspect(self: Arc<Self>, cut: CutNumber) -> BoxFuture<'static, InspectReply>;

    /// For status pages.
    fn facts(&self) -> RegionFacts;
}
