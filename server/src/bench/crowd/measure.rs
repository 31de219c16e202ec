//! Plays a crowd against a cluster made for it, and takes what its servers cost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use marchland_admin::client::cluster_status;
use marchland_edge::InterestConfig;
use marchland_edge::client::ClientOptions;
use marchland_types::GroupId;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::judge::judge_all;
use super::load::{Counts, Walker, side_m};
use super::observer;
use super::truth::{Shown, World};
use crate::bench::process::{cpu_us, rss_bytes};
use crate::bench::spread::ticks;
use crate::bench::{pass, settled_owners};
use crate::bots::Target;
use crate::cluster::{Cluster, player_tls};
use crate::config::{GridConfig, GroundConfig};
use crate::seams::{SystemClock, SystemEntropy};
use crate::up::LocalCluster;
use crate::up::layout::{ClusterPlan, Layout};
use crate::up::ready::ReadyNode;

/// Ports of the measured cluster, away from those of `up`.
const BASE_PORT: u16 = 17_000;
/// Frames that wait to be judged.
const JUDGE_MAX: usize = 65_536;
/// How long all players may take to join.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// Nodes of the cluster, and so edges.
pub(in crate::bench) const NODES: u32 = 3;

/// A crowd that is to be measured.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Scene {
    /// How many walk about.
    pub(in crate::bench) players: usize,
    /// Animals of each region.
    pub(in crate::bench) animals: u32,
    /// So many are spread over the square when about 40 of them lie within 50 m of each.
    pub(in crate::bench) square_for: usize,
    /// How long is measured.
    pub(in crate::bench) seconds: u64,
    /// How long they walk before.
    pub(in crate::bench) warm_up: u64,
    /// They connect by TLS.
    pub(in crate::bench) tls: bool,
    /// Regions that their square is cut into.
    pub(in crate::bench) grid: GridConfig,
    /// Edges that they are spread over, first those of nodes that own no region.
    pub(in crate::bench) edges: usize,
    /// The processor that all servers are kept on.
    pub(in crate::bench) servers_on: Option<usize>,
}

impl Scene {
    /// Side of the square that they walk in, in metres.
    pub(in crate::bench) fn side_m(&self) -> f32 {
        side_m(self.square_for)
    }

    /// What it is, in a measurement's parameters.
    pub(in crate::bench) fn params(&self) -> Value {
        let interest = InterestConfig::default();
        json!({
            "players": self.players, "seconds": self.seconds, "nodes": NODES, "fsync": true, "tls_players": self.tls,
            "tls_cluster": true, "pinned_apart": self.servers_on.is_some(), "side_m": self.side_m(),
            "radius_m": interest.radius_m, "visible_max": interest.visible_max,
            "repick_every_ticks": interest.repick_every_ticks,
        })
    }
}

/// Processor time of the servers, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::bench) struct Cpu {
    /// Of all their threads.
    pub(in crate::bench) all: f64,
    /// Of the threads that serve players' sockets.
    pub(in crate::bench) edges: f64,
    /// Of all other threads of processes that own a region.
    pub(in crate::bench) owner: f64,
    /// Of all threads of those processes.
    pub(in crate::bench) owner_node: f64,
}

impl Cpu {
    fn read(pids: &[u32], owners: &BTreeSet<u32>) -> anyhow::Result<Self> {
        let mut cpu = Self::default();
        for pid in pids {
            for (thread, us) in cpu_us(*pid).with_context(|| format!("server process {pid}"))? {
                cpu.all += us;
                cpu.owner_node += if owners.contains(pid) { us } else { 0.0 };
                if thread.starts_with("edge-") {
                    cpu.edges += us;
                } else if owners.contains(pid) {
                    cpu.owner += us;
                }
            }
        }
        Ok(cpu)
    }

