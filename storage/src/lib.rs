//! Durable state of a node, each kind where it is safe and fast, behind traits that one conformance suite runs against every
//! implementation. No upper layer names an engine.

pub mod bench;
pub mod checkpoint;
pub mod conformance;
pub mod disk;
pub mod folder;
pub mod keyed;
pub mod log;
pub mod raft_log;

mod seeded;
