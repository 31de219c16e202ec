//! Many characters are made part by part, by whoever leads the directory and the vaults, each part until it is done.

mod fake;

use fake::{Node, endpoint, serve_node, world};
use marchland_admin::client::AdminCluster;
use marchland_admin::seed::{SeedError, Seeded, seed};
use marchland_proto::cluster::InspectReply;
use marchland_proto::net::TokioTransport;
use marchland_types::{GroupId, WorldId};

async fn cluster(world: &std::sync::Arc<std::sync::Mutex<fake::World>>) -> AdminCluster {
    let mut addresses = Vec::new();
    for number in 1..=3 {
        addresses.push(serve_node(Node::new(number, world)).await);
    }
    endpoint(addresses).connect(&TokioTransport).unwrap()
}

#[tokio::test]
async fn every_vault_is_told_every_part_and_the_directory_says_where_it_begins() {
    let world = world();
    let vaults = [1, 2].map(|k| GroupId::vault(WorldId(1), k));
    {
        let mut world = world.lock().unwrap();
        (world.owner, world.stumbles) = (2, 1);
        world.more.extend(vaults.map(|vault| (vault, (0, InspectReply::default()))));
    }
    let cluster = cluster(&world).await;
    let mut told = Vec::new();
    let made = seed(&cluster, 2_500, "sleeper", |made| told.push(made)).await.unwrap();
    assert_eq!(made, Seeded { first: 42, count: 2_500, prefix: "sleeper".into() });
    assert_eq!(told, [1_000, 2_000, 2_500]);
    let world = world.lock().unwrap();
    for vault in vaults {
        assert_eq!(world.seeded[&vault], [(42, 1_000), (1_042, 1_000), (2_042, 500)]);
    }
}

#[tokio::test]
async fn a_world_without_vaults_and_a_name_that_is_taken_are_errors() {
    let world = world();
    let cluster = cluster(&world).await;
    assert_eq!(seed(&cluster, 1, "sleeper", |_| {}).await, Err(SeedError::NoVaults));
    world.lock().unwrap().more.insert(GroupId::vault(WorldId(1), 1), (0, InspectReply::default()));
    let refused = seed(&cluster, 1, "taken", |_| {}).await.unwrap_err();
    assert!(matches!(refused, SeedError::Refused { made: 0, .. }), "{refused}");
}
