//! What every implementation of this crate's traits must do: one suite each, run against the real ones and the simulated ones.
//!
//! A suite panics at the first thing that is not so. It is part of the library so that other crates can hold their own
//! implementations to it.

mod disk;
mod keyed;
mod raft_log;

pub use disk::check_disk;
pub use keyed::{KeyedUnderTest, check_keyed};
pub use raft_log::{LogUnderTest, check_raft_log};
