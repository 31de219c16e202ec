//! What happens at borders: who goes over, with what, and what is seen and done across.

mod marches;

use marches::*;
use marchland_proto::storage::{AttachOrder, DetachOrder, DropStub, GameMessage, channel_message::Body};
use marchland_region_core::testing::{Country, WORLD};
use marchland_region_core::{CharacterId, Code, EntityId, GroupId, RegionId};

const ADA: u64 = 1;
const BOB: u64 = 2;
const EAST: [f32; 2] = [1.0, 0.0];
const WEST: [f32; 2] = [-1.0, 0.0];

/// Two regions side by side, with Ada in the first, `from_border_m` west of the border.
fn pair(from_border_m: f32) -> Country<Marches> {
    let mut country = Country::new(Marches, &[], 2, 1, SIDE_M);
    country.enter(1, ADA, &format!("Ada {} 50", SIDE_M - from_border_m));
    // So that both have heard of each other.
    country.ticks(6);
    assert_eq!(country.place_of(ADA), Some(1));
    country
}

fn entity_of(country: &Country<Marches>, character: u64) -> EntityId {
    let number = country.place_of(character).expect("somewhere");
    country.region(number).world().entity_of(CharacterId(character)).expect("there")
}

/// Walks until the character is in `region`; how many ticks that took.
fn walk_to(country: &mut Country<Marches>, character: u64, direction: [f32; 2], region: u32) -> u32 {
    for ticks in 1..400 {
        country.walk(character, direction);
        country.tick();
        if country.place_of(character) == Some(region) {
            return ticks;
        }
    }
    panic!("{character} never came to region {region}");
}

#[test]
fn a_character_goes_over_whole_four_metres_behind_the_border() {
    let mut country = pair(10.0);
    country.act(ADA, MAKE, &b""[..]);
    country.act(ADA, WAIT, &b""[..]);
    country.tick();
    let ada = entity_of(&country, ADA);
    let before = country.region(1).session(CharacterId(ADA)).map(|s| (s.epoch, s.attach, s.session.last_reply_seq)).unwrap();
    let items = country.region(1).world().items(ada).to_vec();
    let mut west_of_it = 0.0f32;
    for _ in 0..80 {
        if country.place_of(ADA) == Some(1) {
            west_of_it = west_of_it.max(country.position(ada).unwrap()[0]);
        }
        if country.place_of(ADA) == Some(2) {
            break;
        }
        country.walk(ADA, EAST);
        country.tick();
    }
    // 4 m of hysteresis and less than one step.
    assert!((SIDE_M + 3.7..SIDE_M + 4.3).contains(&west_of_it), "left at {west_of_it}");
    let there = country.region(2);
    assert_eq!(entity_of(&country, ADA), ada, "it is the same entity");
    let session = there.session(CharacterId(ADA)).unwrap();
    assert_eq!((session.epoch, session.attach, session.session.last_reply_seq), before);
    assert!(session.attached);
    assert_eq!(there.world().items(ada), items);
    assert_eq!(there.world().own(ada).unwrap().identity.move_number.0, 2);
    assert_eq!(there.world().get::<Wounds>(ada), Some(&Wounds(0)));
    // It left while it rested; the rest goes on for as long as it would have.
    assert_eq!(there.world().get::<RestsUntil>(ada), None, "two seconds have passed");
    assert!(there.world().ledger().arrived == 1 && country.region(1).world().ledger().left == 1);
    let stub = country.region(1).world().stub(CharacterId(ADA)).copied().unwrap();
    assert_eq!((stub.group, stub.region, stub.move_number.0), (GroupId::region(WORLD, RegionId(2)), RegionId(2), 2));
}

#[test]
fn timers_and_deadlines_travel_as_remaining_time() {
    let mut country = pair(-3.0 + 0.5);
    let ada = entity_of(&country, ADA);
    country.act(ADA, WAIT, &b""[..]);
    country.tick();
    let until = country.region(1).world().get::<RestsUntil>(ada).unwrap().0;
    let set_at = country.region(1).now_ms();
    let ticks = walk_to(&mut country, ADA, EAST, 2);
    assert!(ticks < 18, "{ticks}");
    assert_eq!(until, set_at + 1_000);
    let there = country.region(2).world().get::<RestsUntil>(ada).unwrap().0;
    assert!(there.abs_diff(until) <= 100, "{there} {until}");
    country.ticks(25 - ticks);
    assert_eq!(country.region(2).world().get::<RestsUntil>(ada), None, "the timer came along and ran down");
}

#[test]
fn who_turns_back_stays_for_a_second_first() {
    let mut country = pair(2.0);
    walk_to(&mut country, ADA, EAST, 2);
    let back = walk_to(&mut country, ADA, WEST, 1);
    // 8 m at 5 m/s and two ticks on the way: more than the second that it has to stay.
    assert!((30..=40).contains(&back), "{back}");
    country.act(ADA, LEAP, &b""[..]);
    country.ticks(3);
    // 60 m are beyond all authority: that is no walk over a border.
    assert_eq!(country.place_of(ADA), Some(2));
    assert_eq!(country.region(2).world().own(entity_of(&country, ADA)).unwrap().identity.move_number.0, 4);
}

