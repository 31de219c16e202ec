//! Three nodes over loopback: commits, failures, recovery, membership.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use marchland_raft::testkit::{FAULT, PANIC, bench_group};
use marchland_raft::{OpenError, ProposeError, Role};
use marchland_storage::raft_log::RaftLog;
use marchland_types::{NodeId, Term};
use support::{Cluster, eventually, group_id, leads, propose, replica};
use tokio::time::Instant;

#[tokio::test]
async fn commands_are_applied_alike_everywhere() {
    let cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 50).await;
    cluster.converge(50).await;
    assert_eq!(leader.status().voters, (1..=3).map(replica).collect::<Vec<_>>());
    // Every member has what was acknowledged, and a follower says who leads instead of taking a proposal.
    let follower = cluster.group(1 + node % 3);
    let refused = follower.propose(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NotLeader { leader: Some(id), .. } if id == replica(node)), "{refused:?}");
    eventually("the leader learns how far its followers are", || {
        let status = leader.status();
        status.matched.len() == 3 && status.matched.iter().all(|(_, matched)| *matched == status.last)
    })
    .await;
}

#[tokio::test]
async fn proposals_enter_the_log_in_the_order_in_which_they_were_made() {
    let cluster = Cluster::three().await;
    let (_, leader) = cluster.leader().await;
    let proposals = (0..40u64).map(|number| leader.propose(Bytes::copy_from_slice(&number.to_le_bytes())));
    let done = futures::future::join_all(proposals).await;
    let indices: Vec<_> = done.into_iter().map(|d| d.unwrap().position.index).collect();
    assert!(indices.windows(2).all(|pair| pair[0] < pair[1]), "{indices:?}");
}

#[tokio::test]
async fn a_dead_leader_is_replaced_soon() {
    let mut cluster = Cluster { hasty: true, ..Cluster::default() };
    cluster.boot().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 20).await;
    cluster.power_off(node, 7).await;
    let dead = Instant::now();
    let (next, leader) = cluster.leader().await;
    let blackout = dead.elapsed();
    assert_ne!(next, node);
    // Within 0.8 s, on a machine that does nothing else.
    assert!(blackout < Duration::from_millis(2000), "{blackout:?}");
    propose(&leader, 20, 20).await;
    cluster.start(node).await;
    cluster.open(node, group_id()).await;
    cluster.converge(40).await;
}

#[tokio::test]
async fn a_cluster_that_loses_power_at_once_has_every_acknowledged_command() {
    let mut cluster = Cluster::three().await;
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 30).await;
    drop(leader);
    for node in 1..=3 {
        cluster.power_off(node, u64::from(node) * 31).await;
    }
    for node in 1..=3 {
        cluster.start(node).await;
        cluster.open(node, group_id()).await;
    }
    let (_, leader) = cluster.leader().await;
    propose(&leader, 30, 5).await;
    cluster.converge(35).await;
}

#[tokio::test]
async fn a_leader_that_restarts_does_not_resume_its_term() {
    let mut cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 5).await;
    let Role::Leader(term) = leader.status().role else { panic!("it leads") };
    drop(leader);
    cluster.kill(node).await;
    cluster.start(node).await;
    let group = cluster.open(node, group_id()).await;
    let (_, leader) = cluster.leader().await;
    let Role::Leader(now) = leader.status().role else { panic!("it leads") };
    assert!(now > term, "term {now} after {term}");
    let roles = cluster.running[&node].machines[&group_id()].roles();
    assert!(!roles.contains(&Role::Leader(term)), "resumed term {term}: {roles:?}");
    assert!(group.status().term >= now);
}

#[tokio::test]
async fn restored_state_and_log_together_are_the_whole_state() {
    let mut cluster = Cluster::three().await;
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 10).await;
    cluster.converge(10).await;
    for node in 1..=3 {
        let durable = cluster.group(node).persist_now().await.unwrap();
        assert_eq!(durable.map(|p| p.index), cluster.group(node).status().durable);
    }
    propose(&leader, 10, 10).await;
    cluster.converge(20).await;
    drop(leader);
    for node in 1..=3 {
        cluster.kill(node).await;
    }
    for node in 1..=3 {
        cluster.start(node).await;
        cluster.open(node, group_id()).await;
        // The checkpoint's ten, and what the committed mark allows.
        assert!(cluster.tally(node).count >= 10);
    }
    let (_, leader) = cluster.leader().await;
    propose(&leader, 20, 1).await;
    cluster.converge(21).await;
}

#[tokio::test]
async fn a_replica_that_lags_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster { padding_bytes: 700_000, ..Cluster::default() };
    cluster.adjust = Some(|options| options.limits.kept_entries = 4);
    cluster.boot().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 5).await;
    let lagging = 1 + node % 3;
    cluster.kill(lagging).await;
    propose(&leader, 5, 60).await;
    leader.persist_now().await.unwrap();
    eventually("the log is purged", || cluster.running[&node].log.memory_bytes(group_id()) < 400).await;
    cluster.start(lagging).await;
    cluster.open(lagging, group_id()).await;
    cluster.converge(65).await;
    // What was installed is durable: the replica restarts from it.
    cluster.kill(lagging).await;
    cluster.start(lagging).await;
    cluster.open(lagging, group_id()).await;
    assert!(cluster.tally(lagging).count >= 65);
    propose(&leader, 65, 3).await;
    cluster.converge(68).await;
}

