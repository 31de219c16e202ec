//! The one figure for what the server is for: processor time of all server processes for one correct delivered update.
//!
//! A square in which about 40 others lie within 50 m of a player; everybody walks at 5 m/s, with headings redrawn every
//! one to three seconds and jittered at every command; 10 commands a second each; each is shown up to the 32 nearest
//! within 50 m at 20 Hz. A frame counts only if it is right: what it shows is held against the committed state of its tick.
//! Servers and players are pinned to different processors.

mod load;
mod observer;
mod truth;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures::{SinkExt, StreamExt};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use marchland_edge::InterestConfig;
use marchland_edge::client::ClientOptions;
use marchland_types::limits::TICK_MS;
use marchland_types::seam::Clock;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use self::load::{Counts, Walker, sample_command_bytes, side_m};
use self::truth::{Rule, Shown, World};
use super::process::{cpu_us, pin, rss_bytes};
use super::{Outcome, owner};
use crate::bots::Target;
use crate::cluster::{Cluster, player_tls};
use crate::config::{GridConfig, GroundConfig};
use crate::seams::{SystemClock, SystemEntropy};
use crate::up::LocalCluster;
use crate::up::layout::{ClusterPlan, Layout};

/// Ports of the measured cluster, away from those of `up`.
const BASE_PORT: u16 = 17_000;
/// Port of the bare server.
const BARE_PORT: u16 = 17_400;
/// Frames that wait to be judged.
const JUDGE_MAX: usize = 65_536;
/// Fastest that two players come towards each other, in m/s.
const CLOSING_M_S: f32 = 10.0;
/// How long all players may take to join.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

/// Arguments of `marchland bench crowd`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench crowd --players 1000 --seconds 20 --json")]
pub(super) struct CrowdArgs {
    /// Players, on all three edges.
    #[arg(long, default_value_t = 500)]
    players: usize,
    /// How long is measured.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How long the crowd walks before.
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Players connect by TLS.
    #[arg(long)]
    tls: bool,
}

/// Processor time of the servers, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    all: f64,
    edges: f64,
    owner: f64,
}

impl Cpu {
    fn read(pids: &[u32], owner: u32) -> anyhow::Result<Self> {
        let mut cpu = Self::default();
        for pid in pids {
            for (thread, us) in cpu_us(*pid).with_context(|| format!("server process {pid}"))? {
                cpu.all += us;
                if thread.starts_with("edge-") {
                    cpu.edges += us;
                } else if *pid == owner {
                    cpu.owner += us;
                }
            }
        }
        Ok(cpu)
    }

    fn since(self, before: Self) -> Self {
        Self { all: self.all - before.all, edges: self.edges - before.edges, owner: self.owner - before.owner }
    }
}

pub(super) async fn run(args: &CrowdArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    ensure!((1..=8192).contains(&args.players), "--players must be between 1 and 8192");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Servers on the first processor, players on the others; with only one, together and said so.
    let pinned = cores > 1;
    if pinned {
        pin(&(1..cores).collect::<Vec<_>>())?;
    }
    let side_m = side_m(args.players);
    let plan = ClusterPlan {
        data: dir.join("cluster"),
        nodes: 3,
        world: "crowd".into(),
        grid: GridConfig::default(),
        ground: GroundConfig::Open { side_m },
        base_port: BASE_PORT,
        tls: args.tls,
    };
    let layout = Layout::open(&plan, &SystemEntropy)?;
    let mut servers = LocalCluster::start(layout, None, pinned.then_some(0))?;
    let measured = measure(args, &mut servers, side_m, talk).await;
    let clean = servers.stop().await;
    let measured = measured?;
    ensure!(clean, "a node did not stop cleanly");
    let frame_bytes = (measured.bytes_per_player_s * TICK_MS as f64 / 1000.0).round() as usize;
    let bare = bare(args, dir, frame_bytes, pinned.then_some(0), talk).await?;
    let interest = InterestConfig::default();
    Ok(Outcome {
        name: "crowd",
        params: json!({
            "players": args.players, "seconds": args.seconds, "nodes": 3, "fsync": true, "tls_players": args.tls,
            "tls_cluster": true, "pinned_apart": pinned, "side_m": side_m, "radius_m": interest.radius_m,
            "visible_max": interest.visible_max, "repick_every_ticks": interest.repick_every_ticks,
        }),
        results: json!({
            "cpu_us_per_update": measured.cpu_us_per_update,
            "edge_cpu_us_per_update": measured.edge_cpu_us_per_update,
            "owner_cpu_us_per_update": measured.owner_cpu_us_per_update,
            "rss_bytes_per_connection": measured.rss_bytes_per_connection,
            "bytes_per_player_s": measured.bytes_per_player_s,
            "tick_to_client_ms": { "p50": measured.p50_ms, "p99": measured.p99_ms },
            "updates": measured.updates,
            "wrong": measured.wrong,
            "unjudged": measured.unjudged,
            "updates_per_player_s": measured.updates_per_player_s,
            "visible": measured.visible,
            "disconnects": measured.disconnects,
        }),
        baseline: json!({
            "cpu_us_per_update": bare.cpu_us_per_update,
            "tick_to_client_ms": { "p50": bare.p50_ms, "p99": bare.p99_ms },
            "updates": bare.updates,
        }),
        ratios: [("cpu_to_bare".to_owned(), measured.cpu_us_per_update / bare.cpu_us_per_update.max(0.001))].into(),
    })
}

