use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::channel_message::Body as Message;
use marchland_proto::storage::vault_entry::Body;
use marchland_proto::storage::{
    Admit, ChannelMessage, DirectoryCut, DropStub, EntityHandoff, Expel, Fin, LocationUpdate, Moved, VaultAnswer, VaultEntry,
    VaultSeed,
};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, CutNumber, GroupId, LogIndex, WorldId, vault_of};
use proptest::prelude::*;
use prost::Message as _;

use super::testing::{Vault, deposit, directory, withdraw};
use super::{UNDO_MAX, VaultAtCut, apply_vault, encode_vault_entry};
use crate::directory::testing::{WORLD, region};
use crate::group::ApplyFault;
use crate::group::inbox::SET_ASIDE_MAX;
use crate::keys::Key;
use marchland_types::limits::CARRIED_MAX_BYTES;

fn code(answer: &VaultAnswer) -> Code {
    Code::from_u32(answer.code).unwrap()
}

fn admit_in(message: &ChannelMessage) -> Admit {
    match &message.body {
        Some(Message::Admit(admit)) => admit.clone(),
        other => panic!("{other:?}"),
    }
}

fn moved(message: &ChannelMessage, character: u64) -> Message {
    Message::Moved(Box::new(Moved { character, message: Some(Box::new(message.clone())) }))
}

fn drop_stub(character: u64, move_number: u64) -> Message {
    Message::DropStub(DropStub { character, move_number })
}

#[test]
fn a_character_rests_and_goes_with_everything_it_had() {
    let mut v = Vault::new(1);
    assert_eq!(v.deliver(region(1), 1, deposit(7, 3, 5)).taken_seq, 1);
    let update = LocationUpdate { character: 7, move_number: 5, group: v.group.0, present: false };
    assert_eq!(v.posted(directory())[0].body, Some(Message::Location(update)));
    assert_eq!((v.kept(7).unwrap().epoch, v.counters().held), (3, 1));
    assert_eq!(v.deliver(directory(), 1, withdraw(region(2), 7, 4)).taken_seq, 1);
    let admit = admit_in(&v.posted(region(2))[0]);
    assert_eq!((admit.character, admit.epoch, admit.move_number, admit.name.as_str()), (7, 4, 6, "n7"));
    assert_eq!((&admit.carried[..], &admit.items[..]), (&b"record 7 as of 5"[..], &[70, 71][..]));
    assert_eq!((v.kept(7), v.counters().held), (None, 0));
    let stub = v.stub(7).unwrap();
    assert_eq!((stub.group, stub.move_number), (region(2).0, 6));
    // A DropStub that was sent before it went does not concern this stub.
    v.deliver(directory(), 2, drop_stub(7, 5));
    assert!(v.stub(7).is_some());
    v.deliver(directory(), 3, drop_stub(7, 6));
    assert!(v.stub(7).is_none());
    assert_eq!(v.posted(directory()).len(), 1, "the region says where it is");
    v.check();
}

#[test]
fn one_that_is_not_here_is_looked_for_by_the_directory() {
    let mut v = Vault::new(1);
    v.deliver(directory(), 1, withdraw(region(2), 7, 4));
    let Some(Message::Moved(back)) = v.posted(directory())[0].body.clone() else { panic!("no answer") };
    assert_eq!((back.character, back.message.unwrap().body.unwrap()), (7, withdraw(region(2), 7, 4)));
    // It comes back from its region before the directory has dropped the stub; then a sign-in that is over comes late.
    v.deliver(region(1), 1, deposit(7, 1, 2));
    v.deliver(directory(), 2, withdraw(region(2), 7, 5));
    v.deliver(region(2), 1, deposit(7, 5, 4));
    assert_eq!((v.stub(7), v.kept(7).unwrap().move_number), (None, 4));
    v.deliver(directory(), 3, withdraw(region(1), 7, 4));
    assert_eq!((v.posted(region(1)).len(), v.kept(7).unwrap().epoch), (0, 5));
    v.check();
}

