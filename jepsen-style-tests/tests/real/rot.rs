//! Rot in files that nobody reads is found while the node runs, and repaired from what is in memory, under load.
//!
//! A byte of a checkpoint changes on the disk, and one of a finished segment of the log. Each is reported and counted; a new checkpoint
//! is written, and what lived in the segment. The next start finds nothing wrong.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use marchland_jepsen::cluster::Cluster;

use crate::lost_folder::{lose_folder, replaced};
use crate::lost_parts::{files, rot};
use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 24;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start_by_hand().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    // Small segments, so that one is finished soon: of a log that begins with them.
    lose_folder(&mut cluster, 1).await?;
    let config = cluster.node_config(1);
    let text = std::fs::read_to_string(&config)?;
    let size = text.lines().find(|line| line.starts_with("segment_mb = ")).context("no size of segments")?;
    std::fs::write(&config, text.replacen(size, "segment_mb = 1", 1))?;
    cluster.start_node(1)?;
    replaced(&cluster, 1, 2).await?;
    let data = cluster.node_data(1);
    let (log, checkpoints) = (data.join("log"), data.join("checkpoints"));
    cluster.until("there is a checkpoint", async || Ok(!files(&checkpoints, "checkpoint")?.is_empty())).await?;

    load.fault("a checkpoint rots");
    let newest = files(&checkpoints, "checkpoint")?.pop().context("no checkpoint")?;
    rot(&newest)?;
    found(&cluster, 1, &newest, "a new checkpoint is written").await?;
    ensure!(PathBuf::from(format!("{}.rotten", newest.display())).is_file(), "it was not put aside");
    load.healed();

    let second = log.join("000000000002.log");
    // How fast it fills is the machine's affair; every acknowledgement brings it nearer.
    for _ in 0..400 {
        if second.is_file() {
            break;
        }
        load.until_acknowledged(PLAYERS).await?;
    }
    ensure!(second.is_file(), "no segment of the log is finished");
    load.fault("a finished segment of the log rots");
    let first = log.join("000000000001.log");
    rot(&first)?;
    found(&cluster, 2, &first, "what lived in the rotten segment is written anew").await?;
    ensure!(!first.exists() && first.with_extension("journal").is_file(), "the rotten segment is still needed");
    load.healed();

    load.fault("the node is killed, and starts from what is on its disk");
    cluster.kill_node(1).await?;
    cluster.start_node(1)?;
    cluster.node_ready(1).await?;
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;
    load.settle().await?;
    cluster.unharmed()?;
    let verdict = load.judge(&cluster, &["move", "gather", "inventory"]).await?;
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("a checkpoint and a segment were found rotten and written anew; {verdict}")))
}

/// Waits until the node has found so much rot, the last in this file, and has repaired it.
async fn found(cluster: &Cluster, times: u64, path: &Path, repaired: &str) -> anyhow::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
    cluster.until(repaired, async || Ok(cluster.said(1)?.contains(repaired))).await?;
    let said = cluster.said(1)?;
    let reported = said.lines().any(|line| line.contains("rot: data that was written well") && line.contains(name));
    ensure!(reported, "the node does not name {name}:\n{}", cluster.last_words());
    ensure!(cluster.status(1).await?.rot_found == times, "rot is not counted");
    Ok(())
}
