//! Like `kill_all`, but the disks of all nodes lose power before the processes are killed: what was not synced is gone.
//!
//! Mounts file systems, and so is run when `MARCHLAND_ROOT_TESTS` is set; reported as skipped otherwise.

use std::time::Duration;

use anyhow::ensure;
use marchland_jepsen::power::{Disk, permitted};
use tokio::time::sleep;

use crate::kill_all::got_something;
use crate::scene::{Load, Outcome, Scene, setting};

const PLAYERS: usize = 12;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    if std::env::var_os("MARCHLAND_ROOT_TESTS").is_none() {
        return Ok(Outcome::Skipped("MARCHLAND_ROOT_TESTS is not set".into()));
    }
    if let Err(why) = permitted(&scene.folder) {
        return Ok(Outcome::Skipped(why));
    }
    let rounds = setting("MARCHLAND_ROUNDS", 2)?;
    let mut cluster = scene.cluster(&[])?;
    cluster.start().await?;
    cluster.stop().await?;
    let disks: Vec<Disk> = (1..=3)
        .map(|k| Disk::make(&scene.folder.join(format!("disk-{k}.img")), &cluster.node_data(k)))
        .collect::<Result<_, _>>()?;
    cluster.start().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until("somebody reaches ore", 3, got_something).await?;
    for round in 1..=rounds {
        load.until_acknowledged(4 * PLAYERS).await?;
        sleep(Duration::from_millis(500 + round * 337 % 1_000)).await;
        load.fault("power cut of all disks");
        for disk in &disks {
            disk.cut()?;
        }
        // A node whose disk fails may end by itself before it is killed.
        cluster.kill_all().await?;
        for disk in &disks {
            disk.restore()?;
        }
        cluster.start().await?;
        load.healed();
    }
    load.until_acknowledged(4 * PLAYERS).await?;
    load.settle().await?;
    let verdict = load.judge(&cluster, &["move", "gather", "inventory"]).await?;
    ensure!(verdict.attached.1 > 0, "nobody resumed a session");
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("{rounds} power cuts; {verdict}")))
}
