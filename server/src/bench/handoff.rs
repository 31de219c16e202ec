//! What it costs a player to come into another region: the gap between the last frame of the one and the first frame of the next, beside
//! what it may cost: two ticks, one commit, and the way from a tick to the client, as they are in the same cluster at the same time.
//!
//! Commits are timed from outside, by cuts: an entry of the region's log like a tick, and the call to its owner with it. At the end
//! everything must be there once, by what players were told and by `verify`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use marchland_admin::client::{AdminCluster, AdminNode};
use marchland_admin::verify::{VerifyReport, verify};
use marchland_proto::codes::Code;
use marchland_types::limits::TICK_MS;
use marchland_types::{CutNumber, GroupId};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::Outcome;
use crate::bots::{Behaviour, BotOptions, Bots, Report, Target, Times, histogram};
use crate::cluster::Cluster;
use crate::config::{GridConfig, GroundConfig};
use crate::seams::SystemEntropy;
use crate::up::LocalCluster;
use crate::up::layout::{ClusterPlan, Layout};

/// Ports of the measured cluster, away from those of `up` and of the other measurements.
const BASE_PORT: u16 = 18_000;
/// How long all players may take to join.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// Between two commits that are timed: rare enough to cost nothing.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// How long the last look at the whole world may take.
const VERIFY_WITHIN: Duration = Duration::from_secs(30);

/// Arguments of `marchland bench handoff`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench handoff --players 400 --seconds 60 --json")]
pub(super) struct HandoffArgs {
    /// Players, on all three edges, who go back and forth over borders.
    #[arg(long, default_value_t = 400)]
    players: usize,
    /// How long they do.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Regions of the world.
    #[arg(long, value_name = "WxH", default_value = "4x4")]
    grid: GridConfig,
    /// Make the world an open square of this side in metres instead of a copy of the demo map for each region.
    #[arg(long)]
    open_ground_m: Option<f32>,
}

/// What was seen while players crossed borders.
struct Seen {
    report: Report,
    verdict: VerifyReport,
    commit_ms: Times,
}

pub(super) async fn run(args: &HandoffArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    ensure!((1..=2000).contains(&args.players), "--players must be between 1 and 2000");
    ensure!((1..=86_400).contains(&args.seconds), "--seconds must be between 1 and 86400");
    ensure!(args.grid.regions() > 1, "--grid must have more than one region: there is no border in {}", args.grid);
    let plan = ClusterPlan {
        data: dir.join("cluster"),
        nodes: 3,
        worlds: vec!["handoff".into()],
        grid: args.grid,
        ground: args.open_ground_m.map_or(GroundConfig::Map, |side_m| GroundConfig::Open { side_m }),
        base_port: BASE_PORT,
        tls: false,
    };
    let mut servers = LocalCluster::start(Layout::open(&plan, &SystemEntropy)?, None, None)?;
    let seen = cross(args, &mut servers, talk).await;
    let clean = servers.stop().await;
    let seen = seen?;
    ensure!(clean, "a node did not stop cleanly");
    outcome(args, &seen)
}

/// Lets players cross borders for a while.
async fn cross(args: &HandoffArgs, servers: &mut LocalCluster, talk: bool) -> anyhow::Result<Seen> {
    servers.until_ready().await?;
    let ready = servers.ready();
    let cluster = Cluster::of(&ready)?;
    let targets = ready.nodes.iter().map(Target::of).collect::<anyhow::Result<_>>()?;
    let options = BotOptions { count: args.players, targets, behaviour: Behaviour::Cross, ..BotOptions::default() };
    let bots = Bots::start(options)?;
    let counters = bots.counters();
    let began = Instant::now();
    while counters.here() < args.players as u64 {
        let here = counters.here();
        ensure!(began.elapsed() < JOIN_WITHIN, "{here} of {} players after {} s", args.players, JOIN_WITHIN.as_secs());
        sleep(Duration::from_millis(50)).await;
    }
    let bar = if talk { ProgressBar::new(args.seconds) } else { ProgressBar::hidden() };
    let mut commits = histogram();
    let (began, mut region) = (Instant::now(), 0);
    let end = began + Duration::from_secs(args.seconds);
    while Instant::now() < end {
        sleep_until(end.min(Instant::now() + COMMIT_EVERY)).await;
        time_commit(cluster.admin(), region, &mut commits).await;
        region += 1;
        bar.set_position(began.elapsed().as_secs());
    }
    bar.finish_and_clear();
    // While they still walk: that is when something could be lost.
    let verdict = verify(cluster.admin(), VERIFY_WITHIN).await.context("the world can not be verified")?;
    Ok(Seen { report: bots.stop().await, verdict, commit_ms: Times::of(&commits) })
}

/// Times a commit in the `number`-th region, round and round. One that fails, as while a region changes hands, is no commit.
async fn time_commit(cluster: &AdminCluster, number: usize, commits: &mut Histogram<u64>) {
    let mut owned: Vec<(GroupId, &AdminNode)> = Vec::new();
    for node in &cluster.nodes {
        let Ok(status) = node.status().await else { continue };
        owned.extend(status.groups.iter().filter(|group| group.owner).map(|group| (GroupId(group.group), node)));
    }
    owned.sort_by_key(|(group, _)| *group);
    let Some((group, node)) = owned.get(number % owned.len().max(1)) else { return };
    let began = Instant::now();
    if let Ok(reply) = node.take_cut(*group, CutNumber(0)).await
        && reply.code == Code::Ok as u32
    {
        let _ = commits.record(began.elapsed().as_millis() as u64);
    }
}

fn outcome(args: &HandoffArgs, seen: &Seen) -> anyhow::Result<Outcome> {
    let Seen { report, verdict, commit_ms } = seen;
    ensure!(report.handoffs > 0, "nobody came into another region: nothing was measured");
    ensure!(commit_ms.count > 0, "no commit was timed: there is nothing to compare with");
    let limit_ms = 2 * TICK_MS + commit_ms.p99 + report.tick_to_client_ms.p99;
    let lost = report.commands_lost + verdict.missing_items + verdict.characters_missing;
    let doubled = report.commands_duplicated + verdict.duplicated_items + verdict.characters_in_two_places;
    let ground = args.open_ground_m.map_or("map".to_owned(), |side_m| format!("open, {side_m} m"));
    Ok(Outcome {
        name: "handoff",
        params: json!({
            "players": args.players,
            "seconds": args.seconds,
            "grid": args.grid.to_string(),
            "ground": ground,
            "nodes": 3,
            "fsync": true,
        }),
        results: json!({
            "handoffs": report.handoffs,
            "lost": lost,
            "doubled": doubled,
            "crossing_ms": report.crossing_ms,
            "limit_ms": limit_ms,
            "within_limit": report.crossing_ms.p99 <= limit_ms,
            "commands_acked": report.commands_acked,
            "rollbacks": report.rollbacks,
            "disconnects": report.disconnects,
            "divergent": verdict.divergent,
            "characters_in_flight": verdict.characters_in_flight,
            "complaints": report.complaints,
        }),
        baseline: json!({
            "tick_ms": TICK_MS,
            "commit_ms": commit_ms,
            "tick_to_client_ms": report.tick_to_client_ms,
            "frame_gap_ms": report.frame_gap_ms,
        }),
        ratios: [
            ("crossing_p99_to_limit".to_owned(), report.crossing_ms.p99 as f64 / limit_ms as f64),
            ("crossing_p99_to_frame_gap_p99".to_owned(), report.crossing_ms.p99 as f64 / report.frame_gap_ms.p99.max(1) as f64),
        ]
        .into(),
    })
}
