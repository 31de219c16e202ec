//! What the properties in `frame/tests.rs` do not reach.

use super::*;
use marchland_types::{GroupId, RegionId, WorldId};

#[test]
fn cells_around_a_walker_are_held_with_hysteresis_and_given_back() {
    let mut view = RegionView::new(GroupId::region(WorldId(1), RegionId(1)));
    let config = InterestConfig::default();
    let mut viewer = Viewer::new(1, 0);
    viewer.hold_cells(&mut view, &config, 12.5, 12.5);
    let first: Vec<_> = view.subscribed().collect();
    // 53 m and a little around the middle of a cell: nothing of the corners of the 5 by 5 square is missing that is near enough.
    assert!(first.len() >= 21 && first.len() <= 25, "{}", first.len());
    view.take_changes();
    // To and fro over a cell's edge: nothing is subscribed to twice.
    let mut asked = 0;
    for _ in 0..20 {
        viewer.hold_cells(&mut view, &config, 27.0, 12.5);
        asked += view.take_changes().0.len();
        viewer.hold_cells(&mut view, &config, 23.0, 12.5);
        asked += view.take_changes().0.len();
    }
    assert!(asked <= 7, "{asked} cells asked for");
    viewer.hold_cells(&mut view, &config, 5_000.0, 0.0);
    assert!(viewer.cells.len() <= 25, "what lies behind is given back");
    viewer.release(&mut view);
    assert!(viewer.cells.is_empty());
}

#[test]
fn positions_beyond_all_cells_do_no_harm() {
    let mut view = RegionView::new(GroupId::region(WorldId(1), RegionId(1)));
    let mut viewer = Viewer::new(1, 0);
    for at in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30, -1e30, 819_199.0] {
        viewer.hold_cells(&mut view, &InterestConfig::default(), at, at);
        viewer.hold_cells(&mut view, &InterestConfig::default(), at, 0.0);
    }
    assert!(view.subscribed().count() < 200);
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    assert_eq!(InterestConfig::default().validate(), Ok(()));
    let bad = [
        InterestConfig { radius_m: f32::NAN, ..Default::default() },
        InterestConfig { radius_m: 0.0, ..Default::default() },
        InterestConfig { hysteresis_m: -1.0, ..Default::default() },
        InterestConfig { visible_max: 0, ..Default::default() },
        InterestConfig { visible_max: VISIBLE_MAX + 1, ..Default::default() },
        InterestConfig { repick_every_ticks: 0, ..Default::default() },
    ];
    for config in bad {
        assert!(config.validate().is_err(), "{config:?}");
    }
}
