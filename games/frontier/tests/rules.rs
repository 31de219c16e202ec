//! The rules, one by one.

use std::sync::Arc;

use frontier::components::Vein;
use frontier::{
    Drop, EVENT_SAID, Frontier, GATHER_REST_MS, Gather, Gathered, Inventory, Items, Parameters, PickUp, Said, Say, action, kind,
    map_parameters, open_parameters,
};
use marchland_proto::codes::Code;
use marchland_proto::storage::{Neighbour, RegionEntry, region_entry};
use marchland_region_core::testing::{Script, WORLD};
use marchland_region_core::{CharacterId, Effects, Ground, GroupId, LogIndex, Region, RegionId};
use prost::Message;

struct Play {
    script: Script,
    region: Region<Frontier>,
    applied: usize,
}

impl Play {
    /// A small meadow with ore everywhere, and one player.
    fn on(parameters: Vec<u8>) -> Self {
        let game = Frontier::new().unwrap();
        let mut script = Script::new(&game, parameters);
        script.enter(1, "Ada");
        let mut play = Self { script, region: Region::new(Arc::new(game)), applied: 0 };
        play.pass(50);
        play
    }

    fn pass(&mut self, ms: u64) -> Effects<Frontier> {
        self.script.tick_after(ms);
        let mut last = None;
        for entry in &self.script.log()[self.applied..] {
            self.applied += 1;
            last = Some(self.region.apply(LogIndex(self.applied as u64), entry).unwrap());
        }
        self.region.check().unwrap();
        last.unwrap()
    }

    /// Acts, and acknowledges all answers so far.
    fn act(&mut self, code: u32, body: &impl Message) -> (u32, Vec<u8>) {
        self.script.acknowledge(1, u64::MAX);
        self.script.act(1, code, body.encode_to_vec());
        let effects = self.pass(50);
        let reply = effects.replies.into_iter().map(|reply| reply.reply).next().unwrap();
        (reply.code, reply.body.to_vec())
    }

    fn items(&mut self) -> Vec<u64> {
        let (code, body) = self.act(action::INVENTORY, &Inventory {});
        assert_eq!(code, Code::Ok as u32);
        Items::decode(&body[..]).unwrap().items.into_iter().map(|item| item.id).collect()
    }
}

const OK: u32 = Code::Ok as u32;
const REFUSED: u32 = Code::Refused as u32;

#[test]
fn ore_is_gathered_laid_down_and_picked_up() {
    let mut play = Play::on(open_parameters(3.0, 4));
    let (code, body) = play.act(action::GATHER, &Gather {});
    assert_eq!(code, OK);
    let gathered = Gathered::decode(&body[..]).unwrap();
    assert_eq!(play.items(), [gathered.item]);
    assert_eq!(play.act(action::DROP, &Drop { item: gathered.item }).0, OK);
    assert!(play.items().is_empty());
    assert_eq!(play.act(action::DROP, &Drop { item: gathered.item }).0, REFUSED);
    let lying = play.region.world().entities().filter(|view| view.identity.kind == kind::ITEM).count();
    assert_eq!(lying, 1);
    let (code, body) = play.act(action::PICK_UP, &PickUp {});
    assert_eq!((code, Gathered::decode(&body[..]).unwrap()), (OK, gathered));
    assert_eq!(play.act(action::PICK_UP, &PickUp {}).0, REFUSED);
    assert_eq!(play.items(), [gathered.item]);
}

#[test]
fn hands_rest_and_veins_run_dry_and_grow() {
    let mut play = Play::on(open_parameters(3.0, 1));
    let left = |play: &Play| play.region.world().with::<Vein>().next().map(|(_, vein)| (vein.left, vein.most)).unwrap();
    let most = left(&play).1;
    assert_eq!(play.act(action::GATHER, &Gather {}).0, OK);
    assert_eq!(play.act(action::GATHER, &Gather {}).0, REFUSED, "hands rest");
    assert_eq!(left(&play), (most - 1, most));
    for _ in 0..GATHER_REST_MS / 50 + 1 {
        play.pass(50);
    }
    assert_eq!(play.act(action::GATHER, &Gather {}).0, OK);
    for _ in 0..40 {
        play.pass(1000);
    }
    assert_eq!(left(&play), (most, most), "grown again");
    for _ in 0..100 {
        play.pass(900);
        play.act(action::GATHER, &Gather {});
        if left(&play).0 == 0 {
            return;
        }
    }
    // A second's rest against four seconds' growth empties any vein.
    panic!("the vein never ran dry");
}

