//! Drives regions: ticks, effects, and delivery to edges.
//!
//! The simulation itself is `marchland-region-core`, pure. This crate puts one replica of it behind raft's state machine
//! interface ([`RegionMachine`]), runs the owner's ticker, and serves edges ([`RegionsService`]). What a client is shown, and
//! every acknowledgement, leaves from one place: [`hub`], called with the effects of an entry that is committed and
//! applied, on the owner alone. There is no other way out.
//!
//! Rules may be wrong: an entry that can not be applied halts its region and no other, until it is ordered to be skipped; a rule that
//! does not return is noticed and left behind.
//!
//! A leader is owner only after it has applied an entry of its own term. All work on a region's state runs on its
//! [`Executor`] in the order of submission.

mod arrivals;
pub mod backlog;
mod doubt;
pub mod executor;
mod ghosts;
pub mod hub;
mod machine;
pub mod orphans;
mod outlets;
mod pace;
mod port;
mod rate;
mod replica;
mod service;
mod slot;
mod ticker;
mod watchdog;

pub use doubt::{Suspicion, Verdict, judge};
pub use executor::{Executor, ExecutorError, InlineExecutor, ThreadExecutor};
pub use ghosts::GhostPosts;
pub use machine::{RegionMachine, RegionMachineOptions};
pub use port::{Compared, DeliverOutcome, EdgeId, RegionFacts, RegionPort, SkippedFact};
pub use service::{RegionsService, RegionsServiceOptions};
pub use ticker::run_ticker;
pub use watchdog::StepBudget;
