use std::collections::BTreeMap;

use marchland_proto::codes::Code;
use marchland_proto::storage::channel_message::Body as Message;
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{
    Admit, ChannelMessage, ChannelMessages, CharacterSeed, Cut, DirectoryAnswer, DirectoryCharacter, DirectoryCut,
    DirectoryEntry, DirectoryGenesis, EntityHandoff, Fin, GroupPlan, LocationUpdate, MapOrder, Moved, Neighbour,
};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, CutNumber, GroupId, LogIndex, NodeId, ReplicaId, vault_of};
use proptest::prelude::*;
use prost::Message as _;

use super::testing::{Directory, WORLD, genesis, genesis_with_vaults, region, sign_in, vault};
use super::{REQUESTS_KEPT, SIGN_IN_CHANNEL_MESSAGES_MAX, VAULTS_MAX, apply, encode_entry};
use crate::group::ApplyFault;
use crate::group::inbox::SET_ASIDE_MAX;
use crate::keys::Key;

fn code(answer: &DirectoryAnswer) -> Code {
    Code::from_u32(answer.code).unwrap()
}

#[test]
fn genesis_happens_once_and_its_plans_stand() {
    let mut d = Directory::begun(2);
    assert_eq!(code(&d.apply(Body::Genesis(genesis(2)))), Code::Ok);
    let mut other = genesis(2);
    other.map_epoch = 9;
    assert_eq!(code(&d.apply(Body::Genesis(other))), Code::Refused);
    let replica = |n| ReplicaId::new(NodeId(n), 1.into()).0;
    let plan = |replicas: Vec<u64>| Body::Plan(GroupPlan { group: region(1).0, replicas });
    assert_eq!(code(&d.apply(plan(vec![replica(3), replica(1), replica(2)]))), Code::Ok, "the same members");
    assert_eq!(code(&d.apply(plan(vec![replica(1)]))), Code::Refused, "a changed plan takes a new id");
    for bad in [vec![], vec![1, 1], vec![replica(1), replica(1)], vec![7], (1..=8).map(replica).collect()] {
        assert_ne!(code(&d.apply(plan(bad))), Code::Ok);
    }
    let foreign = GroupPlan { group: GroupId::directory(2.into()).0, replicas: vec![replica(1)] };
    assert_eq!(code(&d.apply(Body::Plan(foreign))), Code::Malformed);
    d.check();
}

#[test]
fn before_genesis_only_nodes_are_taken() {
    let mut d = Directory::default();
    assert_eq!(d.register(1, 1).node.unwrap().incarnation, 1);
    assert_eq!(code(&d.apply(Body::SignIn(sign_in("a", "ann", 1)))), Code::Unavailable);
    assert_eq!(code(&d.located(region(1), 1, 1, 1)), Code::Unavailable);
    assert_eq!(code(&d.apply(Body::Plan(GroupPlan::default()))), Code::Unavailable);
    let mut bad = genesis(1);
    bad.token_key = vec![0; 32].into();
    assert_eq!(code(&d.apply(Body::Genesis(bad))), Code::Malformed);
    let mut bad = genesis(1);
    bad.map.clear();
    assert_eq!(code(&d.apply(Body::Genesis(bad))), Code::Malformed);
    d.check();
}

#[test]
fn folders_keep_their_incarnation_and_new_ones_get_the_next() {
    let mut d = Directory::begun(1);
    let incarnation = |answer: DirectoryAnswer| (code(&answer), answer.node.unwrap().incarnation);
    assert_eq!(incarnation(d.register(7, 1)), (Code::Ok, 1));
    assert_eq!(incarnation(d.register(7, 1)), (Code::Ok, 1));
    assert_eq!(incarnation(d.register(7, 2)), (Code::Ok, 2));
    assert_eq!(incarnation(d.register(7, 1)), (Code::Superseded, 1), "the old folder speaks no more for the node");
    assert_eq!(incarnation(d.register(7, 2)), (Code::Ok, 2));
    assert_eq!(incarnation(d.register(8, 2)), (Code::Ok, 1), "folder ids are per node");
    assert_eq!(code(&d.register(0, 2)), Code::Malformed);
    d.check();
}

#[test]
fn a_founding_folder_keeps_the_first_incarnation_and_its_successor_never_gets_it() {
    let incarnation = |answer: DirectoryAnswer| (code(&answer), answer.node.unwrap_or_default().incarnation);
    let mut d = founded();
    assert_eq!(incarnation(d.claim(1, 1, 1)), (Code::Ok, 1), "it founded the world");
    assert_eq!(incarnation(d.claim(1, 1, 1)), (Code::Ok, 1));
    assert_eq!(incarnation(d.claim(1, 2, 1)), (Code::Superseded, 1), "another folder has that one");
    // Node 2 lost its folder before it ever registered.
    assert_eq!(incarnation(d.register(2, 9)), (Code::Ok, 2), "the lost one may have voted as 1");
    assert_eq!(incarnation(d.claim(2, 1, 1)), (Code::Superseded, 1), "it turned up after all");
    assert_eq!(incarnation(d.claim(2, 9, 2)), (Code::Ok, 2));
    assert_eq!(incarnation(d.claim(3, 1, 7)), (Code::Refused, 0), "never issued");
    assert_eq!(incarnation(d.register(4, 1)), (Code::Ok, 1), "a node that came later");
    d.check();
}

