//! A node loses everything that it kept: the disk is replaced by an empty one. Later it boots again, as somebody else.
//!
//! Once in a run: what is acknowledged survives the loss of a minority, and the next one could be half of the rest before this one
//! has its place again. So it is planned by those scenarios that are about it, and by no sweep of all faults.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// The loss of a data folder; at its end the machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderLoss;

impl FaultKind for FolderLoss {
    const NAME: &'static str = "folder-loss";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if world.has_replaced_a_disk() || !world.cut_power(target) {
            return Begun::Nothing;
        }
        world.replace_disk(target);
        let target = target.clone();
        Begun::effect(move |world| {
            world.start(&target);
        })
    }
}