#[test]
fn nothing_that_comes_in_is_lost() {
    let mut v = Vault::new(1);
    let aside = |v: &Vault, from, seq| v.set_aside(from, seq).and_then(|m| m.body);
    v.deliver(region(1), 1, deposit(7, 1, 5));
    // Older than what is kept, and as old.
    for (seq, old) in [(1, 4), (2, 5)] {
        v.deliver(region(2), seq, deposit(7, 1, old));
        assert_eq!(aside(&v, region(2), seq), Some(deposit(7, 1, old)));
    }
    // Newer: what was kept is set aside.
    v.deliver(region(2), 3, deposit(7, 2, 8));
    assert_eq!(aside(&v, region(2), 3), Some(deposit(7, 1, 5)));
    assert_eq!((v.kept(7).unwrap().move_number, v.counters().held), (8, 1));
    // Gone, and one comes that is not newer than its going.
    v.deliver(directory(), 1, withdraw(region(1), 7, 3));
    v.deliver(region(2), 4, deposit(7, 2, 9));
    assert_eq!(aside(&v, region(2), 4), Some(deposit(7, 2, 9)));
    assert!(v.stub(7).is_some());
    // Too large to go again; of nobody; from the wrong one; no deposit at all.
    let Message::Deposit(mut large) = deposit(8, 1, 1) else { unreachable!() };
    large.record = vec![0; CARRIED_MAX_BYTES].into();
    let handoff = Message::Handoff(EntityHandoff { entity: 5, ..EntityHandoff::default() });
    let list = [Message::Deposit(large), deposit(0, 1, 1), withdraw(region(1), 7, 9), drop_stub(7, 99), handoff];
    for (seq, message) in (5..).zip(list) {
        assert_eq!(v.deliver(region(2), seq, message.clone()).taken_seq, seq);
        assert_eq!(aside(&v, region(2), seq), Some(message));
    }
    let to_a_vault = withdraw(GroupId::vault(WORLD, 2), 7, 9);
    for (seq, message) in [(2, deposit(9, 1, 1)), (3, to_a_vault), (4, withdraw(GroupId::region(WorldId(2), 1.into()), 7, 9))] {
        v.deliver(directory(), seq, message.clone());
        assert_eq!(aside(&v, directory(), seq), Some(message));
    }
    v.check();
}

#[test]
fn a_region_may_give_back_what_it_can_not_take() {
    let mut v = Vault::new(1);
    v.deliver(region(1), 1, deposit(7, 1, 5));
    v.deliver(directory(), 1, withdraw(region(2), 7, 2));
    let sent = v.posted(region(2))[0].clone();
    // From another region than it went to: a fault, and kept as such.
    v.deliver(region(1), 2, moved(&sent, 7));
    assert!(v.set_aside(region(1), 2).is_some());
    v.deliver(region(2), 1, moved(&sent, 7));
    let kept = v.kept(7).unwrap();
    assert_eq!((kept.move_number, kept.items, kept.record), (7, vec![70, 71], Bytes::from("record 7 as of 5")));
    let update = LocationUpdate { character: 7, move_number: 7, group: v.group.0, present: false };
    assert_eq!(v.posted(directory()).last().unwrap().body, Some(Message::Location(update)));
    // Twice, and without its record.
    v.deliver(region(2), 2, moved(&sent, 7));
    assert!(v.set_aside(region(2), 2).is_some());
    let expel = ChannelMessage { body: Some(Message::Expel(Expel::default())), ..sent };
    v.deliver(region(2), 3, moved(&expel, 7));
    assert!(v.set_aside(region(2), 3).is_some());
    v.check();
}

#[test]
fn only_its_world_speaks_to_a_vault_and_in_order() {
    let mut v = Vault::new(1);
    for stranger in [region(1).0, directory().0].map(|g| GroupId(g + (1 << 32))).into_iter().chain([GroupId::vault(WORLD, 2)]) {
        assert_eq!(code(&v.deliver(stranger, 1, deposit(7, 1, 1))), Code::Forbidden);
    }
    assert_eq!(code(&v.deliver(region(1), 2, deposit(7, 1, 1))), Code::Gap);
    assert_eq!(v.deliver(region(1), 1, deposit(7, 1, 1)).taken_seq, 1);
    let hash = v.counters().state_hash;
    assert_eq!(v.deliver(region(1), 1, deposit(8, 1, 1)).taken_seq, 1, "a duplicate, with other content");
    assert_eq!((v.counters().state_hash, v.kept(8)), (hash, None));
    assert_eq!(code(&v.deliver_all(vec![])), Code::Malformed);
    v.deliver(region(1), 2, Message::Fin(Fin {}));
    assert!(v.channel(region(1)).finished);
    assert_eq!(code(&v.ack(region(2), 1)), Code::Gap);
    v.check();
}

