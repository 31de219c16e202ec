//! What is damaged on purpose is found: by `marchland verify`, the command itself, report and exit code; and a world that went back
//! by what players remember, because every replica of it is sound.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use marchland_admin::verify::VerifyReport;
use marchland_jepsen::checker::check;
use marchland_jepsen::cluster::{Cluster, REGION};
use marchland_jepsen::history::Fact;
use marchland_jepsen::plant;
use marchland_proto::cluster::DeliverRequest;
use marchland_proto::cluster::regions_client::RegionsClient;
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterClient, Role, TokioTransport, cluster_channel};
use tokio::time::{sleep, timeout};

use crate::certificates::peer;
use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 6;
const VERIFY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

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

/// A character has another name on each node: no majority can say whose is right, so no replica is rebuilt by itself.
pub async fn divergence(scene: &Scene) -> anyhow::Result<Outcome> {
    let (mut cluster, _) = lived_in(scene).await?;
    plant::rename(&cluster.node_data(2), "player-003", "plover-003")?;
    plant::rename(&cluster.node_data(3), "player-003", "pleyer-003")?;
    cluster.start().await?;
    let report = verdict(scene, &cluster, 1).await?;
    // Of equally many it compares with the first.
    ensure!(report.divergent == 2, "{report:?}");
    for found in &report.divergences {
        ensure!(found.components.iter().any(|c| c == "identities" || c == "dormant characters"), "{report:?}");
    }
    for node in 1..=3 {
        let says = "no majority of them says whose state is right";
        cluster.until("the nodes say so", async || Ok(cluster.said(node)?.contains(says))).await?;
    }
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("three names for one character: {} replicas are reported, none is rebuilt", report.divergent)))
}

/// An item is there twice. In a stored state that contradicts itself: refused by name. Sent by a peer, in good form: found.
pub async fn duplicate(scene: &Scene) -> anyhow::Result<Outcome> {
    let (mut cluster, items) = lived_in(scene).await?;
    let (kept, lost) = (items[0], items[items.len() - 1]);
    let mut undo = Vec::new();
    for node in 1..=3 {
        undo.push(plant::double_item(&cluster.node_data(node), kept, lost)?);
    }
    // Every node sets it aside, says why, and has the log.
    cluster.start().await?;
    let says = format!("item {kept} is there twice");
    for node in 1..=3 {
        ensure!(cluster.said(node)?.contains(&says), "node {node} does not say {says:?}:\n{}", cluster.last_words());
        let aside = undo[node as usize - 1].0.with_extension("checkpoint.unusable");
        ensure!(aside.is_file(), "{} is not there", aside.display());
    }
    ensure!(verdict(scene, &cluster, 0).await?.sound(), "the world is not as it was before the damage");
    smuggle(&cluster, kept).await?;
    let report = verdict(scene, &cluster, 1).await?;
    ensure!(report.duplicated_items == 1 && report.duplicated_item_ids == [kept], "{report:?}");
    ensure!(report.divergent == 0, "all replicas took the same message: {report:?}");
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("stored twice: refused, \"{says}\"; sent by a peer: found twice, item {kept}")))
}

/// Delivers an entity from a region that is not there, as a node of the cluster would.
async fn smuggle(cluster: &Cluster, item: u64) -> anyhow::Result<()> {
    let security = peer(cluster, Role::Shard, 1)?;
    let request = DeliverRequest { to_group: REGION.0, messages: vec![plant::smuggled(item)] };
    let mut answers = Vec::new();
    for node in &cluster.ready()?.nodes {
        let mut client = RegionsClient::over(cluster_channel(&TokioTransport, &security, &node.grpc));
        let answer = timeout(ANSWER_WITHIN, client.deliver(request.clone())).await.context("no answer")??.into_inner();
        if Code::from_u32(answer.code) == Some(Code::Ok) {
            return Ok(());
        }
        answers.push(answer);
    }
    bail!("nobody took the message: {answers:?}")
}

/// Every node gets the disk back that it had before anybody played: the replicas agree, and the players know better.
pub async fn rollback(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start().await?;
    cluster.stop().await?;
    for node in 1..=3 {
        copy(&cluster.node_data(node), &before(&cluster, node))?;
    }
    cluster.start().await?;
    let load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until_acknowledged(8 * PLAYERS).await?;
    load.fault("every disk as it was before");
    cluster.kill_all().await?;
    for node in 1..=3 {
        std::fs::remove_dir_all(cluster.node_data(node))?;
        std::fs::rename(before(&cluster, node), cluster.node_data(node))?;
    }
    cluster.start().await?;
    load.until("players come back", PLAYERS, |fact| matches!(fact, Fact::Attached { .. })).await?;
    ensure!(verdict(scene, &cluster, 0).await?.sound(), "this damage is not for replicas to see");
    let found = check(&load.history.events(), &cluster.at_the_end().await?, &[]).violations;
    let lost = found.iter().filter(|violation| violation.contains("commands are lost")).count();
    ensure!(lost > 0, "nobody noticed: {found:?}");
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("{} contradictions, {lost} players whose commands were lost", found.len())))
}

fn before(cluster: &Cluster, node: u32) -> PathBuf {
    cluster.node_data(node).with_extension("before")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
