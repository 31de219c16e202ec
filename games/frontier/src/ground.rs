//! The ground of a world: a map or open land, as its parameters say; and how many animals graze on it.
//!
//! A world of many regions has the map once for each, side by side; the copies share its tiles. What a region has of the ground is
//! its own rectangle, which is given with every question.

use std::sync::Arc;

use marchland_region_core::{BadParameters, Ground, OpenGround, TileGround};
use prost::Message;

use crate::map::FrontierMap;
use crate::messages::Parameters;
use crate::messages::parameters::parameters::Ground as Chosen;

/// Ore veins on open ground.
const ORE_NODES_MAX: u32 = 10_000;
/// Animals of one region.
pub const ANIMALS_MAX: u32 = 10_000;
/// Regions of a world.
const REGIONS_MAX: u64 = 4096;

/// Where a region's players walk.
#[derive(Debug)]
pub struct FrontierGround {
    /// Map or open land.
    pub land: Land,
    /// Animals that each region begins with.
    pub animals: u32,
}

/// What the ground is.
#[derive(Debug)]
pub enum Land {
    /// On a map.
    Map {
        /// What the designer drew.
        map: FrontierMap,
        /// Its tiles, as often as there are regions.
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
        let (columns, rows) = (parameters.columns.max(1), parameters.rows.max(1));
        if u64::from(columns) * u64::from(rows) > REGIONS_MAX {
            return bad(format!("{columns} times {rows} regions; {REGIONS_MAX} at most"));
        }
        let animals = parameters.animals;
        if animals > ANIMALS_MAX {
            return bad(format!("{animals} animals in each region; {ANIMALS_MAX} at most"));
        }
        match parameters.ground {
            Some(Chosen::Map(map)) if map.name == "aurora" => match aurora.ground().repeated(columns, rows) {
                Some(tiles) => Ok(Self { land: Land::Map { map: aurora.clone(), tiles: Arc::new(tiles) }, animals }),
                None => {
                    bad(format!("{columns} times {rows} copies of the map are too long for exact positions; 85 a side at most"))
                }
            },
            Some(Chosen::Map(map)) => bad(format!("there is no map {:?}", map.name)),
            Some(Chosen::Open(open)) if (2.0..=100_000.0).contains(&open.side_m) && open.ore_nodes <= ORE_NODES_MAX => {
                Ok(Self { land: Land::Open { ground: OpenGround::new(open.side_m), ore_nodes: open.ore_nodes }, animals })
            }
            Some(Chosen::Open(open)) => bad(format!(
                "open ground of {} m with {} veins; 2 to 100,000 m and at most {ORE_NODES_MAX}",
                open.side_m, open.ore_nodes
            )),
            None => bad("they name no ground".into()),
        }
    }
}

impl FrontierGround {
    /// Places of ore veins within a rectangle, as the map has them. Open ground has none of its own.
    pub(crate) fn ore(&self, own: [[f32; 2]; 2]) -> Vec<[f32; 2]> {
        match &self.land {
            Land::Map { map, tiles } => copied(&map.ore, tiles, own),
            Land::Open { .. } => Vec::new(),
        }
    }

    /// Places to begin within a rectangle, as the map has them. On open ground one begins anywhere.
    pub(crate) fn spawns(&self, own: [[f32; 2]; 2]) -> Vec<[f32; 2]> {
        match &self.land {
            Land::Map { map, tiles } => copied(&map.spawns, tiles, own),
            Land::Open { .. } => Vec::new(),
        }
    }
}

/// Whether a half-open rectangle holds a place.
pub(crate) fn holds([low, high]: [[f32; 2]; 2], at: [f32; 2]) -> bool {
    (0..2).all(|axis| low[axis] <= at[axis] && at[axis] < high[axis])
}

/// Those of a map's places, in all of its copies, that lie within a rectangle. Copy by copy, row by row.
fn copied(places: &[[f32; 2]], tiles: &TileGround, own: [[f32; 2]; 2]) -> Vec<[f32; 2]> {
    let side_m = tiles.size().map(|n| n as f32 * tiles.tile_m());
    // Only copies that reach into it: a world has thousands.
    let reached = |axis: usize| {
        let [low, high] = [own[0][axis], own[1][axis]].map(|v| (v / side_m[axis]).max(0.0) as u32);
        low..=high.min(tiles.copies()[axis] - 1)
    };
    let copies = reached(1).flat_map(|row| reached(0).map(move |column| [column, row]));
    let moved = copies.flat_map(|[column, row]| {
        let corner = [column as f32 * side_m[0], row as f32 * side_m[1]];
        places.iter().map(move |[x, z]| [corner[0] + x, corner[1] + z])
    });
    moved.filter(|at| holds(own, *at)).collect()
}

