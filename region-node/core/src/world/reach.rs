//! The ground that is a region's own, and how far beyond it its authority reaches.

use crate::entity::Body;
use crate::ground::Ground;

/// Farthest that an entity may be from its region's ground, in metres: authority is not ground.
pub const AUTHORITY_MAX_M: f32 = 30.0;

/// Whoever is farther out than that by no more than this, in metres, is there by rounding.
const LIMIT_SLACK_M: f32 = 0.05;

/// The rectangle of a region that has neighbours; without any, there is nothing outside.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reach(pub(crate) Option<[[f32; 2]; 2]>);

impl Reach {
    /// Whether a body stands on ground that is not the region's.
    pub(crate) fn is_outside(self, body: &Body) -> bool {
        let Some([low, high]) = self.0 else { return false };
        let [x, _, z] = body.position;
        !(low[0] <= x && x < high[0] && low[1] <= z && z < high[1])
    }

    /// How far outside a place is, along the axis on which it is farther; 0 within.
    pub(crate) fn outside_by(self, position: [f32; 3]) -> f32 {
        let Some([low, high]) = self.0 else { return 0.0 };
        let by = |axis: usize, at: f32| (low[axis] - at).max(at - high[axis]).max(0.0);
        by(0, position[0]).max(by(1, position[2]))
    }

    /// How far out somebody may be who was at `from`: as far as authority reaches. Whoever is farther out already, because a border has
    /// moved, need not come back, but goes no farther.
    fn limit_m(self, from: [f32; 2]) -> f32 {
        let by = self.outside_by([from[0], 0.0, from[1]]);
        // What rounding adds at the limit itself must not let anybody creep out.
        if by > AUTHORITY_MAX_M + LIMIT_SLACK_M { by } else { AUTHORITY_MAX_M }
    }

    /// Whether a body is farther out than its region would let it go: a border has moved.
    pub(crate) fn is_far_out(self, body: &Body) -> bool {
        self.outside_by(body.position) > AUTHORITY_MAX_M + LIMIT_SLACK_M
    }

    /// The place nearest to (east, south) that the region may still have somebody on who was at `from`.
    pub(crate) fn nearest(self, from: [f32; 2], [x, z]: [f32; 2]) -> [f32; 2] {
        let Some([low, high]) = self.0 else { return [x, z] };
        let limit_m = self.limit_m(from);
        let within = |axis: usize, at: f32| at.clamp(low[axis] - limit_m, high[axis] + limit_m);
        [within(0, x), within(1, z)]
    }

    /// Where a walker comes to stand who was at `from` and whom the ground lets go `to`: the end of authority is a wall.
    pub(crate) fn walked(self, ground: &impl Ground, from: [f32; 2], to: [f32; 2]) -> [f32; 2] {
        let within = self.nearest(from, to);
        if within == to || ground.is_free(within) { within } else { from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::OpenGround;

    fn body(x: f32, z: f32) -> Body {
        Body { position: [x, 0.0, z], ..Body::default() }
    }

    #[test]
    fn ground_is_half_open_and_authority_ends_with_a_wall() {
        let reach = Reach(Some([[100.0, 100.0], [200.0, 200.0]]));
        assert!(!reach.is_outside(&body(100.0, 199.9)) && reach.is_outside(&body(200.0, 150.0)));
        assert_eq!([reach.outside_by([150.0, 0.0, 100.0]), reach.outside_by([93.0, 0.0, 204.0])], [0.0, 7.0]);
        let ground = OpenGround::new(1000.0);
        assert_eq!(reach.walked(&ground, [229.0, 150.0], [240.0, 151.0]), [230.0, 151.0]);
        assert_eq!(reach.walked(&ground, [150.0, 150.0], [151.0, 151.0]), [151.0, 151.0]);
    }

    #[test]
    fn whoever_a_border_left_behind_far_out_goes_no_farther_and_need_not_come_back() {
        let reach = Reach(Some([[100.0, 100.0], [200.0, 200.0]]));
        let ground = OpenGround::new(1000.0);
        let walked = |from, to| reach.walked(&ground, from, to);
        assert_eq!(walked([290.0, 150.0], [288.0, 152.0]), [288.0, 152.0], "towards it");
        assert_eq!(walked([290.0, 150.0], [290.0, 158.0]), [290.0, 158.0], "along it");
        assert_eq!(walked([290.0, 150.0], [291.0, 150.0]), [290.0, 150.0], "away from it");
        // Who stands at the limit creeps no farther, however the place was rounded.
        assert_eq!(reach.nearest([230.000_02, 150.0], [231.0, 150.0]), [230.0, 150.0]);
    }

    #[test]
    fn a_region_without_neighbours_has_no_outside() {
        let reach = Reach::default();
        assert!(!reach.is_outside(&body(1e5, -1e5)));
        assert_eq!((reach.outside_by([1e5, 0.0, 0.0]), reach.nearest([0.0; 2], [1e5, 2.0])), (0.0, [1e5, 2.0]));
    }
}
