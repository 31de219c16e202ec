//! Groups at rest: who agrees, what wakes them, and what they cost meanwhile.

mod support;

use std::time::Duration;

use bytes::Bytes;
use marchland_raft::{Group, Role};
use marchland_types::NodeId;
use support::{Cluster, eventually, group_id, propose, replica};
use tokio::time::{Instant, sleep};

/// Lets a group rest; its leader has to hear its followers' nodes first.
async fn put_to_rest(cluster: &Cluster, leader: &Group) {
    let within = Instant::now() + Duration::from_secs(10);
    while !leader.rest().await {
        assert!(Instant::now() < within, "the group does not come to rest: {:?}", leader.status());
        sleep(Duration::from_millis(50)).await;
    }
    for node in 1..=3 {
        assert!(cluster.group(node).is_at_rest(), "node {node}");
    }
}

fn term(cluster: &Cluster) -> u64 {
    (1..=3).map(|node| cluster.group(node).status().term.0).max().unwrap()
}

#[tokio::test]
async fn a_group_at_rest_stays_so_and_wakes_for_a_proposal_without_an_election() {
    let cluster = Cluster::three().await;
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 20).await;
    put_to_rest(&cluster, &leader).await;
    let before = term(&cluster);
    // Far longer than any election timeout, or lease.
    sleep(Duration::from_secs(3)).await;
    assert!((1..=3).all(|node| cluster.group(node).is_at_rest()));
    let began = Instant::now();
    leader.propose(Bytes::from_static(b"20")).await.unwrap();
    let woke = began.elapsed();
    assert!(woke < Duration::from_millis(250), "{woke:?}");
    eventually("all are awake", || (1..=3).all(|node| !cluster.group(node).is_at_rest())).await;
    propose(&leader, 21, 20).await;
    cluster.converge(41).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(term(&cluster), before, "nobody had a reason to elect");
}

#[tokio::test]
async fn a_follower_that_is_asked_for_its_leader_is_no_reason_to_wake_but_work_is() {
    let cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 5).await;
    put_to_rest(&cluster, &leader).await;
    let follower = cluster.group(1 + node % 3);
    assert_eq!(follower.status().leader, Some(replica(node)));
    assert!(follower.propose(Bytes::from_static(b"x")).await.is_err());
    // It asked its leader to wake, for it may be gone.
    eventually("the leader is awake", || !leader.is_at_rest()).await;
    propose(&leader, 5, 5).await;
    cluster.converge(10).await;
}

#[tokio::test]
async fn a_leader_that_dies_while_its_group_rests_is_replaced() {
    let mut cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 10).await;
    put_to_rest(&cluster, &leader).await;
    drop(leader);
    cluster.power_off(node, 3).await;
    let dead = Instant::now();
    let (next, leader) = cluster.leader().await;
    assert_ne!(next, node);
    assert!(dead.elapsed() < Duration::from_secs(5), "{:?}", dead.elapsed());
    propose(&leader, 10, 10).await;
    // Two of three are enough to rest; the third wakes them when it comes back.
    let within = Instant::now() + Duration::from_secs(10);
    while !leader.rest().await {
        assert!(Instant::now() < within, "{:?}", leader.status());
        sleep(Duration::from_millis(50)).await;
    }
    cluster.start(node).await;
    cluster.open(node, group_id()).await;
    cluster.converge(20).await;
}

#[tokio::test]
async fn a_follower_that_begins_again_finds_the_leader_that_rested() {
    let mut cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 10).await;
    put_to_rest(&cluster, &leader).await;
    let before = term(&cluster);
    let other = 1 + node % 3;
    cluster.power_off(other, 3).await;
    cluster.start(other).await;
    cluster.open(other, group_id()).await;
    eventually("it follows", || cluster.group(other).status().leader == Some(replica(node))).await;
    propose(&leader, 10, 10).await;
    cluster.converge(20).await;
    assert_eq!(term(&cluster), before, "the leader was there all the time");
    assert!(matches!(leader.status().role, Role::Leader(_)));
}

#[tokio::test]
async fn a_cut_off_leader_is_replaced_and_does_not_rest_alone() {
    let cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 10).await;
    put_to_rest(&cluster, &leader).await;
    cluster.cuts.isolate(NodeId(node), (1..=3).filter(|other| *other != node).map(NodeId));
    let within = Instant::now() + Duration::from_secs(10);
    let next = loop {
        assert!(Instant::now() < within, "nobody leads");
        let others = (1..=3).filter(|other| *other != node).map(|other| cluster.group(other));
        if let Some(next) = others.into_iter().find(|group| matches!(group.status().role, Role::Leader(_))) {
            break next;
        }
        sleep(Duration::from_millis(20)).await;
    };
    propose(&next, 10, 10).await;
    assert!(!leader.rest().await, "it has no majority");
    cluster.cuts.heal();
    cluster.converge(20).await;
}

#[tokio::test]
async fn a_group_with_something_under_way_or_a_stranger_as_its_leader_does_not_rest() {
    let cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 5).await;
    let follower = cluster.group(1 + node % 3);
    assert!(!follower.rest().await, "only the leader decides");
    put_to_rest(&cluster, &leader).await;
    // One that is closed while its node lives tells the others.
    leader.shutdown().await;
    let within = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < within, "nobody leads");
        let leads = |other: u32| matches!(cluster.group(other).status().role, Role::Leader(_));
        if (1..=3).filter(|other| *other != node).any(leads) {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
