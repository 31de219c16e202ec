//! The whole site goes dark: every node and edge at the same moment. Players stay.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::power_loss::take_power;
use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// Power loss of all nodes and edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SitePowerLoss;

impl FaultKind for SitePowerLoss {
    const NAME: &'static str = "site-power-loss";
    const BEFALLS: Befalls = Befalls::Everything;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, _target: &MachineName) -> Begun {
        let site = world.site();
        if site.iter().all(|name| world.is_running(name)) { take_power(world, site) } else { Begun::Nothing }
    }
}
