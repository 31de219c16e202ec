//! A replica whose state is not the majority's is taken out of service and rebuilt from a peer, under load and without an operator.
//!
//! First the odd one is whatever it is when all three start. Then it leads, with one other replica beside it: the two can not know
//! who is right, and say so. When the third comes, the leader yields.

use anyhow::ensure;
use marchland_jepsen::cluster::{Cluster, REGION};
use marchland_jepsen::plant;

use crate::kill_all::got_something;
use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 8;
const FOUND: &str = "this replica's state is not the majority's";
const REBUILT: &str = "replica has the state of the majority again";
const NOBODY_KNOWS: &str = "no majority of them says whose state is right";

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start_by_hand().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until("somebody reaches ore", 2, got_something).await?;

    load.fault("all nodes stop, and node 2 remembers another name");
    for node in 1..=3 {
        cluster.stop_node(node).await?;
    }
    plant::rename(&cluster.node_data(2), "player-003", "plover-003")?;
    for node in 1..=3 {
        cluster.start_node(node)?;
    }
    rebuilt(&cluster, 2, 1).await?;
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;

    load.fault("all nodes stop, and the one of two that will lead remembers another name");
    for node in 1..=3 {
        cluster.stop_node(node).await?;
    }
    // Who waits least leads, and that depends on node and group alone.
    cluster.start_node(1)?;
    cluster.start_node(2)?;
    let odd = cluster.leader(REGION).await?;
    let other = 3 - odd;
    for node in 1..=2 {
        cluster.node_ready(node).await?;
    }
    for node in 1..=2 {
        cluster.stop_node(node).await?;
    }
    plant::rename(&cluster.node_data(odd), "player-003", "plover-003")?;
    cluster.start_node(odd)?;
    cluster.start_node(other)?;
    let mut tries = 0;
    while cluster.leader(REGION).await? != odd {
        tries += 1;
        ensure!(tries < 20, "node {odd} never leads");
        cluster.kill_node(other).await?;
        cluster.start_node(other)?;
    }
    cluster.until("the leader says that nobody knows", async || Ok(cluster.said(odd)?.contains(NOBODY_KNOWS))).await?;
    cluster.start_node(3)?;
    rebuilt(&cluster, odd, if odd == 2 { 2 } else { 1 }).await?;
    let led = cluster.said(odd)?.contains("an odd replica gave up leadership");
    ensure!(led, "node {odd} did not give up leadership by itself:\n{}", cluster.last_words());
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;
    load.settle().await?;
    cluster.unharmed()?;
    for node in 1..=3 {
        let times = usize::from(node == 2) + usize::from(node == odd);
        ensure!(cluster.said(node)?.matches(FOUND).count() == times, "node {node} was not found odd {times} times");
    }
    let verdict = load.judge(&cluster, &["move", "gather", "inventory"]).await?;
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("a replica was rebuilt, and leader {odd} ({tries} more attempts to make it one); {verdict}")))
}

/// Waits until a node has said so often that it was odd and is not any more, and shows its old state aside.
async fn rebuilt(cluster: &Cluster, node: u32, times: usize) -> anyhow::Result<()> {
    let what = format!("node {node} is rebuilt");
    cluster.until(&what, async || Ok(cluster.said(node)?.matches(REBUILT).count() == times)).await?;
    ensure!(cluster.said(node)?.matches(FOUND).count() == times, "node {node} does not say why it was rebuilt");
    let aside = std::fs::read_dir(cluster.node_data(node).join("checkpoints"))?
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains(".diverged")))
        .count();
    ensure!(aside > 0, "node {node} has not set its old state aside");
    cluster.until(&what, async || Ok(!cluster.replica(node, REGION).await?.diverged)).await?;
    cluster.node_ready(node).await
}