#[tokio::test]
async fn a_replica_moves_as_learner_then_voter_and_the_old_one_goes() {
    let mut cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 10).await;
    cluster.start(4).await;
    cluster.open(4, group_id()).await;
    leader.add_learner(replica(4)).await.unwrap();
    eventually("the learner follows", || cluster.tally(4).count == 10).await;
    assert!(matches!(cluster.group(4).status().role, Role::Learner { .. }));
    let gone = 1 + node % 3;
    let voters: BTreeSet<_> = (1..=4).filter(|n| *n != gone).map(replica).collect();
    eventually("the leader knows that it follows", || {
        leader.status().matched.iter().any(|(id, matched)| *id == replica(4) && *matched == leader.status().last)
    })
    .await;
    leader.change_voters(&voters).await.unwrap();
    assert_eq!(leader.status().voters, voters.iter().copied().collect::<Vec<_>>());
    assert!(leader.status().learners.is_empty());
    propose(&leader, 10, 5).await;
    eventually("the new voter applies", || cluster.tally(4).count == 15).await;
    // A voter that has not caught up is refused.
    let refused = leader.change_voters(&(1..=5).map(replica).collect()).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Refused { .. }), "{refused:?}");
    // And a voter can be taken out alone.
    leader.remove(replica(4)).await.unwrap();
    assert_eq!(leader.status().voters.len(), 2);
    propose(&leader, 15, 1).await;
}

#[tokio::test]
async fn leadership_goes_to_a_live_and_caught_up_replica_only() {
    let mut cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 5).await;
    cluster.converge(5).await;
    let heir = 1 + node % 3;
    let begin = Instant::now();
    leader.transfer_leadership(replica(heir)).await.unwrap();
    let gap = begin.elapsed();
    assert!(gap < Duration::from_millis(1500), "an election would have been as fast: {gap:?}");
    let (now, leader) = cluster.leader().await;
    assert_eq!(now, heir);
    propose(&leader, 5, 5).await;
    let refused = leader.transfer_leadership(replica(9)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Refused { .. }), "{refused:?}");
    let dead = 1 + heir % 3;
    cluster.kill(dead).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let refused = leader.transfer_leadership(replica(dead)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Refused { .. }), "{refused:?}");
    assert!(leads(&leader));
    propose(&leader, 10, 1).await;
}

#[tokio::test]
async fn a_machine_that_fails_stops_its_own_group() {
    let mut cluster = Cluster::three().await;
    let other = bench_group(2);
    for node in 1..=3 {
        cluster.open(node, other).await;
    }
    let second: Vec<_> = (1..=3).map(|n| cluster.running[&n].local.raft.group(other).unwrap()).collect();
    second[0].initialize(&(1..=3).map(replica).collect()).await.unwrap();
    let (_, leader) = cluster.leader().await;
    for poison in [FAULT, PANIC] {
        let outcome = leader.propose(Bytes::from_static(poison)).await.unwrap_err();
        assert!(matches!(outcome, ProposeError::Unknown { .. } | ProposeError::Fault { .. }), "{outcome:?}");
    }
    eventually("the group shows its fault on every node", || {
        (1..=3).all(|n| {
            let status = cluster.group(n).status();
            status.role == Role::Stopped && status.fault.as_deref() == Some("told to fail")
        })
    })
    .await;
    assert_eq!(cluster.running[&1].machines[&group_id()].roles().last(), Some(&Role::Stopped));
    let refused = leader.propose(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Fault { .. }), "{refused:?}");
    let lively = marchland_raft::testkit::leader_of(&second, Duration::from_secs(5)).await.expect("the other group lives");
    lively.propose(Bytes::from_static(b"x")).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_panics_stops_its_group_visibly() {
    let cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    let _ = leader.propose(Bytes::from_static(PANIC)).await.unwrap_err();
    eventually("the panic shows", || cluster.group(node).status().fault.is_some_and(|fault| fault.contains("told to panic")))
        .await;
}

#[tokio::test]
async fn an_isolated_replica_does_not_raise_the_term() {
    let cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    let lonely = 1 + node % 3;
    let term = leader.status().term;
    cluster.cuts.isolate(NodeId(lonely), (1..=3).filter(|n| *n != lonely).map(NodeId));
    // Long enough for several elections.
    tokio::time::sleep(Duration::from_millis(5000)).await;
    assert_eq!(cluster.group(lonely).status().term, term);
    propose(&leader, 3, 3).await;
    cluster.cuts.heal();
    cluster.converge(6).await;
    assert_eq!((leader.status().term, leads(&leader)), (term, true));
}

