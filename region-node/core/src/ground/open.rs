//! A square without obstacles whose edge is a wall.

use super::{Ground, WALKER_RADIUS_M};

/// Open ground from (0, 0) to (`side_m`, `side_m`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenGround {
    side_m: f32,
}

impl OpenGround {
    /// A square of this side. Sides that are no number, or too small to stand in, become 1 m; the largest is 100 km.
    #[must_use]
    pub fn new(side_m: f32) -> Self {
        Self { side_m: if side_m.is_nan() { 1.0 } else { side_m.clamp(1.0, 100_000.0) } }
    }

    /// Side in metres.
    #[must_use]
    pub const fn side_m(&self) -> f32 {
        self.side_m
    }
}

impl Ground for OpenGround {
    fn walk(&self, from: [f32; 2], by: [f32; 2]) -> [f32; 2] {
        let far = self.side_m - WALKER_RADIUS_M;
        [(from[0] + by[0]).clamp(WALKER_RADIUS_M, far), (from[1] + by[1]).clamp(WALKER_RADIUS_M, far)]
    }

    fn is_free(&self, at: [f32; 2]) -> bool {
        let free = WALKER_RADIUS_M..=self.side_m - WALKER_RADIUS_M;
        free.contains(&at[0]) && free.contains(&at[1])
    }

    fn sight(&self, _from: [f32; 2], _to: [f32; 2]) -> f32 {
        1.0
    }

    fn bounds(&self) -> [[f32; 2]; 2] {
        [[0.0, 0.0], [self.side_m, self.side_m]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_a_wall() {
        let ground = OpenGround::new(10.0);
        assert_eq!(ground.walk([5.0, 5.0], [100.0, -100.0]), [9.7, 0.3]);
        assert!(ground.is_free([9.7, 0.3]) && !ground.is_free([9.9, 5.0]));
        assert_eq!(OpenGround::new(f32::NAN).side_m(), 1.0);
    }
}
