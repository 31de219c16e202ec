//! Animals: where they go, and that they cost nothing where nobody asked for any.

use std::collections::BTreeSet;
use std::sync::Arc;

use frontier::components::{Animal, Herd};
use frontier::{Frontier, LEASH_M, Parameters, WALK_M_S, kind};
use marchland_proto::storage::{Genesis, Neighbour, RegionEntry, Sleep, TickEntry, region_entry};
use marchland_region_core::testing::{BEGIN_MS, Country, Script, WORLD, restore_midway};
use marchland_region_core::{Applied, EntityId, Game, Ground, GroupId, LogIndex, Region, RegionId};
use proptest::prelude::*;
use prost::Message;

/// A rectangle of ground.
type Land = [[f32; 2]; 2];

/// A region that is applied entry by entry.
struct Pasture {
    region: Region<Frontier>,
    index: u64,
    now_ms: u64,
}

impl Pasture {
    /// Region 1 on the first of these rectangles; the others are its neighbours'.
    fn new(parameters: &Parameters, seed: u64, lands: &[Land]) -> Self {
        let game = Frontier::new().unwrap();
        let map = (1..).zip(lands).map(|(region, [[min_x, min_z], [max_x, max_z]])| Neighbour {
            region,
            group: GroupId::region(WORLD, RegionId(region)).0,
            min_x: *min_x,
            min_z: *min_z,
            max_x: *max_x,
            max_z: *max_z,
        });
        let genesis = Genesis {
            world: WORLD.0,
            region: 1,
            seed,
            rules_version: game.rules_version(),
            content_hash: game.content_hash(),
            parameters: parameters.encode_to_vec().into(),
            map: map.collect(),
            map_epoch: 1,
            vaults: 0,
        };
        let mut pasture = Self { region: Region::new(Arc::new(game)), index: 0, now_ms: BEGIN_MS };
        pasture.apply(region_entry::Body::Genesis(genesis));
        pasture
    }

    fn apply(&mut self, body: region_entry::Body) -> Applied {
        self.index += 1;
        let entry = RegionEntry { format: 1, body: Some(body) }.encode_to_vec();
        self.region.apply(LogIndex(self.index), &entry).unwrap().applied
    }

    fn tick_after(&mut self, ms: u64) {
        self.now_ms += ms;
        self.apply(region_entry::Body::Tick(TickEntry { now_ms: self.now_ms, ..TickEntry::default() }));
    }

    fn ticks(&mut self, count: u32) {
        (0..count).for_each(|_| self.tick_after(50));
    }

    fn animals(&self) -> Vec<(EntityId, [f32; 2], Animal)> {
        let world = self.region.world();
        let place = |entity| world.position(entity).map(|[x, _, z]| [x, z]).unwrap();
        world.with::<Animal>().map(|(entity, animal)| (entity, place(entity), animal.clone())).collect()
    }
}

