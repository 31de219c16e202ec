//! A machine's wall clock is set to another time, and back at the end.

use serde::{Deserialize, Serialize};

use super::FaultKind;
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

    fn begin(&self, world: &mut World, target: &MachineName) -> bool {
        trace_line!("CLOCK of {target} jumps by {} ms", self.by_ms);
        world.hardware(target).clock.jump_ms(self.by_ms);
        true
    }

    fn end(&self, world: &mut World, target: &MachineName) {
        world.hardware(target).clock.jump_ms(-self.by_ms);
    }
}
