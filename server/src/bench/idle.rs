//! What a world costs in which hardly anybody is: processor time and memory of many sleeping regions, how long one takes to wake, and how
//! long the nodes take to come back, beside the same with a single region.
//!
//! A region wakes for whoever enters it for the first time: what is timed is from the connection to the first frame, and only of
//! regions that said that they slept just before. A single region never sleeps, so the same beside it is the log-in alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::ProgressBar;
use marchland_admin::client::cluster_status;
use marchland_admin::seed::seed;
use marchland_edge::client::{ClientOptions, Heard, Login, PlayerClient};
use marchland_proto::net::TokioTransport;
use marchland_types::{GroupId, RegionId, WorldId};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::process::{cpu_us, rss_bytes};
use super::{Outcome, owners_now, pass, settled_owners};
use crate::bots::{Behaviour, BotOptions, Bots, Target, Times, fetch_token, histogram};
use crate::cluster::Cluster;
use crate::config::{GridConfig, GroundConfig, REGIONS_MAX};
use crate::seams::SystemEntropy;
use crate::up::LocalCluster;
use crate::up::layout::{ClusterPlan, Layout};

/// Ports of the measured cluster, away from those of `up` and of the other measurements.
const BASE_PORT: u16 = 19_000;
/// Side of a region, in metres: those around a player's are few.
pub(super) const REGION_M: f32 = 200.0;
/// How long a cluster may take to be ready.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(300);
/// How long all regions may take to fall asleep, and players to join.
const SLEEP_WITHIN: Duration = Duration::from_secs(180);
/// How long their checkpoints may take: a minute passes before the first of them is due.
const DURABLE_WITHIN: Duration = Duration::from_secs(180);
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// How long one may wait for a first frame.
const FRAME_WITHIN: Duration = Duration::from_secs(30);
/// Newcomers for each region that is to be woken, at most.
const ATTEMPTS: u32 = 4;
/// Time for nodes to give back what they do not need, and for players' first ticks.
const SETTLE: Duration = Duration::from_secs(5);
/// Beginning of the names of characters who never come, and whose places in the round over all regions are left out by that.
pub(super) const ABSENT: &str = "absent";
/// The only world's number.
const WORLD: WorldId = WorldId(1);

/// Arguments of `marchland bench idle`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench idle --regions 1000 --players 10 --json")]
pub(super) struct IdleArgs {
    /// Regions of the world.
    #[arg(long, default_value_t = 1000)]
    regions: u32,
    /// Players who walk about in it, each in a region of its own at first; may be 0.
    #[arg(long, default_value_t = 10)]
    players: usize,
    /// How long the idle world is measured.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Sleeping regions that are woken.
    #[arg(long, default_value_t = 20)]
    wakes: u32,
}