#[tokio::test]
async fn an_isolated_leader_commits_nothing_and_is_replaced() {
    let cluster = Cluster::three().await;
    let (node, old) = cluster.leader().await;
    propose(&old, 0, 3).await;
    let others: Vec<u32> = (1..=3).filter(|n| *n != node).collect();
    cluster.cuts.isolate(NodeId(node), others.iter().copied().map(NodeId));
    let lost = tokio::spawn({
        let old = old.clone();
        async move { old.propose(Bytes::from_static(b"lost")).await }
    });
    let rest: Vec<_> = others.iter().map(|n| cluster.group(*n)).collect();
    let new = marchland_raft::testkit::leader_of(&rest, Duration::from_secs(5)).await.expect("the majority elects");
    propose(&new, 3, 3).await;
    assert!(old.read_barrier().await.is_err(), "a deposed leader answered a read");
    cluster.cuts.heal();
    // Its entry was given up for the new leader's: unknown to whoever proposed, and in truth nowhere.
    let outcome = lost.await.unwrap().unwrap_err();
    assert!(matches!(outcome, ProposeError::Unknown { .. }), "{outcome:?}");
    cluster.converge(6).await;
}

#[tokio::test]
async fn a_read_barrier_includes_what_was_acknowledged() {
    let cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    let done = leader.propose(Bytes::from_static(b"x")).await.unwrap();
    assert!(leader.read_barrier().await.unwrap() >= done.position.index);
    assert!(leader.applied() >= Some(done.position));
    let follower = cluster.group(1 + node % 3);
    assert!(matches!(follower.read_barrier().await, Err(ProposeError::NotLeader { .. })));
}

#[tokio::test]
async fn a_replica_whose_own_store_is_gone_is_rebuilt_from_a_peer() {
    let mut cluster = Cluster { adjust: Some(|options| options.limits.kept_entries = 2), ..Cluster::default() };
    cluster.boot().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 40).await;
    cluster.converge(40).await;
    let victim = 1 + node % 3;
    cluster.group(victim).persist_now().await.unwrap();
    eventually("its log is purged, on disk", || {
        let log = &cluster.running[&victim].log;
        log.memory_bytes(group_id()) < 300 && log.stats().queued_bytes == 0
    })
    .await;
    cluster.kill(victim).await;
    cluster.folders.get_mut(&victim).unwrap().stores.clear();
    cluster.start(victim).await;
    let machine = cluster.machine(victim, group_id());
    let raft = cluster.running[&victim].local.raft.clone();
    let refused = raft.open_group(group_id(), machine.clone()).await.err().expect("the state is lost");
    assert!(matches!(refused, OpenError::StateLost { .. }), "{refused:?}");
    let peers: Vec<_> = (1..=3).map(replica).collect();
    raft.rebuild_group(group_id(), machine, &peers).await.unwrap();
    propose(&leader, 40, 5).await;
    cluster.converge(45).await;
}

#[tokio::test]
async fn initialising_again_changes_nothing() {
    let cluster = Cluster::three().await;
    let (_, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    for node in 1..=3 {
        cluster.group(node).initialize(&(1..=3).map(replica).collect()).await.unwrap();
    }
    assert!(leader.status().term >= Term(1));
    propose(&leader, 3, 1).await;
    cluster.converge(4).await;
}

#[tokio::test]
async fn what_is_too_large_or_too_much_is_refused() {
    let mut cluster = Cluster { adjust: Some(|options| options.limits.proposals_in_flight = 2), ..Cluster::default() };
    cluster.boot().await;
    let (_, leader) = cluster.leader().await;
    let large = leader.propose(Bytes::from(vec![0; marchland_types::limits::LOG_ENTRY_MAX_BYTES])).await.unwrap_err();
    assert!(matches!(large, ProposeError::Refused { .. }), "{large:?}");
    let many = futures::future::join_all((0..6).map(|_| leader.propose(Bytes::from_static(b"x")))).await;
    let refused = many.iter().filter(|one| matches!(one, Err(ProposeError::Refused { .. }))).count();
    assert_eq!((refused, many.iter().filter(|one| one.is_ok()).count()), (4, 2));
}

#[tokio::test]
async fn a_poisoned_log_stops_the_node_and_no_other() {
    let cluster = Cluster::three().await;
    let (node, leader) = cluster.leader().await;
    propose(&leader, 0, 3).await;
    let sick = 1 + node % 3;
    cluster.folders[&sick].disk.as_ref().unwrap().fail_syncs(1);
    let _ = leader.propose(Bytes::from_static(b"x")).await;
    let fatal = cluster.running[&sick].local.raft.fatal();
    let reason = tokio::time::timeout(Duration::from_secs(5), fatal).await.expect("the node learns of it");
    assert!(!reason.is_empty());
    eventually("the group stops there", || cluster.group(sick).status().role == Role::Stopped).await;
    leader.propose(Bytes::from_static(b"y")).await.unwrap();
}