#[test]
fn what_has_no_room_comes_again() {
    let mut v = Vault::new(1);
    let limit = CHANNEL_MESSAGES_MAX as u64;
    for c in 1..=limit {
        assert_eq!(v.deliver(region(1), c, deposit(c, 1, 1)).taken_seq, c);
    }
    let full = v.deliver(region(1), limit + 1, deposit(limit + 1, 1, 1));
    assert_eq!((code(&full), full.taken_seq, v.kept(limit + 1)), (Code::Unavailable, limit, None));
    // Not here, and no room to say so.
    assert_eq!(code(&v.deliver(directory(), 1, withdraw(region(1), limit + 1, 2))), Code::Unavailable);
    for c in 1..=limit {
        assert_eq!(v.deliver(directory(), c, withdraw(region(1), c, 2)).taken_seq, c);
    }
    v.ack(directory(), 2);
    assert_eq!(v.deliver(region(1), limit + 1, deposit(limit + 1, 1, 1)).taken_seq, limit + 1);
    let full = v.deliver(directory(), limit + 1, withdraw(region(1), limit + 1, 2));
    assert_eq!((code(&full), v.kept(limit + 1).is_some()), (Code::Unavailable, true));
    v.ack(region(1), 1);
    assert_eq!(v.deliver(directory(), limit + 1, withdraw(region(1), limit + 1, 2)).taken_seq, limit + 1);
    v.check();
}

#[test]
fn what_can_not_be_used_is_set_aside_up_to_a_bound() {
    let mut v = Vault::new(1);
    for seq in 1..=u64::from(SET_ASIDE_MAX) {
        assert_eq!(v.deliver(region(1), seq, Message::Expel(Expel::default())).taken_seq, seq);
    }
    let next = u64::from(SET_ASIDE_MAX) + 1;
    assert_eq!(code(&v.deliver(region(1), next, Message::Expel(Expel::default()))), Code::Unavailable);
    assert_eq!(v.deliver(region(1), next, deposit(7, 1, 1)).taken_seq, next);
    v.check();
}

#[test]
fn a_cut_is_told_exactly_whatever_follows() {
    let mut v = Vault::new(1);
    v.deliver(region(1), 1, deposit(1, 1, 2));
    v.deliver(region(1), 2, deposit(2, 1, 2));
    v.deliver(region(1), 3, deposit(3, 1, 2));
    v.deliver(directory(), 1, withdraw(region(2), 3, 2));
    // Set aside: it is here all the same.
    v.deliver(region(2), 1, deposit(1, 1, 1));
    // The message behind the cut takes it first.
    let body = Some(deposit(4, 1, 2));
    v.deliver_all(vec![ChannelMessage { from_group: region(1).0, seq: 4, cut: 9, map_epoch: 1, body }]);
    assert_eq!(v.counters().cut, 9);
    let told = |v: &Vault, cut| {
        let state = v.at_cut(cut).expect("told");
        let way: Vec<_> = state.in_flight().into_iter().map(|m| (m.to_group, m.seq, m.characters, m.items)).collect();
        let taken: Vec<_> = state.taken().into_iter().map(|t| (t.from_group, t.seq)).collect();
        (state.held(), way, taken)
    };
    let expected = (
        (vec![1, 2, 1], vec![10, 11, 20, 21, 10, 11]),
        vec![(region(2).0, 1, vec![3], vec![30, 31])],
        vec![(directory().0, 1), (region(1).0, 3), (region(2).0, 1)],
    );
    assert_eq!(told(&v, 9), expected);
    // Away and back, new ones, acknowledgements, other cuts.
    v.ack(region(2), 1);
    v.deliver(directory(), 2, withdraw(region(2), 2, 2));
    v.cut(10);
    let tenth = told(&v, 10);
    assert_eq!(tenth.0.0, [1, 4, 1]);
    v.deliver(region(2), 2, deposit(2, 2, 4));
    v.deliver(region(2), 3, deposit(5, 1, 1));
    v.ack(region(2), 2);
    v.deliver(directory(), 3, withdraw(region(1), 1, 2));
    v.deliver(region(2), 4, Message::Expel(Expel::default()));
    assert_eq!((told(&v, 9), told(&v, 10)), (expected, tenth));
    v.check();
}