/// A world whose first three nodes founded it.
fn founded() -> Directory {
    let mut founded = genesis(1);
    let founders = (1..=3).map(|n| ReplicaId::new(NodeId(n), 1.into()).0).collect();
    founded.plans.push(GroupPlan { group: GroupId::directory(WORLD).0, replicas: founders });
    let mut d = Directory::default();
    assert_eq!(code(&d.apply(Body::Genesis(founded))), Code::Ok);
    d
}

#[test]
fn what_the_realm_issued_is_recorded_when_it_is_above_everything_known() {
    let incarnation = |answer: DirectoryAnswer| (code(&answer), answer.node.unwrap_or_default().incarnation);
    let mut d = founded();
    assert_eq!(incarnation(d.issued(2, 9, 1)), (Code::Superseded, 1), "a founder took the first");
    assert_eq!(incarnation(d.issued(2, 9, 2)), (Code::Ok, 2));
    assert_eq!(incarnation(d.issued(2, 9, 2)), (Code::Ok, 2), "retried");
    assert_eq!(incarnation(d.issued(2, 9, 7)), (Code::Ok, 2), "a folder keeps what it has");
    assert_eq!(incarnation(d.issued(2, 8, 2)), (Code::Superseded, 2), "never two folders with one incarnation");
    assert_eq!(incarnation(d.issued(2, 8, 5)), (Code::Ok, 5));
    assert_eq!(incarnation(d.issued(2, 7, 4)), (Code::Superseded, 4), "issued before, came later");
    assert_eq!(incarnation(d.claim(2, 9, 2)), (Code::Superseded, 2));
    assert_eq!(incarnation(d.claim(2, 8, 5)), (Code::Ok, 5));
    assert_eq!(incarnation(d.issued(4, 1, 1)), (Code::Ok, 1), "a node that came later");
    // Orders of before there was a realm mean what they meant.
    assert_eq!(incarnation(d.register(2, 6)), (Code::Ok, 6));
    d.check();
}

#[test]
fn a_name_has_one_holder_and_a_retry_the_same_answer() {
    let mut d = Directory::begun(1);
    let first = d.sign_in("anna", "Ödön", 1);
    assert_eq!((first.code, first.epoch, first.group, first.region, first.move_number), (0, 1, region(1).0, 1, 1));
    assert_eq!(d.sign_in("anna", "Ödön", 1), first, "retried");
    assert_eq!(d.posted(region(1)).len(), 1);
    let again = d.sign_in("anna", "ÖDÖN", 2);
    assert_eq!((again.character, again.epoch), (first.character, 2));
    assert_eq!(d.sign_in("anna", "Ödön", 1), first, "retried after a newer one");
    assert_eq!(d.character(first.character).name, "Ödön");
    assert_eq!(d.sign_in("berta", "ödön", 3).code, Code::NameTaken as u32);
    assert_eq!(d.sign_in("berta", "ödön", 3).code, Code::NameTaken as u32);
    assert_eq!(d.sign_in("berta", "other", 1).epoch, 1, "request ids of others do not clash");
    let admits: Vec<_> = d
        .posted(region(1))
        .into_iter()
        .map(|m| match m.body {
            Some(Message::Admit(a)) => (m.seq, m.from_group, a.name, a.epoch, a.secret_hash[0]),
            other => panic!("{other:?}"),
        })
        .collect();
    let own = GroupId::directory(WORLD).0;
    assert_eq!(admits, [(1, own, "Ödön".into(), 1, 1), (2, own, "Ödön".into(), 2, 2), (3, own, "other".into(), 1, 1)]);
    assert!(d.rounds_max <= 6, "{} rounds of reads", d.rounds_max);
    d.check();
}

#[test]
fn orders_are_checked_where_they_are_applied() {
    let mut d = Directory::begun(1);
    let good = sign_in("anna", "ann", 1);
    let mut bad = vec![good.clone(); 5];
    bad[0].secret_hash = vec![0; 31].into();
    bad[1].folded_name.clear();
    bad[2].character_name = "x".repeat(33);
    bad[3].account.clear();
    bad[4].account = "x".repeat(65);
    let before = d.records.clone();
    for order in bad {
        assert_ne!(code(&d.apply(Body::SignIn(order))), Code::Ok);
    }
    assert_eq!(d.records, before, "refusals change nothing");
}

#[test]
fn an_account_has_a_bounded_number_of_characters() {
    let mut d = Directory::begun(1);
    for i in 0..32 {
        assert_eq!(d.sign_in("anna", &format!("n{i}"), i).code, 0);
    }
    assert_eq!(d.sign_in("anna", "one more", 99).code, Code::Full as u32);
    assert_eq!(d.sign_in("anna", "n5", 100).epoch, 2);
    assert_eq!(d.sign_in("berta", "one more", 99).code, 0);
    d.check();
}

