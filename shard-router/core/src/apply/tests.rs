use std::collections::BTreeMap;

use marchland_proto::codes::Code;
use marchland_proto::storage::channel_message::Body as Message;
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{
    ChannelMessage, ChannelMessages, Cut, DirectoryAnswer, DirectoryCut, DirectoryEntry, EntityHandoff, Fin, GroupPlan, Moved,
};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CutNumber, GroupId, LogIndex, NodeId, ReplicaId};
use proptest::prelude::*;
use prost::Message as _;

use super::testing::{Directory, WORLD, genesis, region, sign_in};
use super::{ApplyFault, REQUESTS_KEPT, SET_ASIDE_MAX, SIGN_IN_CHANNEL_MESSAGES_MAX, apply, encode_entry};
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
    let mut founded = genesis(1);
    let founders = (1..=3).map(|n| ReplicaId::new(NodeId(n), 1.into()).0).collect();
    founded.plans.push(GroupPlan { group: GroupId::directory(super::testing::WORLD).0, replicas: founders });
    let mut d = Directory::default();
    assert_eq!(code(&d.apply(Body::Genesis(founded))), Code::Ok);
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
