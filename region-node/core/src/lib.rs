//! The simulation of one region: a pure, deterministic function from log entries to state and effects.
//!
//! A region is a raft group whose state machine is the world itself. Every replica gives the same committed entries to
//! [`Region::apply`] and comes to the same state, to the bit; the owner alone performs the [`Effects`]. A studio's rules are
//! a [`Game`] that acts through a [`Context`].
//!
//! What is deliberately absent: threads, clocks, entropy, files, sockets, and the platform's mathematics. Time is the tick's
//! number and the time in its entry; chance comes from generators in the state ([`Pcg`]); whatever is iterated is in an order
//! that the state alone decides.

mod channel;
mod checkpoint;
mod codec;
mod component;
mod context;
mod deed;
mod doing;
mod dormant;
mod effects;
mod entity;
mod game;
mod ghost;
mod ground;
mod hash;
mod invariants;
mod inventory;
mod random;
mod record;
mod region;
mod session;
mod step;
mod stub;
mod table;
mod template;
pub mod testing;
mod timer;
mod trouble;
mod view;
mod world;

pub use marchland_proto::codes::Code;
pub use marchland_types::{CellId, CharacterId, CutNumber, EntityId, GroupId, ItemId, LogIndex, RegionId, Tick};

pub use crate::channel::PostError;
pub use crate::checkpoint::DecodeError;
pub use crate::codec::{CodecError, Reader, Row, Writer};
pub use crate::component::{Component, Registry};
pub use crate::context::{AREA_EVENT_MAX_BYTES, Context, InventoryError, TellError};
pub use crate::deed::{Deed, DeedAnswer, DeedOutcome, Holder, ItemMove};
pub use crate::doing::{Doing, Handler};
pub use crate::effects::{Applied, AreaEvent, Awake, Change, Divergence, Effects, HandedOff, Moved, SessionReply, TakenCut};
pub use crate::entity::{AUDIENCE_MAX, Audience, Body, ENTITIES_MAX, Identity, LOOK_MAX_BYTES, POSITION_MAX_M, Spawn};
pub use crate::game::{Action, ActionName, BadParameters, Entrance, Game, LINGER_DEFAULT_MS, Letter, Order, Refusal};
pub use crate::ghost::{GHOST_BAND_M, GHOSTS_MAX, Ghost, NEIGHBOUR_SILENT_MS};
pub use crate::ground::{Ground, OpenGround, TileGround, WALKER_RADIUS_M};
pub use crate::hash::{hash, mix};
pub use crate::invariants::InvariantViolation;
pub use crate::inventory::{INVENTORY_MAX_ITEMS, ITEM_DATA_MAX_BYTES, Inventory, Item, Ledger};
pub use crate::random::Pcg;
pub use crate::record::Record;
pub use crate::region::{ApplyFault, ENTRY_FORMAT, Region, SessionInfo};
pub use crate::session::{MOVE_CREDIT_MAX_MS, MOVE_DURATION_MAX_MS, Mover, Presence, QueuedMove, REPLY_MAX_BYTES, Session};
pub use crate::step::{ATTACHED_MAX, DWELL_MS, HYSTERESIS_M, SKIP_REASON_MAX_BYTES, skip_entry, skipped_by};
pub use crate::stub::Stub;
pub use crate::template::{NoTemplate, character_template};
pub use crate::timer::{Timer, TimerId};
pub use crate::trouble::{CAUSE_PANIC, CAUSE_SKIPPED, DEAD_LETTERS_MAX, DEAD_LETTERS_MAX_BYTES, SKIPPED_MAX};
pub use crate::view::RegionView;
pub use crate::world::{AUTHORITY_MAX_M, BarrierTo, Counters, EntityView, GHOST_SLOT, Near, RayHit, World};
