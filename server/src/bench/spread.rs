//! What a region costs in which a few players are: many regions with one to five players each, and the processor time of all server processes
//! for one tick of one of them: its three replicas, and the edges that show it.
//!
//! Nothing is pinned: so many regions need more than one processor, and what is counted is time on whichever.
//!
//! Beside it, in the same run, a world of very few such regions: what a node costs for itself is shared by few ticks there, and what grows
//! with the number of regions does not show.
//!
//! Newcomers go round over all regions. Characters who never come are made in between, so that the first fifth of the regions has one player
//! each, the second one two, and the last one five. They walk about and may cross borders; how many are where in the end is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::ProgressBar;
use marchland_admin::client::cluster_status;
use marchland_admin::seed::seed;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::idle::{ABSENT, READY_WITHIN, REGION_M, grid_of, plan_of};
use super::process::cpu_us;
use super::{Outcome, pass, settled_owners};
use crate::bots::{Behaviour, BotOptions, Bots, Target};
use crate::cluster::Cluster;
use crate::config::GridConfig;
use crate::seams::SystemEntropy;
use crate::up::LocalCluster;
use crate::up::layout::Layout;

/// Ports of the measured cluster, away from those of `up` and of the other measurements.
const BASE_PORT: u16 = 19_500;
/// Most players of a region at first; so many fifths there are.
const MOST: u32 = 5;
/// The world beside it: its middle regions have neighbours all around.
const FEW: GridConfig = GridConfig { columns: 5, rows: 5 };
/// How long the players of one layer may take to join.
const JOIN_WITHIN: Duration = Duration::from_secs(120);

/// Arguments of `marchland bench spread`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench spread --regions 1000 --seconds 20 --json")]
pub(super) struct SpreadArgs {
    /// Regions of the world, a multiple of 5. Each has 1 to 5 players: three times as many players as regions.
    #[arg(long, default_value_t = 1000)]
    regions: u32,
    /// How long is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long the players walk before.
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
}

/// What one world took.
#[derive(Clone, Debug, Serialize)]
struct Taken {
    cpu_us_per_region_tick: f64,
    edge_cpu_us_per_region_tick: f64,
    region_ticks: u64,
    ticks_per_region_s: f64,
    players: u64,
    /// Regions by the number of players that were in them at the end.
    regions_by_players: BTreeMap<u32, u32>,
    cpu_percent: f64,
}

pub(super) async fn run(args: &SpreadArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    let grid = grid_of(args.regions)?;
    ensure!(args.regions.is_multiple_of(MOST), "--regions must be a multiple of {MOST}");
    ensure!((1..=3600).contains(&args.seconds), "--seconds must be between 1 and 3600");
    let few = world(args, FEW, &dir.join("few"), talk).await?;
    let many = world(args, grid, &dir.join("many"), talk).await?;
    let ratio = many.cpu_us_per_region_tick / few.cpu_us_per_region_tick;
    Ok(Outcome {
        name: "spread",
        params: json!({
            "regions": args.regions, "grid": grid.to_string(), "region_m": REGION_M, "players_per_region": [1, MOST],
            "seconds": args.seconds, "nodes": 3, "fsync": true,
            "baseline_grid": FEW.to_string(),
        }),
        results: serde_json::to_value(&many)?,
        baseline: serde_json::to_value(&few)?,
        ratios: [("region_tick_to_few_regions".to_owned(), ratio)].into(),
    })
}

/// Measures one world, and stops it whatever happens.
async fn world(args: &SpreadArgs, grid: GridConfig, dir: &Path, talk: bool) -> anyhow::Result<Taken> {
    let layout = Layout::open(&plan_of(dir, "spread", grid, BASE_PORT), &SystemEntropy)?;
    let mut servers = LocalCluster::start(layout, None, None)?;
    let taken = taken(args, grid.regions(), &mut servers, talk).await;
    let clean = servers.stop().await;
    let taken = taken.with_context(|| format!("with {} regions", grid.regions()))?;
    ensure!(clean, "a node did not stop cleanly");
    Ok(taken)
}

