//! Ground of square tiles, each free or solid, as designers draw it.
//!
//! A walker is swept as a square, first east or west, then north or south: exact for each axis, without tunnelling through
//! thin walls, and sliding along them comes by itself.
//!
//! A grid may be repeated ([`TileGround::repeated`]): copies of it lie side by side and share its tiles. Where two copies meet, the
//! outermost tiles of both are free, so that a wall around the grid is a wall around the whole.

use std::sync::Arc;

use super::{Ground, WALKER_RADIUS_M};

/// Kept between a walker and a wall, so that rounding never puts it inside: 2⁻¹⁰ m.
const GAP_M: f32 = 1.0 / 1024.0;
/// Tiles along one side, so that positions keep millimetres.
const SIDE_MAX: u32 = 4096;
/// Longest side of a repeated grid, in metres: up to there positions are no further apart than [`GAP_M`].
const REPEATED_SIDE_MAX_M: f32 = 16_384.0;

/// A grid of tiles with its corner at the origin. Cloning is cheap.
#[derive(Clone, Debug, PartialEq)]
pub struct TileGround {
    width: u32,
    depth: u32,
    tile_m: f32,
    solid: Arc<[bool]>,
    /// Copies to the east and to the south.
    copies: [u32; 2],
}

impl TileGround {
    /// A grid of `width` tiles to the east and `solid.len() / width` to the south, row by row. `None` when that is no
    /// rectangle, or larger than 4,096 tiles a side, or the tiles are not between 0.7 m and 64 m.
    #[must_use]
    pub fn new(width: u32, tile_m: f32, solid: Vec<bool>) -> Option<Self> {
        let depth = u32::try_from(solid.len()).ok()?.checked_div(width)?;
        let fits = depth > 0 && width <= SIDE_MAX && depth <= SIDE_MAX && solid.len() == width as usize * depth as usize;
        (fits && (0.7..=64.0).contains(&tile_m)).then(|| Self { width, depth, tile_m, solid: solid.into(), copies: [1, 1] })
    }

    /// The same grid `columns` times to the east and `rows` times to the south, without a copy of its tiles. Where two copies meet, their
    /// outermost tiles are free. `None` when that is none or longer than 16,384 m a side.
    #[must_use]
    pub fn repeated(&self, columns: u32, rows: u32) -> Option<Self> {
        let side_m = |tiles: u32, copies: u32| f64::from(tiles) * f64::from(copies) * f64::from(self.tile_m);
        let longest = side_m(self.width, columns).max(side_m(self.depth, rows));
        let fits = (columns, rows) == (1, 1) || longest <= f64::from(REPEATED_SIDE_MAX_M);
        (columns > 0 && rows > 0 && fits).then(|| Self { copies: [columns, rows], ..self.clone() })
    }

    /// Side of a tile in metres.
    #[must_use]
    pub const fn tile_m(&self) -> f32 {
        self.tile_m
    }

    /// Tiles to the east and to the south, of one copy.
    #[must_use]
    pub const fn size(&self) -> [u32; 2] {
        [self.width, self.depth]
    }

    /// Copies to the east and to the south.
    #[must_use]
    pub const fn copies(&self) -> [u32; 2] {
        self.copies
    }

    /// Tiles to the east and to the south, of all copies.
    const fn whole(&self) -> [u32; 2] {
        [self.width * self.copies[0], self.depth * self.copies[1]]
    }

    /// Whether a tile is solid. Everything outside the grid is.
    #[inline]
    #[must_use]
    pub fn is_solid(&self, x: i32, z: i32) -> bool {
        let inside = x >= 0 && z >= 0 && (x as u32) < self.width && (z as u32) < self.depth;
        if inside && matches!(self.copies, [1, 1]) {
            return self.solid[z as usize * self.width as usize + x as usize];
        }
        self.is_solid_in_a_copy(x, z)
    }

    fn is_solid_in_a_copy(&self, x: i32, z: i32) -> bool {
        let [wide, deep] = self.whole();
        if x < 0 || z < 0 || x as u32 >= wide || z as u32 >= deep {
            return true;
        }
        let (x, z) = (x as u32, z as u32);
        let (in_x, in_z) = (x % self.width, z % self.depth);
        let rim = in_x == 0 || in_z == 0 || in_x == self.width - 1 || in_z == self.depth - 1;
        let outer = x == 0 || z == 0 || x == wide - 1 || z == deep - 1;
        (!rim || outer) && self.solid[in_z as usize * self.width as usize + in_x as usize]
    }

