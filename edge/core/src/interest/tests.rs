//! What the properties in `frame/tests.rs` do not reach.

use super::*;
use crate::map::{MapRegion, RegionMap};
use marchland_types::{CellId, GroupId, RegionId, WorldId};

fn group(serial: u32) -> GroupId {
    GroupId::region(WorldId(1), RegionId(serial))
}

fn alone() -> (Views, Viewer, ViewId) {
    let (mut views, mut viewer) = (Views::default(), Viewer::new(1, 1, 0));
    let own = views.open(group(1));
    viewer.follow(&mut views, own);
    (views, viewer, own)
}

#[test]
fn cells_around_a_walker_are_held_with_hysteresis_and_given_back() {
    let (config, map) = (InterestConfig::default(), RegionMap::default());
    let (mut views, mut viewer, own) = alone();
    viewer.hold_cells(&mut views, &map, &config, 12.5, 12.5);
    let first: Vec<_> = views[own].subscribed().collect();
    // 53 m and a little around the middle of a cell: nothing of the corners of the 5 by 5 square is missing that is near enough.
    assert!(first.len() >= 21 && first.len() <= 25, "{}", first.len());
    views[own].take_changes();
    // To and fro over a cell's edge: nothing is subscribed to twice.
    let mut asked = 0;
    for _ in 0..20 {
        viewer.hold_cells(&mut views, &map, &config, 27.0, 12.5);
        asked += views[own].take_changes().0.len();
        viewer.hold_cells(&mut views, &map, &config, 23.0, 12.5);
        asked += views[own].take_changes().0.len();
    }
    assert!(asked <= 7, "{asked} cells asked for");
    viewer.hold_cells(&mut views, &map, &config, 5_000.0, 0.0);
    assert!(viewer.parts[0].cells.len() <= 25, "what lies behind is given back");
    viewer.release(&mut views);
    assert!(viewer.parts.is_empty() && !views[own].is_followed());
}

#[test]
fn positions_beyond_all_cells_do_no_harm() {
    let map = RegionMap::default();
    let (mut views, mut viewer, own) = alone();
    for at in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30, -1e30, 819_199.0] {
        viewer.hold_cells(&mut views, &map, &InterestConfig::default(), at, at);
        viewer.hold_cells(&mut views, &map, &InterestConfig::default(), at, 0.0);
    }
    assert!(views[own].subscribed().count() < 200);
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

/// Four squares of a kilometre that meet at the origin: region 1 north west, 2 north east, 3 south west, 4 south east.
fn four() -> RegionMap {
    let mut map = RegionMap::default();
    let square = |serial: u32, x: f32, z: f32| MapRegion {
        group: group(serial),
        region: RegionId(serial),
        min: [x, z],
        max: [x + 1000.0, z + 1000.0],
    };
    let all = vec![square(1, -1000.0, -1000.0), square(2, 0.0, -1000.0), square(3, -1000.0, 0.0), square(4, 0.0, 0.0)];
    map.learn(1, all, 52.0);
    map
}

#[test]
fn cells_of_neighbours_are_held_only_near_them() {
    let (config, map) = (InterestConfig::default(), four());
    let (mut views, mut viewer, own) = alone();
    let mut held = |viewer: &mut Viewer, x: f32, z: f32| {
        viewer.hold_cells(&mut views, &map, &config, x, z);
        assert_eq!(viewer.parts[0].view, own);
        let mut held: Vec<_> = viewer.parts.iter().map(|part| (views[part.view].group().serial(), part.cells.len())).collect();
        held.sort_unstable();
        held
    };
    let serials = |held: &[(u32, usize)]| held.iter().map(|(serial, _)| *serial).collect::<Vec<_>>();
    assert_eq!(serials(&held(&mut viewer, -500.0, -500.0)), [1]);
    assert_eq!(serials(&held(&mut viewer, -120.0, -500.0)), [1], "what region 2 holds stands at least 30 m east of what is seen");
    let near = held(&mut viewer, -60.0, -500.0);
    assert_eq!(serials(&near), [1, 2]);
    assert!(near[1].1 < near[0].1, "not all around: {near:?}");
    let corner = held(&mut viewer, -1.0, -1.0);
    assert_eq!(serials(&corner), [1, 2, 3, 4]);
    let all = corner[0].1;
    assert!(corner.iter().all(|(_, cells)| *cells >= all * 3 / 4), "{corner:?}");
    assert_eq!(serials(&held(&mut viewer, -500.0, -1.0)), [1, 3]);
    assert_eq!(serials(&held(&mut viewer, -500.0, -500.0)), [1]);
    // Its own cells are not those of the ground alone: authority is not ground.
    assert!(held(&mut viewer, 40.0, -500.0)[0].1 >= 21);
    for serial in [3, 4] {
        let view = views.find(group(serial)).unwrap();
        assert!(!views[view].is_followed() && views.close(group(serial)));
    }
    viewer.release(&mut views);
    assert!(views.close(group(1)) && views.close(group(2)));
}

#[test]
fn a_client_that_goes_to_another_region_keeps_what_it_sees_of_the_first() {
    let (config, map) = (InterestConfig::default(), four());
    let (mut views, mut viewer, own) = alone();
    viewer.hold_cells(&mut views, &map, &config, -1.0, -500.0);
    let other = views.find(group(2)).unwrap();
    let parts = |viewer: &Viewer| viewer.parts.iter().map(|part| (part.view, part.cells.len())).collect::<Vec<_>>();
    let [(_, cells), (_, others)] = parts(&viewer)[..] else { panic!() };
    viewer.follow(&mut views, other);
    assert_eq!(parts(&viewer), [(other, others), (own, cells)]);
    viewer.hold_cells(&mut views, &map, &config, 1.0, -500.0);
    assert_eq!(parts(&viewer).iter().map(|(view, _)| *view).collect::<Vec<_>>(), [other, own]);
    // To where it never was, and of which nothing was seen.
    let third = views.open(group(3));
    viewer.follow(&mut views, third);
    assert_eq!(viewer.parts.len(), 3);
    assert!([own, other, third].into_iter().all(|view| views[view].is_followed()));
    viewer.hold_cells(&mut views, &map, &config, -500.0, 500.0);
    assert_eq!(parts(&viewer).len(), 1);
    assert!(CellId::unpack(views[third].cell_id(viewer.parts[0].cells[0])).x < -17);
}
