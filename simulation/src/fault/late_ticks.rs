//! A busy machine: again and again nothing runs for some milliseconds, so ticks are late, and some are skipped.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// A machine that stands still again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateTicks {
    /// Up to so long each time.
    pub up_to_ms: u64,
}

impl FaultKind for LateTicks {
    const NAME: &'static str = "late-ticks";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { up_to_ms: [30, 120, 250][random.random_range(0..3)] }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.is_running(target) {
            return Begun::Nothing;
        }
        trace_line!("STUTTER of {target}: up to {} ms", self.up_to_ms);
        world.stutter(target, Some(Duration::from_millis(self.up_to_ms)));
        let (target, before) = (target.clone(), world.stuttered(target));
        Begun::armed(move |world| {
            trace_line!("{target} stutters no more");
            world.stutter(&target, None);
            world.stuttered(&target) > before
        })
    }
}
