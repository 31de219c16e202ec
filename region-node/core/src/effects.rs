//! What an entry did, as far as the world outside is concerned. The owner performs it; every other replica drops it.
//!
//! All of it is durable already: an entry is applied only when it is committed.

use marchland_proto::cluster::{AttachAnswer, SessionEnd, SessionMoved, StoredReply};
use marchland_proto::records::{Motion, OwnState};
use marchland_types::{CellId, CharacterId, CutNumber, EntityId, GroupId, LogIndex, MoveNumber, SessionEpoch, Tick};

pub use crate::context::AreaEvent;
use crate::game::Game;
use crate::view::RegionView;

/// An entity that was there before the tick and moved or turned in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it is; `delta` leads here from where it was after the tick before, unless it jumped.
    pub motion: Motion,
    /// The cell that it is in.
    pub cell: CellId,
    /// The cell that it was in after the tick before.
    pub previous: CellId,
}

/// An entity that came into the world, whose looks changed, or that left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its slot. A slot that is left in a tick is not taken by another entity in the same tick.
    pub slot: u32,
    /// Its id.
    pub entity: EntityId,
    /// The cell that it is in; of one that left, the cell that it was in.
    pub cell: CellId,
}

/// An entity that went to another region. It is among those that vanished as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOff {
    /// Its slot.
    pub slot: u32,
    /// Its id.
    pub entity: EntityId,
    /// The cell that it was in.
    pub cell: CellId,
    /// Under which it arrives.
    pub move_number: MoveNumber,
    /// Where.
    pub to: GroupId,
}

/// A reply or event that is published to its session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionReply {
    /// To whom.
    pub character: CharacterId,
    /// In which session.
    pub epoch: SessionEpoch,
    /// What. It is kept in the state until it is acknowledged.
    pub reply: StoredReply,
}

/// A cut was taken: the world as it was right then.
pub struct TakenCut<G: Game> {
    /// Which.
    pub number: CutNumber,
    /// The world, to be kept until a newer cut or long enough.
    pub view: RegionView<G>,
}

/// The proposer's state hash differs from this replica's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// After which tick.
    pub tick: Tick,
    /// This replica's hash.
    pub own: u64,
    /// The proposer's.
    pub proposer: u64,
}

/// Why the region stays awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awake {
    /// Characters are in it.
    Sessions(usize),
    /// Messages wait for their receivers.
    Messages,
    /// A timer runs down before it would be woken.
    Timer {
        /// When.
        due_ms: u64,
    },
    /// New rules wait.
    Barrier,
}

/// What kind of entry was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Applied {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The region came to be.
    Genesis,
    /// A tick ran.
    Tick,
    /// A tick came while a barrier was up, and had no effect.
    Barred,
    /// A cut was taken, or had been taken before.
    Cut,
    /// The region sleeps.
    Asleep,
    /// The region was to sleep and stays awake.
    StaysAwake(Awake),
    /// An entry is to be skipped.
    SkipOrdered(LogIndex),
    /// This entry was skipped.
    Skipped,
    /// New rules wait for their nodes.
    Barrier,
    /// New rules are in force.
    Activated,
}

/// Everything that the owner performs after an entry was applied.
pub struct Effects<G: Game> {
    /// What kind of entry it was.
    pub applied: Applied,
    /// The tick that ran.
    pub tick: Option<Tick>,
    /// Region time after the entry.
    pub now_ms: u64,
    /// Entities that came into the world.
    pub appeared: Vec<Change>,
    /// Entities whose record changed otherwise than by motion.
    pub looks: Vec<Change>,
    /// Entities that left the world.
    pub vanished: Vec<Change>,
    /// Entities that moved; neither those that appeared nor those that vanished are among them.
    pub moved: Vec<Moved>,
    /// Own movement of attached sessions, as far as anything in it changed.
    pub own: Vec<OwnState>,
    /// Replies and events to sessions.
    pub replies: Vec<SessionReply>,
    /// Events to areas.
    pub area_events: Vec<AreaEvent>,
    /// Answers to attaches, in order.
    pub attached: Vec<AttachAnswer>,
    /// Attaches that ended, in order.
    pub ended: Vec<SessionEnd>,
    /// Entities that went to other regions.
    pub handed: Vec<HandedOff>,
    /// Characters that went elsewhere, in order.
    pub sessions_moved: Vec<SessionMoved>,
    /// Characters that came from elsewhere with their sessions.
    pub arrived: Vec<CharacterId>,
    /// Whether anything was posted or trimmed.
    pub outbox_changed: bool,
    /// Messages that came after a gap: group and the number expected.
    pub gaps: Vec<(GroupId, u64)>,
    /// Cuts that were taken, in order.
    pub cuts: Vec<TakenCut<G>>,
    /// The proposer differs from this replica.
    pub divergence: Option<Divergence>,
}

impl<G: Game> Default for Effects<G> {
    fn default() -> Self {
        Self {
            applied: Applied::Nothing,
            tick: None,
            now_ms: 0,
            appeared: Vec::new(),
            looks: Vec::new(),
            vanished: Vec::new(),
            moved: Vec::new(),
            own: Vec::new(),
            replies: Vec::new(),
            area_events: Vec::new(),
            attached: Vec::new(),
            ended: Vec::new(),
            handed: Vec::new(),
            sessions_moved: Vec::new(),
            arrived: Vec::new(),
            outbox_changed: false,
            gaps: Vec::new(),
            cuts: Vec::new(),
            divergence: None,
        }
    }
}

impl<G: Game> Effects<G> {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.applied = Applied::Nothing;
        self.tick = None;
        self.now_ms = 0;
        self.appeared.clear();
        self.looks.clear();
        self.vanished.clear();
        self.moved.clear();
        self.own.clear();
        self.replies.clear();
        self.area_events.clear();
        self.attached.clear();
        self.ended.clear();
        self.handed.clear();
        self.sessions_moved.clear();
        self.arrived.clear();
        self.outbox_changed = false;
        self.gaps.clear();
        self.cuts.clear();
        self.divergence = None;
    }
}
