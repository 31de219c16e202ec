//! The world's regions on its ground: which of them may hold what stands near a place.
//!
//! What always holds: a region's rectangle is the ground for which it is responsible; what it holds may stand up to
//! [`AUTHORITY_MAX_M`] outside of it, for authority is not ground. A map that is older than the known one changes nothing.

use std::collections::BTreeMap;

use marchland_types::limits::CELL_SIZE_M;
use marchland_types::{CellId, GroupId, RegionId};

/// How far outside its rectangle an entity may stand that a region still holds, in metres.
pub const AUTHORITY_MAX_M: f32 = 30.0;
/// Beyond what a client sees: it may stand outside its region itself, and the corners of cells lie outside of what is seen.
const MARGIN_M: f32 = AUTHORITY_MAX_M + 2.0 * CELL_SIZE_M;

/// One region of the map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapRegion {
    /// Its raft group.
    pub group: GroupId,
    /// Itself.
    pub region: RegionId,
    /// Least east and south of its rectangle, in metres.
    pub min: [f32; 2],
    /// Where it ends, exclusive.
    pub max: [f32; 2],
}

impl MapRegion {
    /// From a place to the nearest point of the rectangle, in metres; 0 within.
    #[must_use]
    pub fn distance_m(&self, x_m: f32, z_m: f32) -> f32 {
        gap([x_m, z_m], [x_m, z_m], self.min, self.max)
    }

    /// Whether the region may hold something that stands in a cell.
    #[must_use]
    pub fn may_hold(&self, cell: CellId) -> bool {
        let low = [f32::from(cell.x) * CELL_SIZE_M, f32::from(cell.z) * CELL_SIZE_M];
        gap(low, low.map(|v| v + CELL_SIZE_M), self.min, self.max) <= AUTHORITY_MAX_M
    }
}

/// Between two rectangles; the greater of the two axes, so that a rectangle grown by it meets the other one.
fn gap(a_min: [f32; 2], a_max: [f32; 2], b_min: [f32; 2], b_max: [f32; 2]) -> f32 {
    (0..2).map(|i| (b_min[i] - a_max[i]).max(a_min[i] - b_max[i])).fold(0.0, f32::max)
}

/// All regions of a world, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct RegionMap {
    epoch: u64,
    /// Counts maps as they were learned here.
    version: u32,
    regions: Vec<MapRegion>,
    by_group: BTreeMap<GroupId, usize>,
    /// For each region, the others of which its clients may see something.
    near: Vec<Vec<usize>>,
}

impl RegionMap {
    /// Takes the map of an epoch. `view_m` is how far clients see. `false` if nothing is new.
    pub fn learn(&mut self, epoch: u64, mut regions: Vec<MapRegion>, view_m: f32) -> bool {
        regions.sort_by_key(|region| region.group);
        regions.dedup_by_key(|region| region.group);
        if epoch < self.epoch || regions.is_empty() || (epoch, &regions) == (self.epoch, &self.regions) {
            return false;
        }
        if regions == self.regions {
            self.epoch = epoch;
            return true;
        }
        let reach = view_m + AUTHORITY_MAX_M + MARGIN_M;
        let near = |own: &MapRegion| {
            let others = regions.iter().enumerate().filter(|(_, other)| other.group != own.group);
            others.filter(|(_, other)| gap(own.min, own.max, other.min, other.max) <= reach).map(|(i, _)| i).collect()
        };
        self.near = regions.iter().map(near).collect();
        self.by_group = regions.iter().enumerate().map(|(i, region)| (region.group, i)).collect();
        (self.epoch, self.version, self.regions) = (epoch, self.version.wrapping_add(1), regions);
        true
    }

    /// Of the map that is known; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Another number for every map that was learned and differs.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether no region is known yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The region, if the world is known to have exactly one.
    #[must_use]
    pub fn only(&self) -> Option<&MapRegion> {
        match self.regions.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// A region by its group.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Option<&MapRegion> {
        self.by_group.get(&group).map(|&i| &self.regions[i])
    }

    /// Other regions of which a client of `group` may see something. None while that group is not known.
    pub fn near(&self, group: GroupId) -> impl Iterator<Item = &MapRegion> {
        let own = self.by_group.get(&group).map_or(&[][..], |&i| &self.near[i]);
        own.iter().map(|&i| &self.regions[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_types::WorldId;

    fn square(serial: u32, x: f32, z: f32) -> MapRegion {
        let region = RegionId(serial);
        MapRegion { group: GroupId::region(WorldId(1), region), region, min: [x, z], max: [x + 1000.0, z + 1000.0] }
    }

    #[test]
    fn cells_near_a_border_may_be_held_by_both_sides() {
        let west = square(1, 0.0, 0.0);
        let holds = |x_m: f32| west.may_hold(CellId::of(x_m, 500.0));
        assert!(holds(10.0) && holds(999.0) && holds(1010.0) && holds(1029.0));
        // The cell from 1025 to 1050 m begins within 30 m of the border, the next one does not.
        assert!(holds(1049.0) && !holds(1051.0));
        assert!(holds(-30.0) && holds(-49.0) && !holds(-51.0));
        assert_eq!(west.distance_m(1040.0, -10.0), 40.0);
    }

    #[test]
    fn neighbours_are_those_within_sight() {
        let mut map = RegionMap::default();
        let grid: Vec<_> = (0..25).map(|i| square(i + 1, (i % 5) as f32 * 1000.0, (i / 5) as f32 * 1000.0)).collect();
        assert!(map.learn(3, grid.clone(), 55.0));
        let near = |serial| map.near(GroupId::region(WorldId(1), RegionId(serial))).map(|r| r.region.0).collect::<Vec<_>>();
        assert_eq!(near(1), [2, 6, 7]);
        assert_eq!(near(13), [7, 8, 9, 12, 14, 17, 18, 19]);
        assert_eq!(near(99), [0; 0]);
        assert!(map.only().is_none());
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut map = RegionMap::default();
        assert!(!map.learn(1, vec![], 55.0) && map.is_empty());
        assert!(map.learn(1, vec![square(1, 0.0, 0.0)], 55.0));
        assert_eq!(map.only(), Some(&square(1, 0.0, 0.0)));
        assert!(!map.learn(1, vec![square(1, 0.0, 0.0)], 55.0), "known");
        assert!(map.learn(2, vec![square(2, 1000.0, 0.0), square(1, 0.0, 0.0)], 55.0));
        assert!(!map.learn(1, vec![square(1, 0.0, 0.0)], 55.0), "older");
        // The same ground at a newer epoch: nobody's view is looked at again for that.
        let version = map.version();
        assert!(map.learn(3, vec![square(1, 0.0, 0.0), square(2, 1000.0, 0.0)], 55.0));
        assert_eq!((map.epoch(), map.version()), (3, version));
        assert!(map.get(GroupId::region(WorldId(1), RegionId(2))).is_some());
    }
}
