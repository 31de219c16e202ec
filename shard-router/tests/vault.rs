//! A vault as it runs: deliveries, its pump, cuts that are told while it goes on, power losses and snapshots.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::cluster::{DeliverAnswer, DeliverRequest, InspectReply};
use marchland_proto::codes::Code;
use marchland_proto::net::Role as PeerRole;
use marchland_proto::storage::channel_message::Body as Message;
use marchland_proto::storage::vault_entry::Body;
use marchland_proto::storage::{Admit, ChannelAck, ChannelMessage, ChannelMessages, Cut, Deposit, DropStub, VaultSeed, Withdraw};
use marchland_raft::{Entry, Machine, Payload, Role};
use marchland_router::core::{check_vault, encode_vault_entry};
use marchland_router::{ChannelPump, Deliver, DeliverError, DirectoryOptions, KeyedOutbox, PumpOptions};
use marchland_storage::disk::SimDisk;
use marchland_types::{CutNumber, GroupId, LogIndex, Position, Term, WorldId};
use proptest::prelude::*;
use support::*;

fn quick() -> DirectoryOptions {
    DirectoryOptions { order_ms: 60, busy_ms: 20, retry_ms: 1, ..DirectoryOptions::default() }
}

fn message(from: GroupId, seq: u64, cut: u64, body: Message) -> ChannelMessage {
    ChannelMessage { from_group: from.0, seq, cut, map_epoch: 1, body: Some(body) }
}

fn deposit(character: u64, move_number: u64) -> Message {
    let record = Bytes::from(character.to_string());
    Message::Deposit(Deposit { character, epoch: 1, move_number, record, items: vec![character * 10] })
}

fn withdraw(character: u64, to: u32, epoch: u64) -> Message {
    let admit = Some(Admit { character, epoch, ..Admit::default() });
    Message::Withdraw(Withdraw { to_group: region(to).0, admit })
}

async fn deliver(rig: &VaultRig, messages: Vec<ChannelMessage>) -> (Code, u64, u64) {
    let request = DeliverRequest { to_group: vault(1).0, messages };
    let answer = rig.vaults.deliver(&peer(2, &[PeerRole::Shard]), request).await.expect("it is here");
    (Code::from_u32(answer.code).unwrap(), answer.taken_seq, answer.cut)
}

async fn inspect(rig: &VaultRig, cut: u64) -> InspectReply {
    rig.vaults.inspect(vault(1), CutNumber(cut)).await.expect("it is here")
}

#[tokio::test]
async fn deliveries_reach_their_vault_once_and_from_shards_alone() {
    let rig = VaultRig::new(quick()).await;
    rig.group.then([Outcome::CommitUnheard, Outcome::Lose]);
    let list = vec![message(region(1), 1, 3, deposit(7, 2)), message(region(1), 2, 3, deposit(8, 2))];
    assert_eq!(deliver(&rig, list.clone()).await, (Code::Ok, 2, 3), "behind cut 3, and it says so");
    assert_eq!(deliver(&rig, list).await, (Code::Ok, 2, 3));
    assert_eq!(deliver(&rig, vec![message(region(1), 4, 0, deposit(9, 2))]).await, (Code::Gap, 2, 3));
    assert_eq!(deliver(&rig, vec![message(region(1), 3, 0, deposit(9, 2)); 1025]).await.0, Code::TooLarge);
    assert_eq!(inspect(&rig, 0).await.characters, [7, 8]);
    let request = |to: GroupId| DeliverRequest { to_group: to.0, messages: vec![message(region(1), 3, 0, deposit(9, 2))] };
    assert_eq!(rig.vaults.deliver(&peer(2, &[PeerRole::Shard]), request(vault(2))).await, None);
    let mut foreign = peer(2, &[PeerRole::Shard]);
    foreign.worlds = Some([WorldId(2)].into());
    for stranger in [foreign, peer(2, &[PeerRole::Edge])] {
        let answer = rig.vaults.deliver(&stranger, request(vault(1))).await.unwrap();
        assert_eq!(answer.code, Code::Forbidden as u32);
    }
    *rig.group.leader.lock().unwrap() = Some(replica(3));
    let answer = rig.vaults.deliver(&peer(2, &[PeerRole::Shard]), request(vault(1))).await.unwrap();
    assert_eq!((answer.code, answer.leader), (Code::NotLeader as u32, replica(3).0));
    rig.vaults.remove(vault(1));
    assert_eq!(rig.vaults.deliver(&peer(2, &[PeerRole::Shard]), request(vault(1))).await, None);
}

