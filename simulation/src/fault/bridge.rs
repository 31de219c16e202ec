//! Nodes and edges fall into two halves that only the target still reaches both of.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::isolate::{between, cut};
use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// Two halves with one node between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge;

impl FaultKind for Bridge {
    const NAME: &'static str = "bridge";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.is_running(target) {
            return Begun::Nothing;
        }
        let mut left = world.nodes_from(target);
        left.remove(0);
        let mut right = left.split_off(left.len() / 2);
        let mut edges = world.edges();
        right.extend(edges.split_off(edges.len() / 2));
        left.extend(edges);
        cut(world, "BRIDGE", between(&left, &right))
    }
}