#[test]
fn a_full_channel_refuses_sign_ins_without_a_trace_until_it_is_acknowledged() {
    let mut d = Directory::begun(1);
    let limit = SIGN_IN_CHANNEL_MESSAGES_MAX as u64;
    for i in 0..limit {
        assert_eq!(d.sign_in("anna", "ann", i).code, 0);
    }
    let before = d.records.clone();
    assert_eq!(d.sign_in("berta", "ber", 1).code, Code::Unavailable as u32);
    assert_eq!(d.records, before);
    assert_eq!(code(&d.ack(region(1), limit + 1)), Code::Gap);
    assert_eq!(d.ack(region(1), 10).taken_seq, 10);
    assert_eq!(d.ack(region(1), 3).taken_seq, 10, "an old acknowledgement");
    assert_eq!(d.posted(region(1))[0].seq, 11);
    assert_eq!(d.sign_in("berta", "ber", 1).code, 0);
    d.check();
}

#[test]
fn the_highest_move_number_wins_whatever_the_order() {
    let mut d = Directory::begun(3);
    let c = d.sign_in("anna", "ann", 1).character;
    // 1 → 2 → 3; the report of 3 comes first.
    assert_eq!(d.located(region(3), 1, c, 3).taken_seq, 1);
    assert_eq!((d.character(c).region, d.character(c).move_number), (3, 3));
    assert_eq!(d.located(region(2), 1, c, 2).taken_seq, 1);
    assert_eq!(d.character(c).region, 3);
    let stubs = |d: &Directory, r| {
        let is_stub = |m: &ChannelMessage| matches!(m.body, Some(Message::DropStub(s)) if s.character == c && s.move_number == 3);
        d.posted(r).iter().filter(|m| is_stub(m)).count()
    };
    assert_eq!((stubs(&d, region(1)), stubs(&d, region(2)), stubs(&d, region(3))), (1, 1, 0));
    // The next session is admitted where the character is, and expelled where it was admitted before.
    let next = d.sign_in("anna", "ann", 2);
    assert_eq!((next.region, next.move_number), (3, 3));
    assert!(matches!(d.posted(region(1)).last().unwrap().body, Some(Message::Expel(e)) if e.epoch == 2));
    assert!(matches!(&d.posted(region(3)).last().unwrap().body, Some(Message::Admit(a)) if a.epoch == 2 && a.move_number == 3));
    d.check();
}

#[test]
fn an_admit_that_missed_its_character_follows_it() {
    let mut d = Directory::begun(2);
    let c = d.sign_in("anna", "ann", 1).character;
    let moved =
        |message: &ChannelMessage| Message::Moved(Box::new(Moved { character: c, message: Some(Box::new(message.clone())) }));
    // The region says "moved" before the directory has heard where to.
    let body = moved(&d.posted(region(1))[0]);
    d.deliver(region(1), 1, body.clone());
    assert_eq!(d.posted(region(2)).len(), 0);
    d.located(region(2), 1, c, 2);
    assert!(matches!(&d.posted(region(2))[0].body, Some(Message::Admit(a)) if a.epoch == 1 && a.move_number == 2));
    // Said again (another message), it is heard already.
    d.deliver(region(1), 2, body.clone());
    assert_eq!(d.posted(region(2)).len(), 2);
    // A newer session makes it void.
    assert_eq!(d.sign_in("anna", "ann", 2).region, 2);
    d.deliver(region(1), 3, body);
    assert_eq!(d.posted(region(2)).len(), 3);
    // It went and came back before anything was heard.
    let body = moved(&d.posted(region(2))[2]);
    d.deliver(region(2), 2, body);
    d.located(region(2), 3, c, 4);
    assert!(matches!(&d.posted(region(2))[3].body, Some(Message::Admit(a)) if a.epoch == 2 && a.move_number == 4));
    d.check();
}

#[test]
fn messages_are_taken_once_and_in_order() {
    let mut d = Directory::begun(2);
    let c = d.sign_in("anna", "ann", 1).character;
    let gap = d.located(region(2), 2, c, 2);
    assert_eq!((code(&gap), gap.taken_seq), (Code::Gap, 0));
    assert_eq!(d.located(region(2), 1, c, 2).taken_seq, 1);
    let hash = d.counters().state_hash;
    assert_eq!(d.located(region(2), 1, c, 99).taken_seq, 1, "a duplicate, with other content");
    assert_eq!(d.counters().state_hash, hash);
    assert_eq!(code(&d.located(region(9), 1, c, 2)), Code::Forbidden, "no such group");
    let message =
        |from: GroupId, seq| ChannelMessage { from_group: from.0, seq, cut: 0, map_epoch: 1, body: Some(Message::Fin(Fin {})) };
    let batch = |list: Vec<ChannelMessage>| Body::Messages(ChannelMessages { messages: list });
    let answer = d.apply(batch(vec![message(region(2), 1), message(region(2), 2), message(region(2), 3), message(region(2), 5)]));
    assert_eq!((code(&answer), answer.taken_seq), (Code::Gap, 3), "what is in order is taken");
    assert!(d.channel(region(2)).finished);
    assert_eq!(code(&d.apply(batch(vec![message(region(1), 1), message(region(2), 4)]))), Code::Malformed);
    assert_eq!(code(&d.apply(batch(vec![]))), Code::Malformed);
    d.check();
}

