//! Replicas that are slower than the owner: time passes more slowly, players are told so, and the replicas stay close behind. When they are quick
//! again, so is time.

use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_edge::client::{ClientOptions, Heard, Login, PlayerClient};
use marchland_jepsen::broken::SLOW_FILE;
use marchland_jepsen::cluster::{Cluster, REGION};
use marchland_proto::net::TokioTransport;
use tokio::time::{sleep, timeout};

use crate::rules::{begin, end, token};
use crate::scene::{Outcome, Scene};

/// What a tick takes on a slow node: more than two are due in that time.
const SLOW_MS: u64 = 120;
/// Percent of real time that is left then, and some: 50 ms of 120.
const RATE_MAX: u32 = 60;
/// Entries by which the better one of the others may be behind when they are looked at one after the other.
const BEHIND_MAX: u64 = 8;
const LOOKS: u32 = 40;
const FRAME_WITHIN: Duration = Duration::from_secs(10);

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let (_, mut cluster, mut load) = begin(scene).await?;
    let owner = cluster.leader(REGION).await?;
    let others: Vec<u32> = (1..=3).filter(|node| *node != owner).collect();
    // One that is slow holds up nobody.
    load.fault("one replica is slow");
    slow(&cluster, others[0], true)?;
    sleep(Duration::from_secs(3)).await;
    let rate = cluster.replica(owner, REGION).await?.time_rate;
    ensure!(rate > RATE_MAX, "one slow replica of three makes time pass at {rate} %");

    load.fault("both replicas are slow");
    slow(&cluster, others[1], true)?;
    let rate = async || anyhow::Ok(cluster.replica(owner, REGION).await?.time_rate);
    cluster.until("time passes more slowly", async || Ok(rate().await? <= RATE_MAX)).await?;
    let mut behind = 0;
    for _ in 0..LOOKS {
        sleep(Duration::from_millis(100)).await;
        let mut applied = Vec::new();
        for node in &others {
            applied.push(cluster.replica(*node, REGION).await?.applied_index);
        }
        let own = cluster.replica(owner, REGION).await?.applied_index;
        behind = behind.max(own.saturating_sub(applied.into_iter().max().unwrap_or(0)));
    }
    ensure!(behind <= BEHIND_MAX, "the better one of the others was {behind} entries behind");
    ensure!(cluster.leader(REGION).await? == owner, "the owner was replaced for being quicker");
    let (slowest, told) = (rate().await?, told(&cluster).await?);
    ensure!(told <= RATE_MAX, "a player is told {told} %");

    load.healed();
    others.iter().try_for_each(|node| slow(&cluster, *node, false))?;
    cluster.until("time passes as it should", async || Ok(rate().await? == 100)).await?;
    load.until_acknowledged(20).await?;
    let verdict = end(&mut cluster, &mut load).await?;
    for node in 1..=3 {
        cluster.stop_node(node).await?;
    }
    Ok(Outcome::Shown(format!(
        "{SLOW_MS} ms a tick: time at {slowest} %, players told {told} %, {behind} entries behind at most; {verdict}"
    )))
}

fn slow(cluster: &Cluster, node: u32, slow: bool) -> anyhow::Result<()> {
    let file = cluster.node_config(node).with_file_name(SLOW_FILE);
    match slow {
        true => std::fs::write(&file, SLOW_MS.to_string()),
        false => std::fs::remove_file(&file),
    }
    .with_context(|| file.display().to_string())
}

/// The rate that a player hears of.
async fn told(cluster: &Cluster) -> anyhow::Result<u32> {
    let node = &cluster.ready()?.nodes[0];
    let login = Login::SignIn { token: token(&node.http, "watch").await?, character_name: "watch".to_owned() };
    let options = ClientOptions::default();
    let connect = PlayerClient::connect(&TokioTransport, node.players(), &options, &login);
    let mut client = timeout(FRAME_WITHIN, connect).await.context("no Welcome")??;
    let heard = async {
        loop {
            if let Heard::Frame(_) = client.next().await? {
                return anyhow::Ok(client.view.time_rate());
            }
        }
    };
    let rate = timeout(FRAME_WITHIN, heard).await.context("no frame")??;
    client.goodbye().await?;
    Ok(rate)
}