#[test]
fn who_fights_stays_with_its_region_and_meets_a_wall_at_thirty_metres() {
    let mut country = pair(2.0);
    country.act(ADA, FIGHT, &b""[..]);
    for _ in 0..200 {
        country.walk(ADA, EAST);
        country.tick();
    }
    let ada = entity_of(&country, ADA);
    assert_eq!(country.place_of(ADA), Some(1));
    assert!((country.position(ada).unwrap()[0] - SIDE_M - 30.0).abs() < 0.01);
    assert!(country.region(2).world().ghost_of(ada).is_some(), "its neighbour sees it");
    country.act(ADA, REST, &b""[..]);
    country.ticks(3);
    assert_eq!(country.place_of(ADA), Some(2));
}

#[test]
fn a_wolf_chases_over_a_border_and_bites() {
    let mut country = pair(6.0);
    country.act(ADA, CALL_WOLF, &b""[..]);
    country.tick();
    let wolf = country.region(1).world().entities().find(|view| view.identity.kind == KIND_WOLF).unwrap().identity.entity;
    walk_to(&mut country, ADA, EAST, 2);
    let ada = entity_of(&country, ADA);
    assert_eq!(country.region_of(wolf), Some(1), "the wolf is behind, and still on its own ground");
    let mut bitten_by_neighbour = false;
    for _ in 0..200 {
        country.tick();
        let wounds = country.region(2).world().get::<Wounds>(ada).unwrap().0;
        bitten_by_neighbour |= wounds > 0 && country.region_of(wolf) == Some(1);
        if wounds > 1 && country.region_of(wolf) == Some(2) {
            break;
        }
    }
    assert!(bitten_by_neighbour, "it bites from its own region");
    // Ada stands 4 m behind the border, so it has to follow her there before long.
    for _ in 0..60 {
        country.walk(ADA, EAST);
        country.tick();
    }
    country.ticks(60);
    assert_eq!(country.region_of(wolf), Some(2), "it has followed");
    assert!(country.region(2).world().get::<Wounds>(ada).unwrap().0 > 1);
}

#[test]
fn an_arrow_flies_across_and_hits_what_stands_there() {
    let mut country = pair(10.0);
    country.enter(2, BOB, "Bob 25 50");
    country.ticks(3);
    country.act(BOB, CALL_WOLF, &b""[..]);
    country.act(BOB, FIGHT, &b""[..]);
    country.tick();
    let world = country.region(2).world();
    let wolf = world.entities().find(|view| view.identity.kind == KIND_WOLF).unwrap().identity.entity;
    country.act(ADA, SHOOT, &b""[..]);
    country.tick();
    let arrow = country.region(1).world().entities().find(|view| view.identity.kind == KIND_ARROW).unwrap().identity.entity;
    let mut crossed = false;
    for _ in 0..60 {
        country.tick();
        crossed |= country.region_of(arrow) == Some(2);
    }
    assert_eq!(country.region_of(arrow), None, "it has hit, and is gone");
    assert!(crossed, "it came into the other region");
    let wounds = [1, 2].map(|number| country.region(number).world().get::<Wounds>(wolf).map_or(0, |wounds| wounds.0));
    assert_eq!(wounds.iter().sum::<u32>(), 1, "{wounds:?}");
}

#[test]
fn a_rider_crosses_with_the_mount() {
    let mut country = pair(6.0);
    country.act(ADA, MOUNT, &b""[..]);
    country.tick();
    let ada = entity_of(&country, ADA);
    let horse = EntityId(country.region(1).world().get::<Rides>(ada).unwrap().0);
    let saddle = country.region(1).world().items(horse).to_vec();
    for _ in 0..200 {
        country.walk(ADA, EAST);
        country.tick();
        assert_eq!(country.region_of(horse), country.region_of(ada), "always in the same place");
        if country.place_of(ADA) == Some(2) {
            break;
        }
    }
    assert_eq!(country.region_of(horse), Some(2));
    let there = country.region(2).world();
    assert_eq!((there.items(horse), saddle.len()), (&saddle[..], 1));
    assert_eq!(there.ledger().arrived, 1);
    country.ticks(40);
    walk_to(&mut country, ADA, WEST, 1);
    assert_eq!(country.region_of(horse), Some(1));
}

#[test]
fn at_a_corner_the_ghosts_of_all_neighbours_are_seen() {
    let mut country = Country::new(Marches, &[], 2, 2, SIDE_M);
    for (number, name) in [(1, "a 95 95"), (2, "b 5 95"), (3, "c 95 5"), (4, "d 5 5")] {
        country.enter(number, u64::from(number), name);
    }
    country.ticks(6);
    for number in 1..=4 {
        let world = country.region(number).world();
        let mut near = Vec::new();
        world.each_near([SIDE_M, 0.0, SIDE_M], 20.0, |found| near.push((found.entity, world.ghost_of(found.entity).is_some())));
        assert_eq!((near.len(), near.iter().filter(|(_, ghost)| *ghost).count()), (4, 3), "region {number}");
    }
    // Diagonally over the corner.
    for _ in 0..80 {
        country.walk(1, [0.7, 0.7]);
        country.tick();
    }
    assert_eq!(country.place_of(1), Some(4));
}

