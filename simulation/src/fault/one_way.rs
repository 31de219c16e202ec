//! Packets pass in one direction only, between one machine and all others: it hears and is not heard, or the other way round.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::isolate::cut;
use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// A machine whose network works in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneWay {
    /// Whether what it sends is what waits; else what is sent to it.
    pub mute: bool,
}

impl FaultKind for OneWay {
    const NAME: &'static str = "one-way";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { mute: random.random() }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.is_running(target) {
            return Begun::Nothing;
        }
        let others = world.names().into_iter().filter(|other| other != target);
        let link = |other| if self.mute { (target.clone(), other) } else { (other, target.clone()) };
        cut(world, if self.mute { "MUTE" } else { "DEAF" }, others.map(link).collect())
    }
}
