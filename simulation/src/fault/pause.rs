//! A machine's process stands still for a while, as `SIGSTOP` or a hypervisor would have it: its sockets fill, its clock goes on, and
//! when it runs again everything that was due is overdue. It does not know that anything happened.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// A process that stands still; at the fault's end it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause;

impl FaultKind for Pause {
    const NAME: &'static str = "pause";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.pause(target) {
            return Begun::Nothing;
        }
        let target = target.clone();
        Begun::effect(move |world| world.resume(&target))
    }
}
