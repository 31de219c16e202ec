//! The nearest way over a border, by the world's map as nodes' pages give it out.
//!
//! Ground is looked at in tiles; a way leads from one to the next of four neighbours, over free ones. Its end lies in another region, far
//! enough behind the border to be handed to that.

use std::collections::VecDeque;

use anyhow::Context;
use marchland_region_core::TileGround;
use serde::Deserialize;

/// Side of a tile of open ground, in metres.
const OPEN_TILE_M: f32 = 2.0;
/// How far behind the border a way ends, in metres: more than the 4 m at which a region hands somebody off.
const BEHIND_M: f32 = 5.5;
/// Tiles that are looked at for one way; a region of 192 m has 9,216.
const TILES_MAX: usize = 40_000;

/// `map.json`, as far as it concerns ways.
#[derive(Deserialize)]
struct MapJson {
    #[serde(default)]
    open: bool,
    #[serde(default)]
    side_m: f32,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    tile_m: f32,
    #[serde(default)]
    solid: Vec<u8>,
    #[serde(default = "one")]
    columns: u32,
    #[serde(default = "one")]
    rows: u32,
}

const fn one() -> u32 {
    1
}

/// The ground of a world, cut into regions.
#[derive(Debug)]
pub(super) struct Ways {
    /// `None` is open ground.
    tiles: Option<TileGround>,
    tile_m: f32,
    /// Tiles of all of it.
    size: [i32; 2],
    /// Side of a region, in metres.
    region_m: [f32; 2],
}

impl Ways {
    /// From a node's `map.json`.
    pub(super) fn parse(json: &str) -> anyhow::Result<Self> {
        let map: MapJson = serde_json::from_str(json).context("map.json is not a map")?;
        let (columns, rows) = (map.columns.max(1), map.rows.max(1));
        if map.open {
            let size = [(map.side_m / OPEN_TILE_M) as i32; 2];
            let region_m = [map.side_m / columns as f32, map.side_m / rows as f32];
            return Ok(Self { tiles: None, tile_m: OPEN_TILE_M, size, region_m });
        }
        let solid = map.solid.iter().map(|solid| *solid != 0).collect();
        let one = TileGround::new(map.width, map.tile_m, solid).context("map.json is no grid of tiles")?;
        let tiles = one.repeated(columns, rows).context("map.json is repeated too often")?;
        let [width, depth] = one.size();
        let region_m = [width as f32 * map.tile_m, depth as f32 * map.tile_m];
        let size = [(width * columns) as i32, (depth * rows) as i32];
        Ok(Self { tiles: Some(tiles), tile_m: map.tile_m, size, region_m })
    }

    /// The nearest way from a place into another region: the middles of tiles. Empty when there is none near.
    pub(super) fn over_a_border(&self, from: [f32; 2]) -> Vec<[f32; 2]> {
        let start = from.map(|v| (v / self.tile_m).floor() as i32);
        let home = self.region_of(from);
        let mut came_from: std::collections::BTreeMap<[i32; 2], [i32; 2]> = [(start, start)].into();
        let mut next = VecDeque::from([start]);
        while let Some(tile) = next.pop_front() {
            if self.is_behind(home, self.middle(tile)) {
                return self.way(&came_from, tile, start);
            }
            if came_from.len() > TILES_MAX {
                break;
            }
            let [x, z] = tile;
            for to in [[x + 1, z], [x - 1, z], [x, z + 1], [x, z - 1]] {
                if self.is_free(to) && !came_from.contains_key(&to) {
                    came_from.insert(to, tile);
                    next.push_back(to);
                }
            }
        }
        Vec::new()
    }

    fn way(&self, came_from: &std::collections::BTreeMap<[i32; 2], [i32; 2]>, end: [i32; 2], start: [i32; 2]) -> Vec<[f32; 2]> {
        let mut way = Vec::new();
        let mut tile = end;
        while tile != start {
            way.push(self.middle(tile));
            tile = came_from[&tile];
        }
        way.reverse();
        way
    }

    fn middle(&self, tile: [i32; 2]) -> [f32; 2] {
        tile.map(|v| (v as f32 + 0.5) * self.tile_m)
    }

    fn is_free(&self, [x, z]: [i32; 2]) -> bool {
        let inside = (0..self.size[0]).contains(&x) && (0..self.size[1]).contains(&z);
        inside && self.tiles.as_ref().is_none_or(|tiles| !tiles.is_solid(x, z))
    }

    fn region_of(&self, at: [f32; 2]) -> [i32; 2] {
        [0, 1].map(|axis| (at[axis] / self.region_m[axis]).floor() as i32)
    }

    /// Whether a place is in another region than `home`, and far enough from that.
    fn is_behind(&self, home: [i32; 2], at: [f32; 2]) -> bool {
        let outside = |axis: usize| {
            let low = home[axis] as f32 * self.region_m[axis];
            (low - at[axis]).max(at[axis] - low - self.region_m[axis])
        };
        outside(0).max(outside(1)) >= BEHIND_M
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_border_is_crossed_around_what_is_in_the_way() {
        // Two copies of 8 × 8 tiles side by side, with a wall before the border but for its last row.
        let mut solid = vec![0u8; 64];
        for z in 1..7 {
            solid[z * 8 + 6] = 1;
        }
        for z in [0, 7] {
            for x in 0..8 {
                solid[z * 8 + x] = u8::from(z == 0);
            }
        }
        let json = serde_json::json!({ "width": 8, "tile_m": 2.0, "solid": solid, "columns": 2, "rows": 1 }).to_string();
        let ways = Ways::parse(&json).unwrap();
        let way = ways.over_a_border([9.0, 5.0]);
        assert!(way.iter().any(|at| at[1] > 14.0), "through the gap: {way:?}");
        let end = way.last().unwrap();
        assert!(end[0] >= 16.0 + BEHIND_M && end[0] < 24.0, "{end:?}");
        for pair in way.windows(2) {
            let step = (pair[0][0] - pair[1][0]).abs() + (pair[0][1] - pair[1][1]).abs();
            assert_eq!(step, 2.0);
        }
    }

    #[test]
    fn open_ground_is_crossed_straight_and_a_single_region_has_no_border() {
        let open = |columns| {
            let json = serde_json::json!({ "open": true, "side_m": 100.0, "columns": columns, "rows": 1 }).to_string();
            Ways::parse(&json).unwrap().over_a_border([40.0, 30.0])
        };
        assert_eq!(open(1), Vec::<[f32; 2]>::new());
        let way = open(2);
        assert!(way.iter().all(|at| (at[1] - 31.0).abs() < 0.1), "{way:?}");
        assert!(way.last().unwrap()[0] >= 55.5);
        assert!(Ways::parse("{}").is_err());
    }
}
