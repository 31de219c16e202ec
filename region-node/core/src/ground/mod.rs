//! The ground under a world: where one may walk and what blocks the view.
//!
//! A ground is content, not state: it is made anew from the region's parameters on every replica and never changes.

pub mod open;
pub mod tiles;

pub use open::OpenGround;
pub use tiles::TileGround;

/// Half the width of a walker, in metres. Walkers are squares to the ground, so that walls are slid along exactly.
pub const WALKER_RADIUS_M: f32 = 0.3;

/// Where one may walk. Implementations use `+ − × ÷` and comparisons alone: every replica must get the same bits.
pub trait Ground: Send + Sync + 'static {
    /// Where a walker at `from` (east, south) comes that wants to move by `by`, both in metres: it stops at walls and slides
    /// along them. What does not stand in a wall never comes to stand in one.
    fn walk(&self, from: [f32; 2], by: [f32; 2]) -> [f32; 2];

    /// Whether a walker may stand there.
    fn is_free(&self, at: [f32; 2]) -> bool;

    /// Height of the ground there, in metres.
    fn height(&self, _at: [f32; 2]) -> f32 {
        0.0
    }

    /// How far one sees from `from` towards `to`, as a share of the way, 0 to 1; 1 when nothing is between.
    fn sight(&self, from: [f32; 2], to: [f32; 2]) -> f32;

    /// The rectangle that holds the ground: its least and greatest (east, south), in metres.
    fn bounds(&self) -> [[f32; 2]; 2];
}
