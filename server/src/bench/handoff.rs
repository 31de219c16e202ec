//! What it costs a player to come into another region: the gap between the last frame of the one and the first frame of the next, beside
//! what it may cost: two ticks, one commit, and the way from a tick to the client, as they are in the same cluster at the same time.
//!
//! Commits are timed from outside, by cuts: an entry of the region's log like a tick, and the call to its owner with it. At the end
//! everything must be there once, by what players were told and by `verify`.
//!
//! With `--kill-every` a node is killed again and again meanwhile, the next one each time, and the world is verified between two kills.
//! It fails if anybody saw nothing for longer than a few failovers take.

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
/// And one between two kills, in which regions may have no owner.
const VERIFY_AMONG_KILLS_WITHIN: Duration = Duration::from_secs(5);
/// A node that was killed stays away for so long.
const DOWN: Duration = Duration::from_millis(500);

/// A player who sees nothing for longer than several failovers take was forgotten, even if nothing was lost.
const BLACKOUT_MAX_MS: u64 = 5_000;

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
    /// Kill a node every so many seconds, one after the other, and start it again; 0 kills none.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    kill_every: u64,
}

/// What was seen while players crossed borders.
struct Seen {
    report: Report,
    /// Of the whole world: while players walked, and after they had gone.
    verdicts: Vec<VerifyReport>,
    /// Looks that got no answer, as while a region has no owner.
    unanswered: u32,
    kills: u32,
    commit_ms: Times,
}

impl Seen {
    /// Most of something that any look at the world found.
    fn most(&self, of: impl Fn(&VerifyReport) -> u64) -> u64 {
        self.verdicts.iter().map(of).max().unwrap_or(0)
    }
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
        animals: 0,
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
    let mut kill_at = (args.kill_every > 0).then(|| began + Duration::from_secs(args.kill_every));
    let (mut verdicts, mut unanswered, mut kills) = (Vec::new(), 0, 0);
    while Instant::now() < end {
        sleep_until(end.min(Instant::now() + COMMIT_EVERY)).await;
        time_commit(cluster.admin(), region, &mut commits).await;
        region += 1;
        bar.set_position(began.elapsed().as_secs());
        if kill_at.is_some_and(|at| Instant::now() >= at) {
            match verify(cluster.admin(), VERIFY_AMONG_KILLS_WITHIN).await {
                Ok(verdict) => verdicts.push(verdict),
                Err(_) => unanswered += 1,
            }
            kill(servers, kills % 3 + 1).await?;
            kills += 1;
            kill_at = Some(began + Duration::from_secs(args.kill_every) * (kills + 1));
        }
    }
    bar.finish_and_clear();
    if kills > 0 {
        servers.until_ready().await?;
    }
    // While they still walk: that is when something could be lost.
    verdicts.push(verify(cluster.admin(), VERIFY_WITHIN).await.context("the world can not be verified")?);
    let report = bots.stop().await;
    verdicts.push(verify(cluster.admin(), VERIFY_WITHIN).await.context("the world can not be verified afterwards")?);
    Ok(Seen { report, verdicts, unanswered, kills, commit_ms: Times::of(&commits) })
}

/// Kills a node, and starts it again a moment later.
async fn kill(servers: &mut LocalCluster, node: u32) -> anyhow::Result<()> {
    let process = servers.node(node).with_context(|| format!("there is no node {node}"))?;
    process.signal(libc::SIGKILL)?;
    process.ended().await?;
    sleep(DOWN).await;
    process.restart()?;
    Ok(())
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
    let Seen { report, commit_ms, .. } = seen;
    ensure!(report.handoffs > 0, "nobody came into another region: nothing was measured");
    ensure!(commit_ms.count > 0, "no commit was timed: there is nothing to compare with");
    let limit_ms = 2 * TICK_MS + commit_ms.p99 + report.tick_to_client_ms.p99;
    let lost = report.commands_lost + seen.most(|v| v.missing_items + v.characters_missing);
    let doubled = report.commands_duplicated + seen.most(|v| v.duplicated_items + v.characters_in_two_places);
    let wrong = lost + doubled + report.rollbacks + seen.most(|v| v.divergent);
    let complaints = report.complaints.join("; ");
    ensure!(wrong == 0, "{lost} lost, {doubled} doubled, {} rollbacks: {:?}; {complaints}", report.rollbacks, seen.verdicts);
    let longest_ms = report.frame_gap_ms.max;
    ensure!(longest_ms <= BLACKOUT_MAX_MS, "a player saw nothing for {longest_ms} ms, at most {BLACKOUT_MAX_MS}: {complaints}");
    let ground = args.open_ground_m.map_or("map".to_owned(), |side_m| format!("open, {side_m} m"));
    Ok(Outcome {
        name: "handoff",
        params: json!({
            "players": args.players,
            "seconds": args.seconds,
            "grid": args.grid.to_string(),
            "ground": ground,
            "kill_every": args.kill_every,
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
            "kills": seen.kills,
            "verified": seen.verdicts.len(),
            "not_verified": seen.unanswered,
            "divergent": seen.most(|v| v.divergent),
            "characters_in_two_places": seen.most(|v| v.characters_in_two_places),
            "characters_missing": seen.most(|v| v.characters_missing),
            "characters_in_flight": seen.most(|v| v.characters_in_flight),
            "blackout_ms": report.blackout_ms,
            // Lost connections are what kills are about; they are told only beside something worse.
            "complaints": if seen.kills > 0 && report.sound() { Vec::new() } else { report.complaints.clone() },
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
