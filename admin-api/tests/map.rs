//! The region map is told and changed by whoever leads the directory, and a change is waited for.

mod fake;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::{Node, TOKEN, World, endpoint, five_regions, ground, security, serve_node, world};
use marchland_admin::client::{AdminCluster, AdminEndpoint, CallError};
use marchland_admin::map::{
    MAP_FILE_MAX_BYTES, MAP_REGIONS_MAX, MapError, RegionGround, WorldMap, change_map, move_border, world_map,
};
use marchland_proto::cluster::ChangeMapRequest;
use marchland_proto::codes::Code;
use marchland_proto::net::{Role, TokioTransport};
use marchland_types::{GroupId, RegionId, WorldId};

const WITHIN: Duration = Duration::from_secs(20);

async fn cluster(world: &Arc<Mutex<World>>) -> AdminCluster {
    let mut addresses = Vec::new();
    for number in 1..=3 {
        addresses.push(serve_node(Node::new(number, world)).await);
    }
    endpoint(addresses).connect(&TokioTransport).unwrap()
}

fn five(epoch: u64) -> WorldMap {
    WorldMap { epoch, waiting: 0, regions: five_regions().iter().map(RegionGround::from).collect() }
}

fn moved(map: &WorldMap, a: u32, b: u32, by_m: f32) -> Result<WorldMap, MapError> {
    move_border(map, RegionId(a), RegionId(b), by_m)
}

#[tokio::test]
async fn the_leader_tells_the_map() {
    let world = world();
    {
        let mut world = world.lock().unwrap();
        (world.owner, world.map_epoch, world.waiting, world.stumbles) = (3, 7, 2, 1);
        world.map.reverse();
    }
    let told = world_map(&cluster(&world).await).await.unwrap();
    assert_eq!(told, WorldMap { waiting: 1, ..five(7) });
    assert_eq!(world.lock().unwrap().map_orders, 0);
}

#[tokio::test]
async fn a_map_is_changed_by_the_leader_once_and_waited_for() {
    let world = world();
    {
        let mut world = world.lock().unwrap();
        (world.owner, world.lost_answers) = (2, 1);
    }
    let cluster = cluster(&world).await;
    let mut new = moved(&five(1), 1, 2, 40.0).unwrap();
    new.regions.reverse();
    let mut waits = Vec::new();
    let changed = change_map(&cluster, &new, WITHIN, |waiting| waits.push(waiting)).await.unwrap();
    assert_eq!(changed, moved(&five(2), 1, 2, 40.0).unwrap());
    assert_eq!(waits, [5, 4, 3, 2, 1, 0]);
    {
        let world = world.lock().unwrap();
        assert_eq!((world.map_epoch, world.map_orders), (2, 2), "the answer was lost once, and the order given again");
        let group = |region: u32| world.map.iter().find(|n| n.region == region).unwrap().group;
        assert_eq!((group(1), group(2)), (five_regions()[0].group, five_regions()[1].group), "regions keep their groups");
    }
    // The same file again: it is in force.
    assert_eq!(change_map(&cluster, &new, WITHIN, |_| {}).await.unwrap(), changed);
    // Another one that was made from the old map.
    let late = change_map(&cluster, &moved(&five(1), 3, 4, 1.0).unwrap(), WITHIN, |_| {}).await.unwrap_err();
    assert!(matches!(late, MapError::Stale { from: 1, in_force: 2 }), "{late}");
    assert_eq!(world.lock().unwrap().map_orders, 2);
    assert_eq!(world_map(&cluster).await.unwrap(), changed);
}

#[tokio::test]
async fn regions_that_take_it_later_are_counted_and_the_change_stands() {
    let world = world();
    world.lock().unwrap().takes = false;
    let cluster = cluster(&world).await;
    let new = moved(&five(1), 2, 4, -5.0).unwrap();
    let changed = change_map(&cluster, &new, Duration::from_millis(600), |_| {}).await.unwrap();
    assert_eq!(changed, WorldMap { epoch: 2, waiting: 5, ..new.clone() });
    // Given again, it is waited for again.
    world.lock().unwrap().takes = true;
    assert_eq!(change_map(&cluster, &new, WITHIN, |_| {}).await.unwrap(), WorldMap { waiting: 0, ..changed });
}

#[tokio::test]
async fn a_change_that_somebody_else_changes_is_told_apart() {
    let world = world();
    let cluster = cluster(&world).await;
    let somebody = |_| world.lock().unwrap().map_epoch = 3;
    let overtaken = change_map(&cluster, &moved(&five(1), 1, 2, 5.0).unwrap(), WITHIN, somebody).await.unwrap_err();
    assert!(matches!(overtaken, MapError::Overtaken { epoch: 2, in_force: 3 }), "{overtaken}");
}

