//! How fast a region ticks: with players, at full rate; when it is only watched, four times a second; when nobody wants anything of it,
//! not at all.
//!
//! Falling asleep is an entry of the log, so every replica agrees, and whoever owns the region next finds it asleep. Any demand wakes it:
//! an edge that wants to see something, a message, an order, a neighbour that shows something, a timer that runs down.

use std::time::Duration;

use bytes::Bytes;
use marchland_types::limits::TICK_MS;

/// Between two ticks at full rate.
pub(crate) const TICK: Duration = Duration::from_millis(TICK_MS);
/// Between two ticks of a region in which nobody plays.
pub(crate) const WATCHED: Duration = Duration::from_millis(5 * TICK_MS);
/// For so long nobody must want anything before a region falls asleep, in milliseconds of its time.
pub(crate) const IDLE_MS: u64 = 3_000;

/// What an owner's ticker does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Proposes this; the tick after it is due so much later.
    Propose(Bytes, Duration),
    /// The region sleeps: waits until somebody wants something, or for so long.
    Sleep(Duration),
    /// Looks again a little later.
    Wait,
    /// Nothing: this replica does not own the region.
    NotOwner,
}
