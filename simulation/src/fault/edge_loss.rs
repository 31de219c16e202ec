//! An edge is gone for as long as there are faults at all: its players must find another.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// The loss of an edge until the quiet phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeLoss {
    /// Whether it loses power, and says no farewell to its players; else its process dies.
    pub dark: bool,
}

impl FaultKind for EdgeLoss {
    const NAME: &'static str = "edge-loss";
    const BEFALLS: Befalls = Befalls::Edge;
    const UNTIL_QUIET: bool = true;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { dark: random.random() }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        let gone = if self.dark { world.cut_power(target) } else { world.kill(target) };
        if !gone {
            return Begun::Nothing;
        }
        let target = target.clone();
        Begun::effect(move |world| {
            world.start(&target);
        })
    }
}