impl Ground for FrontierGround {
    fn walk(&self, from: [f32; 2], by: [f32; 2]) -> [f32; 2] {
        match &self.land {
            Land::Map { tiles, .. } => tiles.walk(from, by),
            Land::Open { ground, .. } => ground.walk(from, by),
        }
    }

    fn is_free(&self, at: [f32; 2]) -> bool {
        match &self.land {
            Land::Map { tiles, .. } => tiles.is_free(at),
            Land::Open { ground, .. } => ground.is_free(at),
        }
    }

    fn sight(&self, from: [f32; 2], to: [f32; 2]) -> f32 {
        match &self.land {
            Land::Map { tiles, .. } => tiles.sight(from, to),
            Land::Open { ground, .. } => ground.sight(from, to),
        }
    }

    fn bounds(&self) -> [[f32; 2]; 2] {
        match &self.land {
            Land::Map { tiles, .. } => tiles.bounds(),
            Land::Open { ground, .. } => ground.bounds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{map_parameters, open_parameters};
    use std::collections::BTreeSet;

    #[test]
    fn parameters_are_checked() {
        let aurora = FrontierMap::aurora().unwrap();
        assert!(FrontierGround::new(&map_parameters(), &aurora).is_ok());
        assert!(FrontierGround::new(&open_parameters(100.0, 3), &aurora).is_ok());
        for bad in [vec![], vec![255], open_parameters(f32::NAN, 0), open_parameters(1.0, 0), open_parameters(10.0, 1 << 20)] {
            assert!(FrontierGround::new(&bad, &aurora).is_err(), "{bad:?}");
        }
        let grid = |columns, rows| FrontierGround::new(&Parameters::map().grid(columns, rows).encode_to_vec(), &aurora);
        assert!(grid(64, 64).is_ok() && grid(85, 1).is_ok());
        for (columns, rows) in [(64, 65), (86, 1), (u32::MAX, u32::MAX)] {
            assert!(grid(columns, rows).is_err(), "{columns} {rows}");
        }
        let animals = |animals| FrontierGround::new(&Parameters::map().animals(animals).encode_to_vec(), &aurora);
        assert_eq!(animals(ANIMALS_MAX).unwrap().animals, ANIMALS_MAX);
        for many in [ANIMALS_MAX + 1, u32::MAX] {
            let error = animals(many).unwrap_err().to_string();
            assert!(error.contains(&format!("{many} animals in each region; 10000 at most")), "{error}");
        }
    }

    #[test]
    fn every_region_has_a_copy_of_the_map_and_one_walks_from_one_into_the_next() {
        let aurora = FrontierMap::aurora().unwrap();
        let ground = FrontierGround::new(&Parameters::map().grid(3, 2).encode_to_vec(), &aurora).unwrap();
        assert_eq!(ground.bounds(), [[0.0, 0.0], [576.0, 384.0]]);
        let Land::Map { map, tiles } = &ground.land else { panic!("no map") };
        assert_eq!(ground.ore([[0.0, 0.0], [192.0, 192.0]]), map.ore.to_vec());
        let spawns = ground.spawns([[384.0, 192.0], [576.0, 384.0]]);
        assert_eq!(spawns.len(), map.spawns.len());
        assert!(spawns.iter().all(|at| ground.is_free(*at)));
        assert_eq!(ground.ore(ground.bounds()).len(), 6 * map.ore.len());
        // From the first tile to begin at, tile by tile, to every other.
        let tile = |at: &[f32; 2]| at.map(|v| (v / tiles.tile_m()) as i32);
        let mut seen = BTreeSet::from([tile(&map.spawns[0])]);
        let mut next: Vec<_> = seen.iter().copied().collect();
        while let Some([x, z]) = next.pop() {
            for to in [[x + 1, z], [x - 1, z], [x, z + 1], [x, z - 1]] {
                if !tiles.is_solid(to[0], to[1]) && seen.insert(to) {
                    next.push(to);
                }
            }
        }
        for at in ground.spawns(ground.bounds()).iter().chain(&ground.ore(ground.bounds())) {
            assert!(seen.contains(&tile(at)), "{at:?} can not be reached");
        }
    }
}
