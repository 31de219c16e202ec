//! What is damaged on purpose is found by `marchland verify`, the command itself: report and exit code.

use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_admin::verify::VerifyReport;
use marchland_jepsen::cluster::Cluster;
use marchland_jepsen::plant;
use tokio::time::sleep;

use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 6;
const VERIFY_WITHIN: Duration = Duration::from_secs(60);

/// A stopped cluster in whose world somebody has walked and gathered.
async fn lived_in(scene: &Scene) -> anyhow::Result<(Cluster, Vec<u64>)> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    let mut items = Vec::new();
    for _ in 0..60 {
        sleep(Duration::from_millis(500)).await;
        items = cluster.region().await?.items;
        if items.len() >= 4 {
            break;
        }
    }
    ensure!(items.len() >= 2, "nobody gathered anything");
    load.settle().await?;
    let report = verdict(scene, &cluster, 0).await?;
    ensure!(report.sound() && report.items >= 2, "before anything was planted: {report:?}");
    let items = cluster.region().await?.items;
    cluster.stop().await?;
    Ok((cluster, items))
}

/// What `marchland verify` says, with the exit code that it must have.
async fn verdict(scene: &Scene, cluster: &Cluster, code: i32) -> anyhow::Result<VerifyReport> {
    let ready_file = cluster.ready_file().display().to_string();
    let (status, text) = scene.binary.run(&["verify", "--ready-file", &ready_file, "--json"], VERIFY_WITHIN).await?;
    ensure!(status.code() == Some(code), "verify ended with {status}, expected {code}:\n{text}");
    serde_json::from_str(&text).with_context(|| format!("not one JSON document:\n{text}"))
}

/// A character has another name on one node.
pub async fn divergence(scene: &Scene) -> anyhow::Result<Outcome> {
    let (mut cluster, _) = lived_in(scene).await?;
    plant::rename(&cluster.node_data(2), "player-003", "plover-003")?;
    cluster.start().await?;
    let report = verdict(scene, &cluster, 1).await?;
    ensure!(report.divergent == 1, "{report:?}");
    let found = &report.divergences[0];
    ensure!(found.replica.starts_with("2."), "the wrong replica is blamed: {report:?}");
    ensure!(found.components.iter().any(|c| c == "identities" || c == "dormant characters"), "{report:?}");
    let what = format!("replica {} differs in {}", found.replica, found.components.join(", "));
    cluster.stop().await?;
    Ok(Outcome::Shown(what))
}

/// An item is there twice, on every node alike, and another one nowhere.
pub async fn duplicate(scene: &Scene) -> anyhow::Result<Outcome> {
    let (mut cluster, items) = lived_in(scene).await?;
    let (kept, lost) = (items[0], items[items.len() - 1]);
    for node in 1..=3 {
        plant::double_item(&cluster.node_data(node), kept, lost)?;
    }
    cluster.start().await?;
    let report = verdict(scene, &cluster, 1).await?;
    ensure!(report.duplicated_items == 1 && report.duplicated_item_ids == [kept], "{report:?}");
    ensure!(report.missing_items == 1, "{report:?}");
    ensure!(report.divergent == 0, "all replicas have the same damage: {report:?}");
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("item {kept} found twice, {} missing", report.missing_items)))
}