    fn since(self, before: Self) -> Self {
        Self {
            all: self.all - before.all,
            edges: self.edges - before.edges,
            owner: self.owner - before.owner,
            owner_node: self.owner_node - before.owner_node,
        }
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Measured {
    /// Of the servers, while it was measured.
    pub(in crate::bench) cpu: Cpu,
    /// Frames that were right.
    pub(in crate::bench) updates: u64,
    /// Times that a player's frames began to be another region's.
    pub(in crate::bench) crossings: u64,
    /// Ticks of all regions.
    pub(in crate::bench) ticks: u64,
    /// Entities of all regions, as it ended.
    pub(in crate::bench) entities: u64,
    /// Resident memory of the processes that own a region, with the crowd in it.
    pub(in crate::bench) owner_rss_bytes: u64,
    /// Of how long was measured.
    pub(in crate::bench) elapsed_s: f64,
    /// Bytes of frames for one player in one second.
    pub(in crate::bench) bytes_per_player_s: f64,
    players: usize,
    rss_bytes_per_connection: f64,
    p50_ms: u64,
    p99_ms: u64,
    wrong: BTreeMap<String, u64>,
    unjudged: u64,
    visible: f64,
    disconnects: u64,
}

impl Measured {
    /// The figure to quote.
    pub(in crate::bench) fn cpu_us_per_update(&self) -> f64 {
        self.cpu.all / self.updates as f64
    }

    /// All of it, as results.
    pub(in crate::bench) fn results(&self) -> Value {
        let updates = self.updates as f64;
        json!({
            "cpu_us_per_update": self.cpu_us_per_update(),
            "edge_cpu_us_per_update": self.cpu.edges / updates,
            "owner_cpu_us_per_update": self.cpu.owner / updates,
            "rss_bytes_per_connection": self.rss_bytes_per_connection,
            "bytes_per_player_s": self.bytes_per_player_s,
            "tick_to_client_ms": { "p50": self.p50_ms, "p99": self.p99_ms },
            "updates": self.updates,
            "wrong": self.wrong,
            "unjudged": self.unjudged,
            "updates_per_player_s": updates / self.elapsed_s / self.players as f64,
            "visible": self.visible,
            "disconnects": self.disconnects,
        })
    }
}

/// Makes a cluster in a folder, lets the crowd walk, and stops the cluster.
pub(in crate::bench) async fn measure(scene: &Scene, dir: &Path, talk: bool) -> anyhow::Result<Measured> {
    let plan = ClusterPlan {
        data: dir.to_owned(),
        nodes: NODES,
        worlds: vec!["crowd".into()],
        grid: scene.grid,
        animals: scene.animals,
        ground: GroundConfig::Open { side_m: scene.side_m() },
        base_port: BASE_PORT,
        tls: scene.tls,
    };
    let layout = Layout::open(&plan, &SystemEntropy)?;
    let mut servers = LocalCluster::start(layout, None, scene.servers_on)?;
    let measured = walk(scene, &mut servers, talk).await;
    let clean = servers.stop().await;
    let measured = measured?;
    ensure!(clean, "a node did not stop cleanly");
    Ok(measured)
}

async fn walk(scene: &Scene, servers: &mut LocalCluster, talk: bool) -> anyhow::Result<Measured> {
    servers.until_ready().await?;
    let ready = servers.ready();
    let pids: Vec<u32> = ready.nodes.iter().map(|n| n.pid).collect();
    let (cluster, regions) = (Cluster::of(&ready)?, scene.grid.regions());
    let owners = settled_owners(&cluster, regions as usize).await?;
    let owner_nodes: BTreeSet<u32> = owners.values().copied().collect();
    let owner_pids = ready.nodes.iter().filter(|n| owner_nodes.contains(&n.id)).map(|n| n.pid).collect();
    let world = Arc::new(Mutex::new(World::default()));
    let mut observers = observe(servers, &owners, scene.side_m(), &world).await?;
    // Memory of an idle cluster, after its first checkpoints' worth of ticks.
    sleep(Duration::from_secs(2)).await;
    let rss = |pids: &[u32]| pids.iter().map(|pid| rss_bytes(*pid)).sum::<std::io::Result<u64>>();
    let rss_before = rss(&pids)?;

    let counts = Arc::new(Counts::default());
    let times = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let (judge, shown) = mpsc::channel(JUDGE_MAX);
    let judged = tokio::spawn(judge_all(shown, world, owners.len()));
    let mut edges: Vec<&ReadyNode> = ready.nodes.iter().collect();
    edges.sort_by_key(|node| owner_nodes.contains(&node.id));
    let targets: Vec<Target> = edges.into_iter().take(scene.edges).map(Target::of).collect::<anyhow::Result<_>>()?;
    let tls = scene.tls.then(|| player_tls(&ready.authority)).transpose()?;
    let mut walkers = join(scene, &targets, tls, &counts, &times, judge).await?;

    let bar = if talk { ProgressBar::new(scene.warm_up + scene.seconds) } else { ProgressBar::hidden() };
    pass(&bar, scene.warm_up).await;
    let ticks_before = ticks(&cluster, regions).await?;
    let before = Cpu::read(&pids, &owner_pids)?;
    let began = Instant::now();
    counts.measuring.store(true, Ordering::Relaxed);
    pass(&bar, scene.seconds).await;
    counts.measuring.store(false, Ordering::Relaxed);
    let elapsed_s = began.elapsed().as_secs_f64();
    let cpu = Cpu::read(&pids, &owner_pids)?.since(before);
    let ticks = ticks(&cluster, regions).await?.saturating_sub(ticks_before);
    let entities = entities(&cluster).await;
    let rss_after = rss(&pids)?;
    let owner_rss_bytes = rss(&owner_pids.iter().copied().collect::<Vec<u32>>())?;
    bar.finish_and_clear();
    still_there(&mut observers).await?;
    let disconnects = counts.ended.load(Ordering::Relaxed);
    while let Some(ended) = walkers.try_join_next() {
        if let Ok(Err(error)) = ended {
            eprintln!("a player was disconnected: {error}");
        }
    }
    // The judge needs the observers' last ticks before it ends.
    sleep(Duration::from_millis(500)).await;
    walkers.shutdown().await;
    let (right, wrong) = judged.await?;
    observers.iter().for_each(JoinHandle::abort);
    ensure!(right > 0, "no frame was right: {wrong:?}");
    let frames = counts.frames.load(Ordering::Relaxed);
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Measured {
        cpu,
        updates: right,
        crossings: counts.crossings.load(Ordering::Relaxed),
        ticks,
        entities,
        owner_rss_bytes,
        elapsed_s,
        bytes_per_player_s: counts.frame_bytes.load(Ordering::Relaxed) as f64 / elapsed_s / scene.players as f64,
        players: scene.players,
        rss_bytes_per_connection: rss_after.saturating_sub(rss_before) as f64 / scene.players as f64,
        p50_ms: times.value_at_quantile(0.5),
        p99_ms: times.value_at_quantile(0.99),
        wrong,
        unjudged: counts.unjudged.load(Ordering::Relaxed),
        visible: counts.visible.load(Ordering::Relaxed) as f64 / frames.max(1) as f64,
        disconnects,
    })
}

/// Entities of all regions, by what their owners say.
async fn entities(cluster: &Cluster) -> u64 {
    let view = cluster_status(cluster.admin()).await;
    let groups = view.nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.groups);
    groups.filter(|group| group.is_region() && group.owner).map(|group| u64::from(group.entities)).sum()
}

