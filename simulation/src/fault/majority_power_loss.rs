//! So many nodes lose power at once that no group has a majority until they are back.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::power_loss::take_power;
use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// Power loss of the target and as many nodes after it as make a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MajorityPowerLoss;

impl FaultKind for MajorityPowerLoss {
    const NAME: &'static str = "majority-power-loss";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        let nodes = world.nodes_from(target);
        let majority = nodes.len() / 2 + 1;
        let running = nodes.into_iter().filter(|node| world.is_running(node)).take(majority).collect::<Vec<_>>();
        if running.len() < majority { Begun::Nothing } else { take_power(world, running) }
    }
}
