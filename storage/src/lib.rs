//! Durable state of a node, each kind where it is safe and fast, behind traits that one conformance suite runs against every
//! implementation. No upper layer names an engine.
//!
//! | kept | trait | implementations |
//! |---|---|---|
//! | files | [`disk::Disk`] | [`disk::RealDisk`], [`disk::SimDisk`] |
//! | raft logs of all groups | [`raft_log::RaftLog`] | [`log::SharedLog`], on any disk |
//! | states of regions | – | [`checkpoint::Checkpoints`], on any disk |
//! | states that outgrow memory | [`keyed::KeyedNode`], [`keyed::KeyedStore`] | [`keyed::DiskKeyedNode`] over redb or sled, [`keyed::SimKeyedNode`] |
//! | who the folder belongs to | – | [`folder::DataFolder`], on any disk |
//!
//! What always holds: nothing is reported as durable before the disk has said so, and nothing that was read at a start is reported
//! before it has been synced again. After a failed sync nothing more is written until a restart. Whatever is on disk carries a
//! format version and a checksum; damage is refused with file and offset, never repaired by guessing.

pub mod bench;
pub mod checkpoint;
pub mod conformance;
pub mod disk;
pub mod folder;
pub mod keyed;
pub mod log;
pub mod raft_log;

mod seeded;
