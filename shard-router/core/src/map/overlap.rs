//! Finds two regions of a map that overlap, in time that grows with their number and not with its square.
//!
//! A line sweeps over the ground from west to east. Regions that it crosses do not overlap each other, so in the order of their northern
//! edges only the two beside a new one can overlap it.

use std::collections::BTreeMap;

use marchland_types::RegionId;

use super::MapRegion;

/// Two regions that overlap, if any do.
pub(super) fn find_overlap(regions: &[MapRegion]) -> Option<(RegionId, RegionId)> {
    // At one place regions end before others begin: they are half-open.
    let ends = regions.iter().map(|r| (ordered(r.max_m[0]), false, r));
    let begins = regions.iter().map(|r| (ordered(r.min_m[0]), true, r));
    let mut events: Vec<_> = ends.chain(begins).collect();
    events.sort_by_key(|(at, begins, r)| (*at, *begins, r.region));
    let mut crossed: BTreeMap<u32, &MapRegion> = BTreeMap::new();
    for (_, begins, region) in events {
        let north = ordered(region.min_m[1]);
        if !begins {
            crossed.remove(&north);
            continue;
        }
        let before = crossed.range(..=north).next_back().filter(|(_, other)| region.min_m[1] < other.max_m[1]);
        let after = crossed.range(north..).next().filter(|(_, other)| other.min_m[1] < region.max_m[1]);
        if let Some((_, other)) = before.or(after) {
            return Some((region.region, other.region));
        }
        crossed.insert(north, region);
    }
    None
}

/// An integer that is greater for the greater number, and the same for both zeros.
fn ordered(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}
