//! Real processes under real faults: what the seams of the simulator hide is found here.
//!
//! - [`cluster`]: a cluster of the real binary in a folder of its own, killed and resumed by process id; what earlier runs
//!   left behind is swept by [`run`].
//! - [`player`]: players that walk and gather, each with its own truth about what it sent, what was acknowledged and shown.
//! - [`history`]: what they noted, as JSON lines with one clock, faults in the same stream.
//! - [`checker`]: pure; says what a history and the state at the end contradict. A run in which some operation never
//!   succeeded has shown nothing and fails.
//! - [`plant`]: damages a stored state on purpose, so that the finding of it can be shown.
//! - [`broken`]: what makes the rules of the server `broken-rules/main.rs` fail.
//! - [`power`]: power cuts, where the machine allows them. What it does not allow is reported as skipped, never as passed.
//! - [`wall`]: stands between nodes, and cuts one off from the others.
//! - [`web`]: just enough HTTP to ask a node's pages.
//!
//! The tests themselves are in `tests/real`, with a runner of their own that can say "skipped".

pub mod broken;
pub mod checker;
pub mod cluster;
pub mod history;
pub mod plant;
pub mod player;
pub mod power;
pub mod run;
pub mod wall;
pub mod web;