#[test]
fn what_can_not_be_used_is_set_aside_and_then_not_taken() {
    let mut d = Directory::begun(1);
    let handoff = || Message::Handoff(EntityHandoff { entity: 5, ..EntityHandoff::default() });
    for seq in 1..=u64::from(SET_ASIDE_MAX) {
        assert_eq!(d.deliver(region(1), seq, handoff()).taken_seq, seq);
    }
    let kept = d.records.get(&Key::SetAside(region(1), 1).encode()).unwrap();
    assert!(matches!(ChannelMessage::decode(kept.clone()).unwrap().body, Some(Message::Handoff(h)) if h.entity == 5));
    let answer = d.deliver(region(1), u64::from(SET_ASIDE_MAX) + 1, handoff());
    assert_eq!((code(&answer), answer.taken_seq), (Code::Unavailable, u64::from(SET_ASIDE_MAX)));
    d.check();
}

#[test]
fn a_message_whose_answer_has_no_room_comes_again() {
    let mut d = Directory::begun(2);
    let mut seq = 0;
    let c = d.sign_in("anna", "ann", 1).character;
    d.located(region(2), 1, c, 2);
    // Stale reports make DropStubs until the channel is full.
    let taken = loop {
        seq += 1;
        let answer = d.located(region(1), seq, c, 1);
        if code(&answer) != Code::Ok {
            break answer.taken_seq;
        }
    };
    assert_eq!(d.posted(region(1)).len(), CHANNEL_MESSAGES_MAX);
    assert_eq!(taken, seq - 1);
    d.ack(region(1), 1);
    assert_eq!(d.located(region(1), seq, c, 1).taken_seq, seq);
    d.check();
}

#[test]
fn a_message_with_a_higher_cut_takes_the_cut_first() {
    let mut d = Directory::begun(2);
    let c = d.sign_in("anna", "ann", 1).character;
    let update = marchland_proto::storage::LocationUpdate { character: c, move_number: 2, group: region(2).0, present: true };
    let message = ChannelMessage { from_group: region(2).0, seq: 1, cut: 5, map_epoch: 1, body: Some(Message::Location(update)) };
    d.apply(Body::Message(message));
    assert_eq!(d.counters().cut, 5);
    let cut =
        |d: &Directory, n| d.records.get(&Key::Cut(CutNumber(n)).encode()).map(|b| DirectoryCut::decode(b.clone()).unwrap());
    let taken = cut(&d, 5).unwrap();
    let seen: Vec<_> = taken.channels.iter().map(|c| (c.group, c.posted_seq, c.taken_seq)).collect();
    assert_eq!(seen, [(region(1).0, 1, 0)], "before the message counted");
    assert_eq!(d.posted(region(1)).last().unwrap().cut, 5, "what follows is behind the cut");
    assert_eq!(d.apply(Body::Cut(Cut { number: 3, now_ms: 0 })).cut, 5, "an older cut was taken with a newer one");
    assert_eq!(d.apply(Body::Cut(Cut { number: 0, now_ms: 0 })).cut, 6);
    for number in [7, 8, 30, 31, 1000, 1001, u64::MAX - 3, u64::MAX] {
        assert_eq!(d.apply(Body::Cut(Cut { number, now_ms: 0 })).cut, number);
    }
    assert_eq!(code(&d.apply(Body::Cut(Cut { number: 0, now_ms: 0 }))), Code::Full);
    let kept: Vec<_> = d
        .records
        .keys()
        .filter_map(|k| match Key::decode(k).unwrap() {
            Key::Cut(n) => Some(n.0),
            _ => None,
        })
        .collect();
    assert_eq!(kept, [u64::MAX - 3, u64::MAX]);
    d.check();
}

#[test]
fn answers_are_kept_for_a_bounded_number_of_requests() {
    let mut d = Directory::begun(1);
    let first = d.sign_in("anna", "ann", 0);
    for i in 1..REQUESTS_KEPT {
        if i % 100 == 0 {
            d.ack(region(1), i - 1);
        }
        d.sign_in("anna", "ann", i);
    }
    assert_eq!(d.sign_in("anna", "ann", 0), first);
    d.sign_in("anna", "ann", REQUESTS_KEPT);
    assert_eq!(d.sign_in("anna", "ann", 1).epoch, 2);
    assert!(d.sign_in("anna", "ann", 0).epoch > REQUESTS_KEPT, "forgotten: a new sign-in");
    d.check();
}

