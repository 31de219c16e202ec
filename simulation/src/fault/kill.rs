//! `kill -9`: connections are reset, whatever was written to a file stays. Later the process starts again.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// The end of a process; at the fault's end it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill;

impl FaultKind for Kill {
    const NAME: &'static str = "kill";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.kill(target) {
            return Begun::Nothing;
        }
        let target = target.clone();
        Begun::effect(move |world| {
            world.start(&target);
        })
    }
}
