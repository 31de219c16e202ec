//! What the service answers, whatever becomes of its proposals.

mod support;

use std::sync::atomic::Ordering;

use marchland_proto::cluster::{ChangeMapRequest, DeliverRequest, LocateRequest, RegisterRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::Role as PeerRole;
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{ChannelAck, ChannelMessage, Cut, Fin, Neighbour, NodeRegistration, channel_message};
use marchland_router::{Audited, DirectoryOptions, OrderError};
use marchland_types::{CharacterId, ReplicaId, WorldId};
use support::*;

fn quick() -> DirectoryOptions {
    DirectoryOptions { order_ms: 60, busy_ms: 20, retry_ms: 1, ..DirectoryOptions::default() }
}

fn code(number: u32) -> Code {
    Code::from_u32(number).unwrap()
}

#[tokio::test]
async fn a_sign_in_whose_answer_was_not_heard_takes_effect_once() {
    let rig = Rig::begun(quick()).await;
    let edge = peer(9, &[PeerRole::Edge]);
    for (request, outcomes) in [
        (1, vec![Outcome::Lose, Outcome::CommitUnheard, Outcome::CommitUnheard]),
        (2, vec![Outcome::CommitUnheard, Outcome::Lose]),
        (3, vec![]),
    ] {
        rig.group.then(outcomes);
        let reply = rig.service.sign_in(&edge, sign_in_request("anna", "Ann", request)).await;
        let answer = reply.answer.expect("signed in");
        assert_eq!((code(reply.code), answer.epoch, answer.group), (Code::Ok, request, region(1).0));
    }
    assert_eq!(rig.service.view().records().posted(region(1), 100).await.unwrap().len(), 3);
    let named = rig.service.view().character_named("ann").await.unwrap().unwrap();
    assert_eq!((named.epoch, named.account.as_str()), (3, "anna"));
}

#[tokio::test]
async fn one_that_stays_unknown_is_unavailable_and_can_be_repeated() {
    let rig = Rig::begun(quick()).await;
    let edge = peer(9, &[PeerRole::Edge]);
    rig.group.then(std::iter::repeat_n(Outcome::CommitUnheard, 200));
    let reply = rig.service.sign_in(&edge, sign_in_request("anna", "Ann", 1)).await;
    assert_eq!((code(reply.code), reply.answer), (Code::Unavailable, None));
    rig.group.outcomes.lock().unwrap().clear();
    let reply = rig.service.sign_in(&edge, sign_in_request("anna", "Ann", 1)).await;
    assert_eq!(reply.answer.unwrap().epoch, 1, "the same sign-in");
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let rig = Rig::begun(quick()).await;
    let edge = peer(9, &[PeerRole::Edge]);
    let good = || sign_in_request("anna", "Ann", 1);
    let ask = async |request| code(rig.service.sign_in(&edge, request).await.code);
    assert_eq!(ask(good()).await, Code::Ok);
    let mut request = good();
    request.token.replace_range(10..11, "_");
    assert_eq!(ask(request).await, Code::BadToken);
    let mut request = good();
    request.character_name = " \u{200b}".into();
    assert_eq!(ask(request).await, Code::BadName);
    let mut request = good();
    request.secret_hash = vec![0; 3].into();
    assert_eq!(ask(request).await, Code::Malformed);
    assert_eq!(ask(sign_in_request("berta", "ANN ", 1)).await, Code::NameTaken);
    rig.clock.0.store(1_000_000, Ordering::Relaxed);
    assert_eq!(ask(sign_in_request("anna", "Ann", 7)).await, Code::BadToken, "expired");
    rig.clock.0.store(0, Ordering::Relaxed);
    rig.group.then(std::iter::repeat_n(Outcome::Refuse, 100));
    assert_eq!(ask(sign_in_request("anna", "Ann", 8)).await, Code::Unavailable);
    rig.group.outcomes.lock().unwrap().truncate(3);
    assert_eq!(ask(sign_in_request("anna", "Ann", 8)).await, Code::Ok, "refused for a moment only");
    rig.group.then([Outcome::NotLeader(Some(replica(2)))]);
    let reply = rig.service.sign_in(&edge, sign_in_request("anna", "Ann", 9)).await;
    assert_eq!((code(reply.code), reply.leader), (Code::NotLeader, replica(2).0));

    let admin = peer(9, &[PeerRole::Admin]);
    let mut foreign = peer(9, &[PeerRole::Edge]);
    foreign.worlds = Some([WorldId(2)].into());
    for stranger in [admin, foreign] {
        assert_eq!(code(rig.service.sign_in(&stranger, good()).await.code), Code::Forbidden);
        let request = LocateRequest { world: WORLD.0, character: 1 };
        assert_eq!(code(rig.service.locate(&stranger, request).await.code), Code::Forbidden);
        let request = DeliverRequest { to_group: directory_group().0, messages: vec![] };
        assert_eq!(code(rig.service.deliver(&stranger, request).await.code), Code::Forbidden);
    }
}

#[tokio::test]
async fn followers_name_the_leader_and_answer_only_for_the_map() {
    let rig = Rig::begun(quick()).await;
    let edge = peer(9, &[PeerRole::Edge, PeerRole::Shard]);
    let character = rig.service.sign_in(&edge, sign_in_request("anna", "Ann", 1)).await.answer.unwrap().character;
    let locate = async |character| rig.service.locate(&edge, LocateRequest { world: WORLD.0, character }).await;
    let found = locate(character).await;
    assert_eq!((code(found.code), found.group, found.region, found.move_number), (Code::Ok, region(1).0, 1, 1));
    assert_eq!(found.plans[0].group, region(1).0);
    assert_eq!(code(locate(77).await.code), Code::BadResume, "no such character");

    *rig.group.leader.lock().unwrap() = Some(replica(3));
    let proposals = rig.group.proposals.load(Ordering::Relaxed);
    let reply = rig.service.sign_in(&edge, sign_in_request("anna", "Ann", 2)).await;
    assert_eq!((code(reply.code), reply.leader), (Code::NotLeader, replica(3).0));
    let reply = locate(character).await;
    assert_eq!((code(reply.code), reply.leader), (Code::NotLeader, replica(3).0));
    let node = Some(NodeRegistration { node: 9, folder_id: vec![1; 16].into(), ..NodeRegistration::default() });
    let reply = rig.service.register(&edge, RegisterRequest { world: WORLD.0, node }).await;
    assert_eq!((code(reply.code), reply.leader), (Code::NotLeader, replica(3).0));
    let map = locate(0).await;
    assert_eq!((code(map.code), map.map.len(), map.plans.len(), map.map_epoch), (Code::Ok, 2, 3, 1));
    assert_eq!(rig.group.proposals.load(Ordering::Relaxed), proposals);
}

#[tokio::test]
async fn a_node_registers_itself_and_nobody_else() {
    let rig = Rig::begun(quick()).await;
    let node = |node, folder: u8| {
        let node =
            NodeRegistration { node, folder_id: vec![folder; 16].into(), grpc: "a:1".into(), ..NodeRegistration::default() };
        RegisterRequest { world: WORLD.0, node: Some(node) }
    };
    let shard = peer(4, &[PeerRole::Shard]);
    rig.group.then([Outcome::CommitUnheard]);
    let reply = rig.service.register(&shard, node(4, 1)).await;
    assert_eq!((code(reply.code), reply.incarnation), (Code::Ok, 1));
    let reply = rig.service.register(&shard, node(4, 2)).await;
    assert_eq!((code(reply.code), reply.incarnation), (Code::Ok, 2));
    let reply = rig.service.register(&shard, node(4, 1)).await;
    assert_eq!((code(reply.code), reply.incarnation), (Code::Superseded, 1));
    assert_eq!(code(rig.service.register(&shard, node(5, 1)).await.code), Code::Forbidden);
    assert_eq!(code(rig.service.register(&peer(4, &[PeerRole::Edge]), node(4, 1)).await.code), Code::Forbidden);
    assert_eq!(code(rig.service.register(&shard, RegisterRequest { world: 1, node: None }).await.code), Code::Malformed);
    for (incarnation, expected) in [(0, false), (1, true), (2, true), (3, false)] {
        let id = ReplicaId::new(4.into(), incarnation.into());
        assert_eq!(rig.service.view().issued(id).await.unwrap(), expected);
    }
    let nodes = rig.service.view().nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|n| (n.node, n.incarnation)).collect::<Vec<_>>(), [(4, 2)]);
}

