use std::collections::BTreeMap;

use marchland_proto::codes::Code;
use marchland_proto::storage::realm_entry::Body;
use marchland_proto::storage::{Cut, DirectoryCut, RealmAnswer, RealmGenesis, RealmNode};
use marchland_types::{CutNumber, GroupId, LogIndex, WorldId};
use proptest::prelude::*;
use prost::Message as _;

use super::testing::{Realm, genesis, plan, world};
use super::{WORLD_NODES_MAX, apply_realm, encode_realm_entry};
use crate::group::{ApplyFault, Stop};
use crate::keys::Key;

fn code(answer: &RealmAnswer) -> Code {
    Code::from_u32(answer.code).unwrap()
}

fn given(answer: RealmAnswer) -> (Code, u32) {
    (code(&answer), answer.node.unwrap_or_default().incarnation)
}

#[test]
fn the_realm_begins_once() {
    let mut r = Realm::default();
    assert_eq!(code(&r.apply(Body::World(world(1)))), Code::Unavailable);
    assert_eq!(code(&r.node(1, 1, 0, 0)), Code::Unavailable);
    for bad in [
        RealmGenesis { cluster: String::new(), ..genesis() },
        RealmGenesis { plan: None, ..genesis() },
        RealmGenesis { plan: Some(plan(GroupId::directory(WorldId(1)), 1..=3)), ..genesis() },
        RealmGenesis { plan: Some(plan(GroupId::realm(), [])), ..genesis() },
    ] {
        assert_eq!(code(&r.apply(Body::Genesis(bad))), Code::Malformed);
    }
    r.check();
    assert_eq!(code(&r.apply(Body::Genesis(genesis()))), Code::Ok);
    let hash = r.state_hash();
    assert_eq!(code(&r.apply(Body::Genesis(genesis()))), Code::Ok, "the same again");
    let other = RealmGenesis { cluster: "live".into(), ..genesis() };
    assert_eq!(code(&r.apply(Body::Genesis(other))), Code::Refused);
    let other = RealmGenesis { plan: Some(plan(GroupId::realm(), [1, 2, 4])), ..genesis() };
    assert_eq!(code(&r.apply(Body::Genesis(other))), Code::Refused);
    assert_eq!(r.state_hash(), hash);
    r.check();
}

#[test]
fn a_world_is_recorded_once_and_nothing_of_it_changes() {
    let mut r = Realm::begun(2);
    let hash = r.state_hash();
    let mut again = world(2);
    again.nodes.reverse();
    again.plan.as_mut().unwrap().replicas.reverse();
    assert_eq!(code(&r.apply(Body::World(again))), Code::Ok, "the same, in another order");
    let mut others = vec![world(2); 3];
    others[0].name = "else".into();
    others[1].plan.as_mut().unwrap().replicas.pop();
    others[2].nodes.push(9);
    let mut stolen = vec![world(3); 2];
    stolen[0].name = "world2".into();
    stolen[1].nodes[0] = 4;
    stolen[1].plan.as_mut().unwrap().replicas.remove(0);
    for refused in others.into_iter().chain(stolen) {
        assert_eq!(code(&r.apply(Body::World(refused.clone()))), Code::Refused, "{refused:?}");
    }
    let mut malformed = vec![world(3); 9];
    malformed[0].world = 0;
    malformed[1].world = 1 << 24;
    malformed[2].name = "x".repeat(65);
    malformed[3].nodes = vec![];
    malformed[4].nodes.push(7);
    malformed[5].nodes.push(0);
    malformed[6].plan = None;
    malformed[7].plan = world(2).plan;
    malformed[8].nodes.pop();
    for refused in malformed {
        assert_eq!(code(&r.apply(Body::World(refused.clone()))), Code::Malformed, "{refused:?}");
    }
    let mut crowded = world(3);
    crowded.nodes.extend(100..100 + WORLD_NODES_MAX as u32);
    assert_eq!(code(&r.apply(Body::World(crowded))), Code::TooLarge);
    assert_eq!(r.state_hash(), hash, "refusals change nothing");
    assert_eq!(code(&r.apply(Body::World(world(3)))), Code::Ok);
    r.check();
}

#[test]
fn folders_keep_their_incarnation_and_new_ones_get_the_next() {
    let mut r = Realm::begun(1);
    assert_eq!(given(r.node(1, 1, 1, 0)), (Code::Ok, 1), "it founded the world");
    assert_eq!(given(r.node(1, 1, 1, 0)), (Code::Ok, 1));
    assert_eq!(given(r.node(1, 2, 1, 0)), (Code::Superseded, 1), "another folder has that one");
    assert_eq!(given(r.node(1, 3, 0, 0)), (Code::Ok, 2));
    assert_eq!(given(r.node(1, 3, 0, 0)), (Code::Ok, 2), "asked again");
    assert_eq!(given(r.node(1, 1, 0, 0)), (Code::Superseded, 1), "the old folder speaks no more for the node");
    assert_eq!(given(r.node(2, 9, 0, 0)), (Code::Ok, 2), "a founder that never came may have voted");
    assert_eq!(given(r.node(2, 1, 1, 0)), (Code::Superseded, 1), "it turned up after all");
    assert_eq!(given(r.node(7, 1, 0, 0)), (Code::Ok, 1), "a node that came later");
    r.check();
}

