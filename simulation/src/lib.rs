//! Marchland's own code, a whole cluster of it, in one process under a seed.
//!
//! Nodes, edges and clients run as they are released; only the seams differ: network, disk, keyed store, clock, entropy. The same
//! seed gives the same run, down to the last event of every library, so whatever goes wrong can be looked at again.
//!
//! - [`interpose`] takes clock, entropy and threads away from the simulation's thread; [`run`] and [`process`] give every seed a
//!   fresh thread in a fresh process.
//! - [`world`] has the machines ([`machine`], [`hardware`], [`disk`]) and the network between them ([`net`]); [`seams`] are their clocks and
//!   entropy, [`seed`] where everything random comes from.
//! - [`fault`] is what can go wrong (some of it by [`orders`] to a node), [`plan`] when it does, [`point`] the statements at which
//!   a machine may die or stand still; [`director`] makes a plan happen.
//! - [`fact`] is what happened, [`invariant`] what must hold of it, [`oracle`] brings the two together, [`trace`] writes it down.
//! - [`planted`] are the bugs that all of this must find.
//! - [`scenario`] puts all of it together. A new fault, invariant or scenario is one file and a line in its table.
//! - [`studio`] does the same for a game of one's own.

pub mod director;
pub mod disk;
pub mod fact;
pub mod fault;
pub mod hardware;
pub mod interpose;
pub mod invariant;
pub mod level;
pub mod machine;
pub mod net;
pub mod oracle;
pub mod orders;
pub mod panics;
pub mod plan;
pub mod planted;
pub mod point;
pub mod process;
pub mod report;
pub mod run;
mod runtime;
pub mod scenario;
pub mod seams;
pub mod seed;
pub mod shrink;
pub mod studio;
pub mod sweep;
pub mod trace;
mod wire;
pub mod world;
