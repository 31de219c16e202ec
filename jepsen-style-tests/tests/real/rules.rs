//! Rules that fail, under load: a command, a message, a tick that panic, and a tick that does not return.
//!
//! A command is refused and a message set aside, and nobody else notices. A tick halts its region, alone, on every node, until an operator has the
//! entry skipped; restarts in between change nothing.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use frontier::{Say, action};
use marchland_edge::client::{ClientOptions, Heard, Login, PlayerClient};
use marchland_jepsen::broken::{LETTER_PANICS, SAY_PANIC, TICK_LOOPS, TICK_PANICS};
use marchland_jepsen::cluster::{Binary, Cluster, REGION};
use marchland_jepsen::web;
use marchland_proto::client::{Action, input::What};
use marchland_proto::cluster::directory_client::DirectoryClient;
use marchland_proto::cluster::regions_client::RegionsClient;
use marchland_proto::cluster::{DeliverRequest, GroupStatus, SignInRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterClient, Role, TokioTransport, cluster_channel};
use marchland_proto::storage::{ChannelMessage, GameMessage, channel_message::Body};
use marchland_types::{GroupId, RegionId, WorldId};
use prost::Message;
use tokio::time::{Instant, sleep, timeout};

use crate::certificates::peer;
use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 8;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const SKIP_WITHIN: Duration = Duration::from_secs(60);
/// A region that is not there.
const ELSEWHERE: GroupId = GroupId::region(WorldId(1), RegionId(2));

/// A cluster whose rules can be made to fail, and players in it.
pub async fn begin(scene: &Scene) -> anyhow::Result<(Binary, Cluster, Load)> {
    let binary = Binary::at(env!("CARGO_BIN_EXE_marchland-broken-rules"))?;
    let mut cluster = Cluster::new(&binary, &scene.folder, &[])?;
    cluster.start_by_hand().await?;
    let load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until_acknowledged(2 * PLAYERS).await?;
    Ok((binary, cluster, load))
}

pub async fn panics(scene: &Scene) -> anyhow::Result<Outcome> {
    let (binary, mut cluster, mut load) = begin(scene).await?;

    load.fault("a command panics");
    let code = say(&cluster, "grump", SAY_PANIC).await?;
    ensure!(code == Code::Internal as u32, "a command that panics is answered {code}");
    ensure!(say(&cluster, "grump", "all is well").await? == Code::Ok as u32, "the next one has to suffer for it");
    load.fault("a message panics");
    post(&cluster, 1, LETTER_PANICS).await?;
    cluster.until("the message is set aside everywhere", all(&cluster, |replica| replica.dead_letters == 1)).await?;
    cluster.until("both are counted everywhere", all(&cluster, |replica| replica.panics == 2)).await?;
    load.until_acknowledged(2 * PLAYERS).await?;
    ensure!(cluster.replica(1, REGION).await?.halted_index == 0, "the region halts for less");

    load.fault("a tick panics");
    post(&cluster, 2, TICK_PANICS).await?;
    let at = halted(&cluster, "the game's tick panicked: planted in a tick").await?;
    only_the_region(&cluster, at).await?;
    for node in 1..=3 {
        cluster.kill_node(node).await?;
    }
    for node in 1..=3 {
        cluster.start_node(node)?;
    }
    ensure!(halted(&cluster, "the game's tick panicked: planted in a tick").await? == at, "it halts elsewhere now");
    only_the_region(&cluster, at).await?;
    goes_on(&binary, &cluster, at).await?;
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;

    // Whoever begins anew below the entry obeys the order at once.
    cluster.kill_node(1).await?;
    cluster.start_node(1)?;
    cluster.node_ready(1).await?;
    let verdict = end(&mut cluster, &mut load).await?;
    cluster.until("it is known everywhere", all(&cluster, |replica| replica.skipped_entries == 1)).await?;
    for node in 1..=3 {
        cluster.stop_node(node).await?;
    }
    Ok(Outcome::Shown(format!("halted at entry {at}, on all nodes and after their restart, and went on; {verdict}")))
}

