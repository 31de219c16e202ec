//! How fast a region ticks: with players, at full rate; when it is only watched, four times a second; when nobody wants anything of it,
//! not at all.
//!
//! Falling asleep is an entry of the log, so every replica agrees, and whoever owns the region next finds it asleep. Any demand wakes it:
//! an edge that wants to see something, a message, an order, a neighbour that shows something, a timer that runs down.
//!
//! Regions tick together, on every node: what they send, to disk, to each other and to edges, then goes in few writes and wakes
//! whoever waits for it once. Many of them do not fit into one moment, so there are a few of these slots:
//!
//! ```text
//! wall clock  0         12        25        37        50 ms
//! regions     1 to 31   32 to 63  64 to 95  96 to 127 1 to 31
//!                                                     128 to 159, and so on
//! ```
//!
//! A region that was woken, or whose tick came late, comes back to its slot by a millisecond a tick. Nothing depends on that, nor
//! on clocks that agree: where they do not, the same work is done in more pieces.

use std::time::Duration;

use bytes::Bytes;
use marchland_types::RegionId;
use marchland_types::limits::TICK_MS;
use tokio::time::Instant;

/// Between two ticks at full rate.
pub(crate) const TICK: Duration = Duration::from_millis(TICK_MS);
/// Between two ticks of a region in which nobody plays.
pub(crate) const WATCHED: Duration = Duration::from_millis(5 * TICK_MS);
/// For so long nobody must want anything before a region falls asleep, in milliseconds of its time.
pub(crate) const IDLE_MS: u64 = 3_000;

/// Moments within a tick's length at which regions tick.
const SLOTS: u64 = 4;
/// Regions with consecutive numbers that tick at the same moment.
const SLOT_REGIONS: u64 = 32;
/// By how much one tick comes sooner or later so that those after it fall into their slot: two percent of its length.
const NUDGE: Duration = Duration::from_millis(1);

/// When the tick comes that follows, by `then`, the one that was due at `due`. It is `now`, and `wall_ms` by the wall clock. Late ticks
/// move the ones after them; early ones keep the beat.
pub(crate) fn next_due(due: Instant, then: Duration, now: Instant, wall_ms: u64, region: RegionId) -> Instant {
    let next = (due + then).max(now);
    let slot_ms = u64::from(region.0) / SLOT_REGIONS % SLOTS * TICK_MS / SLOTS;
    let late_ms = (wall_ms + (next - now).as_millis() as u64 + TICK_MS - slot_ms) % TICK_MS;
    match late_ms {
        // The clocks are read to a millisecond.
        0..=1 | 49.. => next,
        2..=25 => (next - NUDGE).max(now),
        26.. => next + NUDGE,
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Phases of ticks within the wall clock's fifty milliseconds, from when the first is due on.
    fn phases(region: u32, first_ms: u64, lates: &[(usize, u64)]) -> Vec<u64> {
        let began = Instant::now();
        let mut due = began + Duration::from_millis(first_ms);
        let mut phases = Vec::new();
        for at in 0..200 {
            let late = lates.iter().find(|(tick, _)| *tick == at).map_or(0, |(_, ms)| *ms);
            let now = due + Duration::from_millis(late);
            let wall_ms = 1_000_000 + (now - began).as_millis() as u64;
            phases.push(wall_ms % TICK_MS);
            due = next_due(due, TICK, now, wall_ms, RegionId(region));
        }
        phases
    }

    #[test]
    fn regions_of_a_slot_come_together_from_wherever_they_begin() {
        for first_ms in 0..50 {
            for (region, slot_ms) in [(1, 0), (31, 0), (32, 12), (64, 25), (96, 37), (128, 0)] {
                let phases = phases(region, first_ms, &[]);
                let off = |phase: u64| (phase + 50 - slot_ms) % 50;
                assert_eq!(phases[0], first_ms, "the first comes when it is wanted");
                assert!(phases[26..].iter().all(|phase| matches!(off(*phase), 0..=1 | 49)), "region {region}: {phases:?}");
            }
        }
    }

    #[test]
    fn a_late_tick_moves_the_ones_after_it_and_the_region_comes_back_to_its_slot() {
        let phases = phases(1, 0, &[(50, 70)]);
        assert_eq!((phases[49], phases[50]), (0, 20));
        assert_eq!(phases[51], 20, "the next one follows at once, and is not made up for");
        assert!(phases[80..].iter().all(|phase| matches!(phase, 0..=1 | 49)), "{phases:?}");
    }

    #[test]
    fn no_tick_comes_before_now() {
        let now = Instant::now();
        let next = next_due(now - TICK, TICK, now, 1_000_010, RegionId(1));
        assert_eq!(next, now);
    }
}