#[test]
fn what_is_said_is_heard_near() {
    let mut play = Play::on(map_parameters());
    play.script.act(1, action::SAY, Say { text: "hello".into() }.encode_to_vec());
    let effects = play.pass(50);
    let [event] = &effects.area_events[..] else { panic!("{:?}", effects.area_events) };
    assert_eq!(event.event.kind, EVENT_SAID);
    assert_eq!(Said::decode(&event.event.body[..]).unwrap(), Said { name: "Ada".into(), text: "hello".into() });
    assert_eq!(play.act(action::SAY, &Say { text: "x".repeat(201) }).0, REFUSED);
    assert_eq!(play.act(action::SAY, &Say { text: String::new() }).0, REFUSED);
    assert_eq!(play.act(99, &Gather {}).0, Code::UnknownAction as u32);
    play.script.act(1, action::SAY, vec![0x0a, 0xff]);
    let effects = play.pass(50);
    assert_eq!(effects.replies[0].reply.code, Code::Malformed as u32);
}

/// The region of such parameters whose own ground is this rectangle, with one player.
fn region_of(parameters: &Parameters, [[min_x, min_z], [max_x, max_z]]: [[f32; 2]; 2]) -> Region<Frontier> {
    let game = Frontier::new().unwrap();
    let mut script = Script::new(&game, parameters.encode_to_vec());
    script.enter(1, "Ada");
    script.tick();
    let mut log = script.log().to_vec();
    let mut first = RegionEntry::decode(&log[0][..]).unwrap();
    let Some(region_entry::Body::Genesis(genesis)) = &mut first.body else { panic!("{first:?}") };
    let group = GroupId::region(WORLD, RegionId(genesis.region)).0;
    genesis.map = vec![Neighbour { region: genesis.region, group, min_x, min_z, max_x, max_z }];
    log[0] = first.encode_to_vec();
    let mut region = Region::new(Arc::new(game));
    for (index, entry) in (1..).zip(&log) {
        region.apply(LogIndex(index), entry).unwrap();
    }
    region.check().unwrap();
    region
}

#[test]
fn a_region_has_what_lies_on_its_own_ground() {
    let places = |region: &Region<Frontier>, kind: u32| -> Vec<[f32; 2]> {
        let of_kind = region.world().entities().filter(|view| view.identity.kind == kind);
        of_kind.map(|view| [view.body.position[0], view.body.position[2]]).collect()
    };
    let within = |[low, high]: [[f32; 2]; 2], places: &[[f32; 2]]| {
        places.iter().all(|at| (0..2).all(|axis| low[axis] <= at[axis] && at[axis] < high[axis]))
    };
    let all = places(&region_of(&Parameters::map(), [[0.0, 0.0], [192.0, 192.0]]), kind::ORE).len();
    let map = Parameters::map().grid(2, 2);
    let second = [[192.0, 0.0], [384.0, 192.0]];
    let region = region_of(&map, second);
    assert_eq!(places(&region, kind::ORE).len(), all);
    assert!(within(second, &places(&region, kind::ORE)) && within(second, &places(&region, kind::CHARACTER)));
    // A piece without a place to begin: anywhere in it where one can stand.
    let piece = [[226.0, 96.0], [232.0, 100.0]];
    let region = region_of(&map, piece);
    let here = places(&region, kind::CHARACTER);
    assert!(within(piece, &here) && region.ground().unwrap().is_free(here[0]), "{here:?}");
    // Open ground is cut: together the regions have all of its veins.
    let open = Parameters::open(100.0, 200).grid(2, 1);
    let halves = [[[0.0, 0.0], [50.0, 100.0]], [[50.0, 0.0], [100.0, 100.0]]];
    let planted = halves.map(|own| {
        let region = region_of(&open, own);
        assert!(within(own, &places(&region, kind::ORE)) && within(own, &places(&region, kind::CHARACTER)));
        places(&region, kind::ORE).len()
    });
    assert!(planted.iter().all(|n| (60..140).contains(n)), "{planted:?}");
}

#[test]
fn players_begin_on_free_ground_and_walls_hold() {
    let mut play = Play::on(map_parameters());
    for character in 2..200 {
        play.script.enter(character, "crowd");
    }
    play.pass(50);
    for tick in 0..200u64 {
        for character in 1..200 {
            let angle = ((character * 29 + tick / 30 * 67) % 256) as f32;
            play.script.walk(character, [angle.cos(), angle.sin()]);
        }
        // The game's own check runs after every tick: nobody stands in a wall.
        play.pass(50);
    }
    let ground = play.region.ground().unwrap().clone();
    for character in 1..200 {
        let own = play.region.own_state(CharacterId(character)).unwrap();
        assert!(ground.is_free([own.position[0], own.position[2]]));
    }
}