#[test]
fn the_list_of_changes_is_bounded_and_begins_anew_at_the_next_cut() {
    let mut v = Vault::new(1);
    let seed = |v: &mut Vault, first: u64| {
        let seed = VaultSeed { first, count: 1024, vaults: 1, record: Bytes::from_static(b"new") };
        assert_eq!(v.apply(Body::Seed(seed)).seeded, 1024);
    };
    seed(&mut v, 1);
    assert_eq!(v.counters().undo_end, 0, "no cut, no list");
    v.cut(1);
    let seeds = UNDO_MAX / 1024;
    for n in 1..=seeds {
        seed(&mut v, 1 + n * 1024);
    }
    assert_eq!(v.at_cut(1).unwrap().held().0.len(), 1024);
    v.deliver(region(1), 1, deposit(9_000_001, 1, 1));
    assert!(v.at_cut(1).is_none(), "run over");
    let end = v.counters().undo_end;
    v.deliver(region(1), 2, deposit(9_000_002, 1, 1));
    assert_eq!(v.counters().undo_end, end, "nothing leads back any more");
    v.cut(2);
    v.deliver(region(1), 3, deposit(9_000_003, 1, 1));
    assert_eq!(v.at_cut(2).unwrap().held().0.len() as u64, 1024 * (seeds + 1) + 2);
    v.check();
}

#[test]
fn a_seed_takes_effect_once_and_only_where_it_belongs() {
    let mut v = Vault::new(2);
    let seed = VaultSeed { first: 11, count: 100, vaults: 4, record: Bytes::from_static(b"new") };
    let own: Vec<u64> = (11..111).filter(|c| vault_of(WORLD, 4, CharacterId(*c)) == v.group).collect();
    assert_eq!(v.apply(Body::Seed(seed.clone())).seeded as usize, own.len());
    assert_eq!((v.characters(), v.counters().held as usize), (own.clone(), own.len()));
    let kept = v.kept(own[0]).unwrap();
    assert_eq!((kept.epoch, kept.move_number, &kept.record[..]), (0, 1, &b"new"[..]));
    assert_eq!(v.posted(directory()).len(), 0, "the directory knows");
    // One leaves for good, and the order comes again.
    v.deliver(directory(), 1, withdraw(region(1), own[0], 1));
    v.deliver(directory(), 2, drop_stub(own[0], 2));
    assert_eq!(v.apply(Body::Seed(seed.clone())), VaultAnswer::default());
    assert_eq!(v.kept(own[0]), None);
    for bad in [
        VaultSeed { count: 99, ..seed.clone() },
        VaultSeed { first: 0, ..seed.clone() },
        VaultSeed { count: 5000, ..seed.clone() },
        VaultSeed { first: u64::MAX, ..seed.clone() },
        VaultSeed { vaults: 1, ..seed.clone() },
        VaultSeed { first: 500, record: vec![0; CARRIED_MAX_BYTES + 1].into(), ..seed.clone() },
    ] {
        assert_ne!(code(&v.apply(Body::Seed(bad))), Code::Ok);
    }
    v.check();
}

#[test]
fn other_formats_stop_the_replica_and_the_check_finds_contradictions() {
    let mut v = Vault::new(1);
    v.deliver(region(1), 1, deposit(7, 1, 1));
    let newer = VaultEntry { format: 2, ..VaultEntry::default() }.encode_to_vec();
    assert!(matches!(v.apply_bytes(&newer), Err(ApplyFault::NewerFormat { found: 2, .. })));
    assert!(matches!(v.apply_bytes(&[0xff; 9]), Err(ApplyFault::Malformed { .. })));
    let broken = |key: Key, value: Option<Vec<u8>>| {
        let mut records = v.records.clone();
        match value {
            Some(value) => drop(records.insert(key.encode(), value.into())),
            None => drop(records.remove(&key.encode())),
        }
        crate::check_vault(records).unwrap_err().to_string()
    };
    assert!(broken(Key::Kept(CharacterId(7)), None).contains("state hash"));
    assert!(broken(Key::Posted(directory(), 1), None).contains("message 1"));
    assert!(broken(Key::Name("x".into()), Some(vec![0; 8])).contains("another kind of group"));
}

