//! Many raft groups on one node, behind a small interface of our own.
//!
//! A group is a [`Machine`] that applies committed entries in order, and a [`Group`] handle that proposes them;
//! [`RaftNode`] holds a node's groups, their connections and their recovery. Only this crate names the raft library.
//!
//! What always holds:
//!
//! - An answer to a proposal means: committed on a majority of disks, and applied here. Anything else says whether it was
//!   refused or is unknown.
//! - A replica that restarts leads only after an election: it never resumes its own term.
//! - A checkpoint is never ahead of the synced log, and the log is never purged beyond the checkpoint.
//! - A state machine that fails stops its group and no other. A log that fails stops the node.
//! - What a peer sends is checked for sender, receiver, role, world and form before it reaches a group.
//!
//! The library below logs every message that is lost while a peer is down as a warning: production filters its target,
//! `openraft`, to errors. What matters is logged here.

mod api;
mod group;
mod halt;
mod link;
mod log_store;
mod machine;
mod network;
mod node;
mod options;
mod probe;
mod record;
mod replacement;
mod rest;
mod scheduler;
mod service;
mod snapshots;
mod standby;
pub mod testkit;
mod types;
mod wire;

pub use api::{
    Applied, BoxFuture, Committed, Entry, GroupStatus, Halt, Machine, MachineFault, Payload, ProposeError, Role, Snapshot,
    SnapshotBody,
};
pub use group::Group;
pub use machine::logged_entry;
pub use node::{OpenError, RaftNode};
pub use options::{AddressBook, BadOptions, Limits, NodeOptions, Standing, Timings};
pub use record::BadRecord;
pub use replacement::{Replacement, next_replacement};
pub use service::RaftService;
