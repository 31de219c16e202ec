//! All clocks of a machine run too fast or too slow, far more than quartz would: timers fire early or late, and ticks are counted
//! differently than on the others.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// Clocks at a wrong rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockDrift {
    /// How much too fast, in parts per million; negative is too slow.
    pub ppm: i64,
}

impl FaultKind for ClockDrift {
    const NAME: &'static str = "clock-drift";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { ppm: [-300_000, -30_000, 30_000, 300_000][random.random_range(0..4)] }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.is_running(target) {
            return Begun::Nothing;
        }
        trace_line!("CLOCKS of {target} run {} ppm too fast", self.ppm);
        world.drift(target, self.ppm);
        let target = target.clone();
        Begun::effect(move |world| {
            trace_line!("CLOCKS of {target} run as usual");
            world.drift(&target, 0);
        })
    }
}