struct Measured {
    cpu_us_per_update: f64,
    edge_cpu_us_per_update: f64,
    owner_cpu_us_per_update: f64,
    rss_bytes_per_connection: f64,
    bytes_per_player_s: f64,
    p50_ms: u64,
    p99_ms: u64,
    updates: u64,
    wrong: BTreeMap<String, u64>,
    unjudged: u64,
    updates_per_player_s: f64,
    visible: f64,
    disconnects: u64,
}

async fn measure(args: &CrowdArgs, servers: &mut LocalCluster, side_m: f32, talk: bool) -> anyhow::Result<Measured> {
    servers.until_ready().await?;
    let ready = servers.ready();
    let pids: Vec<u32> = ready.nodes.iter().map(|n| n.pid).collect();
    let owner = owner(&Cluster::of(&ready)?).await?;
    let owner_pid = ready.nodes[owner as usize - 1].pid;
    let world = Arc::new(Mutex::new(World::default()));
    let observer = observer::follow(&servers.layout, owner, side_m, world.clone()).await?;
    // Memory of an idle cluster, after its first checkpoints' worth of ticks.
    sleep(Duration::from_secs(2)).await;
    let rss = |pids: &[u32]| pids.iter().map(|pid| rss_bytes(*pid)).sum::<std::io::Result<u64>>();
    let rss_before = rss(&pids)?;

    let clock = SystemClock::start();
    let counts = Arc::new(Counts::default());
    let times = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let (judge, shown) = mpsc::channel(JUDGE_MAX);
    let judged = tokio::spawn(judge_all(shown, world));
    let targets: Vec<Target> = ready.nodes.iter().map(Target::of).collect::<anyhow::Result<_>>()?;
    let tls = args.tls.then(|| player_tls(&ready.authority)).transpose()?;
    let options = ClientOptions { tls, client_name: "marchland bench crowd".into() };
    let mut walkers = JoinSet::new();
    for number in 0..args.players {
        let target = &targets[number % targets.len()];
        let token = crate::bots::fetch_token(&target.http, &format!("crowd-{number}")).await?;
        let walker = Walker {
            number,
            address: target.address.clone(),
            options: options.clone(),
            token,
            side_m,
            clock,
            counts: counts.clone(),
            judge: judge.clone(),
        };
        walkers.spawn(walker.run(times.clone()));
    }
    drop(judge);
    let deadline = Instant::now() + JOIN_WITHIN;
    while counts.joined.load(Ordering::Relaxed) < args.players as u64 {
        if let Some(ended) = walkers.try_join_next() {
            ended?.context("a player could not join")?;
        }
        ensure!(Instant::now() < deadline, "not all players joined within {} s", JOIN_WITHIN.as_secs());
        sleep(Duration::from_millis(50)).await;
    }
    let bar = if talk { ProgressBar::new(args.warm_up + args.seconds) } else { ProgressBar::hidden() };
    pass(&bar, args.warm_up).await;
    let before = Cpu::read(&pids, owner_pid)?;
    let began = Instant::now();
    counts.measuring.store(true, Ordering::Relaxed);
    pass(&bar, args.seconds).await;
    counts.measuring.store(false, Ordering::Relaxed);
    let elapsed = began.elapsed().as_secs_f64();
    let cpu = Cpu::read(&pids, owner_pid)?.since(before);
    let rss_after = rss(&pids)?;
    bar.finish_and_clear();
    ensure!(!observer.is_finished(), "the observer failed: {:?}", observer.await);
    let disconnects = counts.ended.load(Ordering::Relaxed);
    while let Some(ended) = walkers.try_join_next() {
        if let Ok(Err(error)) = ended {
            eprintln!("a player was disconnected: {error}");
        }
    }
    // The judge needs the observer's last ticks before it ends.
    sleep(Duration::from_millis(500)).await;
    walkers.shutdown().await;
    let (right, wrong) = judged.await?;
    observer.abort();
    let unjudged = counts.unjudged.load(Ordering::Relaxed);
    ensure!(right > 0, "no frame was right: {wrong:?}");
    let frames = counts.frames.load(Ordering::Relaxed);
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Measured {
        cpu_us_per_update: cpu.all / right as f64,
        edge_cpu_us_per_update: cpu.edges / right as f64,
        owner_cpu_us_per_update: cpu.owner / right as f64,
        rss_bytes_per_connection: rss_after.saturating_sub(rss_before) as f64 / args.players as f64,
        bytes_per_player_s: counts.frame_bytes.load(Ordering::Relaxed) as f64 / elapsed / args.players as f64,
        p50_ms: times.value_at_quantile(0.5),
        p99_ms: times.value_at_quantile(0.99),
        updates: right,
        wrong,
        unjudged,
        updates_per_player_s: right as f64 / elapsed / args.players as f64,
        visible: counts.visible.load(Ordering::Relaxed) as f64 / frames.max(1) as f64,
        disconnects,
    })
}

