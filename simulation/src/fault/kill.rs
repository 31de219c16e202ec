//! `kill -9`: connections are reset, whatever was written to a file stays. Later the process starts again.

use serde::{Deserialize, Serialize};

use super::FaultKind;
use crate::machine::MachineName;
use crate::world::World;

/// The end of a process; at the fault's end it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill;

impl FaultKind for Kill {
    const NAME: &'static str = "kill";

    fn begin(&self, world: &mut World, target: &MachineName) -> bool {
        world.kill(target)
    }

    fn end(&self, world: &mut World, target: &MachineName) {
        world.start(target);
    }
}
