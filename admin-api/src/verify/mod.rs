//! Whether a world is whole: replicas agree, no item is missing or doubled, nobody is in two places.
//!
//! Everything is compared at one cut, so the answer is exact while the world runs. A replica that does not answer makes the
//! whole an error: what was not looked at is never called sound.

mod collect;
mod judge;

pub use collect::{VerifyError, verify};
pub use judge::{Divergence, GroupAnswers, LISTED_MAX, ReplicaAnswer, VerifyReport, judge};