    #[inline]
    fn tile(&self, metres: f32) -> i32 {
        // A cast saturates and truncates; subtracting one below zero makes it the floor, cheaper than `floor` without SSE4.1.
        let tile = metres / self.tile_m;
        let truncated = tile as i32;
        if tile < truncated as f32 { truncated - 1 } else { truncated }
    }

    fn line_is_solid(&self, along: i32, across: [i32; 2], swap: bool) -> bool {
        (across[0]..=across[1]).any(|at| if swap { self.is_solid(at, along) } else { self.is_solid(along, at) })
    }

    /// Moves along one axis; `swap` means south instead of east.
    fn slide(&self, from: f32, by: f32, across: f32, swap: bool) -> f32 {
        let lanes = [self.tile(across - WALKER_RADIUS_M), self.tile(across + WALKER_RADIUS_M)];
        let to = from + by;
        if by > 0.0 {
            for along in self.tile(from + WALKER_RADIUS_M) + 1..=self.tile(to + WALKER_RADIUS_M) {
                if self.line_is_solid(along, lanes, swap) {
                    return from.max(along as f32 * self.tile_m - WALKER_RADIUS_M - GAP_M);
                }
            }
        } else if by < 0.0 {
            for along in (self.tile(to - WALKER_RADIUS_M)..self.tile(from - WALKER_RADIUS_M)).rev() {
                if self.line_is_solid(along, lanes, swap) {
                    return from.min((along + 1) as f32 * self.tile_m + WALKER_RADIUS_M + GAP_M);
                }
            }
        }
        to
    }
}

impl Ground for TileGround {
    fn walk(&self, from: [f32; 2], by: [f32; 2]) -> [f32; 2] {
        // Nobody walks across the world in one step; a huge step would visit as many tiles.
        let most = 64.0 * self.tile_m;
        let x = self.slide(from[0], by[0].clamp(-most, most), from[1], false);
        let z = self.slide(from[1], by[1].clamp(-most, most), x, true);
        [x, z]
    }

    fn is_free(&self, at: [f32; 2]) -> bool {
        let lanes = [self.tile(at[1] - WALKER_RADIUS_M), self.tile(at[1] + WALKER_RADIUS_M)];
        (self.tile(at[0] - WALKER_RADIUS_M)..=self.tile(at[0] + WALKER_RADIUS_M)).all(|x| !self.line_is_solid(x, lanes, false))
    }

    fn sight(&self, from: [f32; 2], to: [f32; 2]) -> f32 {
        // Amanatides and Woo: from tile to tile along the line, by the axis whose border is nearer.
        let way = [to[0] - from[0], to[1] - from[1]];
        let mut tile = [self.tile(from[0]), self.tile(from[1])];
        let goal = [self.tile(to[0]), self.tile(to[1])];
        let [wide, deep] = self.whole();
        let steps = (goal[0].abs_diff(tile[0]).saturating_add(goal[1].abs_diff(tile[1]))).min(4 * SIDE_MAX.max(wide).max(deep));
        let border = |axis: usize, tile: i32| {
            let at = if way[axis] > 0.0 { tile + 1 } else { tile } as f32 * self.tile_m;
            if way[axis] == 0.0 { f32::INFINITY } else { (at - from[axis]) / way[axis] }
        };
        let mut share = 0.0;
        for _ in 0..=steps {
            if self.is_solid(tile[0], tile[1]) {
                return share;
            }
            if tile == goal {
                return 1.0;
            }
            let next = [border(0, tile[0]), border(1, tile[1])];
            let axis = usize::from(next[1] < next[0]);
            share = next[axis].clamp(share, 1.0);
            tile[axis] += if way[axis] > 0.0 { 1 } else { -1 };
        }
        1.0
    }