#[tokio::test]
async fn deliveries_are_committed_once_and_bounded() {
    let rig = Rig::begun(quick()).await;
    let shard = peer(2, &[PeerRole::Shard]);
    let fin = |seq| ChannelMessage {
        from_group: region(2).0,
        seq,
        cut: 0,
        map_epoch: 1,
        body: Some(channel_message::Body::Fin(Fin {})),
    };
    let deliver = async |messages| {
        let answer = rig.service.deliver(&shard, DeliverRequest { to_group: directory_group().0, messages }).await;
        (code(answer.code), answer.taken_seq)
    };
    rig.group.then([Outcome::CommitUnheard, Outcome::Lose]);
    assert_eq!(deliver(vec![fin(1), fin(2)]).await, (Code::Ok, 2));
    assert_eq!(deliver(vec![fin(2), fin(3)]).await, (Code::Ok, 3));
    assert_eq!(deliver(vec![fin(5)]).await, (Code::Gap, 3));
    assert_eq!(deliver(vec![fin(4); 1025]).await.0, Code::TooLarge);
    let elsewhere = DeliverRequest { to_group: region(1).0, messages: vec![fin(4)] };
    assert_eq!(code(rig.service.deliver(&shard, elsewhere).await.code), Code::Forbidden);
}

#[tokio::test]
async fn the_map_is_told_and_changed_by_the_leader_and_who_does_not_know_it_yet_is_counted() {
    let rig = Rig::begun(quick()).await;
    let change = async |map_epoch, map: &[Neighbour]| {
        let request = ChangeMapRequest { group: directory_group().0, map_epoch, map: map.to_vec() };
        rig.service.change_map(request).await
    };
    let told = change(0, &[]).await;
    assert_eq!((code(told.code), told.map_epoch, told.map.len(), told.waiting), (Code::Ok, 1, 2, 0));
    let mut map = told.map;
    (map[0].max_x, map[1].min_x) = (map[0].max_x - 5.0, map[1].min_x - 5.0);
    // An outcome that nobody heard of is asked for again, and the order is obeyed once.
    rig.group.then([Outcome::CommitUnheard, Outcome::Lose]);
    let changed = change(2, &map).await;
    assert_eq!((code(changed.code), changed.map_epoch, changed.waiting), (Code::Ok, 2, 2), "{}", changed.reason);
    assert_eq!(changed.map, map);
    let found = rig.service.locate(&peer(9, &[PeerRole::Edge]), LocateRequest { world: WORLD.0, character: 0 }).await;
    assert_eq!((found.map_epoch, &found.map), (2, &map));
    let ack = ChannelAck { from_group: region(1).0, seq: 1, cut: 0 };
    assert_eq!(code(rig.service.order(Body::Ack(ack)).await.unwrap().code), Code::Ok);
    assert_eq!(change(0, &[]).await.waiting, 1);
    // With other messages in the channel, it is the one with the map that counts.
    rig.service.sign_in(&peer(9, &[PeerRole::Edge]), sign_in_request("anna", "Ann", 1)).await;
    assert_eq!(change(0, &[]).await.waiting, 1);
    let refused = change(4, &map).await;
    assert_eq!((code(refused.code), refused.map_epoch), (Code::Refused, 2));
    *rig.group.leader.lock().unwrap() = Some(replica(3));
    for reply in [change(0, &[]).await, change(3, &map).await] {
        assert_eq!((code(reply.code), reply.leader), (Code::NotLeader, replica(3).0));
    }
}

