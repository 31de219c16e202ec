//! Entries that a state machine can not apply: the group halts, alone, and goes on where it is ordered to skip them.

mod support;

use std::time::Duration;

use bytes::Bytes;
use marchland_raft::testkit::{HALT, SLOW, bench_group, skip_order};
use marchland_raft::{Group, NodeOptions, ProposeError};
use marchland_types::{LogIndex, NodeId};
use support::{Cluster, eventually, group_id, leads, propose, replica};

/// Proposals do not wait for ever, and little of the log is kept.
fn adjust(options: &mut NodeOptions) {
    options.timings.propose_ms = 1_000;
    options.timings.persist_check_ms = 20;
    options.limits.persist_bytes = 20_000;
    options.limits.kept_bytes = 5_000;
}

async fn three() -> Cluster {
    let mut cluster = Cluster { adjust: Some(adjust), ..Cluster::default() };
    cluster.boot().await;
    cluster
}

fn halted_at(group: &Group) -> Option<LogIndex> {
    group.status().halted.map(|halt| halt.index)
}

/// Proposes what nobody can apply, and waits until all nodes say so.
async fn halt(cluster: &Cluster, leader: &Group) -> LogIndex {
    let outcome = leader.propose(Bytes::from_static(HALT)).await.unwrap_err();
    assert!(matches!(outcome, ProposeError::Unknown { .. }), "{outcome:?}");
    let at = leader.status().last.unwrap();
    eventually("every replica halts there", || cluster.groups().iter().all(|group| halted_at(group) == Some(at))).await;
    at
}

/// Who leads in the highest term, although it has not applied its term's first entry and can not.
async fn halted_leader(cluster: &Cluster) -> (u32, Group) {
    loop {
        let leaders = cluster.groups().into_iter().filter(leads);
        if let Some(leader) = leaders.max_by_key(|group| group.status().term) {
            let node = leader.status().leader.map_or(0, |leader| leader.node().0);
            return (node, leader);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn skip(cluster: &Cluster, at: LogIndex) -> Group {
    loop {
        let (_, leader) = halted_leader(cluster).await;
        match leader.skip(at, skip_order(at)).await {
            Ok(done) => {
                assert!(done.position.index > at);
                return leader;
            }
            // It has just been elected, or has not come to the entry yet.
            Err(ProposeError::NotLeader { .. } | ProposeError::Refused { .. }) => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            Err(error) => panic!("not skipped: {error}"),
        }
    }
}

#[tokio::test]
async fn one_group_halts_and_goes_on_and_no_other_notices() {
    let mut cluster = three().await;
    let other = bench_group(2);
    for node in 1..=3 {
        cluster.open(node, other).await;
    }
    let others: Vec<Group> = (1..=3).map(|node| cluster.running[&node].local.raft.group(other).unwrap()).collect();
    others[0].initialize(&(1..=3).map(replica).collect()).await.unwrap();
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 5).await;
    let at = halt(&cluster, &leader).await;

    let next = leader.propose(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(&next, ProposeError::Refused { reason, .. } if reason.contains(&format!("entry {at}: halt"))), "{next:?}");
    assert!(leader.status().fault.is_none());
    assert!(leader.persist_now().await.is_err(), "half of an entry was made durable");
    let other_leader = marchland_raft::testkit::leader_of(&others, Duration::from_secs(30)).await.expect("a leader");
    for _ in 0..20 {
        other_leader.propose(Bytes::from_static(b"x")).await.unwrap();
    }
    for wrong in [LogIndex(at.0 - 1), at.next()] {
        let refused = leader.skip(wrong, skip_order(wrong)).await.unwrap_err();
        assert!(matches!(refused, ProposeError::Refused { .. }), "{refused:?}");
    }

    let leader = skip(&cluster, at).await;
    // The order is a command, too.
    cluster.converge(6).await;
    propose(&leader, 6, 5).await;
    cluster.converge(11).await;
    assert!(cluster.groups().iter().all(|group| halted_at(group).is_none()));
    let refused = leader.skip(at, skip_order(at)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Refused { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_halted_group_elects_and_outlives_restarts_of_all_nodes() {
    let mut cluster = three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 5).await;
    leader.persist_now().await.unwrap();
    propose(&leader, 5, 5).await;
    let at = halt(&cluster, &leader).await;
    drop(leader);
    // The leader goes: another one leads, and halts as well.
    cluster.kill(node).await;
    let (next, leader) = halted_leader(&cluster).await;
    assert!(next != node && halted_at(&leader) == Some(at));
    drop(leader);
    // Everybody goes.
    for other in (1..=3).filter(|other| *other != node) {
        cluster.power_off(other, u64::from(other)).await;
    }
    for node in 1..=3 {
        cluster.start(node).await;
        cluster.open(node, group_id()).await;
    }
    eventually("every replica halts again", || cluster.groups().iter().all(|group| halted_at(group) == Some(at))).await;
    let leader = skip(&cluster, at).await;
    cluster.converge(11).await;
    propose(&leader, 11, 3).await;
    drop(leader);
    // And who begins anew below the entry skips it without trying.
    for node in 1..=3 {
        cluster.kill(node).await;
        cluster.start(node).await;
        cluster.open(node, group_id()).await;
        cluster.converge(14).await;
    }
}

#[tokio::test]
async fn a_replica_that_was_away_skips_without_halting() {
    let mut cluster = three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    cluster.converge(3).await;
    let away = 1 + node % 3;
    cluster.kill(away).await;
    let at = halt(&cluster, &leader).await;
    let leader = skip(&cluster, at).await;
    propose(&leader, 4, 3).await;
    cluster.start(away).await;
    cluster.open(away, group_id()).await;
    cluster.converge(7).await;
}

#[tokio::test]
async fn a_replica_that_halts_takes_the_state_of_one_that_is_past() {
    let cluster = three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    let at = halt(&cluster, &leader).await;
    let cut = 1 + node % 3;
    cluster.cuts.isolate(NodeId(cut), (1..=3).filter(|other| *other != cut).map(NodeId));
    let leader = skip(&cluster, at).await;
    let mut count = 4;
    for _ in 0..60 {
        leader.propose(Bytes::from(vec![1; 2000])).await.unwrap();
        count += 1;
    }
    eventually("the order is out of the leader's log", || {
        let state = marchland_storage::raft_log::RaftLog::state(&cluster.running[&node].log, group_id());
        state.purged.is_some_and(|purged| purged.index > at.next())
    })
    .await;
    assert_eq!(halted_at(&cluster.group(cut)), Some(at));
    cluster.cuts.heal();
    cluster.converge(count).await;
    assert_eq!(halted_at(&cluster.group(cut)), None);
    propose(&leader, count, 3).await;
    cluster.converge(count + 3).await;
}

#[tokio::test]
async fn what_was_only_slow_is_met_again() {
    let cluster = three().await;
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    let done = leader.propose(Bytes::from_static(SLOW)).await.unwrap();
    assert_eq!(done.answer, Bytes::copy_from_slice(&4u64.to_le_bytes()), "the half that was done first is not there");
    cluster.converge(4).await;
}
