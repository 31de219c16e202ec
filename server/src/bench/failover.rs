//! How long players wait when the owner of their region is taken away, and when the region is moved, beside how long they wait when nothing
//! happens.
//!
//! What counts is each player's longest gap between two frames, in each round: with a fault, and in as much time without one before it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use marchland_admin::relocate::move_owner;
use marchland_types::RegionId;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{Outcome, owner};
use crate::bots::{BotOptions, Bots, Target, Times, Window};
use crate::cluster::Cluster;
use crate::config::{GridConfig, GroundConfig};
use crate::seams::SystemEntropy;
use crate::up::LocalCluster;
use crate::up::layout::{ClusterPlan, Layout};

/// Ports of the measured cluster, away from those of `up` and of the other measurements.
const BASE_PORT: u16 = 17_600;
/// The demo world's region.
const REGION: RegionId = RegionId(1);
/// How long all players may take to join, or to come back.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// How long is measured without a fault, and with one: longer than players may have to wait.
const QUIET: Duration = Duration::from_secs(3);
const STRUCK: Duration = Duration::from_secs(4);
/// A node stands still for so long.
const PAUSE: Duration = Duration::from_secs(3);
/// A node that was killed is started again after so long: another one has the region by then.
const DOWN: Duration = Duration::from_secs(2);
/// A node that is asked to go has gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// What befalls the node that owns the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fate {
    /// Its process is killed.
    Kill,
    /// Its process stands still for three seconds.
    Pause,
    /// It is asked to stop.
    Stop,
}

/// Arguments of `marchland bench failover`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench failover --players 100 --rounds 10 --json")]
pub(super) struct FailoverArgs {
    /// Players, on all three edges.
    #[arg(long, default_value_t = 100)]
    players: usize,
    /// How often the owner is taken away.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// What befalls it.
    #[arg(long, value_enum, default_value = "kill")]
    fate: Fate,
}

/// Arguments of `marchland bench move`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench move --players 100 --rounds 10 --json")]
pub(super) struct MoveArgs {
    /// Players, on all three edges.
    #[arg(long, default_value_t = 100)]
    players: usize,
    /// How often the region is moved to another node.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

pub(super) async fn failover(args: &FailoverArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    let fate = args.fate;
    let strike = async |servers: &mut LocalCluster, cluster: &Cluster| {
        let node = owner(cluster).await?;
        let began = Instant::now();
        let process = servers.node(node).context("no such node")?;
        match fate {
            Fate::Kill => {
                process.signal(libc::SIGKILL)?;
                process.ended().await?;
                sleep(DOWN).await;
                process.restart()?;
            }
            Fate::Pause => {
                process.signal(libc::SIGSTOP)?;
                sleep(PAUSE).await;
                process.signal(libc::SIGCONT)?;
            }
            Fate::Stop => {
                process.signal(libc::SIGTERM)?;
                let ended = timeout(GONE_WITHIN, process.ended()).await.context("the node does not stop")??;
                ensure!(ended.success(), "the node ended with {ended}");
                process.restart()?;
            }
        }
        anyhow::Ok(began.elapsed())
    };
    let params = json!({ "players": args.players, "rounds": args.rounds, "fate": format!("{fate:?}").to_lowercase(), "nodes": 3, "fsync": true });
    measure("failover", params, args.players, args.rounds, dir, talk, strike).await
}

pub(super) async fn relocate(args: &MoveArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    let strike = async |_: &mut LocalCluster, cluster: &Cluster| {
        let began = Instant::now();
        let moved = move_owner(cluster.admin(), REGION, None).await?;
        ensure!(moved.from != moved.to, "the region stayed where it was");
        Ok(began.elapsed())
    };
    let params = json!({ "players": args.players, "rounds": args.rounds, "nodes": 3, "fsync": true });
    measure("move", params, args.players, args.rounds, dir, talk, strike).await
}

async fn measure(
    name: &'static str,
    params: Value,
    players: usize,
    rounds: u32,
    dir: &Path,
    talk: bool,
    strike: impl AsyncFn(&mut LocalCluster, &Cluster) -> anyhow::Result<Duration>,
) -> anyhow::Result<Outcome> {
    ensure!((1..=2000).contains(&players), "--players must be between 1 and 2000");
    ensure!((1..=1000).contains(&rounds), "--rounds must be between 1 and 1000");
    let plan = ClusterPlan {
        data: dir.join("cluster"),
        nodes: 3,
        worlds: vec![name.into()],
        grid: GridConfig::default(),
        animals: 0,
        ground: GroundConfig::Map,
        base_port: BASE_PORT,
        tls: false,
    };
    let mut servers = LocalCluster::start(Layout::open(&plan, &SystemEntropy)?, None, None)?;
    let measured = rounds_of(players, rounds, &mut servers, talk, strike).await;
    let clean = servers.stop().await;
    let (report, struck, quiet, took_ms) = measured?;
    ensure!(clean, "a node did not stop cleanly");
    let ratio = struck.p99 as f64 / quiet.p99.max(1) as f64;
    Ok(Outcome {
        name,
        params,
        results: json!({
            "longest_gap_ms": struck,
            "took_ms": took_ms,
            "commands_acked": report.commands_acked,
            "commands_lost": report.commands_lost,
            "commands_duplicated": report.commands_duplicated,
            "rollbacks": report.rollbacks,
            "disconnects": report.disconnects,
            // Lost connections are what this is about; they are told only beside something worse.
            "complaints": if report.sound() { Vec::new() } else { report.complaints.clone() },
        }),
        baseline: json!({ "longest_gap_ms": quiet }),
        ratios: [("gap_p99_to_quiet".to_owned(), ratio)].into(),
    })
}

async fn rounds_of(
    players: usize,
    rounds: u32,
    servers: &mut LocalCluster,
    talk: bool,
    strike: impl AsyncFn(&mut LocalCluster, &Cluster) -> anyhow::Result<Duration>,
) -> anyhow::Result<(crate::bots::Report, Times, Times, Vec<u64>)> {
    servers.until_ready().await?;
    let ready = servers.ready();
    let cluster = Cluster::of(&ready)?;
    let targets = ready.nodes.iter().map(Target::of).collect::<anyhow::Result<_>>()?;
    let bots = Bots::start(BotOptions { count: players, targets, ..BotOptions::default() })?;
    let counters = bots.counters();
    let everybody = async || {
        let began = Instant::now();
        while counters.here() < players as u64 {
            ensure!(began.elapsed() < JOIN_WITHIN, "{} of {players} players after {} s", counters.here(), JOIN_WITHIN.as_secs());
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    let bar = if talk { ProgressBar::new(u64::from(rounds)) } else { ProgressBar::hidden() };
    let mut took_ms = Vec::new();
    for _ in 0..rounds {
        everybody().await?;
        servers.until_ready().await?;
        sleep(Duration::from_secs(1)).await;
        bots.begin_window(Window::Quiet);
        sleep(QUIET).await;
        bots.begin_window(Window::Struck);
        let began = Instant::now();
        took_ms.push(strike(servers, &cluster).await?.as_millis() as u64);
        // Whoever waits for longer is measured all the same.
        sleep(STRUCK.saturating_sub(began.elapsed())).await;
        everybody().await?;
        bar.inc(1);
    }
    bots.begin_window(Window::Quiet);
    sleep(Duration::from_millis(500)).await;
    bar.finish_and_clear();
    let (struck, quiet) = (bots.gaps(Window::Struck), bots.gaps(Window::Quiet));
    Ok((bots.stop().await, struck, quiet, took_ms))
}
