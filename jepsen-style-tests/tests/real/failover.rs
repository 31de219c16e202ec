//! The owner of the region is taken away under load, again and again: killed, stopped for three seconds, cut off from the other nodes, or asked
//! to go, or the region is moved. Players lose nothing, see nothing taken back, and wait for less than a second; only those of that node's edge
//! lose their connection, and they come back by themselves.
//!
//! The load is `marchland bots`, whose players know what they were acknowledged and shown, and measure how long they waited. The bounds are those that
//! are promised; a build for tests is granted three times as much.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_jepsen::cluster::{Cluster, DIRECTORY, REGION, signal};
use marchland_jepsen::wall::Wall;
use marchland_jepsen::web;
use serde_json::Value;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::scene::{Outcome, Scene, setting};

/// Players of a release build. One for tests serves fewer.
const PLAYERS: usize = 100;
const PLAYERS_OF_A_TEST_BUILD: usize = 30;
/// How much longer everything may take without optimisation.
const PATIENCE_OF_A_TEST_BUILD: u64 = 3;
/// Of a crash, a stop or a partition, in milliseconds.
const BLACKOUT_P99_MS: u64 = 1_000;
const BLACKOUT_MAX_MS: u64 = 2_000;
/// Of a node that hands over.
const GRACEFUL_P99_MS: u64 = 200;
/// A node is stopped, or cut off, for so long.
const AWAY: Duration = Duration::from_secs(3);
/// An operator's command.
const MOVED_WITHIN: Duration = Duration::from_secs(10);
/// Players gather on the edges whose nodes come to own the region last. So they begin anew, on all edges, after so many rounds.
const ROUNDS_OF_A_LOAD: u64 = 5;
/// Between two rounds, everybody is served.
const REST: Duration = Duration::from_millis(1_500);
/// Bots take this long to ask their last questions, at most.
const REPORT_WITHIN: Duration = Duration::from_secs(30);

/// What befalls the owner's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Killed,
    Stopped,
    CutOff,
    AskedToGo,
    /// Its node stays, and an operator moves the region to another.
    Moved,
}

pub async fn run(scene: &Scene, fate: Fate) -> anyhow::Result<Outcome> {
    let rounds = setting("MARCHLAND_ROUNDS", 2)?;
    let released = std::env::var_os("MARCHLAND_BIN").is_some();
    let (players, patience) = match released {
        true => (PLAYERS, 1),
        false => (PLAYERS_OF_A_TEST_BUILD, PATIENCE_OF_A_TEST_BUILD),
    };
    let mut cluster = scene.cluster(&[])?;
    let wall = cluster.start_behind_wall().await?;
    let mut shown = Shown::default();
    let mut left = rounds;
    while left > 0 {
        let rounds = left.min(ROUNDS_OF_A_LOAD);
        left -= rounds;
        let mut bots = start_bots(scene, &cluster, "gather", players)?;
        all_here(&cluster, players).await?;
        let mut on_its_edge = 0;
        for _ in 0..rounds {
            sleep(REST).await;
            let owner = cluster.leader(REGION).await?;
            if fate != Fate::Moved {
                on_its_edge += clients(&cluster, owner).await?;
            }
            strike(scene, &mut cluster, &wall, fate, owner).await?;
            cluster.node_ready(owner).await?;
            all_here(&cluster, players).await?;
            // Whoever may be struck next must be able to be replaced.
            cluster.leader(DIRECTORY).await?;
        }
        sleep(REST).await;
        let report = end_bots(&mut bots).await?;
        judge(&report, fate, rounds * players as u64, on_its_edge, patience)?;
        shown.add(&report, on_its_edge);
        nobody_here(&cluster).await?;
    }
    let verified = cluster.verify().await?;
    ensure!(verified.sound(), "verify: {}", serde_json::to_string_pretty(&verified)?);
    cluster.unharmed()?;
    cluster.stop_all().await?;
    let Shown { loads, waits, p99_ms, max_ms, disconnects, on_its_edge, sent, acked } = shown;
    Ok(Outcome::Shown(format!(
        "{rounds} owners, {players} players, {loads} times anew: {waits} blackouts, p99 {p99_ms} max {max_ms} ms at worst; {disconnects} disconnects, \
         {on_its_edge} of that node's edge; {acked} of {sent} commands acknowledged, 0 lost, 0 doubled, 0 rollbacks"
    )))
}

/// What was seen of all loads together.
#[derive(Default)]
struct Shown {
    loads: u64,
    waits: u64,
    /// Of the load in which it was highest.
    p99_ms: u64,
    max_ms: u64,
    disconnects: u64,
    on_its_edge: u64,
    sent: u64,
    acked: u64,
}

impl Shown {
    fn add(&mut self, report: &Value, on_its_edge: u64) {
        let of = |value: &Value| value.as_u64().unwrap_or_default();
        self.loads += 1;
        self.waits += of(&report["blackout_ms"]["count"]);
        self.p99_ms = self.p99_ms.max(of(&report["blackout_ms"]["p99"]));
        self.max_ms = self.max_ms.max(of(&report["blackout_ms"]["max"]));
        self.disconnects += of(&report["disconnects"]);
        self.on_its_edge += on_its_edge;
        self.sent += of(&report["commands_sent"]);
        self.acked += of(&report["commands_acked"]);
    }
}

