//! The region map: which region holds a position.
//!
//! Regions are columns of ground over half-open rectangles, `min ≤ v < max` on both axes, so that a position on a border
//! belongs to exactly one of them. Rectangles of one map never overlap. Looking up, and checking a map, stay quick with
//! thousands of regions.

mod buckets;
mod cover;
mod overlap;

use marchland_proto::storage::Neighbour;
use marchland_types::{CharacterId, GroupId, GroupKind, MapEpoch, RegionId, WorldId};

use self::buckets::Buckets;
use self::cover::uncovered;
use self::overlap::find_overlap;

/// A region knows those whose ground is no farther from its own, in metres: further than an entity stays with its region, or is shown
/// across a border.
pub const NEIGHBOURS_WITHIN_M: f32 = 64.0;

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

impl MapRegion {
    /// As it stands in records and messages.
    #[must_use]
    pub fn record(&self) -> Neighbour {
        let ([min_x, min_z], [max_x, max_z]) = (self.min_m, self.max_m);
        Neighbour { region: self.region.0, group: self.group.0, min_x, min_z, max_x, max_z }
    }
}

/// A world's ground at one map epoch. Regions are in the order of their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionMap {
    epoch: MapEpoch,
    regions: Vec<MapRegion>,
    /// Groups in order, each with its place in `regions`.
    groups: Vec<(GroupId, usize)>,
    buckets: Buckets,
}

