//! Packets of the whole network take longer, and so overtake each other more.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// A slow network; the target does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowNetwork {
    /// Most time that a packet takes meanwhile.
    pub latency_max_ms: u64,
}

impl FaultKind for SlowNetwork {
    const NAME: &'static str = "slow-network";
    const BEFALLS: Befalls = Befalls::Everything;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { latency_max_ms: [60, 120, 240][random.random_range(0..3)] }
    }

    fn begin(&self, world: &mut World, _target: &MachineName) -> Begun {
        let latency_max = Duration::from_millis(self.latency_max_ms);
        if latency_max <= world.latency_max() {
            return Begun::Nothing;
        }
        trace_line!("SLOW NETWORK: up to {} ms", self.latency_max_ms);
        world.slow_down(None, latency_max);
        Begun::effect(move |world| {
            trace_line!("the network is as usual");
            world.speed_up(None, latency_max);
        })
    }
}
