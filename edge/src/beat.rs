//! When inputs leave for a region's owner: just before its next tick takes them.
//!
//! ```text
//! tick         T0                              T1                              T2
//! batch            ─▶ heard, "next in …"           ─▶ heard, "next in …"
//! inputs             i  i    i   i   i  i  i ▲   i    i  i   i   i  i   i  i ▲
//!                                            └ one message, [`LEAD`] before T1
//! ```
//!
//! They would be taken no sooner if they left sooner, and each message costs both ends as much as a hundred inputs in it. An owner that
//! says nothing of its next tick, or has been silent for a few, is sent them after [`GATHER`].

use std::time::Duration;

use marchland_types::limits::TICK_MS;

/// How long anything is gathered that does not wait for a tick. A tick is five times as long.
pub(crate) const GATHER: Duration = Duration::from_millis(10);
/// How long before a tick inputs leave: the way to the owner, and what its timers and ours are late.
const LEAD: Duration = Duration::from_millis(6);
/// The longest that inputs wait, however slowly time passes.
const WAIT_MAX: Duration = Duration::from_millis(TICK_MS);
/// For so long ticks are expected that nothing was heard of, at full rate: four of them.
const SILENCE: Duration = Duration::from_millis(4 * TICK_MS);

/// When a region ticks, as far as is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beat(Option<Expected>);

#[derive(Clone, Copy, Debug)]
struct Expected {
    /// Inputs that leave by then are in time for a tick.
    leave_by: Duration,
    /// And for each one after it.
    every: Duration,
    heard_at: Duration,
}

impl Beat {
    /// The owner has published a tick. Its next one takes inputs after `next_in`, if it says so; time passes at `time_rate` percent.
    pub(crate) fn heard(&mut self, now: Duration, next_in: Option<Duration>, time_rate: u32) {
        let Some(next_in) = next_in else { return };
        let every = Duration::from_millis(TICK_MS) * 100 / time_rate.clamp(1, 100);
        self.0 = Some(Expected { leave_by: (now + next_in).saturating_sub(LEAD), every, heard_at: now });
    }

    /// Another owner is looked for: it ticks at other moments.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }

    /// When inputs leave that came now.
    pub(crate) fn leave_by(&self, now: Duration) -> Duration {
        match self.0 {
            Some(expected) if now.saturating_sub(expected.heard_at) < SILENCE.max(expected.every * 2) => {
                let ticks = now.saturating_sub(expected.leave_by).as_micros().div_ceil(expected.every.as_micros().max(1));
                let next = expected.leave_by + expected.every * u32::try_from(ticks).unwrap_or(u32::MAX);
                next.min(now + WAIT_MAX)
            }
            _ => now + GATHER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn inputs_leave_once_before_each_tick() {
        let mut beat = Beat::default();
        beat.heard(ms(1000), Some(ms(40)), 100);
        let leaves = [1000, 1020, 1034, 1035, 1084, 1085, 1134].map(|now| beat.leave_by(ms(now)));
        assert_eq!(leaves, [1034, 1034, 1034, 1084, 1084, 1134, 1134].map(ms));
        beat.heard(ms(1050), Some(ms(43)), 100);
        assert_eq!(beat.leave_by(ms(1060)), ms(1087), "the newest word counts");
        beat.heard(ms(1100), None, 100);
        assert_eq!(beat.leave_by(ms(1101)), ms(1137), "a batch that says nothing changes nothing");
    }

    #[test]
    fn nobody_waits_for_a_tick_that_nobody_has_announced() {
        let mut beat = Beat::default();
        assert_eq!(beat.leave_by(ms(500)), ms(510), "nothing was heard");
        beat.heard(ms(1000), Some(ms(40)), 100);
        assert_eq!(beat.leave_by(ms(1199)), ms(1234));
        assert_eq!(beat.leave_by(ms(1200)), ms(1210), "the owner is silent");
        beat.heard(ms(2000), Some(ms(40)), 100);
        beat.forget();
        assert_eq!(beat.leave_by(ms(2001)), ms(2011), "another owner is looked for");
    }

    #[test]
    fn slow_time_has_longer_ticks_and_what_is_due_at_once_leaves_at_once() {
        let mut beat = Beat::default();
        beat.heard(ms(1000), Some(ms(90)), 50);
        assert_eq!([1084, 1085].map(|now| beat.leave_by(ms(now))), [1084, 1135].map(ms), "nothing waits longer than a tick");
        beat.heard(ms(1000), Some(ms(30)), 0);
        assert_eq!([1024, 1025].map(|now| beat.leave_by(ms(now))), [1024, 1075].map(ms), "no rate at all is one percent");
        beat.heard(ms(1000), Some(Duration::MAX / 4), 100);
        assert_eq!(beat.leave_by(ms(1000)), ms(1050), "whatever a node says");
    }

    proptest::proptest! {
        /// Never in the past, and never later than a tick from now.
        #[test]
        fn inputs_leave_within_a_tick(now in 1000u64..1400, next_in in 0u64..6000, time_rate in 0u32..=200) {
            let mut beat = Beat::default();
            beat.heard(ms(1000), Some(ms(next_in)), time_rate);
            let leaves = beat.leave_by(ms(now));
            proptest::prop_assert!(leaves >= ms(now) && leaves <= ms(now + TICK_MS));
        }
    }
}
