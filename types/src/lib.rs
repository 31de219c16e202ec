//! Ids, units and limits that every other crate shares.
//!
//! This crate depends on nothing and does nothing: newtypes for whatever could be mixed up, the limits of the system in
//! one place with the relations between them proved at compile time, and the two seams that need no library
//! ([`seam::Clock`], [`point!`]; [`planted!`] is for its tests).

pub mod ids;
pub mod limits;
pub mod planted;
pub mod points;
pub mod seam;

pub use ids::{
    AttachNumber, CellId, CharacterId, CommandSeq, CutNumber, EntityId, GroupId, GroupKind, Incarnation, ItemId, LogIndex,
    MapEpoch, MoveNumber, NodeId, Position, RegionId, ReplicaId, ReplySeq, SessionEpoch, Term, Tick, WorldId, vault_of,
};