/// Characters and items that are held, and what is on its way: receivers and numbers.
type Told = ((Vec<u64>, Vec<u64>), Vec<(u64, u64)>);

/// What a scan that takes its time finds: each record as it was at some later and later moment.
fn slow_scan(moments: &[Vault], cut: u64, pace: usize) -> Option<Told> {
    let last = moments.last().unwrap();
    let record: DirectoryCut = last.read(Key::Cut(CutNumber(cut)))?;
    let undo_end = record.undo_end;
    let mut state = VaultAtCut::new(record);
    let moment = |read: usize| &moments[(read / pace.max(1)).min(moments.len() - 1)];
    for id in 0..8u64 {
        if let Some(kept) = moment(id as usize).kept(id) {
            state.kept(CharacterId(id), kept);
        }
    }
    for (at, to) in [(9, region(1)), (11, region(2)), (12, directory())] {
        moment(at).posted(to).iter().for_each(|message| state.posted(to, message));
    }
    for seq in 1..200 {
        for from in [region(1), region(2), directory()] {
            if let Some(message) = moment(14).set_aside(from, seq) {
                state.set_aside(&message);
            }
        }
    }
    for n in undo_end..last.counters().undo_end {
        state.undo(last.read(Key::Undo(n)).unwrap());
    }
    Some((state.held(), state.in_flight().iter().map(|m| (m.to_group, m.seq)).collect()))
}

proptest! {
    /// While a cut is read page by page, entries go on being applied: it is told as if it had been read at once.
    #[test]
    fn a_slow_reader_is_told_the_same(
        ops in proptest::collection::vec((0u8..5, 1u64..8, 1u8..3), 1..60), cut_at in any::<prop::sample::Index>(), pace in 0usize..8,
    ) {
        let mut v = Vault::new(1);
        let (mut seqs, mut number) = ([0u64; 3], 1);
        let mut moments = Vec::new();
        let mut expected = None;
        let cut_at = cut_at.index(ops.len());
        for (at, (kind, character, to)) in ops.into_iter().enumerate() {
            if at == cut_at {
                v.cut(1);
                moments.push(v.clone());
                expected = slow_scan(&moments, 1, 1);
            }
            number += 2;
            let (channel, from) = if kind < 2 { (to as usize, region(u32::from(to))) } else { (0, directory()) };
            seqs[channel] += 1;
            let answer = match kind {
                0 | 1 => v.deliver(from, seqs[channel], deposit(character, 1, number * u64::from(kind) + 1)),
                2 | 3 => v.deliver(from, seqs[channel], withdraw(region(u32::from(to)), character, 5)),
                _ => {
                    seqs[channel] -= 1;
                    let group = region(u32::from(to));
                    v.ack(group, v.channel(group).posted_seq)
                }
            };
            prop_assert_eq!(code(&answer), Code::Ok);
            if at >= cut_at {
                moments.push(v.clone());
            }
        }
        prop_assert_eq!(slow_scan(&moments, 1, pace), expected);
        v.check();
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), by in 1u8..) {
        let v = Vault::new(1);
        let _ = apply_vault(&v.records, v.group, LogIndex(1), &bytes);
        let message = ChannelMessage { from_group: region(1).0, seq: 1, cut: 0, map_epoch: 1, body: Some(deposit(7, 1, 1)) };
        let messages = marchland_proto::storage::ChannelMessages { messages: vec![message] };
        let mut entry = encode_vault_entry(1, Body::Messages(messages)).to_vec();
        let at = at.index(entry.len());
        entry[at] ^= by;
        let _ = apply_vault(&v.records, v.group, LogIndex(1), &entry);
    }
}