/// Follows a region. Ends with an error when it missed anything.
type Observer = JoinHandle<anyhow::Result<()>>;

/// Follows every region at its owner.
async fn observe(
    servers: &LocalCluster,
    owners: &BTreeMap<GroupId, u32>,
    side_m: f32,
    world: &Arc<Mutex<World>>,
) -> anyhow::Result<Vec<Observer>> {
    let mut observers = Vec::new();
    for (group, node) in owners {
        observers.push(observer::follow(&servers.layout, *group, *node, side_m, world.clone()).await?);
    }
    Ok(observers)
}

async fn still_there(observers: &mut [Observer]) -> anyhow::Result<()> {
    match observers.iter_mut().find(|observer| observer.is_finished()) {
        Some(ended) => bail!("an observer ended: {:?}", ended.await),
        None => Ok(()),
    }
}

/// Lets all players join.
async fn join(
    scene: &Scene,
    targets: &[Target],
    tls: PlayerTls,
    counts: &Arc<Counts>,
    times: &Arc<Mutex<Histogram<u64>>>,
    judge: mpsc::Sender<Shown>,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let clock = SystemClock::start();
    let options = ClientOptions { tls, client_name: "marchland bench crowd".into() };
    let mut walkers = JoinSet::new();
    for number in 0..scene.players {
        let target = &targets[number % targets.len()];
        let token = crate::bots::fetch_token(&target.http, &format!("crowd-{number}")).await?;
        let walker = Walker {
            number,
            address: target.address.clone(),
            options: options.clone(),
            token,
            side_m: scene.side_m(),
            clock,
            counts: counts.clone(),
            judge: judge.clone(),
        };
        walkers.spawn(walker.run(times.clone()));
    }
    let deadline = Instant::now() + JOIN_WITHIN;
    while counts.joined.load(Ordering::Relaxed) < scene.players as u64 {
        if let Some(ended) = walkers.try_join_next() {
            ended?.context("a player could not join")?;
        }
        ensure!(Instant::now() < deadline, "not all players joined within {} s", JOIN_WITHIN.as_secs());
        sleep(Duration::from_millis(50)).await;
    }
    Ok(walkers)
}

/// How players check an edge's certificate.
type PlayerTls = Option<(tokio_rustls::TlsConnector, rustls::pki_types::ServerName<'static>)>;
