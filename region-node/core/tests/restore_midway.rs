//! Random logs, applied to a replica that restores at random points and to one that never does: equal at every entry.

mod arena;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use marchland_region_core::testing::{Difference, Script, restore_midway, restore_midway_with};
use marchland_region_core::{LogIndex, Region};
use proptest::prelude::*;

use arena::random_log::{event, log};
use arena::{ACTIONS_END, Arena};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_that_restores_is_like_one_that_never_does(
        events in prop::collection::vec(event(), 1..250),
        restores in prop::collection::btree_set(0usize..250, 0..8),
    ) {
        arena::quiet();
        restore_midway(|| Arena, &log(events), &restores).map_err(|difference| TestCaseError::fail(difference.to_string()))?;
    }
}

#[test]
fn the_comparison_sees_a_difference() {
    arena::quiet();
    let mut script = Script::new(&Arena, Vec::new());
    script.enter(1, "one");
    script.tick();
    let acts_at = script.log().len();
    script.act(1, arena::MINT, Bytes::new());
    script.tick();
    script.tick();
    let mut other = Script::new(&Arena, Vec::new());
    other.enter(1, "one");
    other.tick();
    other.act(1, arena::TIMER, Bytes::new());
    other.tick();
    let planted = other.log()[acts_at].clone();
    let found = restore_midway_with(
        || Arena,
        script.log(),
        &BTreeSet::new(),
        |at, entry| {
            if at == acts_at {
                entry.clone_from(&planted);
            }
        },
    );
    match found {
        Err(Difference::State { index, .. }) => assert_eq!(index, LogIndex(acts_at as u64 + 1)),
        other => panic!("the planted difference was not found: {:?}", other.map(|_| ())),
    }
}

#[test]
fn the_first_part_that_differs_is_named() {
    let mut script = Script::new(&Arena, Vec::new());
    script.enter(1, "one");
    script.tick();
    script.walk(1, [0.0, 0.5]);
    let at = script.log().len();
    script.tick();
    let found = restore_midway_with(
        || Arena,
        script.log(),
        &BTreeSet::new(),
        |entry, bytes| {
            if entry == at {
                // One bit of the direction's mantissa.
                let half = 0.5f32.to_le_bytes();
                let place = bytes.windows(4).position(|window| window == half).expect("the direction");
                bytes[place] ^= 1;
            }
        },
    );
    match found {
        Err(Difference::State { part, .. }) => assert_eq!(part, "bodies"),
        other => panic!("the planted difference was not found: {:?}", other.map(|_| ())),
    }
}

#[test]
fn a_log_in_which_much_happens() {
    arena::quiet();
    let mut script = Script::new(&Arena, Vec::new());
    for character in 1..=20 {
        script.enter(character, "walker");
    }
    script.tick();
    for tick in 0..400u64 {
        for character in 1..=20u64 {
            let angle = (tick * 7 + character * 31) % 8;
            let direction = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [0.7, 0.7], [-0.7, 0.7], [0.7, -0.7], [0.0, 0.0]];
            script.walk(character, direction[angle as usize]);
            if (tick + character) % 3 == 0 {
                script.act(character, ((tick + character) % u64::from(ACTIONS_END)) as u32, vec![1; (tick % 9) as usize]);
            }
            script.acknowledge(character, u64::MAX);
        }
        script.tick();
    }
    let restores = (0..400).filter(|at| at % 37 == 5).collect();
    let region: Region<Arena> = restore_midway(|| Arena, script.log(), &restores).unwrap();
    // The log did what it is for.
    let counters = *region.world().counters();
    assert!(counters.panics > 100, "{counters:?}");
    assert!(region.world().ledger().minted > 50 && region.world().ledger().destroyed > 5);
    assert!(region.world().attached_count() == 20);
    let _ = Arc::clone(region.game());
}
