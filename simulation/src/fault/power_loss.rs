//! The plug is pulled: unsynced writes are kept, lost or torn, and the machine says nothing to anybody. Later it boots again.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// Power loss; at its end the machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerLoss;

impl FaultKind for PowerLoss {
    const NAME: &'static str = "power-loss";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        take_power(world, vec![target.clone()])
    }
}

/// Takes the power of all of these that run, and gives it back at the end.
pub(super) fn take_power(world: &mut World, machines: Vec<MachineName>) -> Begun {
    let dark: Vec<MachineName> = machines.into_iter().filter(|name| world.cut_power(name)).collect();
    if dark.is_empty() {
        return Begun::Nothing;
    }
    Begun::effect(move |world| {
        for name in &dark {
            world.start(name);
        }
    })
}