/// What one cluster took.
#[derive(Clone, Debug, Serialize)]
struct Taken {
    /// With nobody in the world, the mean of the nodes.
    rss_bytes_per_node: f64,
    /// With the players in it, percent of one core.
    cpu_percent_per_node: PerNode,
    /// Regions that slept then.
    asleep: usize,
    /// From the connection to the first frame.
    first_frame_ms: Times,
    /// From the start of three new nodes until every region has an owner.
    first_start_ms: u64,
    /// The same of three nodes that were stopped.
    restart_ms: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PerNode {
    mean: f64,
    max: f64,
}

/// The grid with so many regions that is nearest to a square.
pub(super) fn grid_of(regions: u32) -> anyhow::Result<GridConfig> {
    ensure!((2..=REGIONS_MAX).contains(&regions), "--regions must be between 2 and {REGIONS_MAX}");
    let rows = (1..=regions.isqrt()).rev().find(|rows| regions.is_multiple_of(*rows)).unwrap_or(1);
    let grid = GridConfig { columns: regions / rows, rows };
    ensure!(grid.columns <= 500, "--regions {regions} makes a strip of {grid}: take a number with more divisors");
    Ok(grid)
}

/// A new world of open ground, with so much of it for each region.
pub(super) fn plan_of(dir: &Path, name: &str, grid: GridConfig, base_port: u16) -> ClusterPlan {
    ClusterPlan {
        data: dir.to_owned(),
        nodes: 3,
        worlds: vec![name.into()],
        grid,
        animals: 0,
        ground: GroundConfig::Open { side_m: REGION_M * grid.columns.max(grid.rows) as f32 },
        base_port,
        tls: false,
    }
}

pub(super) async fn run(args: &IdleArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    let grid = grid_of(args.regions)?;
    ensure!(args.players <= 1000, "--players must be at most 1000");
    ensure!((1..=3600).contains(&args.seconds), "--seconds must be between 1 and 3600");
    ensure!((1..=1000).contains(&args.wakes), "--wakes must be between 1 and 1000");
    let one = cluster(args, GridConfig::default(), &dir.join("one"), talk).await.context("with one region")?;
    let many = cluster(args, grid, &dir.join("many"), talk).await.with_context(|| format!("with {} regions", args.regions))?;
    ensure!(many.asleep > 0, "no region slept: nothing was measured");
    let replicas_more = f64::from(args.regions - 1);
    let mut results = serde_json::to_value(&many)?;
    results["rss_bytes_per_replica"] = json!((many.rss_bytes_per_node - one.rss_bytes_per_node) / replicas_more);
    let ratio = |name: &str, many: f64, one: f64| (name.to_owned(), many / one);
    Ok(Outcome {
        name: "idle",
        params: params(args, grid),
        results,
        baseline: serde_json::to_value(&one)?,
        ratios: [
            ratio("cpu_to_one_region", many.cpu_percent_per_node.mean, one.cpu_percent_per_node.mean.max(0.001)),
            ratio("wake_p99_to_log_in_p99", many.first_frame_ms.p99 as f64, one.first_frame_ms.p99.max(1) as f64),
            ratio("restart_to_one_region", many.restart_ms as f64, one.restart_ms.max(1) as f64),
        ]
        .into(),
    })
}

fn params(args: &IdleArgs, grid: GridConfig) -> Value {
    json!({
        "regions": args.regions, "grid": grid.to_string(), "region_m": REGION_M, "players": args.players,
        "seconds": args.seconds, "wakes": args.wakes, "nodes": 3, "fsync": true,
    })
}

/// Measures one cluster, and stops it whatever happens.
async fn cluster(args: &IdleArgs, grid: GridConfig, dir: &Path, talk: bool) -> anyhow::Result<Taken> {
    let began = Instant::now();
    let mut servers = LocalCluster::start(Layout::open(&plan_of(dir, "idle", grid, BASE_PORT), &SystemEntropy)?, None, None)?;
    let taken = taken(args, grid, &mut servers, began, talk).await;
    let clean = servers.stop().await;
    let taken = taken?;
    ensure!(clean, "a node did not stop cleanly");
    Ok(taken)
}

async fn taken(
    args: &IdleArgs,
    grid: GridConfig,
    servers: &mut LocalCluster,
    began: Instant,
    talk: bool,
) -> anyhow::Result<Taken> {
    let bar = if talk { ProgressBar::new(args.seconds + u64::from(args.wakes)) } else { ProgressBar::hidden() };
    servers.until_ready_within(READY_WITHIN).await?;
    let first_start_ms = began.elapsed().as_millis() as u64;
    let ready = servers.ready();
    let cluster = Cluster::of(&ready)?;
    let targets: Vec<Target> = ready.nodes.iter().map(Target::of).collect::<anyhow::Result<_>>()?;
    let regions = grid.regions() as usize;
    settled_owners(&cluster, regions).await?;
    if regions > 1 {
        until_all_sleep(&cluster, regions).await?;
        until_all_durable(&cluster).await?;
    }
    sleep(SETTLE).await;
    let rss = servers.pids().into_iter().map(rss_bytes).collect::<std::io::Result<Vec<u64>>>()?;
    ensure!(rss.len() == ready.nodes.len(), "a node has ended");

    let bots = walk(args.players, &targets).await?;
    sleep(SETTLE).await;
    let cpu_percent_per_node = cpu_percent(&servers.pids(), args.seconds, &bar).await?;
    let asleep = sleepers(&cluster).await.len();
    let first_frame_ms = wake(args.wakes, grid, &cluster, &targets, &bar).await?;
    if let Some(bots) = bots {
        bots.stop().await;
    }
    bar.finish_and_clear();
    let restart_ms = restart(servers, regions).await?;
    let rss_bytes_per_node = rss.iter().sum::<u64>() as f64 / rss.len() as f64;
    Ok(Taken { rss_bytes_per_node, cpu_percent_per_node, asleep, first_frame_ms, first_start_ms, restart_ms })
}

/// Regions that sleep, by what their owners say.
async fn sleepers(cluster: &Cluster) -> BTreeSet<String> {
    let view = cluster_status(cluster.admin()).await;
    let groups = view.nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.groups);
    groups.filter(|group| group.is_region() && group.owner && group.asleep).map(|group| group.group.clone()).collect()
}

async fn until_all_sleep(cluster: &Cluster, regions: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let asleep = sleepers(cluster).await.len();
        if asleep == regions {
            return Ok(());
        }
        ensure!(began.elapsed() < SLEEP_WITHIN, "{asleep} of {regions} regions sleep after {} s", SLEEP_WITHIN.as_secs());
        sleep(Duration::from_secs(1)).await;
    }
}

/// What the start has left in the log is in checkpoints a minute later: a region that sleeps adds nothing to it.
async fn until_all_durable(cluster: &Cluster) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let view = cluster_status(cluster.admin()).await;
        let groups = view.nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.groups);
        let behind = groups.filter(|group| group.asleep && group.durable_index < group.applied_index).count();
        if behind == 0 {
            return Ok(());
        }
        let waited_s = began.elapsed().as_secs();
        ensure!(
            began.elapsed() < DURABLE_WITHIN,
            "{behind} replicas of sleeping regions have no new checkpoint after {waited_s} s"
        );
        sleep(Duration::from_secs(1)).await;
    }
}

