//! An order to skip an entry finds the leader, and says what became of it.

mod fake;

use fake::{Node, endpoint, serve_node, world};
use marchland_admin::leader::NoLeader;
use marchland_admin::skip::{SkipError, skip_entry};
use marchland_proto::net::TokioTransport;
use marchland_types::{LogIndex, RegionId};

#[tokio::test]
async fn the_leader_is_found_and_its_answer_told() {
    let world = world();
    world.lock().unwrap().owner = 2;
    let mut addresses = Vec::new();
    for number in 1..=3 {
        addresses.push(serve_node(Node::new(number, &world)).await);
    }
    let cluster = endpoint(addresses).connect(&TokioTransport).unwrap();
    let skipped = skip_entry(&cluster, RegionId(1), LogIndex(7), "it panics").await.unwrap();
    assert_eq!((skipped.node, skipped.order_index, skipped.tick), (2, 9, 6));
    let refused = skip_entry(&cluster, RegionId(1), LogIndex(8), "it panics").await.unwrap_err();
    assert!(matches!(&refused, SkipError::Refused { reason, .. } if reason == "it halts elsewhere"), "{refused}");
    let none = skip_entry(&cluster, RegionId(2), LogIndex(7), "it panics").await.unwrap_err();
    assert!(matches!(none, SkipError::NoLeader(NoLeader::NoRegion(_))), "{none}");
}
