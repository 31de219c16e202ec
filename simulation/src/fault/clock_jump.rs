//! A machine's wall clock is set to another time, and back at the end.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// A wall clock that is wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockJump {
    /// By how much, in either direction.
    pub by_ms: i64,
}

impl FaultKind for ClockJump {
    const NAME: &'static str = "clock-jump";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { by_ms: [-3_600_000, -5_000, 5_000, 3_600_000][random.random_range(0..4)] }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        let (by_ms, target) = (self.by_ms, target.clone());
        trace_line!("CLOCK of {target} jumps by {by_ms} ms");
        world.hardware(&target).clock.jump_ms(by_ms);
        Begun::effect(move |world| {
            trace_line!("CLOCK of {target} jumps back");
            world.hardware(&target).clock.jump_ms(-by_ms);
        })
    }
}
