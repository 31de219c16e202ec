//! How fast time passes: ticks that came, over ticks that were due, in the last second.

use std::collections::VecDeque;
use std::time::Duration;

use marchland_types::limits::TICK_MS;

/// Window over which the rate is taken.
const WINDOW: Duration = Duration::from_secs(1);

/// Measures the rate of an owner's ticks.
#[derive(Debug, Default)]
pub struct TickRate {
    ticks: VecDeque<Duration>,
    since: Option<Duration>,
}

impl TickRate {
    /// Forgets everything: this replica has just become owner.
    pub fn restart(&mut self, now: Duration) {
        self.ticks.clear();
        self.since = Some(now);
    }

    /// A tick was applied.
    pub fn tick(&mut self, now: Duration) {
        self.since.get_or_insert(now);
        self.ticks.push_back(now);
        while self.ticks.front().is_some_and(|first| *first + WINDOW <= now) {
            self.ticks.pop_front();
        }
    }

    /// Percent of real time at which ticks come, 1 to 100. Below a window of observation it is 100.
    pub fn percent(&self, now: Duration) -> u32 {
        let Some(since) = self.since else { return 100 };
        if now < since + WINDOW {
            return 100;
        }
        let due = WINDOW.as_millis() as usize / TICK_MS as usize;
        let came = self.ticks.iter().filter(|t| **t + WINDOW > now).count();
        // One tick more or less falls into a window by chance.
        if came + 1 >= due { 100 } else { (came * 100 / due).max(1) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn full_speed_is_100_and_half_speed_is_50() {
        let mut rate = TickRate::default();
        rate.restart(ms(0));
        (1..=40).for_each(|i| rate.tick(ms(i * 50)));
        assert_eq!(rate.percent(ms(2000)), 100);
        (1..=20).for_each(|i| rate.tick(ms(2000 + i * 100)));
        assert_eq!(rate.percent(ms(4000)), 50);
        assert_eq!(rate.percent(ms(9000)), 1);
    }

    #[test]
    fn a_new_owner_does_not_claim_to_be_slow() {
        let mut rate = TickRate::default();
        rate.restart(ms(10_000));
        rate.tick(ms(10_050));
        assert_eq!(rate.percent(ms(10_060)), 100);
    }
}
