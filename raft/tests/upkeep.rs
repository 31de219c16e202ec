//! Checkpoints, purging, full disks, and groups that come and go.

mod support;

use std::time::Duration;

use bytes::Bytes;
use marchland_raft::testkit::bench_group;
use marchland_raft::{NodeOptions, OpenError, ProposeError, Role};
use marchland_storage::raft_log::RaftLog;
use support::{Cluster, eventually, group_id, propose, replica};

#[tokio::test]
async fn groups_are_persisted_by_bytes_and_the_log_stays_small() {
    let adjust = |options: &mut NodeOptions| {
        options.limits.persist_bytes = 20_000;
        options.limits.kept_bytes = 5_000;
        options.timings.persist_check_ms = 20;
    };
    let mut cluster = Cluster { adjust: Some(adjust), ..Cluster::default() };
    cluster.boot().await;
    let (_, leader) = cluster.leader().await;
    for _ in 0..60 {
        leader.propose(Bytes::from(vec![1; 2000])).await.unwrap();
    }
    eventually("every replica has a checkpoint", || (1..=3).all(|n| cluster.group(n).status().durable.is_some())).await;
    eventually("and a log of little more than what is kept", || {
        (1..=3).all(|n| cluster.running[&n].log.memory_bytes(group_id()) < 40_000)
    })
    .await;
    cluster.converge(60).await;
}

#[tokio::test]
async fn an_idle_group_is_persisted_by_age() {
    let adjust = |options: &mut NodeOptions| {
        options.timings.persist_age_ms = 100;
        options.timings.persist_check_ms = 20;
    };
    let mut cluster = Cluster { adjust: Some(adjust), ..Cluster::default() };
    cluster.boot().await;
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    eventually("every replica has persisted all", || (1..=3).all(|n| cluster.group(n).status().durable == leader.status().last))
        .await;
}

#[tokio::test]
async fn a_full_disk_refuses_proposals_and_recovers_when_space_returns() {
    let mut cluster = Cluster { reserve_bytes: 1 << 20, ..Cluster::default() };
    cluster.boot().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    let disk = cluster.folders[&node].disk.clone().unwrap();
    disk.set_capacity_bytes(Some(1));
    // The writer looks at the free space whenever it writes.
    let mut count = 3;
    let refused = loop {
        match leader.propose(Bytes::copy_from_slice(&u64::to_le_bytes(count))).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ProposeError::Refused { .. }), "{refused:?}");
    assert!(leader.status().fault.is_none());
    disk.set_capacity_bytes(None);
    eventually("the log has room again", || cluster.running[&node].log.room().is_ok()).await;
    propose(&leader, count, 3).await;
    count += 3;
    // A follower without room takes no entries, and catches up later.
    let follower = 1 + node % 3;
    let disk = cluster.folders[&follower].disk.clone().unwrap();
    disk.set_capacity_bytes(Some(1));
    while cluster.running[&follower].log.room().is_ok() {
        propose(&leader, count, 1).await;
        count += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    propose(&leader, count, 3).await;
    assert!(cluster.group(follower).status().fault.is_none());
    disk.set_capacity_bytes(None);
    cluster.converge(count + 3).await;
}

#[tokio::test]
async fn a_group_can_be_closed_opened_again_and_forgotten() {
    let mut cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 5).await;
    let other = 1 + node % 3;
    let raft = cluster.running[&other].local.raft.clone();
    let again = cluster.machine(other, bench_group(9));
    assert!(matches!(raft.open_group(group_id(), again).await, Err(OpenError::AlreadyOpen(_))));
    let closed = cluster.group(other);
    closed.shutdown().await;
    assert_eq!((closed.status().role, closed.status().fault), (Role::Stopped, None));
    assert!(matches!(closed.propose(Bytes::new()).await, Err(ProposeError::Fault { .. })));
    propose(&leader, 5, 5).await;
    cluster.open(other, group_id()).await;
    cluster.converge(10).await;

    leader.remove(replica(other)).await.unwrap();
    cluster.group(other).shutdown().await;
    assert_eq!(raft.known_groups(), [group_id()]);
    raft.forget_group(group_id()).await.unwrap();
    assert!(raft.known_groups().is_empty());
    propose(&leader, 10, 1).await;
}

#[tokio::test]
async fn many_groups_share_connections_and_disks() {
    let mut cluster = Cluster::three().await;
    for serial in 2..=6 {
        for node in 1..=3 {
            cluster.open(node, bench_group(serial)).await;
        }
        let first = cluster.running[&(1 + serial % 3)].local.raft.group(bench_group(serial)).unwrap();
        first.initialize(&(1..=3).map(replica).collect()).await.unwrap();
    }
    for serial in 1..=6 {
        let groups: Vec<_> = (1..=3).map(|n| cluster.running[&n].local.raft.group(bench_group(serial)).unwrap()).collect();
        let leader = marchland_raft::testkit::leader_of(&groups, Duration::from_secs(30)).await.expect("a leader");
        for _ in 0..5 {
            leader.propose(Bytes::from_static(b"x")).await.unwrap();
        }
    }
    for serial in 1..=6 {
        eventually("all replicas applied", || {
            (1..=3).all(|n| cluster.running[&n].machines[&bench_group(serial)].counted().count == 5)
        })
        .await;
    }
}

#[tokio::test]
async fn whatever_loses_power_every_acknowledged_command_is_there_once() {
    let mut cluster = Cluster::three().await;
    let mut count = 0;
    for round in 0..3u64 {
        let (node, leader) = cluster.leader().await;
        propose(&leader, count, 10).await;
        count += 10;
        // One more is on its way as the power goes: whether it is there is unknown, but it is so everywhere.
        let risky = tokio::spawn({
            let leader = leader.clone();
            async move { leader.propose(Bytes::from_static(b"risky")).await }
        });
        tokio::task::yield_now().await;
        drop(leader);
        let victims: Vec<u32> = match round % 3 {
            0 => vec![node],
            1 => vec![node, 1 + node % 3],
            _ => vec![1, 2, 3],
        };
        for victim in &victims {
            cluster.power_off(*victim, round * 97 + u64::from(*victim)).await;
        }
        for victim in victims {
            cluster.start(victim).await;
            cluster.open(victim, group_id()).await;
        }
        let outcome = risky.await.unwrap();
        let (_, leader) = cluster.leader().await;
        let now = cluster.tally(leader.status().leader.unwrap().node().0).count;
        assert!(now == count || now == count + 1, "{now} commands after {count} were acknowledged");
        assert!(outcome.is_err() || now == count + 1, "acknowledged, then lost");
        count = now;
        cluster.converge(count).await;
    }
}
