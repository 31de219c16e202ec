//! `marchland bench`: repeatable measurements, each beside its own baseline in the same run.
//!
//! Machines differ and are noisy; the ratio to a baseline that ran beside the measurement is what can be compared.

mod bare;
mod border;
mod commit;
mod crowd;
mod dormant;
mod failover;
mod handoff;
mod idle;
mod log;
mod npc;
mod process;
mod spread;
mod watchers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use marchland_admin::client::{AdminCluster, cluster_status};
use marchland_types::GroupId;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;

/// Arguments of `marchland bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench crowd --players 500 --json")]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
    /// Print one JSON document and nothing else.
    #[arg(long, global = true)]
    json: bool,
    /// Folder on the disk that is to be measured; a folder of the measurement's own is made in it and removed.
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Durable appends through the raft log, beside the raw limit of the disk.
    Log(log::LogArgs),
    /// Commits of many groups on three nodes, beside a bare fdatasync.
    Commit(commit::CommitArgs),
    /// A crowd of players, beside a bare WebSocket server.
    Crowd(crowd::CrowdArgs),
    /// The same crowd on the corner of four regions, beside it in one region.
    Border(border::BorderArgs),
    /// What a crowd costs its region's owner when it is spread over one, two and three edges.
    Watchers(watchers::WatchersArgs),
    /// How long players wait when the owner is taken away, beside how long they wait without.
    Failover(failover::FailoverArgs),
    /// How long players wait when a region is moved to another node, beside how long they wait without.
    Move(failover::MoveArgs),
    /// What coming into another region costs a player, beside what it may cost.
    Handoff(handoff::HandoffArgs),
    /// What characters cost that are logged out, and a log-in among them, beside one without any.
    Dormant(dormant::DormantArgs),
    /// What a world costs in which hardly anybody is, and how long its regions take to wake, beside a world of one region.
    Idle(idle::IdleArgs),
    /// What a tick of a region costs in which a few players are, one of very many, beside one of a few.
    Spread(spread::SpreadArgs),
    /// What thousands of animals cost that move by themselves, beside the same players on the same ground without any.
    Npc(npc::NpcArgs),
    /// The bare WebSocket server of `crowd`.
    #[command(hide = true)]
    Bare(bare::BareArgs),
}

/// What a measurement found. The shape is stable: scripts rely on it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which measurement.
    pub name: &'static str,
    /// What it was run with, the durability among it.
    pub params: Value,
    /// What was measured.
    pub results: Value,
    /// What was measured beside it.
    pub baseline: Value,
    /// The first over the second.
    pub ratios: BTreeMap<String, f64>,
}

/// A folder that is removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: Option<&PathBuf>, name: &str) -> std::io::Result<Self> {
        let base = dir.cloned().unwrap_or_else(std::env::temp_dir);
        let path = base.join(format!("marchland-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("could not remove {}: {error}", self.0.display());
        }
    }
}

