//! Whether one map's ground is part of another's, exactly: by edges as they are, not by areas, which are rounded.
//!
//! The edges of the other map's regions cut a region into pieces. Each piece belongs to one region of the other map as a whole, or to none, so
//! the north-west corner tells for all of it: ground is half-open.

use super::{MapRegion, RegionMap};

/// A place on the ground of `inner` that is not on the ground of `outer`, if there is one.
pub(super) fn uncovered(inner: &RegionMap, outer: &RegionMap) -> Option<[f32; 2]> {
    inner.regions.iter().find_map(|region| uncovered_of(region, outer))
}

fn uncovered_of(region: &MapRegion, outer: &RegionMap) -> Option<[f32; 2]> {
    let mut pieces: Vec<u32> = outer.buckets.between(region.min_m, region.max_m).collect();
    pieces.sort_unstable();
    pieces.dedup();
    let begins = |axis: usize| {
        let (low, high) = (region.min_m[axis], region.max_m[axis]);
        let others = pieces.iter().flat_map(|at| {
            let other = &outer.regions[*at as usize];
            [other.min_m[axis], other.max_m[axis]]
        });
        let mut edges: Vec<f32> = others.filter(|edge| low < *edge && *edge < high).chain([low]).collect();
        edges.sort_unstable_by(f32::total_cmp);
        edges.dedup();
        edges
    };
    let (west, north) = (begins(0), begins(1));
    north.into_iter().find_map(|z| west.iter().map(|x| [*x, z]).find(|[x, z]| outer.at(*x, *z).is_none()))
}
