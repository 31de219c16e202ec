//! Packets of the whole network take longer, and so overtake each other more.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FaultKind;
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// A slow network; the target does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowNetwork {
    /// Most time that a packet takes meanwhile.
    pub latency_max_ms: u64,
    /// Most time that it takes afterwards.
    pub usual_ms: u64,
}

impl FaultKind for SlowNetwork {
    const NAME: &'static str = "slow-network";

    fn begin(&self, world: &mut World, _target: &MachineName) -> bool {
        trace_line!("SLOW NETWORK: up to {} ms", self.latency_max_ms);
        world.set_latency_max(Duration::from_millis(self.latency_max_ms));
        true
    }

    fn end(&self, world: &mut World, _target: &MachineName) {
        world.set_latency_max(Duration::from_millis(self.usual_ms));
    }
}
