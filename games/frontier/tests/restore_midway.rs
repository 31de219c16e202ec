//! The test that every game must pass: whatever players do, a replica that restarts from a checkpoint goes on exactly as one
//! that never stopped. Copy it into your game and let `act` do what your players can do.

use std::collections::BTreeSet;

use frontier::{Drop, Frontier, Gather, Inventory, PickUp, Say, action, map_parameters, open_parameters};
use marchland_proto::storage::{StoredMove, stored_input};
use marchland_region_core::testing::{Script, restore_midway};
use proptest::prelude::*;
use prost::Message;

#[derive(Clone, Debug)]
enum Event {
    Tick,
    Pause(u64),
    Enter(u64),
    Leave(u64),
    Lose(u64),
    Attach(u64),
    Walk(u64, u8, u32),
    Act(u64, u32, u64),
}

fn event() -> impl Strategy<Value = Event> {
    let who = 1u64..8;
    prop_oneof![
        20 => Just(Event::Tick),
        1 => (100u64..20_000).prop_map(Event::Pause),
        4 => who.clone().prop_map(Event::Enter),
        1 => who.clone().prop_map(Event::Leave),
        1 => who.clone().prop_map(Event::Lose),
        2 => who.clone().prop_map(Event::Attach),
        20 => (who.clone(), any::<u8>(), 0u32..300).prop_map(|(who, yaw, ms)| Event::Walk(who, yaw, ms)),
        20 => (who, 0u32..7, 0u64..40).prop_map(|(who, code, item)| Event::Act(who, code, item)),
    ]
}

fn act(script: &mut Script, who: u64, code: u32, item: u64) {
    let body = match code {
        action::GATHER => Gather {}.encode_to_vec(),
        // Items of region 1 count from here.
        action::DROP => Drop { item: (1 << 32) + item }.encode_to_vec(),
        action::PICK_UP => PickUp {}.encode_to_vec(),
        action::SAY => Say { text: "x".repeat(item as usize * 8) }.encode_to_vec(),
        action::INVENTORY => Inventory {}.encode_to_vec(),
        _ => vec![255; item as usize],
    };
    script.act(who, code, body);
}

fn log(parameters: Vec<u8>, events: &[Event]) -> Vec<Vec<u8>> {
    let game = Frontier::new().unwrap();
    let mut script = Script::new(&game, parameters);
    for who in 1..4 {
        script.enter(who, "walker");
    }
    for event in events {
        match *event {
            Event::Tick => script.tick(),
            Event::Pause(ms) => script.tick_after(ms),
            Event::Enter(who) => script.enter(who, "walker"),
            Event::Leave(who) => script.detach(who, true),
            Event::Lose(who) => script.detach(who, false),
            Event::Attach(who) => script.attach(who),
            Event::Walk(who, yaw, ms) => {
                let angle = f32::from(yaw) * std::f32::consts::TAU / 256.0;
                let wanted = StoredMove { x: angle.cos(), z: angle.sin(), yaw: u32::from(yaw) };
                script.input(who, ms, Some(stored_input::What::Move(wanted)));
            }
            Event::Act(who, code, item) => act(&mut script, who, code, item),
        }
    }
    script.tick();
    script.log().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_changes_nothing(
        events in prop::collection::vec(event(), 1..200),
        restores in prop::collection::btree_set(0usize..120, 0..6),
        open in any::<bool>(),
    ) {
        // Open ground with much ore in little space: everyone reaches everything.
        let parameters = if open { open_parameters(12.0, 8) } else { map_parameters() };
        let log = log(parameters, &events);
        restore_midway(|| Frontier::new().unwrap(), &log, &restores).map_err(|difference| TestCaseError::fail(difference.to_string()))?;
    }
}

#[test]
fn the_log_of_the_test_does_what_players_do() {
    let events: Vec<Event> = (0..3000u64)
        .map(|at| match at % 8 {
            0..=2 => Event::Tick,
            3 | 4 => Event::Walk(1 + at % 3, (at * 11 % 256) as u8, 50),
            5 => Event::Act(1 + at % 3, action::GATHER, 0),
            6 => Event::Act(1 + at % 3, action::DROP, at % 20),
            _ => Event::Act(1 + at % 3, [action::PICK_UP, action::SAY, action::INVENTORY][at as usize % 5 % 3], at % 20),
        })
        .collect();
    let log = log(open_parameters(12.0, 8), &events);
    let region = restore_midway(|| Frontier::new().unwrap(), &log, &BTreeSet::from([10, 200])).unwrap();
    assert!(region.world().ledger().minted > 10, "{:?}", region.world().ledger());
    assert!(region.view().inspect().items.len() as u64 == region.world().ledger().present());
}