/// Runs `marchland bench`.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let outcome = match &args.what {
        What::Bare(bare) => {
            bare::run(bare.clone()).await?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Log(log) => {
            let scratch = Scratch::new(args.dir.as_ref(), "log")?;
            log::run(log, &scratch.0)?
        }
        What::Commit(commit) => {
            let scratch = Scratch::new(args.dir.as_ref(), "commit")?;
            commit::run(commit, &scratch.0).await?
        }
        What::Crowd(crowd) => {
            let scratch = Scratch::new(args.dir.as_ref(), "crowd")?;
            crowd::run(crowd, &scratch.0, !args.json).await?
        }
        What::Border(border) => {
            let scratch = Scratch::new(args.dir.as_ref(), "border")?;
            border::run(border, &scratch.0, !args.json).await?
        }
        What::Watchers(watchers) => {
            let scratch = Scratch::new(args.dir.as_ref(), "watchers")?;
            watchers::run(watchers, &scratch.0, !args.json).await?
        }
        What::Failover(failover) => {
            let scratch = Scratch::new(args.dir.as_ref(), "failover")?;
            failover::failover(failover, &scratch.0, !args.json).await?
        }
        What::Move(relocate) => {
            let scratch = Scratch::new(args.dir.as_ref(), "move")?;
            failover::relocate(relocate, &scratch.0, !args.json).await?
        }
        What::Handoff(crossing) => {
            let scratch = Scratch::new(args.dir.as_ref(), "handoff")?;
            handoff::run(crossing, &scratch.0, !args.json).await?
        }
        What::Dormant(dormant) => {
            let scratch = Scratch::new(args.dir.as_ref(), "dormant")?;
            dormant::run(dormant, &scratch.0, !args.json).await?
        }
        What::Idle(idle) => {
            let scratch = Scratch::new(args.dir.as_ref(), "idle")?;
            idle::run(idle, &scratch.0, !args.json).await?
        }
        What::Spread(spread) => {
            let scratch = Scratch::new(args.dir.as_ref(), "spread")?;
            spread::run(spread, &scratch.0, !args.json).await?
        }
        What::Npc(npc) => {
            let scratch = Scratch::new(args.dir.as_ref(), "npc")?;
            npc::run(npc, &scratch.0, !args.json).await?
        }
    };
    match args.json {
        true => println!("{}", serde_json::to_string(&outcome)?),
        false => print_outcome(&outcome),
    }
    Ok(ExitCode::SUCCESS)
}

/// The node that owns the region.
async fn owner(cluster: &Cluster) -> anyhow::Result<u32> {
    let view = cluster_status(cluster.admin()).await;
    let nodes = view.nodes.iter().filter_map(|n| n.status.as_ref());
    nodes.into_iter().find(|s| s.groups.iter().any(|g| g.owner)).map(|s| s.node).context("the region has no owner")
}

/// How long leadership may take to come to where it stays.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// For so long it must not have moved: leaders of a new world are handed over a moment after they were elected.
const SETTLED_FOR: Duration = Duration::from_secs(3);

/// The node that owns each region, once all have owners and none has changed hands for a while.
async fn settled_owners(cluster: &Cluster, regions: usize) -> anyhow::Result<BTreeMap<GroupId, u32>> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let (mut owners, mut since) = (BTreeMap::new(), Instant::now());
    // A single region is nobody's to hand over.
    let settled_for = if regions > 1 { SETTLED_FOR } else { Duration::ZERO };
    loop {
        let now = owners_now(cluster.admin()).await;
        if now.len() < regions || now != owners {
            (owners, since) = (now, Instant::now());
        }
        if owners.len() == regions && since.elapsed() >= settled_for {
            return Ok(owners);
        }
        ensure!(Instant::now() < deadline, "{} of {regions} regions have owners that stay", owners.len());
        sleep(Duration::from_millis(250)).await;
    }
}

async fn owners_now(cluster: &AdminCluster) -> BTreeMap<GroupId, u32> {
    let mut owners = BTreeMap::new();
    for node in &cluster.nodes {
        // A node that does not answer owns nothing that could be told.
        let Ok(status) = node.status().await else { continue };
        owners.extend(status.groups.iter().filter(|group| group.owner).map(|group| (GroupId(group.group), status.node)));
    }
    owners
}

/// Waits, and shows it.
async fn pass(bar: &ProgressBar, seconds: u64) {
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
}

fn print_outcome(outcome: &Outcome) {
    use comfy_table::{Table, presets};
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(vec![outcome.name, "", ""]);
    let mut rows = |title: &str, value: &Value| {
        flatten("", value, &mut |key, text| {
            table.add_row(vec![title.to_owned(), key.to_owned(), text]);
        })
    };
    rows("params", &outcome.params);
    rows("results", &outcome.results);
    rows("baseline", &outcome.baseline);
    for (name, ratio) in &outcome.ratios {
        table.add_row(vec!["ratio".to_owned(), name.clone(), format!("{ratio:.2}")]);
    }
    println!("{table}");
}

fn flatten(prefix: &str, value: &Value, row: &mut impl FnMut(&str, String)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, row);
            }
        }
        Value::Number(number) if number.is_f64() => row(prefix, format!("{:.2}", number.as_f64().unwrap_or(f64::NAN))),
        other => row(prefix, other.to_string()),
    }
}