    fn bounds(&self) -> [[f32; 2]; 2] {
        let [wide, deep] = self.whole();
        [[0.0, 0.0], [wide as f32 * self.tile_m, deep as f32 * self.tile_m]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows of `#` and `.`, 2 m a tile.
    fn draw(rows: &[&str]) -> TileGround {
        let solid = rows.iter().flat_map(|row| row.bytes().map(|tile| tile == b'#')).collect();
        TileGround::new(rows[0].len() as u32, 2.0, solid).unwrap()
    }

    #[test]
    fn walls_stop_and_are_slid_along() {
        let ground = draw(&["....", "..#.", "...."]);
        let [x, z] = ground.walk([3.0, 3.0], [5.0, 0.25]);
        assert!(x < 3.7 && x > 3.69 && z == 3.25, "{x} {z}");
        // Thin wall, long step: no tunnelling.
        assert!(ground.walk([3.0, 3.0], [4.0, 0.0])[0] < 3.7);
        assert!(ground.walk([7.0, 3.0], [-4.0, 0.0])[0] > 6.3);
        assert!(ground.walk([7.0, 5.0], [100.0, 100.0]).iter().all(|v| *v < 8.0), "the edge is a wall");
    }

    #[test]
    fn walls_block_the_view() {
        let ground = draw(&["....", "..#.", "...."]);
        assert_eq!(ground.sight([1.0, 1.0], [7.0, 1.0]), 1.0);
        let share = ground.sight([1.0, 3.0], [7.0, 3.0]);
        assert!((share - 0.5).abs() < 1e-6, "{share}");
        assert_eq!(ground.sight([1.0, 3.0], [1.0, 3.0]), 1.0);
    }

    #[test]
    fn grids_that_are_none_are_refused() {
        assert!(TileGround::new(0, 2.0, vec![]).is_none());
        assert!(TileGround::new(3, 2.0, vec![false; 4]).is_none());
        assert!(TileGround::new(2, 0.1, vec![false; 4]).is_none());
    }

    #[test]
    fn copies_meet_without_a_wall() {
        let one = draw(&["####", "#..#", "#.##", "####"]);
        let whole = one.repeated(2, 3).unwrap();
        assert_eq!((whole.size(), whole.copies(), whole.bounds()), ([4, 4], [2, 3], [[0.0, 0.0], [16.0, 24.0]]));
        let rows: Vec<String> = (0..12).map(|z| (0..8).map(|x| if whole.is_solid(x, z) { '#' } else { '.' }).collect()).collect();
        let joined = ["#......#"; 2];
        let expected = [
            &["########", "#......#", "#.#...##"][..],
            &joined,
            &["#......#", "#.#...##"],
            &joined,
            &["#......#", "#.#...##", "########"],
        ];
        assert_eq!(rows, expected.concat());
        assert!(whole.is_solid(8, 1) && whole.is_solid(-1, 1) && whole.is_solid(1, 12));
        // From one copy into the next, and seen from there.
        assert_eq!(whole.walk([5.0, 3.0], [6.0, 0.0]), [11.0, 3.0]);
        assert_eq!(whole.sight([5.0, 3.0], [11.0, 3.0]), 1.0);
        assert!(whole.walk([13.0, 3.0], [9.0, 0.0])[0] < 13.7, "the wall around all of it");
        assert_eq!(one.repeated(1, 1).as_ref(), Some(&one));
        assert!(one.repeated(0, 1).is_none() && one.repeated(1, 2049).is_none() && one.repeated(u32::MAX, u32::MAX).is_none());
    }

    proptest! {
        #[test]
        fn nobody_comes_to_stand_in_a_wall_of_a_far_copy(
            solid in prop::collection::vec(prop::bool::weighted(0.3), 64),
            start in (0.0f32..16.0, 0.0f32..16.0),
            copy in (0u32..1024, 0u32..1024),
            steps in prop::collection::vec((-3.0f32..3.0, -3.0f32..3.0), 1..40),
        ) {
            let ground = TileGround::new(8, 2.0, solid).unwrap().repeated(1024, 1024).unwrap();
            let mut at = [copy.0 as f32 * 16.0 + start.0, copy.1 as f32 * 16.0 + start.1];
            prop_assume!(ground.is_free(at));
            for (x, z) in steps {
                let next = ground.walk(at, [x, z]);
                prop_assert!(ground.is_free(next), "from {at:?} by {x} {z} to {next:?}");
                at = next;
            }
        }

        #[test]
        fn nobody_comes_to_stand_in_a_wall(
            solid in prop::collection::vec(prop::bool::weighted(0.3), 64),
            start in (0.0f32..16.0, 0.0f32..16.0),
            steps in prop::collection::vec((-3.0f32..3.0, -3.0f32..3.0), 1..40),
        ) {
            let ground = TileGround::new(8, 2.0, solid).unwrap();
            let mut at = [start.0, start.1];
            prop_assume!(ground.is_free(at));
            for (x, z) in steps {
                let next = ground.walk(at, [x, z]);
                prop_assert!(ground.is_free(next), "from {at:?} by {x} {z} to {next:?}");
                prop_assert!((next[0] - at[0]).abs() <= x.abs() + 1e-5 && (next[1] - at[1]).abs() <= z.abs() + 1e-5);
                at = next;
            }
        }
    }
}
