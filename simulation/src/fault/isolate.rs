//! One machine is cut off from all others. Packets wait, as TCP would send them again, and arrive when it is over.

use serde::{Deserialize, Serialize};

use super::FaultKind;
use crate::machine::{MachineName, Phase};
use crate::trace_line;
use crate::world::World;

/// A machine cut off from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolate;

impl FaultKind for Isolate {
    const NAME: &'static str = "isolate";

    fn begin(&self, world: &mut World, target: &MachineName) -> bool {
        if world.phase(target) != Phase::Running {
            return false;
        }
        trace_line!("ISOLATION of {target}");
        world.isolate(target);
        true
    }

    fn end(&self, world: &mut World, target: &MachineName) {
        trace_line!("{target} is back on the network");
        world.rejoin(target);
    }
}
