//! What the handlers of an entry did, for whoever asks who got what by which command.
//!
//! Asked for by [`crate::Region::trace`], and only then kept. Not part of the state and of no influence on it: a region that is traced
//! comes to the same state, to the bit.

use bytes::Bytes;
use marchland_types::{CharacterId, CommandSeq, EntityId, ItemId};

use crate::doing::Handler;

/// Who holds an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// It is not there: not made yet, unmade, or in another group.
    Nobody,
    /// An entity in the world.
    Entity(EntityId),
    /// A character that is not in the world and is kept by the region.
    Dormant(CharacterId),
}

/// An item that changed hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemMove {
    /// Which.
    pub item: ItemId,
    /// The game's kind.
    pub kind: u32,
    /// Who held it before.
    pub from: Holder,
    /// Who holds it now.
    pub to: Holder,
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeedOutcome {
    /// What it wrote stays.
    Done,
    /// It refused, and had no effect.
    Refused,
    /// It panicked, and had no effect.
    Panicked,
}

/// What a command was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeedAnswer {
    /// Who gave the command.
    pub character: CharacterId,
    /// The client's number for it.
    pub seq: CommandSeq,
    /// A stable code.
    pub code: u32,
    /// In the game's encoding.
    pub body: Bytes,
}

/// One run of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Which handler.
    pub handler: Handler,
    /// How it ended.
    pub outcome: DeedOutcome,
    /// Of a command: its answer.
    pub answer: Option<DeedAnswer>,
    /// Items that changed hands, by id.
    pub items: Vec<ItemMove>,
}
