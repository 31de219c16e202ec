//! One machine is far away: what it sends and is sent takes longer, and packets of different connections overtake each other.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// Slow links of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowLink {
    /// Most time that a packet takes meanwhile.
    pub latency_max_ms: u64,
}

impl FaultKind for SlowLink {
    const NAME: &'static str = "slow-link";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { latency_max_ms: [80, 160, 320][random.random_range(0..3)] }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        let latency_max = Duration::from_millis(self.latency_max_ms);
        if latency_max <= world.latency_max() || !world.is_running(target) {
            return Begun::Nothing;
        }
        trace_line!("SLOW LINKS of {target}: up to {} ms", self.latency_max_ms);
        world.slow_down(Some(target), latency_max);
        let target = target.clone();
        Begun::effect(move |world| {
            trace_line!("links of {target} are as usual");
            world.speed_up(Some(&target), latency_max);
        })
    }
}
