//! What a machine keeps over its boots: its clock, and what is on its disk.

use crate::seams::SimClock;
use crate::seed::Seed;

/// A machine's clock and disk.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Its clock.
    pub clock: SimClock,
}

impl Hardware {
    pub(crate) fn new(seed: Seed, machine: &str) -> Self {
        Self { clock: SimClock::new(seed, machine) }
    }

    /// From here on the disk is what a power loss at this moment leaves. Whoever still has the old one writes into nothing.
    pub(crate) fn take_image_after_power_loss(&mut self, _chance: u64) {}

    /// From here on the disk is what the end of the process at this moment leaves: everything that was written.
    pub(crate) fn take_image_after_kill(&mut self) {}
}