/// A region or a directory that takes everything, and has its own cut.
struct Taker {
    cut: u64,
    got: std::sync::Mutex<Vec<ChannelMessage>>,
}

impl Deliver for Taker {
    async fn deliver(&self, request: DeliverRequest) -> Result<DeliverAnswer, DeliverError> {
        let taken_seq = request.messages.last().map_or(0, |m| m.seq);
        self.got.lock().unwrap().extend(request.messages);
        Ok(DeliverAnswer { code: 0, taken_seq, leader: 0, cut: self.cut })
    }
}

#[tokio::test]
async fn its_pump_delivers_and_an_acknowledgement_brings_the_receivers_cut() {
    let rig = VaultRig::new(quick()).await;
    deliver(&rig, vec![message(region(1), 1, 0, deposit(7, 2))]).await;
    deliver(&rig, vec![message(directory_group(), 1, 0, withdraw(7, 2, 3))]).await;
    let taker = Arc::new(Taker { cut: 4, got: std::sync::Mutex::default() });
    let outbox = Arc::new(KeyedOutbox::new(rig.service.clone(), rig.machine.posted()));
    let pump = ChannelPump::new(vault(1), outbox, taker.clone(), PumpOptions::default());
    let roles = rig.machine.roles();
    let task = tokio::spawn(async move { pump.run(roles).await });
    let records = rig.machine.records();
    for _ in 0..500 {
        if records.receivers().await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rig.machine.role(Role::Stopped);
    task.await.unwrap();
    let admits =
        taker.got.lock().unwrap().iter().filter(|m| matches!(&m.body, Some(Message::Admit(a)) if a.carried == "7")).count();
    assert_eq!((admits, records.counters().await.unwrap().cut), (1, 4));
    // It was taken behind the receiver's cut, so at that cut it was on its way.
    let at = inspect(&rig, 4).await;
    assert_eq!((at.code, at.characters.len()), (0, 0));
    let way: Vec<_> = at.in_flight.iter().map(|m| (m.to_group, m.seq, &m.characters[..], &m.items[..])).collect();
    assert_eq!(way, [(region(2).0, 1, &[7][..], &[70][..])]);
}

#[tokio::test]
async fn a_cut_is_told_or_why_it_can_not_be() {
    let rig = VaultRig::new(quick()).await;
    for character in 1..=1200 {
        deliver(&rig, vec![message(region(1), character, 0, deposit(character, 2))]).await;
        if character % 500 == 0 {
            let ack = ChannelAck { from_group: directory_group().0, seq: character, cut: 0 };
            assert_eq!(rig.service.order(Body::Ack(ack)).await.unwrap().code, 0);
        }
    }
    assert_eq!(inspect(&rig, 1).await.code, 2, "not taken yet");
    let taken = rig.service.take_cut(CutNumber(0)).await;
    assert_eq!((taken.code, taken.number), (0, 1));
    assert_eq!(rig.service.take_cut(CutNumber(1)).await.index, taken.index, "taken already");
    assert_eq!(inspect(&rig, 1).await.index, taken.index);
    let hash = inspect(&rig, 1).await.state_hash;
    for character in 1..=100 {
        deliver(&rig, vec![message(directory_group(), character, 0, withdraw(character * 3, 1, 2))]).await;
    }
    let at = inspect(&rig, 1).await;
    assert_eq!((at.code, at.state_hash), (0, hash));
    assert_eq!(at.characters, (1..=1200).collect::<Vec<_>>());
    assert_eq!(at.items, (1..=1200).map(|c| c * 10).collect::<Vec<_>>());
    assert_eq!((at.in_flight.len(), at.taken.len(), at.taken[0].seq), (0, 1, 1200));
    let now = inspect(&rig, 0).await;
    assert_eq!((now.characters.len(), now.in_flight.len()), (1100, 100));
    for _ in 0..20 {
        rig.service.order(Body::Cut(Cut::default())).await.unwrap();
    }
    assert_eq!(inspect(&rig, 1).await.code, 3, "forgotten");
    *rig.group.leader.lock().unwrap() = Some(replica(3));
    rig.group.then([Outcome::NotLeader(Some(replica(3)))]);
    let refused = rig.service.take_cut(CutNumber(99)).await;
    assert_eq!((refused.code, refused.leader), (Code::NotLeader as u32, replica(3).0));
    check_vault(records(rig.machine.store()).await).unwrap();
}

#[tokio::test]
async fn seeds_are_repeated_without_effect() {
    let rig = VaultRig::new(quick()).await;
    let seed = |first| Body::Seed(VaultSeed { first, count: 1000, vaults: 1, record: Bytes::from_static(b"new") });
    rig.group.then([Outcome::CommitUnheard, Outcome::Lose]);
    for first in [1, 1001, 2001, 1] {
        assert_eq!(rig.service.order(seed(first)).await.unwrap().code, 0);
    }
    assert_eq!(rig.machine.records().counters().await.unwrap().held, 3000);
}

/// A log of everything that a vault may be told, from a list of small numbers.
fn log(numbers: &[(u8, u8, u8)]) -> Vec<Entry> {
    let mut seqs = [0u64; 3];
    let entry = |(at, &(kind, a, b)): (usize, &(u8, u8, u8))| {
        let mut next = |channel: usize| {
            seqs[channel] += 1;
            seqs[channel]
        };
        let character = u64::from(a % 6) + 1;
        let messages = |m| Body::Messages(ChannelMessages { messages: vec![m] });
        let body = match kind % 8 {
            0..=2 => messages(message(region(1), next(1), 0, deposit(character, at as u64 * 2 + 2))),
            3 => messages(message(directory_group(), next(0), 0, withdraw(character, u32::from(b % 2) + 1, 9))),
            4 => {
                let stub = DropStub { character, move_number: u64::from(b) };
                messages(message(directory_group(), next(0), 0, Message::DropStub(stub)))
            }
            5 => Body::Ack(ChannelAck { from_group: region(u32::from(a % 2) + 1).0, seq: u64::from(b % 8), cut: 0 }),
            6 => Body::Cut(Cut::default()),
            _ => Body::Seed(VaultSeed { first: u64::from(b % 9) + 1, count: 3, vaults: 1, record: Bytes::new() }),
        };
        let position = Position { term: Term(1), index: LogIndex(at as u64) };
        Entry { position, payload: Payload::Command(encode_vault_entry(at as u64, body)) }
    };
    numbers.iter().enumerate().map(entry).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Power losses, batches and a snapshot in between do not show, and cuts are told alike.
    #[test]
    fn apply_is_replay(
        numbers in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..80),
        batch in 1usize..9, lost_at in any::<prop::sample::Index>(), seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let log = log(&numbers);
            let whole = VaultRig::new(quick()).await;
            for entry in &log {
                whole.machine.apply(vec![entry.clone()]).await.unwrap();
            }
            let expected = records(whole.machine.store()).await;
            check_vault(expected.clone()).unwrap();

            let disk = SimDisk::new(2);
            let machine = TestMachine::vault(vault(1), store_of(&disk, vault(1))).await.unwrap();
            let lost_at = lost_at.index(log.len());
            for entries in log[..lost_at].chunks(batch) {
                machine.apply(entries.to_vec()).await.unwrap();
            }
            let image = disk.copy();
            image.crash(seed);
            let machine = TestMachine::vault(vault(1), store_of(&image, vault(1))).await.unwrap();
            let next = machine.restored().await.unwrap().position.map_or(0, |p| p.index.0 as usize + 1);
            machine.apply(log[next..lost_at].to_vec()).await.unwrap();
            // Another replica takes it from here.
            let other = VaultRig::new(quick()).await;
            other.machine.install(machine.snapshot().await.unwrap()).await.unwrap();
            other.machine.apply(log[lost_at..].to_vec()).await.unwrap();
            assert_eq!(records(other.machine.store()).await, expected);
            for cut in 0..6 {
                assert_eq!(inspect(&other, cut).await, inspect(&whole, cut).await);
            }
        });
    }
}