#[test]
fn whoever_comes_near_a_border_is_a_reason_to_be_awake_beyond_it() {
    let mut country = pair(60.0);
    assert!(!country.region(2).sees_life() && !country.region(2).is_busy(), "out of sight");
    for _ in 0..120 {
        country.walk(ADA, EAST);
        country.tick();
    }
    assert!(country.region(2).sees_life() && country.region(2).is_busy(), "30 m from the border");
    for _ in 0..120 {
        country.walk(ADA, WEST);
        country.tick();
    }
    country.ticks(40);
    assert!(!country.region(2).sees_life() && !country.region(2).is_busy());
}

#[test]
fn a_neighbour_without_an_owner_is_a_closed_border_until_it_has_one() {
    let mut country = pair(20.0);
    country.stop(2, true);
    country.ticks(31);
    for _ in 0..200 {
        country.walk(ADA, EAST);
        country.tick();
    }
    let ada = entity_of(&country, ADA);
    assert_eq!(country.place_of(ADA), Some(1), "nobody is sent to where nobody takes it");
    assert!((country.position(ada).unwrap()[0] - SIDE_M - 30.0).abs() < 0.01, "and there is a wall");
    country.stop(2, false);
    country.ticks(10);
    assert_eq!(country.place_of(ADA), Some(2), "the border is open again");
}

#[test]
fn what_was_sent_before_the_border_closed_arrives_when_it_opens() {
    let mut country = pair(2.0);
    for _ in 0..60 {
        country.walk(ADA, EAST);
        country.tick();
        if country.place_of(ADA).is_none() {
            break;
        }
    }
    country.stop(2, true);
    country.ticks(100);
    assert_eq!(country.place_of(ADA), None, "in the channel, and nowhere else");
    country.restore(1);
    country.ticks(3);
    country.stop(2, false);
    country.ticks(2);
    assert_eq!(country.place_of(ADA), Some(2));
}

#[test]
fn whoever_asks_at_the_old_place_is_sent_on_until_the_directory_knows() {
    let mut country = pair(2.0);
    let ada = entity_of(&country, ADA);
    country.enter(2, BOB, "Bob 20 50");
    country.ticks(4);
    walk_to(&mut country, ADA, EAST, 2);
    let ask = AttachOrder { character: ADA, epoch: 1, attach: 2, ..AttachOrder::default() };
    country.pending(1).attaches.push(ask.clone());
    country.tick();
    let answer = country.effects[&RegionId(1)].attached[0].clone();
    let moved = answer.moved.unwrap();
    assert_eq!((answer.code, moved.region, moved.move_number), (Code::Moved as u32, 2, 2));
    // A letter to where she was follows her.
    let letter = GameMessage { code: 3, character: ADA, entity: ada.0, ..GameMessage::default() };
    country.tell(1, Body::Game(letter.clone()));
    country.ticks(3);
    assert_eq!(country.region(2).world().get::<Mail>(ada), Some(&Mail(1)));
    // Orders that are older than her last move drop nothing.
    country.tell(1, Body::DropStub(DropStub { character: ADA, move_number: 1 }));
    country.tick();
    assert!(country.region(1).world().stub(CharacterId(ADA)).is_some());
    country.tell(1, Body::DropStub(DropStub { character: ADA, move_number: 2 }));
    country.tick();
    assert!(country.region(1).world().stub(CharacterId(ADA)).is_none());
    country.pending(1).attaches.push(ask);
    country.tick();
    assert_eq!(country.effects[&RegionId(1)].attached[0].code, Code::NotAdmitted as u32);
}

#[test]
fn a_letter_to_what_has_gone_for_good_comes_back() {
    let mut country = pair(10.0);
    country.enter(2, BOB, "Bob 20 50");
    country.ticks(3);
    let (ada, bob) = (entity_of(&country, ADA), entity_of(&country, BOB));
    assert!(country.region(1).world().ghost_of(bob).is_some());
    country.pending(2).detaches.push(DetachOrder { character: BOB, epoch: 1, attach: 1, goodbye: true });
    // In the very tick in which he leaves the world, she writes to the ghost that she sees.
    country.act(ADA, WRITE_TO, bob.0.to_le_bytes().to_vec());
    country.ticks(4);
    assert_eq!(country.region_of(bob), None);
    assert_eq!(country.region(1).world().get::<Mail>(ada), Some(&Mail(100)), "the letter came back");
}

#[test]
fn a_region_is_the_same_after_it_was_restored_in_the_middle_of_it_all() {
    let mut country = pair(6.0);
    country.act(ADA, MOUNT, &b""[..]);
    country.act(ADA, CALL_WOLF, &b""[..]);
    for tick in 0..300 {
        country.walk(ADA, if tick / 70 % 2 == 0 { EAST } else { WEST });
        if tick % 3 == 0 {
            country.restore(1 + tick / 3 % 2);
        }
        country.tick();
    }
    assert!(country.place_of(ADA).is_some());
}