async fn pass(bar: &ProgressBar, seconds: u64) {
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
}

/// Judges every frame once the observer has its tick. Returns how many were right, and what was wrong with the others.
async fn judge_all(mut shown: mpsc::Receiver<Shown>, world: Arc<Mutex<World>>) -> (u64, BTreeMap<String, u64>) {
    let interest = InterestConfig::default();
    let rule = Rule {
        radius_m: interest.radius_m,
        visible_max: interest.visible_max,
        slack_m: interest.hysteresis_m + CLOSING_M_S * (interest.repick_every_ticks as u64 * TICK_MS) as f32 / 1000.0,
        off_m: 0.1,
    };
    let (mut right, mut wrong) = (0, BTreeMap::new());
    let (mut waiting, mut distances) = (Vec::new(), Vec::new());
    let mut open = true;
    while open || !waiting.is_empty() {
        if open {
            open = shown.recv_many(&mut waiting, 4096).await > 0;
        }
        // Frames overtake the observer's batch by a little, never by much.
        sleep(Duration::from_millis(20)).await;
        let world = world.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = world.tick();
        waiting.retain(|frame: &Shown| {
            if open && frame.tick > newest {
                return true;
            }
            match world.judge(frame, rule, &mut distances) {
                Ok(()) => right += 1,
                Err(what) => *wrong.entry(format!("{what:?}").to_lowercase()).or_insert(0) += 1,
            }
            false
        });
    }
    (right, wrong)
}

struct Bare {
    cpu_us_per_update: f64,
    p50_ms: u64,
    p99_ms: u64,
    updates: u64,
}

/// Frames of the same size at the same rate from a bare server, in a process of its own on the servers' processor.
async fn bare(args: &CrowdArgs, dir: &Path, frame_bytes: usize, cpu: Option<usize>, talk: bool) -> anyhow::Result<Bare> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .args(["bench", "bare", "--port", &BARE_PORT.to_string(), "--frame-bytes", &frame_bytes.to_string()])
        .arg("--sync")
        .arg(dir.join("bare"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    crate::up::pin_child(&mut command, cpu);
    let mut server = command.spawn().context("can not start the bare server")?;
    let pid = server.id().context("the bare server ended at once")?;
    sleep(Duration::from_millis(300)).await;
    let measured = bare_load(args, pid, talk).await;
    server.kill().await.context("can not stop the bare server")?;
    measured
}

async fn bare_load(args: &CrowdArgs, pid: u32, talk: bool) -> anyhow::Result<Bare> {
    let counts = Arc::new(Counts::default());
    let times = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let clock = SystemClock::start();
    let mut players = JoinSet::new();
    for number in 0..args.players {
        let (counts, times) = (counts.clone(), times.clone());
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", BARE_PORT)).await.context("bare server")?;
        stream.set_nodelay(true)?;
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://127.0.0.1:{BARE_PORT}/"), stream).await?;
        players.spawn(async move {
            let every = Duration::from_millis(100);
            let command = vec![0x5a; sample_command_bytes()];
            let mut next = Instant::now() + every * (number as u32 % 100) / 100;
            loop {
                match timeout_at(next, socket.next()).await {
                    Ok(Some(Ok(Message::Binary(frame)))) if frame.len() >= 8 => {
                        if counts.measuring.load(Ordering::Relaxed) {
                            counts.frames.fetch_add(1, Ordering::Relaxed);
                            let mut sent = [0; 8];
                            sent.copy_from_slice(&frame[..8]);
                            if let Ok(mut times) = times.lock() {
                                let _ = times.record(clock.wall_ms().saturating_sub(u64::from_le_bytes(sent)));
                            }
                        }
                    }
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(_)) | None) => return,
                    Err(_) => {
                        next += every;
                        if socket.send(Message::Binary(command.clone().into())).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
    let bar = if talk { ProgressBar::new(2 + args.seconds) } else { ProgressBar::hidden() };
    pass(&bar, 2).await;
    let total = || cpu_us(pid).map(|threads| threads.values().sum::<f64>());
    let before = total()?;
    counts.measuring.store(true, Ordering::Relaxed);
    pass(&bar, args.seconds).await;
    counts.measuring.store(false, Ordering::Relaxed);
    let cpu = total()? - before;
    bar.finish_and_clear();
    players.shutdown().await;
    let updates = counts.frames.load(Ordering::Relaxed);
    if updates == 0 {
        bail!("the bare server sent nothing");
    }
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Bare {
        cpu_us_per_update: cpu / updates as f64,
        p50_ms: times.value_at_quantile(0.5),
        p99_ms: times.value_at_quantile(0.99),
        updates,
    })
}
