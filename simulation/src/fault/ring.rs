//! Nodes and edges stand in a ring, and each reaches its two neighbours alone. (Three nodes are neighbours of each other, so it takes
//! edges to make a difference: not every edge reaches the owner.)

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::isolate::cut;
use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::world::World;

/// A ring of nodes and edges. Players reach every edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring;

impl FaultKind for Ring {
    const NAME: &'static str = "ring";
    const BEFALLS: Befalls = Befalls::Everything;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, _target: &MachineName) -> Begun {
        let site = world.site();
        let far = |a: usize, b: usize| {
            let apart = a.abs_diff(b);
            apart > 1 && apart < site.len() - 1
        };
        let pairs = (0..site.len()).flat_map(|a| (0..site.len()).map(move |b| (a, b)));
        let links = pairs.filter(|(a, b)| far(*a, *b)).map(|(a, b)| (site[a].clone(), site[b].clone())).collect();
        cut(world, "RING", links)
    }
}
