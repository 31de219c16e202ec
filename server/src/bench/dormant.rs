//! What characters cost that are logged out: memory and disk of the nodes, and the time of a log-in among very many of them, beside a
//! log-in when there are none.
//!
//! They are made by the command's own code. Log-ins are timed from the connection to `Welcome`, each of a character that has slept until
//! then; between two of them the character leaves again. A name that another account holds must be refused.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use futures::StreamExt;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use marchland_admin::seed::seed;
use marchland_edge::client::{ClientError, ClientOptions, Login, PlayerClient};
use marchland_proto::codes::Code;
use marchland_proto::net::TokioTransport;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::Outcome;
use super::process::rss_bytes;
use crate::bots::{Target, Times, fetch_token, histogram};
use crate::cluster::Cluster;
use crate::config::{GridConfig, GroundConfig};
use crate::seams::SystemEntropy;
use crate::up::LocalCluster;
use crate::up::layout::{ClusterPlan, Layout};

/// Ports of the measured cluster, away from those of `up` and of the other measurements.
const BASE_PORT: u16 = 18_500;
/// Beginning of the sleepers' names.
const PREFIX: &str = "sleeper";
/// Log-ins that go on at a time.
const AT_ONCE: usize = 4;
/// Longest time for one.
const LOG_IN_WITHIN: Duration = Duration::from_secs(10);
/// Time for nodes to make durable what was written, and to give back what they do not need.
const SETTLE: Duration = Duration::from_secs(5);

/// Arguments of `marchland bench dormant`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench dormant --characters 1000000 --log-ins 500 --json")]
pub(super) struct DormantArgs {
    /// Characters that are logged out.
    #[arg(long, default_value_t = 1_000_000)]
    characters: u64,
    /// Log-ins that are timed, of sleepers spread over all of them.
    #[arg(long, default_value_t = 500)]
    log_ins: u64,
}

/// What nodes take, each the largest of them.
#[derive(Clone, Copy, Debug)]
struct Taken {
    rss_bytes: u64,
    disk_bytes: u64,
}

struct Measured {
    before: Taken,
    after: Taken,
    seconds: f64,
    quiet_ms: Times,
    log_in_ms: Times,
    refused: bool,
}

pub(super) async fn run(args: &DormantArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    ensure!((1..=100_000_000).contains(&args.characters), "--characters must be between 1 and 100000000");
    ensure!(
        (1..=args.characters.min(100_000)).contains(&args.log_ins),
        "--log-ins must be between 1 and the number of characters, at most 100000"
    );
    let plan = ClusterPlan {
        data: dir.join("cluster"),
        nodes: 3,
        worlds: vec!["dormant".into()],
        grid: GridConfig::default(),
        animals: 0,
        ground: GroundConfig::Map,
        base_port: BASE_PORT,
        tls: false,
    };
    let layout = Layout::open(&plan, &SystemEntropy)?;
    let data = layout.data.clone();
    let mut servers = LocalCluster::start(layout, None, None)?;
    let measured = measure(args, &mut servers, &data, talk).await;
    let clean = servers.stop().await;
    let measured = measured?;
    ensure!(clean, "a node did not stop cleanly");
    let Measured { before, after, seconds, quiet_ms, log_in_ms, refused } = measured;
    ensure!(refused, "a name that another account holds was not refused");
    let count = args.characters as f64;
    let growth = after.rss_bytes.saturating_sub(before.rss_bytes);
    Ok(Outcome {
        name: "dormant",
        params: json!({ "characters": args.characters, "log_ins": args.log_ins, "nodes": 3, "fsync": true }),
        results: json!({
            "rss_growth_bytes_per_node": growth,
            "disk_bytes_per_character": (after.disk_bytes.saturating_sub(before.disk_bytes)) as f64 / count,
            "made_per_s": count / seconds,
            "log_in_ms": log_in_ms,
            "taken_name_refused": refused,
        }),
        baseline: json!({ "rss_bytes_per_node": before.rss_bytes, "log_in_ms": quiet_ms }),
        ratios: [("log_in_p99_to_empty".to_owned(), log_in_ms.p99 as f64 / quiet_ms.p99.max(1) as f64)].into(),
    })
}