/// Players who walk about.
async fn walk(players: usize, targets: &[Target]) -> anyhow::Result<Option<Bots>> {
    if players == 0 {
        return Ok(None);
    }
    let options = BotOptions { count: players, targets: targets.to_vec(), behaviour: Behaviour::Wander, ..BotOptions::default() };
    let bots = Bots::start(options)?;
    bots.until_here(JOIN_WITHIN).await?;
    Ok(Some(bots))
}

/// Processor time of each node, in percent of a core.
async fn cpu_percent(pids: &[u32], seconds: u64, bar: &ProgressBar) -> anyhow::Result<PerNode> {
    let read = || pids.iter().map(|pid| Ok(cpu_us(*pid)?.values().sum::<f64>())).collect::<std::io::Result<Vec<f64>>>();
    let (before, began) = (read()?, Instant::now());
    pass(bar, seconds).await;
    let (after, elapsed_us) = (read()?, began.elapsed().as_micros() as f64);
    let each: Vec<f64> = before.iter().zip(&after).map(|(before, after)| (after - before) / elapsed_us * 100.0).collect();
    ensure!(!each.is_empty() && each.iter().all(|percent| *percent > 0.0), "nodes took no processor time: nothing was measured");
    Ok(PerNode { mean: each.iter().sum::<f64>() / each.len() as f64, max: each.iter().copied().fold(0.0, f64::max) })
}

/// Lets newcomers into the world, one after the other, and times how long those wait who come into a region that slept; or all, in a
/// world of one region.
async fn wake(wakes: u32, grid: GridConfig, cluster: &Cluster, targets: &[Target], bar: &ProgressBar) -> anyhow::Result<Times> {
    let mut times = histogram();
    // Some come into regions that are awake, around players.
    for number in 0..wakes.saturating_mul(ATTEMPTS) {
        if grid.regions() > 1 {
            // Newcomers go round over all regions, and wake those around theirs: the next one comes two rows and two columns further.
            let absent = u64::from(2 * grid.columns + 1);
            seed(cluster.admin(), absent, ABSENT, |_| {}).await?;
        }
        let before = sleepers(cluster).await;
        let (region, took) = first_frame(&targets[number as usize % targets.len()], &format!("waker{number}")).await?;
        if grid.regions() == 1 || before.contains(&GroupId::region(WORLD, region).to_string()) {
            times.record(took.as_millis() as u64).context("a first frame took longer than can be counted")?;
            bar.inc(1);
        }
        if times.len() >= u64::from(wakes) {
            break;
        }
    }
    ensure!(!times.is_empty(), "nobody came into a region that slept: nothing was measured");
    Ok(Times::of(&times))
}

/// The time from the connection to the first frame, and its region. The player leaves again.
async fn first_frame(target: &Target, name: &str) -> anyhow::Result<(RegionId, Duration)> {
    let token = fetch_token(&target.http, name).await?;
    let login = Login::SignIn { token, character_name: name.to_owned() };
    let options = ClientOptions { tls: None, client_name: "marchland bench idle".into() };
    let began = Instant::now();
    let coming = async {
        let mut client = PlayerClient::connect(&TokioTransport, &target.address, &options, &login).await?;
        loop {
            if let Heard::Frame(frame) = client.next().await? {
                return anyhow::Ok((client, RegionId(frame.region)));
            }
        }
    };
    let (mut client, region) =
        timeout(FRAME_WITHIN, coming).await.with_context(|| format!("{name} was shown nothing in time"))??;
    let took = began.elapsed();
    client.goodbye().await?;
    let farewell = async { while client.next().await.is_ok() {} };
    timeout(FRAME_WITHIN, farewell).await.with_context(|| format!("no farewell for {name}"))?;
    Ok((region, took))
}

/// Stops all nodes and starts them again; how long they take from there until every region has an owner.
async fn restart(servers: &mut LocalCluster, regions: usize) -> anyhow::Result<u64> {
    ensure!(servers.stop().await, "a node did not stop cleanly before its restart");
    let began = Instant::now();
    for number in 1..=3 {
        servers.node(number).with_context(|| format!("there is no node {number}"))?.restart()?;
    }
    servers.until_ready_within(READY_WITHIN).await?;
    // Nodes know of the regions that they have opened; here it is known how many there are.
    let cluster = Cluster::of(&servers.ready())?;
    loop {
        let owned = owners_now(cluster.admin()).await.len();
        if owned == regions {
            return Ok(began.elapsed().as_millis() as u64);
        }
        ensure!(began.elapsed() < READY_WITHIN, "{owned} of {regions} regions have owners after the restart");
        sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_as_square_as_their_number_allows() {
        let of = |regions| grid_of(regions).map(|grid| grid.to_string()).ok();
        assert_eq!((of(1000).as_deref(), of(64).as_deref(), of(6).as_deref()), (Some("40x25"), Some("8x8"), Some("3x2")));
        assert_eq!((of(1), of(0), of(5000), of(997)), (None, None, None, None));
    }
}
