//! An order to move a region finds its owner, wherever that is, and says where the region is then.

mod fake;

use fake::{Node, endpoint, serve_node, world};
use marchland_admin::leader::NoLeader;
use marchland_admin::relocate::{MoveError, move_owner};
use marchland_proto::net::TokioTransport;
use marchland_types::{NodeId, RegionId};

#[tokio::test]
async fn the_owner_is_found_and_hands_over() {
    let world = world();
    world.lock().unwrap().owner = 2;
    let mut addresses = Vec::new();
    for number in 1..=3 {
        addresses.push(serve_node(Node::new(number, &world)).await);
    }
    let cluster = endpoint(addresses).connect(&TokioTransport).unwrap();
    let moved = move_owner(&cluster, RegionId(1), Some(NodeId(3))).await.unwrap();
    assert_eq!((moved.from, moved.to, world.lock().unwrap().owner), (2, 3, 3));
    let stays = move_owner(&cluster, RegionId(1), Some(NodeId(3))).await.unwrap();
    assert_eq!((stays.from, stays.to), (3, 3));
    let anywhere = move_owner(&cluster, RegionId(1), None).await.unwrap();
    assert_eq!((anywhere.from, anywhere.to), (3, 1));
    let refused = move_owner(&cluster, RegionId(1), Some(NodeId(9))).await.unwrap_err();
    assert!(matches!(&refused, MoveError::Refused { reason, .. } if reason.contains("node 9")), "{refused}");
    assert_eq!(world.lock().unwrap().owner, 1, "it stays where it is");
    let none = move_owner(&cluster, RegionId(2), None).await.unwrap_err();
    assert!(matches!(none, MoveError::NoLeader(NoLeader::NoRegion(_))), "{none}");
}
