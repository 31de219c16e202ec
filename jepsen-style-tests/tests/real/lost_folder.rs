//! A node that lost its whole data folder comes back as somebody else, and takes its place again without an operator.
//!
//! Under load: first the region's owner loses its folder; then another node does, and whoever leads a group is killed as soon as it
//! has begun to replace the lost replica. At the end the newcomers are what a majority rests on, and nothing acknowledged is lost.

use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_jepsen::cluster::{Cluster, DIRECTORY, REGION};
use marchland_types::{Incarnation, NodeId, ReplicaId};
use tokio::time::{Instant, sleep};

use crate::kill_all::got_something;
use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 8;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start_by_hand().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until("somebody reaches ore", 2, got_something).await?;

    let first = cluster.leader(REGION).await?;
    load.fault("the owner loses its data folder");
    lose_folder(&mut cluster, first).await?;
    let begun = Instant::now();
    cluster.start_node(first)?;
    replaced(&cluster, first, 2).await?;
    let took = begun.elapsed();
    cluster.node_ready(first).await?;
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;

    let second = 1 + first % 3;
    load.fault("another node loses its data folder, and leaders die while they replace it");
    lose_folder(&mut cluster, second).await?;
    cluster.start_node(second)?;
    let killed = begun_by(&cluster, second).await?;
    cluster.kill_node(killed).await?;
    sleep(Duration::from_millis(300)).await;
    cluster.start_node(killed)?;
    replaced(&cluster, second, 2).await?;
    cluster.node_ready(second).await?;
    cluster.node_ready(killed).await?;
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;

    // The two newcomers alone are a majority now.
    let third = 1 + second % 3;
    load.fault("the one that never lost anything dies");
    cluster.kill_node(third).await?;
    load.until_acknowledged(4 * PLAYERS).await?;
    cluster.start_node(third)?;
    cluster.node_ready(third).await?;
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;
    load.settle().await?;
    cluster.unharmed()?;
    let verdict = load.judge(&cluster, &["move", "gather", "inventory"]).await?;
    cluster.stop().await?;

    // The old name is gone for good: a folder that claims it is refused.
    Ok(Outcome::Shown(format!("node {first} replaced {took:.1?} after its start; node {second} while {killed} died; {verdict}")))
}

/// Kills a node and removes its folder.
pub async fn lose_folder(cluster: &mut Cluster, node: u32) -> anyhow::Result<()> {
    cluster.kill_node(node).await?;
    std::fs::remove_dir_all(cluster.node_data(node)).context("its data folder")
}

/// The second incarnation of a node.
fn again(node: u32) -> u64 {
    ReplicaId::new(NodeId(node), Incarnation(2)).0
}

/// Waits until this incarnation of a node votes everywhere, and the one before is nowhere.
pub async fn replaced(cluster: &Cluster, node: u32, incarnation: u32) -> anyhow::Result<()> {
    let [gone, new] = [incarnation - 1, incarnation].map(|i| ReplicaId::new(NodeId(node), Incarnation(i)).0);
    for group in [DIRECTORY, REGION] {
        for member in 1..=3 {
            let what = format!("node {member} has {group} with the new replica of node {node}");
            cluster
                .until(&what, async || {
                    let replica = cluster.replica(member, group).await?;
                    ensure!(!replica.learners.contains(&gone));
                    Ok(replica.voters.contains(&new) && !replica.voters.contains(&gone) && replica.voters.len() == 3)
                })
                .await?;
        }
    }
    let said = cluster.said(node)?;
    ensure!(said.contains("not a founding replica"), "node {node} does not say that it waits:\n{said}");
    Ok(())
}

/// Waits until somebody has begun to take in the new replica of a node, and tells who.
async fn begun_by(cluster: &Cluster, node: u32) -> anyhow::Result<u32> {
    let leaders = std::cell::Cell::new(0);
    cluster
        .until("a leader has begun", async || {
            for group in [REGION, DIRECTORY] {
                for member in (1..=3).filter(|member| *member != node) {
                    let Ok(replica) = cluster.replica(member, group).await else { continue };
                    let begun = replica.learners.contains(&again(node)) || replica.voters.contains(&again(node));
                    if replica.role == "leader" && begun {
                        leaders.set(member);
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        })
        .await?;
    Ok(leaders.get())
}
