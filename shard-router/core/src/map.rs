//! The region map: which region holds a position.
//!
//! Regions are columns of ground over half-open rectangles, `min ≤ v < max` on both axes, so that a position on a border
//! belongs to exactly one of them. Rectangles of one map never overlap.

use marchland_proto::storage::Neighbour;
use marchland_types::{GroupId, GroupKind, MapEpoch, RegionId, WorldId};

/// One region of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapRegion {
    /// The region.
    pub region: RegionId,
    /// The group that simulates it.
    pub group: GroupId,
    /// Its west and north edges, in metres; inclusive.
    pub min_m: [f32; 2],
    /// Its east and south edges, in metres; exclusive.
    pub max_m: [f32; 2],
}

/// A world's ground at one map epoch. Regions are in the order of their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionMap {
    epoch: MapEpoch,
    regions: Vec<MapRegion>,
}

/// Why a list of regions is no map.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadMap {
    /// A world needs ground.
    #[error("region map is empty")]
    Empty,
    /// Edges that are not numbers, or enclose nothing.
    #[error("region {0} encloses no ground")]
    NoGround(RegionId),
    /// The same id or group twice.
    #[error("region {0} or its group is listed twice")]
    Twice(RegionId),
    /// The group is not one of a region of this world.
    #[error("region {region} names {group}, which is no region group of the world")]
    Group {
        /// The region.
        region: RegionId,
        /// What it names.
        group: GroupId,
    },
    /// Ground that would belong to two regions.
    #[error("regions {0} and {1} overlap")]
    Overlap(RegionId, RegionId),
}

impl RegionMap {
    /// Checks a map as it stands in records and messages.
    pub fn parse(world: WorldId, epoch: MapEpoch, list: &[Neighbour]) -> Result<Self, BadMap> {
        let mut regions = Vec::with_capacity(list.len());
        for n in list {
            let (region, group) = (RegionId(n.region), GroupId(n.group));
            let finite = [n.min_x, n.min_z, n.max_x, n.max_z].iter().all(|v| v.is_finite());
            if !finite || n.min_x >= n.max_x || n.min_z >= n.max_z {
                return Err(BadMap::NoGround(region));
            }
            if group.kind() != Some(GroupKind::Region) || group.world() != world {
                return Err(BadMap::Group { region, group });
            }
            regions.push(MapRegion { region, group, min_m: [n.min_x, n.min_z], max_m: [n.max_x, n.max_z] });
        }
        regions.sort_by_key(|r| r.region);
        for (i, a) in regions.iter().enumerate() {
            for b in &regions[i + 1..] {
                if a.region == b.region || a.group == b.group {
                    return Err(BadMap::Twice(b.region));
                }
                if (0..2).all(|axis| a.min_m[axis] < b.max_m[axis] && b.min_m[axis] < a.max_m[axis]) {
                    return Err(BadMap::Overlap(a.region, b.region));
                }
            }
        }
        if regions.is_empty() {
            return Err(BadMap::Empty);
        }
        Ok(Self { epoch, regions })
    }

    /// The map's version.
    #[must_use]
    pub fn epoch(&self) -> MapEpoch {
        self.epoch
    }

    /// Every region, in the order of ids.
    #[must_use]
    pub fn regions(&self) -> &[MapRegion] {
        &self.regions
    }

    /// The region whose ground holds a position, if any does.
    #[must_use]
    pub fn at(&self, x_m: f32, z_m: f32) -> Option<&MapRegion> {
        let holds = |r: &&MapRegion| (r.min_m[0] <= x_m && x_m < r.max_m[0]) && (r.min_m[1] <= z_m && z_m < r.max_m[1]);
        self.regions.iter().find(holds)
    }

    /// The region that this group simulates.
    #[must_use]
    pub fn of_group(&self, group: GroupId) -> Option<&MapRegion> {
        self.regions.iter().find(|r| r.group == group)
    }

    /// Where characters enter the world for the first time: the region with the lowest id.
    #[must_use]
    pub fn entrance(&self) -> &MapRegion {
        &self.regions[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WORLD: WorldId = WorldId(1);

    fn square(region: u32, x: f32, z: f32, side: f32) -> Neighbour {
        let group = GroupId::region(WORLD, RegionId(region)).0;
        Neighbour { region, group, min_x: x, min_z: z, max_x: x + side, max_z: z + side }
    }

    fn parse(list: &[Neighbour]) -> Result<RegionMap, BadMap> {
        RegionMap::parse(WORLD, MapEpoch(1), list)
    }

    #[test]
    fn bad_maps_are_refused() {
        assert_eq!(parse(&[]), Err(BadMap::Empty));
        assert_eq!(parse(&[square(1, 0.0, 0.0, 0.0)]), Err(BadMap::NoGround(RegionId(1))));
        assert_eq!(parse(&[square(1, f32::NAN, 0.0, 1.0)]), Err(BadMap::NoGround(RegionId(1))));
        assert_eq!(parse(&[square(1, 0.0, 0.0, 9.0), square(1, 9.0, 0.0, 9.0)]), Err(BadMap::Twice(RegionId(1))));
        assert_eq!(parse(&[square(2, 0.0, 0.0, 9.0), square(1, 8.5, 8.5, 9.0)]), Err(BadMap::Overlap(RegionId(1), RegionId(2))));
        let foreign = Neighbour { group: GroupId::region(WorldId(2), RegionId(1)).0, ..square(1, 0.0, 0.0, 1.0) };
        assert!(matches!(parse(&[foreign]), Err(BadMap::Group { .. })));
    }

    proptest! {
        #[test]
        fn every_position_of_a_grid_has_exactly_one_region(x in -10.0f32..40.0, z in -10.0f32..40.0) {
            let grid: Vec<_> = (0..9).map(|i| square(9 - i, (i % 3) as f32 * 10.0, (i / 3) as f32 * 10.0, 10.0)).collect();
            let map = parse(&grid).unwrap();
            let inside = (0.0..30.0).contains(&x) && (0.0..30.0).contains(&z);
            prop_assert_eq!(map.at(x, z).is_some(), inside);
            if let Some(found) = map.at(x, z) {
                prop_assert_eq!(map.of_group(found.group), Some(found));
                let border = map.at(found.min_m[0], found.min_m[1]);
                prop_assert_eq!(border.map(|r| r.region), Some(found.region));
            }
            prop_assert_eq!(map.entrance().region, RegionId(1));
        }
    }
}