/// Cuts ground into `columns` times `rows` regions, numbered from 1, row by row. `bounds` are the least and the greatest (east, south),
/// in metres. Edges that regions share are equal to the bit, and the outer ones are those of the bounds.
#[must_use]
pub fn grid(world: WorldId, bounds: [[f32; 2]; 2], columns: u32, rows: u32) -> Vec<Neighbour> {
    let edge = |axis: usize, at: u32, of: u32| {
        let [low, high] = [f64::from(bounds[0][axis]), f64::from(bounds[1][axis])];
        // The last one is the bound itself, however the division rounds.
        if at == of { bounds[1][axis] } else { (low + (high - low) * f64::from(at) / f64::from(of)) as f32 }
    };
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let region = |(serial, (row, column)): (u32, (u32, u32))| Neighbour {
        region: serial,
        group: GroupId::region(world, RegionId(serial)).0,
        min_x: edge(0, column, columns),
        min_z: edge(1, row, rows),
        max_x: edge(0, column + 1, columns),
        max_z: edge(1, row + 1, rows),
    };
    (1..).zip(cells).map(region).collect()
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

/// Why a map can not come after another one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadChange {
    /// Somebody else changed the map meanwhile, or the order is from another time.
    #[error("the map in force has epoch {in_force}, the new one {found}: one more is expected")]
    Epoch {
        /// Of the new map.
        found: MapEpoch,
        /// Of the map in force.
        in_force: MapEpoch,
    },
    /// A region or its group is missing, or new.
    #[error("the new map has other regions than the world")]
    OtherRegions,
    /// Ground would belong to nobody, or the world would grow.
    #[error("the new map is of other ground: {x_m} m east, {z_m} m south is on one of the maps and not on the other")]
    OtherGround {
        /// East, in metres.
        x_m: f32,
        /// South, in metres.
        z_m: f32,
    },
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
        if regions.is_empty() {
            return Err(BadMap::Empty);
        }
        regions.sort_by_key(|r| r.region);
        if let Some(pair) = regions.windows(2).find(|pair| pair[0].region == pair[1].region) {
            return Err(BadMap::Twice(pair[1].region));
        }
        let mut groups: Vec<_> = regions.iter().enumerate().map(|(at, r)| (r.group, at)).collect();
        groups.sort_unstable();
        if let Some(pair) = groups.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(BadMap::Twice(regions[pair[1].1].region));
        }
        if let Some((a, b)) = find_overlap(&regions) {
            return Err(BadMap::Overlap(a.min(b), a.max(b)));
        }
        let buckets = Buckets::over(&regions);
        Ok(Self { epoch, regions, groups, buckets })
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
        self.buckets.at([x_m, z_m]).iter().map(|at| &self.regions[*at as usize]).find(holds)
    }

    /// Regions whose ground is no further than `within_m` from that of `region`, itself left out, in the order of ids. Those that touch
    /// are 0 m apart. None for a region that is not on the map.
    #[must_use]
    pub fn neighbours(&self, region: RegionId, within_m: f32) -> Vec<&MapRegion> {
        self.region(region).map_or_else(Vec::new, |own| self.near(own, within_m))
    }

    /// Regions of this map that are near the ground of `own`, which may be of another one.
    fn near(&self, own: &MapRegion, within_m: f32) -> Vec<&MapRegion> {
        let low = own.min_m.map(|v| v - within_m);
        let high = own.max_m.map(|v| v + within_m);
        let gap = |other: &MapRegion, axis: usize| {
            let apart = (other.min_m[axis] - own.max_m[axis]).max(own.min_m[axis] - other.max_m[axis]);
            f64::from(apart.max(0.0))
        };
        let near = |other: &&MapRegion| gap(other, 0).hypot(gap(other, 1)) <= f64::from(within_m);
        let mut found: Vec<u32> = self.buckets.between(low, high).collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|at| &self.regions[at as usize]).filter(|r| r.region != own.region).filter(near).collect()
    }

    /// What a region is told of the map: itself first, and whatever is near. With the map that was in force before, also what is near the
    /// ground that it had: somebody may still stand there. Empty for a region that is not on the map.
    #[must_use]
    pub fn told_to(&self, region: RegionId, former: Option<&Self>) -> Vec<Neighbour> {
        let Some(own) = self.region(region) else { return Vec::new() };
        let mut near = self.near(own, NEIGHBOURS_WITHIN_M);
        if let Some(had) = former.and_then(|former| former.region(region)) {
            near.extend(self.near(had, NEIGHBOURS_WITHIN_M));
            near.sort_unstable_by_key(|r| r.region);
            near.dedup_by_key(|r| r.region);
        }
        std::iter::once(own).chain(near).map(MapRegion::record).collect()
    }

    /// Checks that a map may come after this one: its epoch is the next, and the same regions share out the same ground.
    pub fn may_become(&self, next: &Self) -> Result<(), BadChange> {
        if next.epoch.0 != self.epoch.0.wrapping_add(1) {
            return Err(BadChange::Epoch { found: next.epoch, in_force: self.epoch });
        }
        let id = |r: &MapRegion| (r.region, r.group);
        let (had, has) = (self.regions.iter().map(id), next.regions.iter().map(id));
        if !had.eq(has) {
            return Err(BadChange::OtherRegions);
        }
        match uncovered(self, next).or_else(|| uncovered(next, self)) {
            Some([x_m, z_m]) => Err(BadChange::OtherGround { x_m, z_m }),
            None => Ok(()),
        }
    }

    /// The region with this id.
    #[must_use]
    pub fn region(&self, region: RegionId) -> Option<&MapRegion> {
        self.regions.binary_search_by_key(&region, |r| r.region).ok().map(|at| &self.regions[at])
    }

    /// The region that this group simulates.
    #[must_use]
    pub fn of_group(&self, group: GroupId) -> Option<&MapRegion> {
        let found = self.groups.binary_search_by_key(&group, |(group, _)| *group).ok()?;
        Some(&self.regions[self.groups[found].1])
    }

    /// The region with the lowest id.
    #[must_use]
    pub fn entrance(&self) -> &MapRegion {
        &self.regions[0]
    }

    /// Where a character enters the world for the first time: characters are spread evenly over all regions.
    #[must_use]
    pub fn entrance_for(&self, character: CharacterId) -> &MapRegion {
        // Ids are given from 1.
        &self.regions[(character.0.saturating_sub(1) % self.regions.len() as u64) as usize]
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
        // Zero has two signs, and is one place.
        assert!(parse(&[square(1, -9.0, 0.0, 9.0), square(2, -0.0, 0.0, 9.0)]).is_ok());
    }

    #[test]
    fn a_map_may_become_one_of_the_same_regions_on_the_same_ground() {
        let cells = grid(WORLD, [[0.0, 0.0], [30.0, 20.0]], 3, 2);
        let map = parse(&cells).unwrap();
        let next = |list: &[Neighbour]| RegionMap::parse(WORLD, MapEpoch(2), list).unwrap();
        // The border between 1 and 2 moves, along its whole length.
        let mut moved = cells.clone();
        (moved[0].max_x, moved[1].min_x) = (14.5, 14.5);
        assert_eq!(map.may_become(&next(&moved)), Ok(()));
        // Regions may be of any shape, as long as together they are what they were: 1 takes the north of 2 and 3, these share the rest.
        let mut odd = cells.clone();
        (odd[0].max_x, odd[0].max_z) = (30.0, 3.0);
        (odd[1].min_x, odd[1].min_z) = (0.0, 3.0);
        odd[2].min_z = 3.0;
        assert_eq!(map.may_become(&next(&odd)), Ok(()));
        assert_eq!(map.may_become(&map), Err(BadChange::Epoch { found: MapEpoch(1), in_force: MapEpoch(1) }));
        assert_eq!(map.may_become(&next(&cells[..5])), Err(BadChange::OtherRegions));
        let mut other = moved.clone();
        other[5].group = GroupId::region(WORLD, RegionId(9)).0;
        assert_eq!(map.may_become(&next(&other)), Err(BadChange::OtherRegions));
        let (mut gap, mut wide) = (moved.clone(), moved.clone());
        gap[1].min_x = 15.0;
        assert_eq!(map.may_become(&next(&gap)), Err(BadChange::OtherGround { x_m: 14.5, z_m: 0.0 }));
        wide[5].max_z = 20.001;
        assert_eq!(map.may_become(&next(&wide)), Err(BadChange::OtherGround { x_m: 20.0, z_m: 20.0 }));
    }

    #[test]
    fn a_region_is_told_what_is_near_its_ground_as_it_was_and_as_it_is() {
        let map = parse(&grid(WORLD, [[0.0, 0.0], [1000.0, 100.0]], 10, 1)).unwrap();
        let told =
            |map: &RegionMap, former, region| map.told_to(RegionId(region), former).iter().map(|n| n.region).collect::<Vec<_>>();
        assert_eq!((told(&map, None, 5), told(&map, None, 99)), (vec![5, 4, 6], vec![]));
        // 5 ends 110 m west of 7, which begins 40 m east of where 5 ended.
        let mut list: Vec<Neighbour> = map.regions().iter().map(MapRegion::record).collect();
        (list[4].max_x, list[5].min_x) = (430.0, 430.0);
        (list[5].max_x, list[6].min_x) = (540.0, 540.0);
        let next = RegionMap::parse(WORLD, MapEpoch(2), &list).unwrap();
        assert_eq!(map.may_become(&next), Ok(()));
        assert_eq!((told(&next, None, 5), told(&next, Some(&map), 5)), (vec![5, 4, 6], vec![5, 4, 6, 7]));
        assert_eq!(told(&next, Some(&map), 7), [7, 6, 8]);
        assert_eq!(told(&next, Some(&map), 6), [6, 4, 5, 7]);
        assert_eq!(told(&next, Some(&map), 1), [1, 2]);
    }

    proptest! {
        #[test]
        fn cover_is_told_as_trying_every_place_tells_it(
            edges in prop::collection::btree_set(1u8..30, 2..6), cuts in prop::collection::vec(0u8..30, 8),
        ) {
            // Columns with borders at `edges`, each cut in two at one of `cuts`; then one rectangle is made larger or smaller.
            let xs: Vec<f32> = [0].into_iter().chain(edges).chain([30]).map(f32::from).collect();
            let mut list = Vec::new();
            for (at, x) in xs.windows(2).enumerate() {
                let cut = f32::from(cuts[at].clamp(1, 29));
                for (low, high) in [(0.0, cut), (cut, 30.0)] {
                    let region = list.len() as u32 + 1;
                    let group = GroupId::region(WORLD, RegionId(region)).0;
                    list.push(Neighbour { region, group, min_x: x[0], max_x: x[1], min_z: low, max_z: high });
                }
            }
            let whole = grid(WORLD, [[0.0, 0.0], [30.0, 30.0]], 1, list.len() as u32);
            let map = parse(&whole).unwrap();
            let next = |list: &[Neighbour]| RegionMap::parse(WORLD, MapEpoch(2), list);
            prop_assert_eq!(map.may_become(&next(&list).unwrap()), Ok(()));
            let at = usize::from(cuts[7]) % list.len();
            list[at].max_x -= 0.5;
            if let Ok(smaller) = next(&list) {
                let held = |m: &RegionMap| (0..60 * 60).filter(|i| m.at((i % 60) as f32 / 2.0, (i / 60) as f32 / 2.0).is_some()).count();
                prop_assert!(held(&smaller) < held(&map));
                let refused = matches!(map.may_become(&smaller), Err(BadChange::OtherGround { .. }));
                prop_assert!(refused);
            }
        }
    }

    #[test]
    fn a_grid_is_numbered_row_by_row_and_its_edges_are_shared() {
        let cells = grid(WORLD, [[-3.0, 1.0], [7.3, 2.0]], 3, 2);
        assert_eq!(cells.iter().map(|n| n.region).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!((cells[0].min_x, cells[0].min_z, cells[5].max_x, cells[5].max_z), (-3.0, 1.0, 7.3, 2.0));
        assert_eq!((cells[1].min_x, cells[1].max_x), (cells[0].max_x, cells[2].min_x));
        assert_eq!((cells[3].min_z, cells[3].min_x), (cells[0].max_z, cells[0].min_x));
        let map = parse(&cells).unwrap();
        assert_eq!(map.regions().iter().map(MapRegion::record).collect::<Vec<_>>(), cells);
        assert_eq!(map.of_group(GroupId::region(WORLD, RegionId(4))).unwrap().region, RegionId(4));
        assert_eq!(grid(WORLD, [[0.0, 0.0], [8.0, 8.0]], 1, 1), [square(1, 0.0, 0.0, 8.0)]);
    }

    #[test]
    fn neighbours_are_those_within_the_distance() {
        let map = parse(&grid(WORLD, [[0.0, 0.0], [500.0, 500.0]], 5, 5)).unwrap();
        let of = |region: u32, within_m: f32| -> Vec<u32> {
            map.neighbours(RegionId(region), within_m).iter().map(|n| n.region.0).collect()
        };
        assert_eq!(of(13, 64.0), [7, 8, 9, 12, 14, 17, 18, 19]);
        assert_eq!(of(1, 0.0), [2, 6, 7]);
        assert_eq!(of(25, 100.0), [14, 15, 18, 19, 20, 23, 24], "13 is 141 m away by the corner");
        assert_eq!(of(26, 64.0), [0; 0]);
    }

    #[test]
    fn characters_enter_spread_evenly() {
        let map = parse(&grid(WORLD, [[0.0, 0.0], [40.0, 40.0]], 2, 2)).unwrap();
        let mut entered = [0; 5];
        for character in 1..=400 {
            entered[map.entrance_for(CharacterId(character)).region.0 as usize] += 1;
        }
        assert_eq!(entered, [0, 100, 100, 100, 100]);
    }

    #[test]
    fn the_largest_map_is_one_and_a_flaw_in_it_is_found() {
        let mut cells = grid(WORLD, [[0.0, 0.0], [12_288.0, 12_288.0]], 64, 64);
        let map = parse(&cells).unwrap();
        for region in map.regions() {
            assert_eq!(map.at(region.min_m[0], region.min_m[1]).unwrap().region, region.region);
            assert_eq!(map.at(region.max_m[0].next_down(), region.max_m[1].next_down()).unwrap().region, region.region);
            let (x, z) = ((region.region.0 - 1) % 64, (region.region.0 - 1) / 64);
            let beside = |at: u32| if at == 0 || at == 63 { 2 } else { 3 };
            assert_eq!(map.neighbours(region.region, 64.0).len(), beside(x) * beside(z) - 1);
        }
        cells[4000].max_z = cells[4000].max_z.next_up();
        assert_eq!(parse(&cells), Err(BadMap::Overlap(RegionId(4001), RegionId(4065))));
    }

    proptest! {
        #[test]
        fn a_map_is_refused_when_two_of_its_regions_overlap(
            corners in prop::collection::vec((0i8..12, 0i8..12, 1i8..5, 1i8..5), 1..12),
        ) {
            let list: Vec<_> = (1..).zip(&corners).map(|(region, (x, z, w, d))| Neighbour {
                max_x: f32::from(x + w),
                max_z: f32::from(z + d),
                ..square(region, f32::from(*x), f32::from(*z), 1.0)
            }).collect();
            let overlap = |a: &Neighbour, b: &Neighbour| {
                a.min_x < b.max_x && b.min_x < a.max_x && a.min_z < b.max_z && b.min_z < a.max_z
            };
            let any = list.iter().enumerate().any(|(i, a)| list[i + 1..].iter().any(|b| overlap(a, b)));
            match parse(&list) {
                Ok(map) => {
                    prop_assert!(!any);
                    for (x, z) in (0..64).map(|i| ((i % 8) as f32 * 2.5 - 1.0, (i / 8) as f32 * 2.5 - 1.0)) {
                        let inside = |n: &&Neighbour| n.min_x <= x && x < n.max_x && n.min_z <= z && z < n.max_z;
                        prop_assert_eq!(map.at(x, z).map(|r| r.region.0), list.iter().find(inside).map(|n| n.region));
                    }
                }
                Err(BadMap::Overlap(a, b)) => {
                    prop_assert!(overlap(&list[a.0 as usize - 1], &list[b.0 as usize - 1]));
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }

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
