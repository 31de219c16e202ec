//! The nodes are split into a minority, with the target, and the rest. Edges see both sides, or one.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::isolate::{between, cut};
use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// Where the edges are when nodes are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgesSide {
    /// They reach everyone.
    Both,
    /// With the minority.
    Minority,
    /// With the majority.
    Majority,
}

/// A split between nodes: the largest minority that has the target, and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Where the edges are.
    pub edges: EdgesSide,
}

impl FaultKind for Split {
    const NAME: &'static str = "split";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { edges: [EdgesSide::Both, EdgesSide::Minority, EdgesSide::Majority][random.random_range(0..3)] }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.is_running(target) {
            return Begun::Nothing;
        }
        let mut minority = world.nodes_from(target);
        let mut majority = minority.split_off((minority.len() - 1) / 2);
        match self.edges {
            EdgesSide::Both => {}
            EdgesSide::Minority => minority.extend(world.edges()),
            EdgesSide::Majority => majority.extend(world.edges()),
        }
        cut(world, "SPLIT", between(&minority, &majority))
    }
}