#[test]
fn time_never_goes_back_and_other_formats_stop_the_replica() {
    let mut d = Directory::begun(1);
    d.apply_bytes(&encode_entry(5_000, Body::SignIn(sign_in("a", "ann", 1)))).unwrap();
    d.apply_bytes(&encode_entry(4_000, Body::SignIn(sign_in("a", "ben", 2)))).unwrap();
    assert_eq!(d.character(2).created_ms, 5_000);
    let newer = DirectoryEntry { format: 2, ..DirectoryEntry::default() }.encode_to_vec();
    assert!(matches!(d.apply_bytes(&newer), Err(ApplyFault::NewerFormat { found: 2, .. })));
    let unknown = DirectoryEntry { format: 1, ..DirectoryEntry::default() }.encode_to_vec();
    assert!(matches!(d.apply_bytes(&unknown), Err(ApplyFault::Malformed { .. })));
    assert!(matches!(d.apply_bytes(&[0xff; 9]), Err(ApplyFault::Malformed { .. })));
    d.records.insert(Key::World.encode(), vec![0xff; 9].into());
    let damaged = d.apply_bytes(&encode_entry(0, Body::SignIn(sign_in("a", "cid", 3))));
    assert_eq!(damaged, Err(ApplyFault::Damaged { key: Key::World }));
}

#[test]
fn the_check_finds_planted_contradictions() {
    let mut d = Directory::begun(2);
    let c = d.sign_in("anna", "ann", 1).character;
    d.register(1, 1);
    d.check();
    let broken = |f: &dyn Fn(&mut Directory)| {
        let mut d = d.clone();
        f(&mut d);
        crate::check(d.records).unwrap_err().to_string()
    };
    assert!(broken(&|d| drop(d.records.remove(&Key::Name("ann".into()).encode()))).contains("name"));
    assert!(broken(&|d| drop(d.records.remove(&Key::Posted(region(1), 1).encode()))).contains("message 1"));
    assert!(broken(&|d| drop(d.records.remove(&Key::Node(NodeId(1)).encode()))).contains("nodes"));
    assert!(broken(&|d| drop(d.records.remove(&Key::RequestOrder(0).encode()))).contains("requests"));
    assert!(broken(&|d| drop(d.records.remove(&Key::Account("anna".into()).encode()))).contains("account"));
    assert!(broken(&|d| drop(d.records.insert(vec![99].into(), vec![].into()))).contains("not a key"));
    let moved = |d: &mut Directory| {
        let mut record = d.character(c);
        record.move_number += 1;
        d.records.insert(Key::Character(c.into()).encode(), record.encode_to_vec().into());
    };
    assert!(broken(&moved).contains("state hash"));
}

fn located_in_vault(d: &mut Directory, k: u32, seq: u64, character: u64, move_number: u64) -> DirectoryAnswer {
    let update = LocationUpdate { character, move_number, group: vault(k).0, present: false };
    d.deliver(vault(k), seq, Message::Location(update))
}

