//! Syncs of a machine's disk take many times as long.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// A slow disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowDisk {
    /// About what a sync takes meanwhile.
    pub sync_ms: u64,
}

impl FaultKind for SlowDisk {
    const NAME: &'static str = "slow-disk";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { sync_ms: [40, 150, 600][random.random_range(0..3)] }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        let before = world.hardware(target).disk.usual_latency();
        trace_line!("SLOW DISK of {target}: {} ms a sync", self.sync_ms);
        world.hardware(target).disk.set_latency(Duration::from_millis(self.sync_ms));
        let (target, syncs) = (target.clone(), world.hardware(target).disk.counters().syncs);
        Begun::armed(move |world| {
            let disk = world.hardware(&target).disk;
            trace_line!("the disk of {target} is as fast as usual");
            disk.set_latency(before);
            disk.counters().syncs > syncs
        })
    }
}
