//! The ground of a region: a map or open land, as its parameters say.

use std::sync::Arc;

use marchland_region_core::{BadParameters, Ground, OpenGround, TileGround};
use prost::Message;

use crate::map::FrontierMap;
use crate::messages::Parameters;
use crate::messages::parameters::parameters::Ground as Chosen;

/// Ore veins on open ground.
const ORE_NODES_MAX: u32 = 10_000;

/// Where a region's players walk.
#[derive(Debug)]
pub enum FrontierGround {
    /// On a map.
    Map {
        /// What the designer drew.
        map: FrontierMap,
        /// Its tiles.
        tiles: Arc<TileGround>,
    },
    /// On open land.
    Open {
        /// The square.
        ground: OpenGround,
        /// Veins to plant.
        ore_nodes: u32,
    },
}

impl FrontierGround {
    /// The ground that encoded [`Parameters`] ask for.
    pub(crate) fn new(parameters: &[u8], aurora: &FrontierMap) -> Result<Self, BadParameters> {
        let bad = |reason: String| Err(BadParameters(reason));
        let parameters = Parameters::decode(parameters).map_err(|error| BadParameters(error.to_string()))?;
        match parameters.ground {
            Some(Chosen::Map(map)) if map.name == "aurora" => {
                Ok(Self::Map { map: aurora.clone(), tiles: aurora.ground().clone() })
            }
            Some(Chosen::Map(map)) => bad(format!("there is no map {:?}", map.name)),
            Some(Chosen::Open(open)) if (2.0..=100_000.0).contains(&open.side_m) && open.ore_nodes <= ORE_NODES_MAX => {
                Ok(Self::Open { ground: OpenGround::new(open.side_m), ore_nodes: open.ore_nodes })
            }
            Some(Chosen::Open(open)) => bad(format!(
                "open ground of {} m with {} veins; 2 to 100,000 m and at most {ORE_NODES_MAX}",
                open.side_m, open.ore_nodes
            )),
            None => bad("they name no ground".into()),
        }
    }
}

impl Ground for FrontierGround {
    fn walk(&self, from: [f32; 2], by: [f32; 2]) -> [f32; 2] {
        match self {
            Self::Map { tiles, .. } => tiles.walk(from, by),
            Self::Open { ground, .. } => ground.walk(from, by),
        }
    }

    fn is_free(&self, at: [f32; 2]) -> bool {
        match self {
            Self::Map { tiles, .. } => tiles.is_free(at),
            Self::Open { ground, .. } => ground.is_free(at),
        }
    }

    fn sight(&self, from: [f32; 2], to: [f32; 2]) -> f32 {
        match self {
            Self::Map { tiles, .. } => tiles.sight(from, to),
            Self::Open { ground, .. } => ground.sight(from, to),
        }
    }

    fn bounds(&self) -> [[f32; 2]; 2] {
        match self {
            Self::Map { tiles, .. } => tiles.bounds(),
            Self::Open { ground, .. } => ground.bounds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{map_parameters, open_parameters};

    #[test]
    fn parameters_are_checked() {
        let aurora = FrontierMap::aurora().unwrap();
        assert!(FrontierGround::new(&map_parameters(), &aurora).is_ok());
        assert!(FrontierGround::new(&open_parameters(100.0, 3), &aurora).is_ok());
        for bad in [vec![], vec![255], open_parameters(f32::NAN, 0), open_parameters(1.0, 0), open_parameters(10.0, 1 << 20)] {
            assert!(FrontierGround::new(&bad, &aurora).is_err(), "{bad:?}");
        }
    }
}
