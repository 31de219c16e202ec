//! What a machine keeps over its boots: its clock, and what is on its disk.

use std::time::Duration;

use rand::RngExt;

use crate::disk::MachineDisk;
use crate::seams::SimClock;
use crate::seed::Seed;

/// What a sync takes on disks of different kinds, in microseconds: memory with a battery, flash, a busy cloud volume.
const SYNC_US: [u64; 3] = [100, 1_000, 8_000];

/// A machine's clock and disk.
#[derive(Clone)]
pub struct Hardware {
    /// Its clock.
    pub clock: SimClock,
    /// Its disk.
    pub disk: MachineDisk,
}

impl Hardware {
    pub(crate) fn new(seed: Seed, machine: &str, lying_disk: bool) -> Self {
        let kind = seed.stream(&format!("kind of disk {machine}")).random_range(0..SYNC_US.len());
        let latency = Duration::from_micros(SYNC_US[kind]);
        let disk = MachineDisk::new(seed.number(&format!("disk {machine}")), latency, lying_disk);
        Self { clock: SimClock::new(seed, machine), disk }
    }

    /// From here on the disk is what a power loss at this moment leaves. Whoever still has the old one writes into nothing.
    pub(crate) fn take_image_after_power_loss(&mut self, chance: u64) {
        self.disk = self.disk.after_power_loss(chance);
    }

    /// From here on the disk is a new one, with nothing on it.
    pub(crate) fn replace_disk(&mut self, seed: u64) {
        self.disk = self.disk.replacement(seed);
    }

    /// From here on the disk is what the end of the process at this moment leaves: everything that was written.
    pub(crate) fn take_image_after_kill(&mut self) {
        self.disk = self.disk.after_kill();
    }
}