fn ticks_of_this_length(at: u64, odd_ms: u64) -> u64 {
    // Nearly all are even; now and then one is late, or a region is only watched.
    match at % 97 {
        0 => odd_ms,
        1..4 => 250,
        _ => 50,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn they_stay_on_their_ground_and_on_their_leash(
        seed in any::<u64>(),
        place in 0usize..5,
        odd_ms in 1u64..3_000,
    ) {
        // The map and the second copy of it, a narrow piece of that, and open ground: small, and far from the origin.
        let map = || Parameters::map().grid(2, 1);
        let (parameters, land) = vec![
            (Parameters::map(), [[0.0, 0.0], [192.0, 192.0]]),
            (map(), [[192.0, 0.0], [384.0, 192.0]]),
            (map(), [[226.0, 90.0], [240.0, 104.0]]),
            (Parameters::open(30.0, 0), [[0.0, 0.0], [30.0, 30.0]]),
            (Parameters::open(100_000.0, 0), [[99_900.0, 99_900.0], [100_000.0, 100_000.0]]),
        ].swap_remove(place);
        let mut pasture = Pasture::new(&parameters.animals(24), seed, &[land]);
        let ground = pasture.region.ground().unwrap().clone();
        let first = pasture.animals();
        prop_assert_eq!(first.len(), 24);
        let mut went = BTreeSet::new();
        for at in 0..10_000 {
            pasture.tick_after(ticks_of_this_length(at, odd_ms));
            for ((entity, was, _), (same, at, animal)) in first.iter().zip(pasture.animals()) {
                prop_assert_eq!(*entity, same);
                prop_assert!((0..2).all(|axis| land[0][axis] <= at[axis] && at[axis] < land[1][axis]), "{at:?} is not in {land:?}");
                prop_assert!(ground.is_free(at), "{at:?} is in a wall");
                prop_assert!((0..2).all(|axis| (at[axis] - animal.home[axis]).abs() <= LEASH_M), "{at:?} from {:?}", animal.home);
                if (at[0] - was[0]).hypot(at[1] - was[1]) > 1.0 {
                    went.insert(same);
                }
            }
        }
        pasture.region.check().unwrap();
        // Between walls somebody may be shut in.
        prop_assert!(went.len() > 12, "{} of 24 ever went farther than a metre", went.len());
    }
}

#[test]
fn a_replica_that_restarts_goes_on_like_one_that_did_not() {
    let game = Frontier::new().unwrap();
    let mut script = Script::new(&game, Parameters::open(60.0, 8).animals(120).encode_to_vec());
    script.enter(1, "Ada");
    for at in 0..1_500 {
        script.walk(1, [0.6, -0.8]);
        script.tick_after(ticks_of_this_length(at, 700));
    }
    // Every replica's hash is compared after every entry, and the effects with it.
    let region = restore_midway(|| Frontier::new().unwrap(), script.log(), &[1, 300, 301, 777, 1_400].into()).unwrap();
    let animals = region.world().with::<Animal>();
    let walking = animals.filter(|(_, animal)| animal.velocity != [0.0; 2]).count();
    assert!((1..60).contains(&walking), "{walking} of 120 walk");
}

#[test]
fn a_region_that_asked_for_none_has_nothing_of_them() {
    // Worlds that were made before there were any have such parameters.
    assert_eq!(Parameters::map().animals(0).encode_to_vec(), b"\x0a\x08\x0a\x06aurora\x18\x01\x20\x01");
    let mut pasture = Pasture::new(&Parameters::map().animals(0), 1, &[[[0.0, 0.0], [192.0, 192.0]]]);
    pasture.ticks(100);
    let world = pasture.region.world();
    assert!(world.entities().count() > 50 && world.entities().all(|view| view.identity.kind != kind::ANIMAL));
    assert_eq!((world.with::<Animal>().count(), world.with::<Herd>().count()), (0, 0));
    let mut some = Pasture::new(&Parameters::map().animals(1), 1, &[[[0.0, 0.0], [192.0, 192.0]]]);
    some.ticks(100);
    assert_eq!(some.region.world().entities().count(), world.entities().count() + 1);
}

#[test]
fn a_region_with_animals_sleeps_and_they_go_on_where_they_were() {
    let lands = [[[0.0, 0.0], [100.0, 100.0]], [[100.0, 0.0], [200.0, 100.0]]];
    let mut pasture = Pasture::new(&Parameters::open(200.0, 0).animals(300), 3, &lands);
    pasture.ticks(600);
    assert!(!pasture.region.is_busy() && pasture.region.next_due_ms().is_none(), "animals are no reason to be awake");
    let before = pasture.animals();
    let asleep = pasture.apply(region_entry::Body::Sleep(Sleep { wake_at_ms: u64::MAX, now_ms: pasture.now_ms }));
    assert_eq!(asleep, Applied::Asleep);
    // An hour later somebody comes.
    pasture.tick_after(3_600_000);
    let mut decided = 0;
    for ((_, was, before), (_, at, animal)) in before.iter().zip(pasture.animals()) {
        let far = (at[0] - was[0]).hypot(at[1] - was[1]);
        assert!(far <= WALK_M_S * 0.25 + 0.01, "{far} m in the first tick");
        decided += usize::from(animal.until_ms != before.until_ms);
    }
    assert!(decided < 30, "{decided} of 300 decided in the first tick");
    pasture.ticks(600);
    let went = before.iter().zip(pasture.animals()).filter(|((_, was, _), (_, at, _))| at != was).count();
    assert!(went > 200, "{went} of 300 moved afterwards");
    pasture.region.check().unwrap();
}

#[test]
fn animals_near_a_border_are_seen_beyond_it_and_keep_nobody_awake() {
    const SIDE_M: f32 = 60.0;
    let parameters = Parameters::open(2.0 * SIDE_M, 0).animals(60).encode_to_vec();
    let mut country = Country::new(Frontier::new().unwrap(), &parameters, 2, 1, SIDE_M);
    let places = |country: &Country<Frontier>| -> Vec<[f32; 3]> {
        let world = country.region(1).world();
        world.with::<Animal>().filter_map(|(entity, _)| world.position(entity)).collect()
    };
    let first = places(&country);
    country.ticks(400);
    let near = first.iter().zip(places(&country)).filter(|(was, at)| at[0] > SIDE_M - 40.0 && *was != at).count();
    assert!(near > 10, "{near} moved within sight of the neighbour");
    let mut ghosts = 0;
    let beyond = country.region(2).world();
    beyond.each_near([SIDE_M - 10.0, 0.0, 30.0], 20.0, |near| ghosts += usize::from(beyond.ghost_of(near.entity).is_some()));
    assert!(ghosts > 0, "the neighbour sees none of them");
    for number in [1, 2] {
        assert!(!country.region(number).sees_life() && !country.region(number).is_busy(), "region {number} is kept awake");
        let world = country.region(number).world();
        assert!(
            world.with::<Animal>().all(|(entity, _)| world.position(entity).is_some_and(|at| (at[0] < SIDE_M) == (number == 1)))
        );
    }
}

#[test]
fn they_are_as_fast_in_a_region_that_ticks_four_times_a_second() {
    let moved_m = |tick_ms: u64| {
        let mut pasture = Pasture::new(&Parameters::open(400.0, 0).animals(400), 9, &[[[0.0, 0.0], [400.0, 400.0]]]);
        let (mut sum_m, mut before) = (0.0, pasture.animals());
        for _ in 0..60_000 / tick_ms {
            pasture.tick_after(tick_ms);
            let now = pasture.animals();
            sum_m += before.iter().zip(&now).map(|((_, was, _), (_, at, _))| (at[0] - was[0]).hypot(at[1] - was[1])).sum::<f32>();
            before = now;
        }
        sum_m
    };
    let (often, seldom) = (moved_m(50), moved_m(250));
    assert!((0.9..1.1).contains(&(often / seldom)), "{often} m and {seldom} m");
}
