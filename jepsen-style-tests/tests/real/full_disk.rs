//! Disks fill up, one and then all: new work is refused before they are full, whoever has room takes over, and everything goes on by itself when
//! there is room again.
//!
//! Mounts file systems, and so is run when `MARCHLAND_ROOT_TESTS` is set; reported as skipped otherwise.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use marchland_edge::client::{ClientError, ClientOptions, Login, PlayerClient};
use marchland_jepsen::cluster::{Cluster, DIRECTORY, REGION};
use marchland_jepsen::history::Fact;
use marchland_jepsen::power::{Disk, permitted};
use marchland_proto::net::TokioTransport;
use tokio::time::{sleep, timeout};

use crate::kill_all::got_something;
use crate::rules::token;
use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 12;
/// Between a quarter of the default reserve and half of it: nothing new is taken on.
const SHORT_BYTES: u64 = 100 << 20;
/// Less than a checkpoint.
const FULL_BYTES: u64 = 64 << 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    if std::env::var_os("MARCHLAND_ROOT_TESTS").is_none() {
        return Ok(Outcome::Skipped("MARCHLAND_ROOT_TESTS is not set".into()));
    }
    if let Err(why) = permitted(&scene.folder) {
        return Ok(Outcome::Skipped(why));
    }
    let mut cluster = scene.cluster(&[])?;
    cluster.start().await?;
    cluster.stop().await?;
    let disks: Vec<Disk> = (1..=3)
        .map(|k| Disk::make(&scene.folder.join(format!("disk-{k}.img")), &cluster.node_data(k)))
        .collect::<Result<_, _>>()?;
    let disk = |node: u32| &disks[node as usize - 1];
    cluster.start().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until("somebody reaches ore", 3, got_something).await?;

    let first = cluster.leader(REGION).await?;
    load.fault("the owner's disk is nearly full");
    disk(first).fill(SHORT_BYTES)?;
    let elsewhere = async |group| Ok(cluster.leader(group).await? != first);
    cluster.until("another node owns the region", async || elsewhere(REGION).await).await?;
    cluster.until("another node leads the directory", async || elsewhere(DIRECTORY).await).await?;
    ensure!(cluster.said(first)?.contains("new work is refused here until there is room"), "node {first} does not say why");
    load.until_acknowledged(8 * PLAYERS).await?;

    load.fault("it is full to the last byte");
    disk(first).fill(FULL_BYTES)?;
    // Long enough for checkpoints.
    for _ in 0..5 {
        sleep(Duration::from_secs(1)).await;
        load.until_acknowledged(PLAYERS).await?;
    }
    disk(first).drain()?;
    let caught_up = async || {
        let (own, other) = (cluster.replica(first, REGION).await?, cluster.leader(REGION).await?);
        Ok(own.applied_index + 100 > cluster.replica(other, REGION).await?.applied_index)
    };
    cluster.until("it catches up", caught_up).await?;

    load.fault("all disks are nearly full");
    disks.iter().try_for_each(|disk| disk.fill(SHORT_BYTES))?;
    sleep(Duration::from_secs(2)).await;
    let acknowledged = || load.history.count(|fact| matches!(fact, Fact::Applied { .. }));
    let before = acknowledged();
    sleep(Duration::from_secs(2)).await;
    ensure!(acknowledged() == before, "with no room anywhere, something was acknowledged");
    let refusal = refused(&cluster).await?;

    disks.iter().try_for_each(Disk::drain)?;
    load.healed();
    load.until_acknowledged(8 * PLAYERS).await?;
    load.settle().await?;
    let verdict = load.judge(&cluster, &["move", "gather"]).await?;
    cluster.unharmed()?;
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("one disk, then all; whoever signs in is told: {refusal}; {verdict}")))
}

/// What somebody hears who signs in now.
async fn refused(cluster: &Cluster) -> anyhow::Result<String> {
    let node = &cluster.ready()?.nodes[0];
    let login = Login::SignIn { token: token(&node.http, "late").await?, character_name: "late".to_owned() };
    let options = ClientOptions::default();
    let connect = PlayerClient::connect(&TokioTransport, node.players(), &options, &login);
    match timeout(ANSWER_WITHIN, connect).await.context("no answer")? {
        Ok(_) => bail!("somebody could sign in with no room anywhere"),
        Err(error @ ClientError::Refused(_)) if error.to_string().contains("bytes") => Ok(error.to_string()),
        Err(error) => bail!("no refusal that says why: {error}"),
    }
}