async fn strike(scene: &Scene, cluster: &mut Cluster, wall: &Wall, fate: Fate, node: u32) -> anyhow::Result<()> {
    match fate {
        Fate::Killed => {
            cluster.kill_node(node).await?;
            replaced(cluster, node).await?;
            cluster.start_node(node)?;
        }
        Fate::Stopped => {
            let pid = cluster.pid(node)?;
            signal(pid, libc::SIGSTOP)?;
            sleep(AWAY).await;
            signal(pid, libc::SIGCONT)?;
            replaced(cluster, node).await?;
        }
        Fate::CutOff => {
            wall.isolate(node, true);
            sleep(AWAY).await;
            wall.isolate(node, false);
            replaced(cluster, node).await?;
        }
        Fate::Moved => {
            let ready_file = cluster.ready_file().display().to_string();
            let arguments = ["admin", "--ready-file", &ready_file, "--json", "region", "move", "--region", "1"];
            let (status, text) = scene.binary.run(&arguments, MOVED_WITHIN).await?;
            ensure!(status.success(), "{status}: {text}");
            let moved: Value = serde_json::from_str(&text).with_context(|| format!("not one JSON document: {text}"))?;
            ensure!(moved["from"] == node && moved["to"] != node, "{moved}");
            // Nobody was away: this is all the time that players have to notice.
            sleep(REST).await;
        }
        Fate::AskedToGo => {
            cluster.stop_node(node).await?;
            replaced(cluster, node).await?;
            cluster.start_node(node)?;
        }
    }
    Ok(())
}

async fn replaced(cluster: &Cluster, node: u32) -> anyhow::Result<()> {
    let led = async || Ok(cluster.leader(REGION).await? != node);
    cluster.until(&format!("another node than {node} owns the region"), led).await
}

fn judge(report: &Value, fate: Fate, waits: u64, on_its_edge: u64, patience: u64) -> anyhow::Result<()> {
    let of = |name: &str| report[name].as_u64().with_context(|| format!("the report has no {name}: {report}"));
    let complaints = serde_json::to_string_pretty(&report["complaints"])?;
    for name in ["commands_lost", "commands_duplicated", "rollbacks"] {
        ensure!(of(name)? == 0, "{name} {}: {complaints}", report[name]);
    }
    ensure!(of("gathered")? > 0, "nobody gathered anything: {report}");
    ensure!(of("commands_acked")? >= 20 * waits, "too little was acknowledged to show anything: {report}");
    let (disconnects, blackout) = (of("disconnects")?, &report["blackout_ms"]);
    ensure!(disconnects <= on_its_edge, "{disconnects} disconnects, {on_its_edge} of edges that went: {complaints}");
    ensure!(disconnects > 0 || on_its_edge == 0, "nobody's edge went, so nothing was shown: {report}");
    let within = |name: &str, most: u64| {
        let time = blackout[name].as_u64().unwrap_or(u64::MAX);
        ensure!(time <= most * patience, "blackout {name} {time} ms, at most {} expected: {report}", most * patience);
        anyhow::Ok(())
    };
    let graceful = matches!(fate, Fate::AskedToGo | Fate::Moved);
    within("p99", if graceful { GRACEFUL_P99_MS } else { BLACKOUT_P99_MS })?;
    within("max", BLACKOUT_MAX_MS)
}

pub fn start_bots(scene: &Scene, cluster: &Cluster, behaviour: &str, players: usize) -> anyhow::Result<Child> {
    let mut command = scene.binary.command();
    command.args([
        "bots",
        "--json",
        "--behaviour",
        behaviour,
        "--seconds",
        "3600",
        "--count",
        &players.to_string(),
        "--ready-file",
    ]);
    let child = command.arg(cluster.ready_file()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    Ok(child)
}

pub async fn end_bots(bots: &mut Child) -> anyhow::Result<Value> {
    signal(bots.id().context("the bots ended by themselves")?, libc::SIGINT)?;
    let (mut out, mut complaints) = (String::new(), String::new());
    let (stdout, stderr) = (bots.stdout.take().context("no output")?, bots.stderr.take().context("no output")?);
    let read = async {
        let (mut stdout, mut stderr) = (stdout, stderr);
        tokio::try_join!(
            tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut out),
            tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut complaints)
        )
    };
    timeout(REPORT_WITHIN, read).await.context("the bots do not report")??;
    bots.wait().await?;
    serde_json::from_str(&out).with_context(|| format!("the bots said {out:?} {complaints}"))
}

/// Players that a node's edge serves.
async fn clients(cluster: &Cluster, node: u32) -> anyhow::Result<u64> {
    let http = &cluster.ready()?.nodes.iter().find(|n| n.id == node).context("no such node")?.http;
    let (code, body) = web::get(http, "/metrics").await?;
    ensure!(code == 200, "{code} {body}");
    let line = body.lines().find_map(|line| line.strip_prefix("marchland_edge_clients "));
    Ok(line.map_or(Ok(0.0), str::parse::<f64>)? as u64)
}

/// Waits until every player is connected somewhere.
pub async fn all_here(cluster: &Cluster, players: usize) -> anyhow::Result<()> {
    cluster.until(&format!("{players} players are connected"), async || Ok(here(cluster).await? == players as u64)).await
}

async fn nobody_here(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.until("nobody is connected", async || Ok(here(cluster).await? == 0)).await
}

/// Players on all edges that answer.
async fn here(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut here = 0;
    for node in &cluster.ready()?.nodes {
        here += clients(cluster, node.id).await.unwrap_or(0);
    }
    Ok(here)
}
