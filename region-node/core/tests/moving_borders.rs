//! What happens when a border moves: whoever stands beyond it afterwards goes over, from where they are.

mod marches;

use marches::*;
use marchland_proto::storage::{MapChange, Neighbour, channel_message::Body};
use marchland_region_core::testing::Country;
use marchland_region_core::{CharacterId, EntityId};

const ADA: u64 = 1;
const BOB: u64 = 2;
const EAST: [f32; 2] = [1.0, 0.0];

/// A row of regions, with these borders between them.
fn row(country: &Country<Marches>, borders: &[f32]) -> Vec<Neighbour> {
    let mut map = country.map().to_vec();
    for (at, border) in borders.iter().enumerate() {
        (map[at].max_x, map[at + 1].min_x) = (*border, *border);
    }
    map
}

/// Regions hear of a map, those of them that know about each other at all.
fn tell(country: &mut Country<Marches>, numbers: &[u32], map_epoch: u64, map: &[Neighbour]) {
    for number in numbers {
        let change = MapChange { map_epoch, map: map.to_vec() };
        country.tell(*number, Body::MapChange(change));
    }
}

fn entity_of(country: &Country<Marches>, character: u64) -> EntityId {
    let number = country.place_of(character).expect("somewhere");
    country.region(number).world().entity_of(CharacterId(character)).expect("there")
}

/// Two regions with a border at 100 m, Ada at 90 m east and Bob at 25 m.
fn pair() -> Country<Marches> {
    let mut country = Country::new(Marches, &[], 2, 1, SIDE_M);
    country.enter(1, ADA, "Ada 90 50");
    country.enter(1, BOB, "Bob 25 50");
    country.ticks(6);
    country
}

#[test]
fn whoever_stands_beyond_goes_over_when_both_sides_know_of_it() {
    let mut country = pair();
    country.act(BOB, MOUNT, &b""[..]);
    country.act(BOB, WAIT, &b""[..]);
    country.act(ADA, FIGHT, &b""[..]);
    country.tick();
    let (ada, bob) = (entity_of(&country, ADA), entity_of(&country, BOB));
    let horse = country.region(1).world().entities().find(|view| view.identity.kind == KIND_HORSE).unwrap().identity.entity;
    let own = |country: &Country<Marches>, number: u32, entity: EntityId| {
        let view = country.region(number).world().own(entity).unwrap();
        (view.identity.move_number.0, view.body.discontinuity, view.body.position)
    };
    let before = [ada, bob, horse].map(|entity| own(&country, 1, entity));
    let map = row(&country, &[20.0]);
    country.draw_map(map.clone());
    tell(&mut country, &[1], 2, &map);
    country.ticks(20);
    // They are sent, and the other side does not take what it does not know the map of.
    assert_eq!((country.place_of(ADA), country.place_of(BOB)), (None, None));
    assert_eq!(country.region(2).world().map().0.0, 1);
    tell(&mut country, &[2], 2, &map);
    country.ticks(2);
    assert_eq!((country.place_of(ADA), country.place_of(BOB)), (Some(2), Some(2)));
    for (entity, (moves, jumps, place)) in [ada, bob, horse].into_iter().zip(before) {
        assert_eq!(own(&country, 2, entity), (moves + 1, jumps, place), "one move, no jump, and it stands where it stood");
    }
    country.ticks(40);
    assert_eq!((country.place_of(ADA), country.place_of(BOB)), (Some(2), Some(2)), "and there they stay");
}

#[test]
fn beyond_a_border_that_is_closed_one_stays_where_one_is() {
    let mut country = pair();
    country.act(ADA, FIGHT, &b""[..]);
    country.tick();
    country.stop(2, true);
    country.ticks(40);
    let map = row(&country, &[20.0]);
    country.draw_map(map.clone());
    tell(&mut country, &[1, 2], 2, &map);
    country.ticks(10);
    let ada = entity_of(&country, ADA);
    // 70 m beyond: she goes no farther, and comes nearer as she likes.
    for _ in 0..10 {
        country.walk(ADA, EAST);
        country.tick();
    }
    assert_eq!(country.position(ada).unwrap()[0], 90.0);
    for _ in 0..10 {
        country.walk(ADA, [-1.0, 0.0]);
        country.tick();
    }
    let nearer = country.position(ada).unwrap()[0];
    assert!((86.0..89.0).contains(&nearer), "{nearer}");
    assert_eq!(country.place_of(ADA), Some(1));
    assert!(country.region(1).is_busy(), "it does not sleep over this");
    country.restore(1);
    country.stop(2, false);
    country.ticks(8);
    assert_eq!(country.place_of(ADA), Some(2));
    assert_eq!(country.position(ada).unwrap()[0], nearer);
    country.ticks(40);
    assert!(!country.region(1).is_busy() || country.region(1).sees_life());
}

#[test]
fn whoever_stands_on_ground_of_a_region_that_is_not_known_is_sent_on_by_those_that_are() {
    let mut country = Country::new(Marches, &[], 3, 1, SIDE_M);
    country.enter(1, ADA, "Ada 95 50");
    country.ticks(6);
    let ada = entity_of(&country, ADA);
    // The third region comes to lie where Ada stands; the first one is not told of it.
    let map = row(&country, &[10.0, 60.0]);
    country.draw_map(map.clone());
    tell(&mut country, &[1], 2, &map[..2]);
    tell(&mut country, &[2, 3], 2, &map);
    country.ticks(40);
    assert_eq!((country.place_of(ADA), country.position(ada).unwrap()[0]), (Some(3), 95.0));
}

#[test]
fn a_crowd_goes_over_some_each_tick_and_nobody_is_moved() {
    let mut country = Country::new(Marches, &[], 2, 1, SIDE_M);
    let crowd = 400;
    for character in 1..=crowd {
        let (x, z) = (30 + character % 20, 10 + character % 70);
        country.enter(1, character, &format!("C{character} {x} {z}"));
    }
    country.ticks(8);
    let entities: Vec<EntityId> = (1..=crowd).map(|character| entity_of(&country, character)).collect();
    let places: Vec<_> = entities.iter().map(|entity| country.position(*entity)).collect();
    let map = row(&country, &[5.0]);
    country.draw_map(map.clone());
    tell(&mut country, &[1, 2], 2, &map);
    let arrived = |country: &Country<Marches>| country.region(2).world().session_count();
    for _ in 0..16 {
        let before = arrived(&country);
        country.tick();
        assert!(arrived(&country) <= before + 128, "{} came in one tick", arrived(&country) - before);
    }
    assert_eq!(arrived(&country), crowd as usize);
    let moved = entities.iter().zip(&places).find(|(entity, place)| country.position(**entity) != **place);
    assert_eq!(moved, None, "nobody is moved");
}

#[test]
fn one_that_slept_elsewhere_wakes_where_it_lay() {
    let mut country = pair();
    let map = row(&country, &[20.0]);
    country.draw_map(map.clone());
    country.pending(1).detaches.push(marchland_proto::storage::DetachOrder {
        character: ADA,
        epoch: 1,
        attach: 1,
        goodbye: true,
    });
    country.ticks(3);
    assert_eq!(country.place_of(ADA), None);
    tell(&mut country, &[1, 2], 2, &map);
    country.ticks(30);
    country.enter(1, ADA, "Ada 0 0");
    country.ticks(10);
    assert_eq!(country.place_of(ADA), Some(2));
    assert_eq!(country.position(entity_of(&country, ADA)).unwrap()[0], 90.0);
}
