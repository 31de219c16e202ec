//! One node: storage, raft groups, regions, directory and edge, put together and taken apart in order.
//!
//! ```text
//! start   data folder → log → cluster port → incarnation → raft → keyed store → groups → edge
//! stop    what it leads is handed over, unless all stop → edge (clients are told)
//!         → groups persisted → raft → cluster port → log → data folder
//! ```
//!
//! [`Node`] is generic over its [`crate::seams::Seams`]; what production adds (threads, HTTP, signals) is in `process.rs`.

mod admin;
mod assembly;
mod birth;
mod founding;
mod front;
mod groups;
mod handover;
mod keeper;
mod neighbours;
mod process;
mod pumps;
mod quiet;
mod scrubber;
mod settings;
mod spread;

pub use admin::{NodeAdmin, Pages};
pub use assembly::{Node, NodeError};
pub use handover::HandedOver;
pub use process::{NodeArgs, main};
pub use settings::{Member, NodeSettings};
