//! `verify` against nodes that answer over real sockets: what is planted is found, and silence is never a pass.

#![allow(missing_docs)]

mod fake;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::{Node, TOKEN, World, endpoint, security, serve_node, world};
use marchland_admin::client::{AdminEndpoint, CallError, cluster_status};
use marchland_admin::verify::{VerifyError, VerifyReport, verify};
use marchland_proto::cluster::{InFlight, InspectReply, Taken};
use marchland_proto::net::{Role, TokioTransport};
use marchland_types::{GroupId, RegionId, WorldId};

async fn verdict(nodes: Vec<Node>, within_ms: u64) -> Result<VerifyReport, VerifyError> {
    let mut addresses = Vec::new();
    for node in nodes {
        addresses.push(serve_node(node).await);
    }
    let cluster = endpoint(addresses).connect(&TokioTransport).unwrap();
    verify(&cluster, Duration::from_millis(within_ms)).await
}

fn three(world: &Arc<Mutex<World>>) -> Vec<Node> {
    (1..=3).map(|k| Node::new(k, world)).collect()
}

#[tokio::test]
async fn a_sound_cluster_passes_even_when_a_replica_is_late_and_the_owner_has_moved() {
    let world = world();
    world.lock().unwrap().owner = 2;
    let nodes = three(&world);
    *nodes[2].late.lock().unwrap() = 3;
    let report = verdict(nodes, 5_000).await.unwrap();
    assert!(report.sound(), "{report:?}");
    assert_eq!((report.regions, report.replicas, report.items), (1, 3, 3));
    assert_eq!(world.lock().unwrap().cut, 2, "what was taken before is asked for, then one fresh cut, at the true owner");
}

#[tokio::test]
async fn all_groups_of_a_world_take_one_cut() {
    let world = world();
    let region = |serial| GroupId::region(WorldId(1), RegionId(serial));
    let directory = GroupId::directory(WorldId(1));
    {
        let mut world = world.lock().unwrap();
        world.cut = 4;
        // Item 8 and character 2 are between regions 2 and 3.
        let in_flight =
            vec![InFlight { to_group: region(3).0, seq: 5, items: vec![8], characters: vec![2], ..InFlight::default() }];
        let second = InspectReply { items: vec![7], items_minted: 2, in_flight, ..InspectReply::default() };
        world.more.insert(region(2), (9, second));
        let taken = vec![Taken { from_group: region(2).0, seq: 4 }];
        world.more.insert(region(3), (0, InspectReply { characters: vec![3], taken, ..InspectReply::default() }));
        world.more.insert(directory, (0, InspectReply { characters: vec![1, 2, 3], ..InspectReply::default() }));
    }
    let report = verdict(three(&world), 5_000).await.unwrap();
    assert!(report.sound(), "{report:?}");
    assert_eq!((report.regions, report.replicas, report.other_replicas), (3, 9, 3));
    assert_eq!((report.items, report.items_in_flight, report.characters, report.characters_in_flight), (5, 1, 3, 1));
    {
        let mut world = world.lock().unwrap();
        let cuts: Vec<u64> = world.more.values().map(|(cut, _)| *cut).chain([world.cut]).collect();
        assert_eq!(cuts, [10; 4], "one above the highest");
        // Region 3 has taken the message, and nobody stands there.
        world.more.get_mut(&region(3)).unwrap().1.taken[0].seq = 5;
    }
    let report = verdict(three(&world), 5_000).await.unwrap();
    assert_eq!((report.missing_items, report.characters_missing, report.sound()), (1, 1, false));
    assert_eq!(report.missing_character_ids, [2]);
    assert_eq!(world.lock().unwrap().cut, 13, "a loss is looked at again");
}

#[tokio::test]
async fn the_realm_is_looked_at_where_all_of_it_is_asked() {
    let world = world();
    world.lock().unwrap().more.insert(GroupId::realm(), (3, InspectReply { state_hash: 5, ..InspectReply::default() }));
    let report = verdict(three(&world), 5_000).await.unwrap();
    assert!(report.sound(), "{report:?}");
    assert_eq!((report.regions, report.other_replicas), (1, 3));
    let cut = |world: &World| (world.cut, world.more[&GroupId::realm()].0);
    assert_eq!(cut(&world.lock().unwrap()), (4, 4), "one above the highest");
    // Its leader may be on a node of another world: then this world's is not the place to ask for it.
    world.lock().unwrap().realm_hosts = vec![1, 2, 7];
    let report = verdict(three(&world), 5_000).await.unwrap();
    assert_eq!((report.sound(), report.other_replicas), (true, 0));
    assert_eq!(cut(&world.lock().unwrap()), (5, 4));
}

