//! Clocks and entropy of the simulated machines.
//!
//! Every machine has its own clock: off from the true time by some milliseconds that a fault may change, and a few parts in a
//! million too fast or too slow. Entropy follows from the seed, the machine and the number of its boot.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use marchland_types::seam::{Clock, Entropy};
use rand::{Rng, RngExt};
use rand_pcg::Pcg64Mcg;

use crate::interpose;
use crate::seed::Seed;

/// Largest error of a machine's clock at the start, in milliseconds.
const OFFSET_MAX_MS: i64 = 200;
/// Largest drift, in parts per million. Quartz is within 100.
const DRIFT_MAX_PPM: i64 = 100;

/// A machine's clock. Clones share the error.
#[derive(Clone, Debug)]
pub struct SimClock {
    offset_ms: Arc<AtomicI64>,
    drift_ppm: i64,
}

impl SimClock {
    /// The clock of the machine with this name.
    #[must_use]
    pub fn new(seed: Seed, machine: &str) -> Self {
        let mut stream = seed.stream(&format!("clock {machine}"));
        let offset_ms = Arc::new(AtomicI64::new(stream.random_range(-OFFSET_MAX_MS..=OFFSET_MAX_MS)));
        Self { offset_ms, drift_ppm: stream.random_range(-DRIFT_MAX_PPM..=DRIFT_MAX_PPM) }
    }

    /// Moves the wall clock, as an operator or a time server would.
    pub fn jump_ms(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        let now_ns = i128::try_from(interpose::now().as_nanos()).unwrap_or(i128::MAX);
        let drifted_ns = now_ns + now_ns * i128::from(self.drift_ppm) / 1_000_000;
        Duration::from_nanos(u64::try_from(drifted_ns).unwrap_or(0))
    }

    fn wall_ms(&self) -> u64 {
        let true_ms = interpose::EPOCH_S * 1000 + self.monotonic().as_millis() as u64;
        true_ms.saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }
}

/// A machine's source of entropy for one boot.
#[derive(Clone, Debug)]
pub struct SimEntropy(Arc<Mutex<Pcg64Mcg>>);

impl SimEntropy {
    /// What the machine draws in its boot of this number.
    #[must_use]
    pub fn new(seed: Seed, machine: &str, boot: u32) -> Self {
        Self(Arc::new(Mutex::new(seed.stream(&format!("entropy {machine} {boot}")))))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_by_machine_and_jump_without_touching_the_monotonic_one() {
        let (a, b) = (SimClock::new(Seed(1), "n1"), SimClock::new(Seed(1), "n2"));
        assert_ne!(a.wall_ms(), b.wall_ms());
        assert_eq!(a.wall_ms(), SimClock::new(Seed(1), "n1").wall_ms());
        let (wall, monotonic) = (a.wall_ms(), a.monotonic());
        a.jump_ms(-3_600_000);
        assert_eq!((a.wall_ms(), a.monotonic()), (wall - 3_600_000, monotonic));
    }

    #[test]
    fn entropy_repeats_for_a_boot_and_differs_between_boots() {
        let draw = |boot| SimEntropy::new(Seed(1), "n1", boot).next_u64();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