async fn measure(args: &DormantArgs, servers: &mut LocalCluster, data: &Path, talk: bool) -> anyhow::Result<Measured> {
    servers.until_ready().await?;
    let ready = servers.ready();
    let cluster = Cluster::of(&ready)?;
    let targets: Vec<Target> = ready.nodes.iter().map(Target::of).collect::<anyhow::Result<_>>()?;
    // As many characters of their own as are woken later: each logs in for the first time.
    let names: Vec<String> = (0..args.log_ins.min(200)).map(|n| format!("early{n}")).collect();
    let quiet_ms = log_in_all(&targets, &names).await?;
    sleep(SETTLE).await;
    let before = taken(servers, data)?;

    let bar = if talk { ProgressBar::new(args.characters) } else { ProgressBar::hidden() };
    bar.set_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec}, {eta} to go")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let began = Instant::now();
    let seeded = seed(cluster.admin(), args.characters, PREFIX, |made| bar.set_position(made)).await?;
    let seconds = began.elapsed().as_secs_f64();
    bar.finish_and_clear();
    sleep(SETTLE).await;

    let step = args.characters / args.log_ins;
    let names: Vec<String> = (0..args.log_ins).map(|n| format!("{PREFIX}{}", seeded.first + n * step)).collect();
    let log_in_ms = log_in_all(&targets, &names).await?;
    let refused = match log_in(&targets[0], "thief", &names[0]).await {
        Ok(_) => false,
        Err(error) => error.downcast_ref::<ClientError>().and_then(ClientError::code) == Some(Code::NameTaken),
    };
    sleep(SETTLE).await;
    let after = taken(servers, data)?;
    Ok(Measured { before, after, seconds, quiet_ms, log_in_ms, refused })
}

/// Times a log-in of each, a few at a time, over all edges. Each leaves again.
async fn log_in_all(targets: &[Target], names: &[String]) -> anyhow::Result<Times> {
    let mut times: Histogram<u64> = histogram();
    let each = names.iter().enumerate().map(|(n, name)| log_in(&targets[n % targets.len()], name, name));
    let mut done = futures::stream::iter(each).buffer_unordered(AT_ONCE);
    while let Some(took) = done.next().await {
        times.record(took?.as_millis() as u64).context("a log-in took longer than can be counted")?;
    }
    Ok(Times::of(&times))
}

/// The time from the connection to `Welcome`. The token is there before.
async fn log_in(target: &Target, account: &str, name: &str) -> anyhow::Result<Duration> {
    let token = fetch_token(&target.http, account).await?;
    let login = Login::SignIn { token, character_name: name.to_owned() };
    let options = ClientOptions { tls: None, client_name: "marchland bench".into() };
    let began = Instant::now();
    let connecting = PlayerClient::connect(&TokioTransport, &target.address, &options, &login);
    let mut client =
        timeout(LOG_IN_WITHIN, connecting).await.with_context(|| format!("{name} is not in the world in time"))??;
    let took = began.elapsed();
    client.goodbye().await?;
    // Until the server closes: the character is on its way to its vault then.
    let farewell = async { while client.next().await.is_ok() {} };
    timeout(LOG_IN_WITHIN, farewell).await.with_context(|| format!("no farewell for {name}"))?;
    Ok(took)
}

fn taken(servers: &LocalCluster, data: &Path) -> anyhow::Result<Taken> {
    let rss = servers.pids().into_iter().map(rss_bytes).collect::<std::io::Result<Vec<u64>>>()?;
    let nodes = std::fs::read_dir(data)?.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir());
    let disk = nodes.map(|path| disk_bytes(&path)).collect::<std::io::Result<Vec<u64>>>()?;
    let most = |all: Vec<u64>| all.into_iter().max().unwrap_or(0);
    Ok(Taken { rss_bytes: most(rss), disk_bytes: most(disk) })
}

/// What everything below a folder takes on the disk: files may be longer than what was ever written to them. What is removed meanwhile
/// counts for nothing.
fn disk_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(found) if found.is_dir() => bytes += disk_bytes(&entry.path())?,
            Ok(found) => bytes += found.blocks() * 512,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