#[tokio::test]
async fn maps_that_are_none_of_this_world_are_refused() {
    let world = world();
    let cluster = cluster(&world).await;
    let refused = async |change: fn(&mut Vec<RegionGround>)| {
        let mut new = five(1);
        change(&mut new.regions);
        change_map(&cluster, &new, WITHIN, |_| {}).await.unwrap_err()
    };
    let overlap = refused(|regions| regions[0].max_x = 150.0).await;
    assert!(matches!(&overlap, MapError::Refused { reason, .. } if reason == "regions overlap"), "{overlap}");
    let gap = refused(|regions| regions[0].max_x = 50.0).await;
    assert!(matches!(&gap, MapError::Refused { reason, .. } if reason.contains("other ground")), "{gap}");
    assert_eq!(world.lock().unwrap().map_orders, 2);
    // What the tool sees by itself is not given to anybody.
    for (error, says) in [
        (refused(|regions| regions[4].region = 9).await, "the world has no region 9"),
        (refused(|regions| regions.truncate(4)).await, "the new map lacks region 5: a world keeps its regions"),
        (refused(|regions| regions[4].region = 1).await, "region 1 is on the map twice"),
        (refused(|regions| regions[1].min_x = 200.0).await, "region 2 would have no ground"),
        (refused(|regions| regions[1].min_x = f32::NAN).await, "region 2 would have no ground"),
    ] {
        assert_eq!(error.to_string(), says);
    }
    let world = world.lock().unwrap();
    assert_eq!((world.map_epoch, world.map_orders), (1, 2));
}

#[tokio::test]
async fn without_a_leader_nothing_is_claimed() {
    let world = world();
    world.lock().unwrap().owner = 4;
    let cluster = cluster(&world).await;
    let none = world_map(&cluster).await.unwrap_err();
    assert!(matches!(&none, MapError::NoLeader { reason, .. } if reason == "group is not led here"), "{none}");
    let away = endpoint(vec!["127.0.0.1:1".into()]).connect(&TokioTransport).unwrap();
    assert!(matches!(world_map(&away).await, Err(MapError::NoDirectory)));
}

#[tokio::test]
async fn an_order_without_an_answer_has_an_unknown_outcome() {
    let world = world();
    let cluster = cluster(&world).await;
    let directory = GroupId::directory(WorldId(1)).0;
    let ask = ChangeMapRequest { group: directory, ..ChangeMapRequest::default() };
    assert_eq!(cluster.nodes[0].change_map(ask).await.unwrap().map_epoch, 1);
    // Obeyed, not answered, and changed again before the order is given once more.
    world.lock().unwrap().lost_answers = 1;
    let order = async {
        let new = moved(&five(1), 1, 2, 5.0).unwrap();
        change_map(&cluster, &new, WITHIN, |_| {}).await.unwrap_err()
    };
    let somebody = async {
        while world.lock().unwrap().map_epoch == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.lock().unwrap().map_epoch = 3;
    };
    let (error, ()) = tokio::join!(order, somebody);
    assert!(matches!(error, MapError::Unknown(_)), "{error}");
}

#[test]
fn a_border_moves_if_it_is_a_whole_edge_of_both_and_ground_is_left() {
    let edges = |map: &WorldMap, region: u32| {
        let ground = map.regions.iter().find(|ground| ground.region == region).unwrap();
        [ground.min_x, ground.min_z, ground.max_x, ground.max_z]
    };
    let map = five(4);
    for (a, b) in [(1, 2), (2, 1)] {
        let east = moved(&map, a, b, 40.0).unwrap();
        assert_eq!((edges(&east, 1), edges(&east, 2)), ([0.0, 0.0, 140.0, 100.0], [140.0, 0.0, 200.0, 100.0]));
        assert_eq!((east.epoch, edges(&east, 4)), (4, edges(&map, 4)));
    }
    for (a, b) in [(2, 4), (4, 2)] {
        let north = moved(&map, a, b, -99.5).unwrap();
        assert_eq!((edges(&north, 2), edges(&north, 4)), ([100.0, 0.0, 200.0, 0.5], [100.0, 0.5, 200.0, 200.0]));
    }
    for (a, b, by_m, says) in [
        (2, 5, 1.0, "regions 2 and 5 do not share a whole edge"),
        (1, 4, 1.0, "regions 1 and 4 do not share a whole edge"),
        (1, 1, 1.0, "regions 1 and 1 do not share a whole edge"),
        (1, 9, 1.0, "the world has no region 9"),
        (1, 2, 100.0, "region 2 would have no ground"),
        (1, 2, -100.5, "region 1 would have no ground"),
        (1, 2, 0.0, "a border can not be moved by 0 m"),
        (1, 2, 1e-9, "a border can not be moved by 0.000000001 m"),
        (1, 2, f32::NAN, "a border can not be moved by NaN m"),
        (1, 2, f32::INFINITY, "a border can not be moved by inf m"),
    ] {
        assert_eq!(moved(&map, a, b, by_m).unwrap_err().to_string(), says);
    }
    // Of the same length is not enough: the other bounds are the same to the bit, and nothing is between.
    let mut askew = map.clone();
    askew.regions[1].max_z = 100.0f32.next_up();
    assert!(matches!(moved(&askew, 1, 2, 1.0), Err(MapError::NoBorder(..))));
    let mut apart = map.clone();
    apart.regions[1].min_x = 100.0f32.next_up();
    assert!(matches!(moved(&apart, 1, 2, 1.0), Err(MapError::NoBorder(..))));
}

