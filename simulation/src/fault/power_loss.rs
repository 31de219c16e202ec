//! The plug is pulled: unsynced writes are kept, lost or torn, and the machine says nothing to anybody. Later it boots again.

use serde::{Deserialize, Serialize};

use super::FaultKind;
use crate::machine::MachineName;
use crate::world::World;

/// Power loss; at its end the machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerLoss;

impl FaultKind for PowerLoss {
    const NAME: &'static str = "power-loss";

    fn begin(&self, world: &mut World, target: &MachineName) -> bool {
        world.cut_power(target)
    }

    fn end(&self, world: &mut World, target: &MachineName) {
        world.start(target);
    }
}