fn withdraw_in(message: &ChannelMessage) -> (GroupId, Admit) {
    match message.body.clone() {
        Some(Message::Withdraw(withdraw)) => (GroupId(withdraw.to_group), withdraw.admit.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn moved(message: &ChannelMessage, character: u64) -> Message {
    Message::Moved(Box::new(Moved { character, message: Some(Box::new(message.clone())) }))
}

#[test]
fn vaults_have_their_plans_from_the_beginning() {
    let code_of = |genesis| code(&Directory::default().apply(Body::Genesis(genesis)));
    assert_eq!(code_of(genesis_with_vaults(1, 4)), Code::Ok);
    assert_eq!(code_of(DirectoryGenesis { vaults: 5, ..genesis_with_vaults(1, 4) }), Code::Malformed);
    assert_eq!(code_of(genesis_with_vaults(1, VAULTS_MAX + 1)), Code::TooLarge);
    let mut d = Directory::begun_with_vaults(1, 1);
    let c = d.sign_in("anna", "ann", 1).character;
    assert_eq!(code(&located_in_vault(&mut d, 2, 1, c, 2)), Code::Forbidden, "no such vault");
}

#[test]
fn who_logs_in_comes_out_of_the_vault_where_it_left() {
    let mut d = Directory::begun_with_vaults(3, 2);
    let c = d.sign_in("anna", "ann", 1).character;
    d.located(region(1), 1, c, 1);
    d.located(region(3), 1, c, 2);
    located_in_vault(&mut d, 2, 1, c, 3);
    let known = d.character(c);
    assert_eq!((known.group, known.region, known.last_region, known.present), (vault(2).0, 0, 3, false));
    assert!(matches!(d.posted(region(3))[0].body, Some(Message::DropStub(s)) if s.move_number == 3), "the region may forget");
    let answer = d.sign_in("anna", "ann", 2);
    assert_eq!((answer.group, answer.region, answer.move_number), (region(3).0, 3, 4));
    let (to, admit) = withdraw_in(&d.posted(vault(2))[0]);
    assert_eq!((to, admit.epoch, admit.move_number, admit.carried.len()), (region(3), 2, 3, 0));
    assert!(matches!(d.posted(region(1)).last().unwrap().body, Some(Message::Expel(_))), "admitted there the first time");
    // Had that region gone from the map, it would enter where newcomers do.
    let mut without = d.clone();
    let gone = DirectoryCharacter { last_region: 9, ..d.character(c) };
    without.records.insert(Key::Character(CharacterId(c)).encode(), gone.encode_to_vec().into());
    assert_eq!(without.sign_in("anna", "ann", 9).group, region(1).0);
    // It is there: the vault may forget, and a take-over goes to the region.
    d.located(region(3), 2, c, 4);
    assert!(matches!(d.posted(vault(2))[1].body, Some(Message::DropStub(s)) if s.move_number == 4));
    let over = d.sign_in("anna", "ann", 3);
    assert_eq!((over.group, over.move_number, over.epoch), (region(3).0, 4, 3));
    assert!(matches!(&d.posted(region(3)).last().unwrap().body, Some(Message::Admit(a)) if a.epoch == 3));
    d.check();
}

#[test]
fn a_sign_in_meets_a_character_that_is_on_its_way_to_the_vault() {
    let mut d = Directory::begun_with_vaults(1, 1);
    let c = d.sign_in("anna", "ann", 1).character;
    d.located(region(1), 1, c, 1);
    // It has left for the vault; nobody has said so.
    let answer = d.sign_in("anna", "ann", 2);
    assert_eq!((answer.group, answer.move_number), (region(1).0, 1));
    let admit = d.posted(region(1)).pop().unwrap();
    // The region first: the session waits for the vault's word.
    let mut late = d.clone();
    late.deliver(region(1), 2, moved(&admit, c));
    assert_eq!(late.character(c).waiting.as_ref().unwrap().epoch, 2);
    assert_eq!(late.posted(vault(1)).len(), 0);
    located_in_vault(&mut late, 1, 1, c, 2);
    // The vault first: the session goes there at once.
    located_in_vault(&mut d, 1, 1, c, 2);
    d.deliver(region(1), 2, moved(&admit, c));
    for d in [late, d] {
        let (to, admit) = withdraw_in(&d.posted(vault(1))[0]);
        assert_eq!((to, admit.epoch, admit.move_number, d.posted(vault(1)).len()), (region(1), 2, 2, 1));
        assert_eq!(d.character(c).waiting, None);
        d.check();
    }
}

#[test]
fn of_two_sign_ins_in_a_row_the_newer_one_follows_the_character() {
    let mut d = Directory::begun_with_vaults(2, 1);
    let c = d.sign_in("anna", "ann", 1).character;
    located_in_vault(&mut d, 1, 1, c, 2);
    assert_eq!(d.sign_in("anna", "ann", 2).group, region(1).0);
    assert_eq!(d.sign_in("anna", "ann", 3).group, region(1).0);
    let posted = d.posted(vault(1));
    assert_eq!(posted.iter().map(|m| withdraw_in(m).1.epoch).collect::<Vec<_>>(), [2, 3]);
    let expels = d.posted(region(1)).iter().filter(|m| matches!(m.body, Some(Message::Expel(_)))).count();
    assert_eq!(expels, 0, "both are admitted by the same region");
    // The first one took it out; the second one comes back before or after the region has spoken.
    let mut early = d.clone();
    early.located(region(1), 1, c, 3);
    early.deliver(vault(1), 2, moved(&posted[1], c));
    d.deliver(vault(1), 2, moved(&posted[1], c));
    assert_eq!(d.character(c).waiting.as_ref().unwrap().epoch, 3);
    d.located(region(1), 1, c, 3);
    for d in [&early, &d] {
        assert!(
            matches!(&d.posted(region(1)).last().unwrap().body, Some(Message::Admit(a)) if a.epoch == 3 && a.move_number == 3)
        );
        d.check();
    }
    // It went on to region 2 and into the vault before anything of that was heard: the vault's word is enough.
    let admit = d.posted(region(1)).pop().unwrap();
    located_in_vault(&mut d, 1, 3, c, 5);
    d.deliver(region(1), 2, moved(&admit, c));
    let (to, admit) = withdraw_in(d.posted(vault(1)).last().unwrap());
    assert_eq!((to, admit.epoch, admit.move_number), (region(1), 3, 5));
    d.located(region(2), 1, c, 4);
    assert!(matches!(d.posted(region(2)).last().unwrap().body, Some(Message::DropStub(s)) if s.move_number == 5));
    // A session that is over by then is not sent on.
    assert_eq!(d.sign_in("anna", "ann", 4).group, region(1).0);
    let count = d.posted(vault(1)).len();
    d.deliver(vault(1), 4, moved(&posted[1], c));
    assert_eq!((d.posted(vault(1)).len(), d.character(c).waiting), (count, None));
    d.check();
}

#[test]
fn a_vault_that_takes_a_character_back_waits_for_the_next_sign_in() {
    let mut d = Directory::begun_with_vaults(1, 1);
    let c = d.sign_in("anna", "ann", 1).character;
    located_in_vault(&mut d, 1, 1, c, 2);
    d.sign_in("anna", "ann", 2);
    let withdraw = d.posted(vault(1)).pop().unwrap();
    located_in_vault(&mut d, 1, 2, c, 4);
    assert_eq!(d.posted(vault(1)).len(), 1);
    assert_eq!(withdraw_in(&withdraw).1.epoch, 2);
    assert_eq!(d.sign_in("anna", "ann", 3).move_number, 5);
    // With a record inside it is no message of the directory's: set aside.
    let mut carrying = withdraw_in(&withdraw).1;
    carrying.carried = vec![1].into();
    let carrying = ChannelMessage { body: Some(Message::Admit(carrying)), ..withdraw };
    d.deliver(vault(1), 3, moved(&carrying, c));
    assert_eq!(d.counters().set_aside, 1);
    d.check();
}

#[test]
fn seeded_characters_are_in_their_vaults_and_a_repeated_seed_changes_nothing() {
    let mut d = Directory::begun_with_vaults(2, 2);
    d.sign_in("anna", "ann", 1);
    let seed = |first, count| Body::Seed(CharacterSeed { first, count, prefix: "Bot".into() });
    let asked = d.apply(seed(0, 10));
    assert_eq!((code(&asked), asked.next_character), (Code::Refused, 2), "asks which is the next");
    let wrong = d.apply(seed(1, 10));
    assert_eq!((code(&wrong), wrong.next_character), (Code::Refused, 2));
    assert_eq!(d.apply(seed(2, 1000)).next_character, 1002);
    let before = d.records.clone();
    assert_eq!(d.apply(seed(2, 1000)).next_character, 1002, "again");
    assert_eq!(d.records.len(), before.len());
    assert_eq!(code(&d.apply(seed(2, 1001))), Code::Refused);
    let bot = d.character(900);
    let own = vault_of(WORLD, 2, CharacterId(900));
    assert_eq!((bot.name.as_str(), bot.account.as_str(), bot.group, bot.epoch), ("Bot900", "bot900", own.0, 0));
    let answer = d.sign_in("bot900", "bot900", 1);
    assert_eq!((answer.character, answer.epoch, answer.group, answer.move_number), (900, 1, region(2).0, 2));
    assert_eq!(withdraw_in(&d.posted(own)[0]).1.move_number, 1);
    assert_eq!(d.sign_in("anna", "BOT7", 2).code, Code::NameTaken as u32);
    assert_eq!(d.sign_in("anna", "zed", 3).character, 1002);
    // Somebody has a name of the next ones.
    d.sign_in("anna", "bot1005", 4);
    assert_eq!(code(&d.apply(seed(1004, 10))), Code::NameTaken);
    for (first, count, prefix) in [(1004, 0, "x"), (1004, 5000, "x"), (0, 1, "x"), (1004, 1, "é"), (1004, 1, ""), (1004, 1, "x1")]
    {
        let bad = CharacterSeed { first, count, prefix: prefix.into() };
        assert_ne!(code(&d.apply(Body::Seed(bad))), Code::Ok);
    }
    let mut without = Directory::begun(1);
    assert_eq!(code(&without.apply(seed(1, 1))), Code::Refused);
    d.check();
}

/// What a run of orders should lead to, told without records, channels or reads.
#[derive(Default)]
struct Model {
    /// Folded name to (account, character, epoch, region, move number).
    names: BTreeMap<String, (String, u64, u64, u32, u64)>,
    last: u64,
    answers: BTreeMap<(String, String, u64), (u32, u64, u64)>,
}

impl Model {
    fn sign_in(&mut self, account: &str, name: &str, request: u64) -> (u32, u64, u64) {
        let key = (account.to_owned(), name.to_owned(), request);
        if let Some(&known) = self.answers.get(&key) {
            return known;
        }
        let last = &mut self.last;
        let holder = self.names.entry(name.to_lowercase()).or_insert_with(|| {
            *last += 1;
            // Characters enter spread over the three regions.
            (account.to_owned(), *last, 0, (*last as u32 - 1) % 3 + 1, 1)
        });
        let answer = if holder.0 == account {
            holder.2 += 1;
            (0, holder.1, holder.2)
        } else {
            (Code::NameTaken as u32, 0, 0)
        };
        self.answers.insert(key, answer);
        answer
    }
}

#[derive(Clone, Debug)]
enum Op {
    SignIn { account: u8, name: u8, upper: bool, request: u64 },
    Located { from: u32, character: u64, move_number: u64, again: bool },
    Ack { from: u32, part: u8 },
    Cut,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0u8..3, 0u8..5, any::<bool>(), 0u64..20)
            .prop_map(|(account, name, upper, request)| Op::SignIn { account, name, upper, request }),
        3 => (1u32..4, 1u64..6, 1u64..9, any::<bool>())
            .prop_map(|(from, character, move_number, again)| Op::Located { from, character, move_number, again }),
        1 => (1u32..4, any::<u8>()).prop_map(|(from, part)| Op::Ack { from, part }),
        1 => Just(Op::Cut),
    ];
    proptest::collection::vec(op, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Names, epochs and places are what a model says, and whatever is checked holds after every entry.
    #[test]
    fn random_orders_do_what_the_model_says(ops in ops()) {
        let mut d = Directory::begun(3);
        let mut model = Model::default();
        let mut seqs = [0u64; 4];
        for op in ops {
            match op {
                Op::SignIn { account, name, upper, request } => {
                    let (account, mut name) = (format!("account{account}"), format!("name{name}"));
                    if upper {
                        name = name.to_uppercase();
                    }
                    let given = d.sign_in(&account, &name, request);
                    prop_assert_eq!((given.code, given.character, given.epoch), model.sign_in(&account, &name, request));
                }
                Op::Located { from, character, move_number, again } => {
                    let seq = &mut seqs[from as usize];
                    if !again || *seq == 0 {
                        *seq += 1;
                        if let Some(known) = model.names.values_mut().find(|known| known.1 == character)
                            && known.4 < move_number
                        {
                            (known.3, known.4) = (from, move_number);
                        }
                    }
                    prop_assert_eq!(d.located(region(from), *seq, character, move_number).taken_seq, *seq);
                }
                Op::Ack { from, part } => {
                    let posted = d.channel(region(from)).posted_seq;
                    d.ack(region(from), posted * u64::from(part) / 255);
                }
                Op::Cut => drop(d.apply(Body::Cut(Cut::default()))),
            }
            d.check();
        }
        for (_, character, epoch, at, move_number) in model.names.into_values() {
            let record = d.character(character);
            prop_assert_eq!((record.epoch, record.region, record.move_number), (epoch, at, move_number));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), by in 1u8..) {
        let d = Directory::begun(1);
        let _ = apply(&d.records, LogIndex(1), &bytes);
        let mut entry = encode_entry(1, Body::SignIn(sign_in("anna", "ann", 1))).to_vec();
        let at = at.index(entry.len());
        entry[at] ^= by;
        let _ = apply(&d.records, LogIndex(1), &entry);
    }
}

#[test]
fn borders_move_for_every_region_in_one_entry() {
    let mut directory = Directory::begun(4);
    let told = |directory: &Directory, n: u32| -> Vec<(u64, u64, Vec<u32>)> {
        let change = |message: ChannelMessage| match message.body {
            Some(Message::MapChange(change)) => {
                Some((message.map_epoch, change.map_epoch, change.map.iter().map(|n| n.region).collect()))
            }
            _ => None,
        };
        directory.posted(region(n)).into_iter().filter_map(change).collect()
    };
    let mut map = genesis(4).map;
    let order = |map_epoch, map: &[Neighbour]| Body::Map(MapOrder { map_epoch, map: map.to_vec() });
    (map[0].max_x, map[1].min_x) = (230.0, 230.0);
    let rounds = directory.rounds_max;
    let answer = directory.apply(order(2, &map));
    assert_eq!((answer.code, answer.map_epoch), (0, 2), "{}", answer.reason);
    assert!(directory.rounds_max <= rounds.max(3), "records are asked for at once");
    assert_eq!(told(&directory, 1), [(2, 2, vec![1, 2])]);
    assert_eq!(told(&directory, 2), [(2, 2, vec![2, 1, 3])]);
    assert_eq!(told(&directory, 4), [(2, 2, vec![4, 3])], "also who is far away");
    // Again: nothing. What comes late, or is no map of this world: refused, with the epoch in force.
    let again = directory.apply(order(2, &map));
    assert_eq!((again.code, again.map_epoch, told(&directory, 1).len()), (0, 2, 1));
    for bad in [order(2, &genesis(4).map), order(4, &map), order(3, &map[..3]), order(3, &[])] {
        let refused = directory.apply(bad);
        assert_eq!((code(&refused), refused.map_epoch), (Code::Refused, 2), "{}", refused.reason);
    }
    (map[0].max_x, map[1].min_x) = (150.0, 150.0);
    assert_eq!(directory.apply(order(3, &map)).map_epoch, 3);
    assert_eq!(told(&directory, 1).iter().map(|change| change.1).collect::<Vec<_>>(), [2, 3]);
    // The world is the one that was made, whatever became of its borders; and what it sends goes by the newest map.
    assert_eq!(directory.apply(Body::Genesis(genesis(4))), DirectoryAnswer::default());
    let other = DirectoryGenesis { name: "other".into(), ..genesis(4) };
    assert_eq!(code(&directory.apply(Body::Genesis(other))), Code::Refused);
    directory.sign_in("ann", "Ann", 1);
    let admit = directory.posted(region(1)).pop().unwrap();
    assert!(matches!(admit.body, Some(Message::Admit(_))));
    assert_eq!(admit.map_epoch, 3);
    directory.check();
}

#[test]
fn borders_stay_when_a_region_can_not_be_told() {
    let mut directory = Directory::begun(2);
    let mut map = genesis(2).map;
    for turn in 0..=CHANNEL_MESSAGES_MAX as u64 {
        let border = 150.0 + (turn % 2) as f32;
        (map[0].max_x, map[1].min_x) = (border, border);
        let answer = directory.apply(Body::Map(MapOrder { map_epoch: turn + 2, map: map.clone() }));
        let is_full = turn == CHANNEL_MESSAGES_MAX as u64;
        assert_eq!(code(&answer), if is_full { Code::Unavailable } else { Code::Ok });
    }
    assert_eq!(directory.posted(region(2)).len(), CHANNEL_MESSAGES_MAX);
    directory.ack(region(1), 1);
    directory.ack(region(2), 1);
    let answer = directory.apply(Body::Map(MapOrder { map_epoch: CHANNEL_MESSAGES_MAX as u64 + 2, map }));
    assert_eq!((code(&answer), answer.map_epoch), (Code::Ok, CHANNEL_MESSAGES_MAX as u64 + 2));
    directory.check();
}