#[test]
fn what_directories_gave_before_there_was_a_realm_is_never_given_again() {
    let mut r = Realm::begun(1);
    assert_eq!(given(r.node(1, 9, 0, 6)), (Code::Ok, 6), "its directory is at 5");
    assert_eq!(given(r.node(1, 5, 5, 0)), (Code::Superseded, 5));
    assert_eq!(given(r.node(2, 4, 4, 0)), (Code::Ok, 4), "nothing contradicts it");
    assert_eq!(given(r.node(2, 8, 0, 0)), (Code::Ok, 5));
    assert_eq!(given(r.node(2, 8, 0, 9)), (Code::Superseded, 5), "the directory knows a later one");
    assert_eq!(given(r.node(3, 1, u32::MAX, 0)), (Code::Ok, u32::MAX));
    assert_eq!(given(r.node(3, 2, 0, 0)).0, Code::Full);
    r.check();
}

#[test]
fn a_node_belongs_to_one_world() {
    let mut r = Realm::begun(2);
    assert_eq!(code(&r.node(4, 1, 0, 0)), Code::Refused, "it is of world 2");
    let of = |world| RealmNode { world, node: None, at_least: 0 };
    assert_eq!(code(&r.apply(Body::Node(of(1)))), Code::Malformed);
    let mut order = RealmNode { node: Some(Default::default()), ..of(9) };
    order.node.as_mut().unwrap().node = 20;
    assert_eq!(code(&r.apply(Body::Node(order))), Code::Unavailable, "world 9 is not recorded");
    assert_eq!(given(r.node(20, 1, 0, 0)), (Code::Ok, 1));
    let mut late = world(3);
    late.nodes.push(20);
    assert_eq!(code(&r.apply(Body::World(late))), Code::Refused, "node 20 came to world 1");
    assert_eq!(code(&r.node(0, 1, 0, 0)), Code::Malformed);
    r.check();
}

#[test]
fn a_cut_is_remembered_with_the_state_that_it_found() {
    let mut r = Realm::begun(1);
    let hash = r.state_hash();
    assert_eq!(r.apply(Body::Cut(Cut { number: 7, now_ms: 1 })).cut, 7);
    assert_eq!(r.apply(Body::Cut(Cut { number: 3, now_ms: 2 })).cut, 7, "an older one");
    let record = DirectoryCut::decode(r.records[&Key::Cut(CutNumber(7)).encode()].clone()).unwrap();
    assert_eq!((record.number, record.state_hash), (7, hash));
    r.check();
}

#[test]
fn entries_of_another_format_stop_the_replica() {
    let r = Realm::begun(1);
    let apply = |entry: &[u8]| apply_realm(&r.records, LogIndex(9), entry);
    let mut newer = marchland_proto::storage::RealmEntry::decode(encode_realm_entry(1, Body::World(world(2)))).unwrap();
    newer.format += 1;
    let found = newer.format;
    assert_eq!(apply(&newer.encode_to_vec()), Err(Stop::Fault(ApplyFault::NewerFormat { index: LogIndex(9), found })));
    assert!(matches!(apply(&[]), Err(Stop::Fault(ApplyFault::Malformed { .. }))));
}

/// A folder asks, or claims what it was given; the directory knows so much.
type Op = (u32, u8, Option<u32>, u32);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whoever asks in whatever order: no incarnation has two folders, a folder's never changes, and what is issued only grows.
    #[test]
    fn no_incarnation_ever_belongs_to_two_folders(
        ops in proptest::collection::vec((1u32..4, 0u8..4, prop::option::weighted(0.3, 1u32..5), 0u32..5), 0..60)
    ) {
        let mut r = Realm::begun(1);
        let mut folder_of: BTreeMap<(u32, u32), u8> = BTreeMap::new();
        let mut newest: BTreeMap<u32, u32> = BTreeMap::new();
        let ops: Vec<Op> = ops;
        for (node, folder, claim, at_least) in ops {
            let answer = r.node(node, folder, claim.unwrap_or(0), at_least);
            r.check();
            let (code, incarnation) = given(answer);
            if code != Code::Ok {
                prop_assert_eq!(code, Code::Superseded);
                continue;
            }
            prop_assert_eq!(*folder_of.entry((node, incarnation)).or_insert(folder), folder);
            let newest = newest.entry(node).or_default();
            prop_assert!(incarnation >= *newest, "node {} went back from {} to {}", node, newest, incarnation);
            *newest = incarnation;
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), by in 1u8..) {
        let r = Realm::begun(1);
        let _ = apply_realm(&r.records, LogIndex(1), &bytes);
        let mut entry = encode_realm_entry(1, Body::World(world(2))).to_vec();
        let at = at.index(entry.len());
        entry[at] ^= by;
        let _ = apply_realm(&r.records, LogIndex(1), &entry);
    }
}