pub async fn endless(scene: &Scene) -> anyhow::Result<Outcome> {
    let (binary, mut cluster, mut load) = begin(scene).await?;
    load.fault("a tick does not return");
    let begun = Instant::now();
    post(&cluster, 1, TICK_LOOPS).await?;
    let at = halted(&cluster, "the game's tick has not returned").await?;
    let found = begun.elapsed();
    only_the_region(&cluster, at).await?;
    let leader = cluster.leader(REGION).await?;
    cluster.kill_node(leader).await?;
    // Another one leads, and is no better off.
    cluster.leader(REGION).await?;
    cluster.start_node(leader)?;
    ensure!(halted(&cluster, "the game's tick has not returned").await? == at, "it halts elsewhere now");
    goes_on(&binary, &cluster, at).await?;
    load.healed();
    load.until_acknowledged(4 * PLAYERS).await?;
    let verdict = end(&mut cluster, &mut load).await?;
    for node in 1..=3 {
        cluster.stop_node(node).await?;
    }
    Ok(Outcome::Shown(format!("found after {:.1} s on all nodes, skipped, and went on; {verdict}", found.as_secs_f32())))
}

/// Whether something is so of every node's replica of the region.
fn all(cluster: &Cluster, so: impl Fn(&GroupStatus) -> bool) -> impl AsyncFn() -> anyhow::Result<bool> {
    async move || {
        for node in 1..=3 {
            if !so(&cluster.replica(node, REGION).await?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Waits until the region halts on every node, at the same entry, and says why.
async fn halted(cluster: &Cluster, why: &str) -> anyhow::Result<u64> {
    cluster.until("the region halts on every node", all(cluster, |replica| replica.halted_index != 0)).await?;
    let mut at = Vec::new();
    for node in 1..=3 {
        let replica = cluster.replica(node, REGION).await?;
        ensure!(replica.halted_because.contains(why), "node {node} says: {}", replica.halted_because);
        ensure!(!replica.owner && replica.fault.is_empty(), "node {node}: {replica:?}");
        at.push(replica.halted_index);
    }
    ensure!(at.iter().all(|index| *index == at[0]), "it halts at {at:?}");
    Ok(at[0])
}

/// The region stands still and says so; its group has a leader, and the directory goes on as if nothing were.
async fn only_the_region(cluster: &Cluster, at: u64) -> anyhow::Result<()> {
    cluster.leader(REGION).await?;
    let before = cluster.replica(1, REGION).await?;
    for (number, node) in cluster.ready()?.nodes.iter().enumerate() {
        let (code, text) = web::get(&node.http, "/readyz").await?;
        ensure!(code == 503 && text.contains(&format!("halts at entry {at}")), "/readyz of node {}: {code} {text}", node.id);
        ensure!(web::get(&node.http, "/healthz").await?.0 == 200, "node {} is not well", node.id);
        sign_in(cluster, &format!("newcomer-{at}-{number}")).await?;
    }
    sleep(Duration::from_millis(500)).await;
    let after = cluster.replica(1, REGION).await?;
    ensure!(after.applied_index == before.applied_index && after.applied_index < at, "it goes on by itself: {after:?}");
    ensure!(after.last_index <= before.last_index + 2, "its log grows: {before:?} {after:?}");
    Ok(())
}

async fn sign_in(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let nodes = &cluster.ready()?.nodes;
    let security = peer(cluster, Role::Edge, 1)?;
    let token = token(&nodes[0].http, name).await?;
    let request = SignInRequest {
        world: 1,
        token,
        character_name: name.to_owned(),
        secret_hash: Bytes::from_static(&[7; 32]),
        request_id: name.bytes().fold(7, |id: u64, byte| id.wrapping_mul(31).wrapping_add(u64::from(byte))),
    };
    let mut answers = Vec::new();
    for _ in 0..100 {
        for node in nodes {
            let mut client = DirectoryClient::over(cluster_channel(&TokioTransport, &security, &node.grpc));
            match timeout(ANSWER_WITHIN, client.sign_in(request.clone())).await.context("no answer")? {
                Ok(answer) if answer.get_ref().code == 0 => return Ok(()),
                Ok(answer) => answers.push(answer.into_inner().reason),
                Err(status) => answers.push(status.to_string()),
            }
        }
        // The directory's own leader may just have changed: nodes were killed.
        sleep(Duration::from_millis(100)).await;
    }
    bail!("the directory signs nobody in: {:?}", answers.last())
}

pub async fn token(http: &str, name: &str) -> anyhow::Result<String> {
    let (code, body) = web::get(http, &format!("/play/token?name={name}")).await?;
    ensure!(code == 200, "no token: {code} {body}");
    let answer: serde_json::Value = serde_json::from_str(&body)?;
    Ok(answer["token"].as_str().context("an answer without a token")?.to_owned())
}

/// Skips the entry by the command itself.
async fn goes_on(binary: &Binary, cluster: &Cluster, at: u64) -> anyhow::Result<()> {
    let ready_file = cluster.ready_file().display().to_string();
    let order = async |index: u64| {
        let index = index.to_string();
        let arguments =
            ["admin", "--ready-file", &ready_file, "--json", "region", "skip-entry", "--region", "1", "--index", &index];
        binary.run(&[&arguments[..], &["--reason", "planted"]].concat(), SKIP_WITHIN).await
    };
    let (status, text) = order(at + 1).await?;
    ensure!(status.code() == Some(1) && text.contains(&format!("which is entry {at}")), "{status}: {text}");
    let (status, text) = order(at).await?;
    ensure!(status.success(), "{status}: {text}");
    let skipped: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("not one JSON document:\n{text}"))?;
    ensure!(skipped["index"] == at && skipped["order_index"].as_u64() > Some(at), "{skipped}");
    cluster
        .until(
            "every node goes on, and remembers",
            all(cluster, |replica| {
                (replica.halted_index, replica.last_skipped_index) == (0, at) && replica.last_skipped_reason == "planted"
            }),
        )
        .await?;
    let mut audited = 0;
    for node in 1..=3 {
        audited += cluster.said(node)?.matches("audit: skip-entry").count();
        cluster.node_ready(node).await?;
    }
    ensure!(audited >= 1, "nothing is in the logs");
    Ok(())
}

/// Delivers a letter from a region that is not there, as a node of the cluster would. Numbers count from 1.
async fn post(cluster: &Cluster, seq: u64, code: u32) -> anyhow::Result<()> {
    let security = peer(cluster, Role::Shard, 1)?;
    let body = Some(Body::Game(GameMessage { code, ..GameMessage::default() }));
    let message = ChannelMessage { from_group: ELSEWHERE.0, seq, body, ..ChannelMessage::default() };
    let request = DeliverRequest { to_group: REGION.0, messages: vec![message] };
    let mut answers = Vec::new();
    for node in &cluster.ready()?.nodes {
        let mut client = RegionsClient::over(cluster_channel(&TokioTransport, &security, &node.grpc));
        let answer = timeout(ANSWER_WITHIN, client.deliver(request.clone())).await.context("no answer")??.into_inner();
        if Code::from_u32(answer.code) == Some(Code::Ok) {
            return Ok(());
        }
        answers.push(answer);
    }
    bail!("nobody took the letter: {answers:?}")
}

/// Says something as a player of its own, and returns the code of the answer.
async fn say(cluster: &Cluster, name: &str, text: &str) -> anyhow::Result<u32> {
    let node = &cluster.ready()?.nodes[0];
    let login = Login::SignIn { token: token(&node.http, name).await?, character_name: name.to_owned() };
    let options = ClientOptions::default();
    let connect = PlayerClient::connect(&TokioTransport, node.players(), &options, &login);
    let mut client = timeout(ANSWER_WITHIN, connect).await.context("no Welcome")??;
    let body = Say { text: text.to_owned() }.encode_to_vec();
    let seq = client.input(What::Action(Action { code: action::SAY, body: body.into() }), 0)?;
    client.flush().await?;
    let answered = async {
        loop {
            if let Heard::Frame(_) = client.next().await?
                && let Some(reply) = client.view.take_replies().into_iter().find(|reply| reply.command_seq == seq)
            {
                return anyhow::Ok(reply.code);
            }
        }
    };
    let code = timeout(ANSWER_WITHIN, answered).await.context("no answer")??;
    client.goodbye().await?;
    Ok(code)
}

pub async fn end(cluster: &mut Cluster, load: &mut Load) -> anyhow::Result<String> {
    load.settle().await?;
    Ok(load.judge(cluster, &["move"]).await?.to_string())
}