#[tokio::test]
async fn a_cut_without_a_number_is_not_repeated() {
    let rig = Rig::begun(quick()).await;
    rig.group.then([Outcome::CommitUnheard]);
    assert!(matches!(rig.service.order(Body::Cut(Cut::default())).await, Err(OrderError::Unknown(_))));
    assert_eq!(rig.service.order(Body::Cut(Cut { number: 1, now_ms: 0 })).await.unwrap().cut, 1);
    assert!(rig.service.view().records().cut(1.into()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_cut_of_the_directory_names_those_who_must_be_somewhere() {
    let rig = Rig::begun(quick()).await;
    for n in 1..=3 {
        assert_eq!(rig.service.order(sign_in_order("anna", &format!("n{n}"), n)).await.unwrap().code, 0);
    }
    let place = |seq, character| location(1, seq, character, 1);
    assert_eq!(rig.service.order(place(1, 2)).await.unwrap().taken_seq, 1);
    let taken = rig.service.take_cut(5.into()).await;
    assert_eq!((taken.code, taken.number), (0, 5));
    assert_eq!(rig.service.order(place(2, 1)).await.unwrap().taken_seq, 2);
    let at = rig.service.inspect(5.into()).await;
    assert_eq!((at.code, at.index, &at.characters[..], at.items.len()), (0, taken.index, &[2][..], 0));
    assert_eq!(at.taken.iter().map(|t| (t.from_group, t.seq)).collect::<Vec<_>>(), [(region(1).0, 1)]);
    assert_eq!(rig.service.inspect(0.into()).await.characters, [1, 2]);
    assert_eq!(rig.service.inspect(6.into()).await.code, 2, "not taken yet");
    assert_eq!(rig.service.inspect(4.into()).await.code, 3, "passed over");
}

#[tokio::test]
async fn more_calls_than_allowed_are_told_to_come_again() {
    let rig = Rig::begun(DirectoryOptions { calls_in_flight: 1, ..quick() }).await;
    let edge = peer(9, &[PeerRole::Edge]);
    rig.group.then(std::iter::repeat_n(Outcome::Lose, 5));
    let (first, second) = tokio::join!(
        rig.service.sign_in(&edge, sign_in_request("anna", "Ann", 1)),
        rig.service.sign_in(&edge, sign_in_request("berta", "Ber", 1)),
    );
    assert_eq!((code(first.code), code(second.code)), (Code::Ok, Code::Unavailable));
    assert_eq!(rig.service.view().character(CharacterId(2)).await.unwrap(), None);
}
