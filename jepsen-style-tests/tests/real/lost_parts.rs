//! A node that lost a part of its data folder: what can be rebuilt is, and who has forgotten its votes comes back as somebody else.
//!
//! Under load, one after the other: the keyed store gone, and unreadable; the newest checkpoint damaged, and all of them; the log gone;
//! a byte of the log rotten, which is refused until an operator says so. Nothing is deleted, and nothing acknowledged is lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_jepsen::cluster::{Cluster, REGION};

use crate::kill_all::got_something;
use crate::lost_folder::replaced;
use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 8;
const END_WITHIN: Duration = Duration::from_secs(30);

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start_by_hand().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until("somebody reaches ore", 2, got_something).await?;
    let data = cluster.node_data(1);

    let keyed = data.join("keyed");
    again(&mut cluster, &load, "the keyed store is gone", || Ok(std::fs::remove_dir_all(&keyed)?)).await?;
    again(&mut cluster, &load, "the keyed store is unreadable", || {
        for file in files(&keyed, "")? {
            let size = std::fs::metadata(&file)?.len() as usize;
            std::fs::write(&file, b"rubbish ".repeat(size / 8 + 1))?;
        }
        Ok(())
    })
    .await?;
    ensure!(data.join("keyed.unusable-1").is_dir(), "the unreadable store was not put aside:\n{}", cluster.last_words());

    let checkpoints = data.join("checkpoints");
    // There are two from here on.
    for _ in 0..2 {
        cluster.stop_node(1).await?;
        cluster.start_node(1)?;
        cluster.node_ready(1).await?;
        load.until_acknowledged(2 * PLAYERS).await?;
    }
    again(&mut cluster, &load, "the newest checkpoint is damaged", || {
        rot(files(&checkpoints, "checkpoint")?.last().context("no checkpoint")?)
    })
    .await?;
    ensure!(cluster.said(1)?.contains("checkpoint is not usable; trying the one before"), "{}", cluster.last_words());
    again(&mut cluster, &load, "all checkpoints are damaged", || {
        files(&checkpoints, "checkpoint")?.iter().try_for_each(|f| rot(f))
    })
    .await?;
    ensure!(!files(&checkpoints, "unusable")?.is_empty(), "the damaged checkpoints were not put aside");
    ensure!(cluster.replica(1, REGION).await?.replica == 1 << 32 | 1, "it is still the same replica");

    let log = data.join("log");
    again(&mut cluster, &load, "the log is gone", || Ok(std::fs::remove_dir_all(&log)?)).await?;
    replaced(&cluster, 1, 2).await?;
    ensure!(cluster.said(1)?.contains("the raft log is lost"), "{}", cluster.last_words());
    ensure!(!files(&data.join("set-aside-lost-log-1/keyed"), "")?.is_empty(), "the rest was not put aside");

    load.fault("a byte of the log is rotten");
    cluster.kill_node(1).await?;
    let segment = files(&log, "log")?.into_iter().next().context("no segment of the log")?;
    rot(&segment)?;
    let rotten = std::fs::read(&segment)?;
    cluster.start_node(1)?;
    let status = cluster.node_ended(1, END_WITHIN).await?;
    ensure!(status.code() == Some(1), "a node with a rotten log ended with {status}");
    let name = segment.file_name().and_then(|name| name.to_str()).context("a name")?;
    ensure!(cluster.said(1)?.contains(&format!("{name} is damaged at byte")), "{}", cluster.last_words());
    let config = cluster.node_config(1).display().to_string();
    let (status, text) = scene.binary.run(&["node", "--config", &config, "--rejoin"], END_WITHIN).await?;
    ensure!(status.success() && text.contains("set-aside-rejoin-1"), "--rejoin ended with {status}: {text}");
    ensure!(std::fs::read(data.join("set-aside-rejoin-1/log").join(name))? == rotten, "the rotten segment was changed");
    cluster.start_node(1)?;
    cluster.node_ready(1).await?;
    replaced(&cluster, 1, 3).await?;
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;

    // What came back carries the world.
    load.fault("another node dies");
    cluster.kill_node(2).await?;
    load.until_acknowledged(4 * PLAYERS).await?;
    cluster.start_node(2)?;
    cluster.node_ready(2).await?;
    load.healed();
    load.settle().await?;
    cluster.unharmed()?;
    let verdict = load.judge(&cluster, &["move", "gather", "inventory"]).await?;
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("store gone, store unreadable, a checkpoint, all checkpoints, log gone, log rotten; {verdict}")))
}

/// Kills node 1, does something to its folder, and starts it again under load.
async fn again(
    cluster: &mut Cluster,
    load: &Load,
    what: &str,
    damage: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    load.fault(what);
    cluster.kill_node(1).await?;
    damage().with_context(|| what.to_owned())?;
    cluster.start_node(1)?;
    cluster.node_ready(1).await.with_context(|| what.to_owned())?;
    load.healed();
    load.until_acknowledged(2 * PLAYERS).await
}

/// The files of a folder whose name ends so, sorted.
pub fn files(folder: &Path, ends: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.retain(|path| path.is_file() && path.to_string_lossy().ends_with(ends));
    files.sort();
    Ok(files)
}

/// Changes a byte in the middle of what a file holds, to another one each time.
pub fn rot(path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path)?;
    let last = bytes.iter().rposition(|byte| *byte != 0).context("an empty file")?;
    // Zeros may be padding, which nothing depends on.
    let place = bytes[..last / 2].iter().rposition(|byte| *byte != 0).context("no middle")?;
    bytes[place] = bytes[place].wrapping_add(0x40);
    Ok(std::fs::write(path, bytes)?)
}