#[tokio::test]
async fn what_is_planted_is_found() {
    let planted: [fn(&mut InspectReply); 3] = [|s| s.components[0].hash = 2, |s| s.state_hash = 2, |s| s.items.push(9)];
    for plant in planted {
        let mut nodes = three(&world());
        nodes[1].plant = plant;
        let report = verdict(nodes, 5_000).await.unwrap();
        assert_eq!((report.divergent, report.divergences[0].replica.as_str()), (1, "2.1"), "{report:?}");
    }
    // On every replica alike: they agree, and are all wrong.
    let everywhere = |plant: fn(&mut InspectReply)| {
        let world = world();
        plant(&mut world.lock().unwrap().state);
        three(&world)
    };
    let report = verdict(everywhere(|s| s.items.push(3)), 5_000).await.unwrap();
    assert_eq!((report.duplicated_items, report.sound()), (1, false));
    let report = verdict(everywhere(|s| s.items.truncate(2)), 5_000).await.unwrap();
    assert_eq!((report.missing_items, report.sound()), (1, false));
    let report = verdict(everywhere(|s| s.characters.push(1)), 5_000).await.unwrap();
    assert_eq!((report.characters_in_two_places, report.sound()), (1, false));
}

#[tokio::test]
async fn a_replica_that_was_found_out_and_shows_nothing_is_divergent() {
    let mut nodes = three(&world());
    nodes[0].diverged = true;
    *nodes[0].late.lock().unwrap() = u32::MAX;
    let report = verdict(nodes, 1_000).await.unwrap();
    assert_eq!((report.divergent, report.reported), (1, 1));
}

#[tokio::test]
async fn a_late_replica_is_waited_for_even_when_it_is_reported() {
    // The owner is the odd one, and the others say that they differ from it.
    let mut nodes = three(&world());
    nodes[0].plant = |s| s.state_hash += 1;
    nodes[1].diverged = true;
    nodes[2].diverged = true;
    *nodes[2].late.lock().unwrap() = 3;
    let report = verdict(nodes, 5_000).await.unwrap();
    assert_eq!((report.divergent, report.reported), (1, 2));
    assert_eq!(report.divergences[0].replica, "1.1");
}

#[tokio::test]
async fn silence_is_an_error() {
    // A replica that never comes so far.
    let nodes = three(&world());
    *nodes[1].late.lock().unwrap() = u32::MAX;
    let error = verdict(nodes, 700).await.unwrap_err();
    assert!(matches!(error, VerifyError::NoReplica { .. }), "{error}");
    assert!(error.to_string().contains("2.1"), "{error}");
    // A node that was not asked.
    let mut nodes = three(&world());
    nodes.pop();
    let error = verdict(nodes, 300).await.unwrap_err();
    assert!(error.to_string().contains("node 3 was not asked"), "{error}");
    // A node that is not there.
    let cluster = endpoint(vec!["127.0.0.1:1".into()]).connect(&TokioTransport).unwrap();
    let error = verify(&cluster, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, VerifyError::Call(CallError::NoAnswer { .. })), "{error}");
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
    let view = cluster_status(&cluster).await;
    assert!(!view.healthy() && view.nodes[0].error.is_some());
}

#[tokio::test]
async fn certificate_and_token_are_both_needed() {
    let address = serve_node(Node::new(1, &world())).await;
    let ask = |roles: &'static [Role], token: &'static str| {
        let endpoint = AdminEndpoint { addresses: vec![address.clone()], security: security(roles), token: token.to_owned() };
        async move { endpoint.connect(&TokioTransport).unwrap().nodes[0].status().await }
    };
    assert_eq!(ask(&[Role::Admin], TOKEN).await.unwrap().node, 1);
    for (roles, token, says) in
        [(&[Role::Shard, Role::Edge][..], TOKEN, "role admin"), (&[Role::Admin], "open sesamE", "wrong admin token")]
    {
        let error = ask(roles, token).await.unwrap_err();
        assert!(matches!(&error, CallError::Refused { reason, .. } if reason.contains(says)), "{error}");
    }
    assert!(AdminEndpoint { token: " ".into(), ..endpoint(vec![address]) }.connect(&TokioTransport).is_err());
}