#[test]
fn a_file_is_a_map_as_it_was_printed_or_refused_in_one_line() {
    let file = |name: &str, text: &[u8]| -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("map-{name}.json"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut map = moved(&five(3), 1, 2, 0.1).unwrap();
    let printed = serde_json::to_vec_pretty(&map).unwrap();
    assert_eq!(WorldMap::from_file(&file("printed", &printed)).unwrap(), map);
    // The largest one fits.
    let edge = f32::MIN_POSITIVE;
    let largest = |region| RegionGround { region, min_x: -edge, min_z: -edge, max_x: edge, max_z: edge };
    map.regions = (0..MAP_REGIONS_MAX as u32).map(|k| largest(u32::MAX - k)).rev().collect();
    let printed = serde_json::to_vec_pretty(&map).unwrap();
    assert_eq!(WorldMap::from_file(&file("largest", &printed)).unwrap(), map);

    let region = r#"{"region":1,"min_x":0,"min_z":0,"max_x":1,"max_z":1}"#;
    let too_much = vec![b' '; MAP_FILE_MAX_BYTES as usize + 1];
    for (name, text, says) in [
        ("empty", &b""[..], "is not a map: EOF"),
        ("rubbish", b"\xff\x00 \n\n rubbish", "is not a map: expected value"),
        ("other", b"{\"nodes\":[]}", "is not a map: missing field"),
        ("negative", br#"{"epoch":-1,"regions":[]}"#, "is not a map: invalid value"),
        ("words", br#"{"epoch":1,"regions":[{"region":"one"}]}"#, "is not a map: invalid type"),
        ("lacking", br#"{"epoch":1,"regions":[{"region":1,"min_x":0}]}"#, "is not a map: missing field"),
        ("trailing", format!(r#"{{"epoch":1,"regions":[{region}]}} and"#).as_bytes(), "is not a map: trailing"),
        ("twice", format!(r#"{{"epoch":1,"regions":[{region},{region}]}}"#).as_bytes(), "region 1 is on the map twice"),
        ("endless", format!(r#"{{"epoch":1,"regions":[{}]}}"#, region.replace("x\":1", "x\":1e60")).as_bytes(), "no ground"),
        ("too-much", &too_much, "it has more than 2097152 bytes"),
    ] {
        let error = WorldMap::from_file(&file(name, text)).unwrap_err().to_string();
        assert!(error.contains(says) && error.lines().count() == 1, "{name}: {error}");
    }
    let error = WorldMap::from_file(Path::new("/nonexistent/map.json")).unwrap_err();
    assert!(error.to_string().starts_with("can not read /nonexistent/map.json"), "{error}");
}

#[tokio::test]
async fn the_service_asks_for_role_and_token_and_bounds_the_map() {
    let world = world();
    let address = serve_node(Node::new(1, &world)).await;
    let give = |roles: &'static [Role], token: &'static str, request: ChangeMapRequest| {
        let endpoint = AdminEndpoint { addresses: vec![address.clone()], security: security(roles), token: token.to_owned() };
        async move { endpoint.connect(&TokioTransport).unwrap().nodes[0].change_map(request).await }
    };
    let group = GroupId::directory(WorldId(1)).0;
    let row = |regions: u32| (1..=regions).map(|k| ground(k, [k as f32, 0.0], [k as f32 + 1.0, 1.0])).collect::<Vec<_>>();
    let order = ChangeMapRequest { group, map_epoch: 2, map: five_regions() };
    for (roles, token, says) in
        [(&[Role::Shard, Role::Edge][..], TOKEN, "role admin"), (&[Role::Admin], "open sesamE", "wrong admin token")]
    {
        let error = give(roles, token, order.clone()).await.unwrap_err();
        assert!(matches!(&error, CallError::Refused { reason, .. } if reason.contains(says)), "{error}");
    }
    let code = async |map_epoch: u64, map| {
        let reply = give(&[Role::Admin], TOKEN, ChangeMapRequest { group, map_epoch, map }).await.unwrap();
        Code::from_u32(reply.code).unwrap()
    };
    let most = MAP_REGIONS_MAX as u32;
    assert_eq!(code(2, row(most + 1)).await, Code::TooLarge);
    assert_eq!(code(0, five_regions()).await, Code::Malformed);
    {
        let mut world = world.lock().unwrap();
        assert_eq!((world.map_epoch, world.map_orders), (1, 0));
        world.map = row(most);
    }
    assert_eq!(code(2, row(most)).await, Code::Ok, "the largest map fits in a request");
}
