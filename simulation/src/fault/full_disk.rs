//! A machine's disk is full for a while.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// A disk with hardly a free byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullDisk {
    /// What can still be written.
    pub room_bytes: u64,
}

impl FaultKind for FullDisk {
    const NAME: &'static str = "full-disk";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { room_bytes: [0, 10_000, 80_000][random.random_range(0..3)] }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.is_running(target) {
            return Begun::Nothing;
        }
        trace_line!("FULL DISK of {target}: {} bytes are left", self.room_bytes);
        world.excuse(target);
        let disk = world.hardware(target).disk;
        let before = disk.counters().refused_full;
        disk.leave_room(self.room_bytes);
        let target = target.clone();
        Begun::armed(move |world| {
            trace_line!("the disk of {target} has room again");
            let disk = world.hardware(&target).disk;
            disk.make_room();
            let refused = disk.counters().refused_full > before;
            world.excuse_no_more(&target, refused);
            world.start(&target);
            refused
        })
    }
}