async fn taken(args: &SpreadArgs, regions: u32, servers: &mut LocalCluster, talk: bool) -> anyhow::Result<Taken> {
    servers.until_ready_within(READY_WITHIN).await?;
    let ready = servers.ready();
    let cluster = Cluster::of(&ready)?;
    settled_owners(&cluster, regions as usize).await?;
    let targets: Vec<Target> = ready.nodes.iter().map(Target::of).collect::<anyhow::Result<_>>()?;
    let layers = settle(regions, &cluster, &targets).await?;

    let bar = if talk { ProgressBar::new(args.warm_up + args.seconds) } else { ProgressBar::hidden() };
    pass(&bar, args.warm_up).await;
    let pids = servers.pids();
    let (ticks_before, cpu_before, began) = (ticks(&cluster, regions).await?, cpu(&pids)?, Instant::now());
    pass(&bar, args.seconds).await;
    let (elapsed_s, cpu_after, ticks_after) = (began.elapsed().as_secs_f64(), cpu(&pids)?, ticks(&cluster, regions).await?);
    bar.finish_and_clear();
    let regions_by_players = by_players(&cluster).await;
    for bots in layers {
        bots.stop().await;
    }
    let region_ticks = ticks_after.saturating_sub(ticks_before);
    ensure!(region_ticks > 0, "no region ticked: nothing was measured");
    let (all, edges) = (cpu_after.0 - cpu_before.0, cpu_after.1 - cpu_before.1);
    Ok(Taken {
        cpu_us_per_region_tick: all / region_ticks as f64,
        edge_cpu_us_per_region_tick: edges / region_ticks as f64,
        region_ticks,
        ticks_per_region_s: region_ticks as f64 / elapsed_s / f64::from(regions),
        players: regions_by_players.iter().map(|(players, regions)| u64::from(players * regions)).sum(),
        regions_by_players,
        cpu_percent: all / elapsed_s / 10_000.0,
    })
}

/// Lets players in, one for each region that is to have one more, until the last fifth of the regions has five.
async fn settle(regions: u32, cluster: &Cluster, targets: &[Target]) -> anyhow::Result<Vec<Bots>> {
    let mut layers = Vec::new();
    for layer in 0..MOST {
        let without = regions / MOST * layer;
        if without > 0 {
            // Whoever comes first enters the first region, and so on: these stand for those who are not there.
            seed(cluster.admin(), u64::from(without), ABSENT, |_| {}).await?;
        }
        let options = BotOptions {
            count: (regions - without) as usize,
            targets: targets.to_vec(),
            behaviour: Behaviour::Crowd,
            name: format!("layer{layer}"),
            ..BotOptions::default()
        };
        let bots = Bots::start(options)?;
        bots.until_here(JOIN_WITHIN).await?;
        layers.push(bots);
    }
    // Those who came last are not yet in everybody's view.
    sleep(Duration::from_secs(1)).await;
    Ok(layers)
}

/// Processor time of all server processes, and of their edges alone, in microseconds.
fn cpu(pids: &[u32]) -> anyhow::Result<(f64, f64)> {
    let (mut all, mut edges) = (0.0, 0.0);
    for pid in pids {
        for (thread, us) in cpu_us(*pid).with_context(|| format!("server process {pid}"))? {
            all += us;
            edges += if thread.starts_with("edge-") { us } else { 0.0 };
        }
    }
    Ok((all, edges))
}

/// Ticks of all regions together, by what their owners say.
pub(super) async fn ticks(cluster: &Cluster, regions: u32) -> anyhow::Result<u64> {
    let view = cluster_status(cluster.admin()).await;
    let groups = view.nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.groups);
    let ticks: BTreeMap<&str, u64> =
        groups.filter(|group| group.is_region() && group.owner).map(|group| (group.group.as_str(), group.tick)).collect();
    let owned = ticks.len();
    ensure!(owned == regions as usize, "{owned} of {regions} regions had an owner when ticks were counted");
    Ok(ticks.values().sum())
}

/// Regions by the number of players in them.
async fn by_players(cluster: &Cluster) -> BTreeMap<u32, u32> {
    let view = cluster_status(cluster.admin()).await;
    let mut regions = BTreeMap::new();
    let groups = view.nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.groups);
    for group in groups.filter(|group| group.is_region() && group.owner) {
        *regions.entry(group.sessions).or_insert(0) += 1;
    }
    regions
}
