//! `marchland up`: a whole cluster on one machine, as real processes.
//!
//! Makes (or takes up) a data folder, starts a process per node, waits until every region has an owner, writes the ready
//! file, shows figures, restarts nodes that die, and stops everything cleanly on Ctrl-C.

mod children;
mod figures;
pub mod layout;
pub mod ready;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::time::{Instant, sleep, timeout};

use self::children::NodeProcess;
pub(crate) use self::children::pin_child;
use self::figures::Figures;
use self::layout::{ClusterPlan, Layout};
use self::ready::{ReadyFile, ReadyNode};
use crate::bots::{BotOptions, Bots, Target};
use crate::cluster::Cluster;
use crate::config::{GridConfig, GroundConfig};
use crate::seams::SystemEntropy;

/// How long nodes may take from their start until every region has an owner.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Pause before a node that died is started again, so that one that dies at once does not spin.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `marchland up`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland up --bots 200 --ready-file ready.json")]
pub struct UpArgs {
    /// Folder for everything that the cluster keeps; made at first, resumed afterwards.
    #[arg(long, default_value = "marchland-data")]
    pub data: PathBuf,
    /// Number of nodes, over all worlds; an odd number for each. Three for each unless given.
    #[arg(long)]
    pub nodes: Option<u32>,
    /// Names of the worlds. Each has nodes of its own.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "aurora")]
    pub worlds: Vec<String>,
    /// Regions of the world: columns and rows. The demo map is repeated in each, open ground is cut.
    #[arg(long, value_name = "WxH", default_value_t)]
    pub grid: GridConfig,
    /// Animals that graze in each region, at most 10,000.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub animals: u32,
    /// Players to walk about, over all worlds.
    #[arg(long, default_value_t = 0)]
    pub bots: usize,
    /// Write addresses and process ids to this file when every region has an owner.
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
    /// Leave nodes that die dead.
    #[arg(long)]
    pub no_restart: bool,
    /// Node k listens on this plus 100 (gRPC), 200 (HTTP) and 300 (WebSocket), plus k.
    #[arg(long, default_value_t = 7000)]
    pub base_port: u16,
    /// Make the world an open square of this side in metres instead of the demo map.
    #[arg(long)]
    pub open_ground_m: Option<f32>,
    /// Serve players by TLS, with certificates of the cluster's own authority.
    #[arg(long)]
    pub tls: bool,
}

impl UpArgs {
    /// The cluster that is asked for.
    pub fn plan(&self) -> ClusterPlan {
        ClusterPlan {
            data: self.data.clone(),
            nodes: self.nodes.unwrap_or(3 * self.worlds.len() as u32),
            worlds: self.worlds.clone(),
            grid: self.grid,
            animals: self.animals,
            ground: self.open_ground_m.map_or(GroundConfig::Map, |side_m| GroundConfig::Open { side_m }),
            base_port: self.base_port,
            tls: self.tls,
        }
    }
}

/// The node processes of a cluster on this machine.
pub struct LocalCluster {
    /// Its folder.
    pub layout: Layout,
    nodes: Vec<NodeProcess>,
    ready_file: Option<PathBuf>,
}

impl LocalCluster {
    /// Starts every node. With `pin`, each node's process is kept on that processor.
    pub fn start(layout: Layout, ready_file: Option<PathBuf>, pin: Option<usize>) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for (path, config) in &layout.nodes {
            let log = layout.data.join(format!("node-{}", config.node)).join("node.log");
            nodes.push(
                NodeProcess::start(config.node, path, &log, pin)
                    .with_context(|| format!("can not start node {}", config.node))?,
            );
        }
        Ok(Self { layout, nodes, ready_file })
    }

    /// The cluster as tools see it.
    pub fn ready(&self) -> ReadyFile {
        let data = &self.layout.data;
        let node = |process: &NodeProcess| {
            let config = &self.layout.nodes[process.node as usize - 1].1;
            ReadyNode {
                id: process.node,
                world: config.world.name.clone(),
                pid: process.pid().unwrap_or(0),
                grpc: config.listen.grpc.clone(),
                http: format!("http://{}", config.listen.http),
                // A node of `up` is among its own members.
                ws: config.members.iter().find(|m| m.node == process.node).map(|m| m.ws.clone()).unwrap_or_default(),
            }
        };
        ReadyFile {
            nodes: self.nodes.iter().map(node).collect(),
            worlds: self.layout.cluster.worlds.clone(),
            admin_token: self.layout.admin_token.clone(),
            authority: data.join("authority.pem"),
            admin_certificate: data.join("admin.pem"),
            admin_key: data.join("admin.key"),
        }
    }

    fn write_ready_file(&self) -> anyhow::Result<()> {
        let Some(path) = &self.ready_file else { return Ok(()) };
        self.ready().write(path).with_context(|| format!("can not write {}", path.display()))
    }

    /// Waits until every region has an owner. A node that ends meanwhile is an error with its last words.
    pub async fn until_ready(&mut self) -> anyhow::Result<()> {
        self.until_ready_within(READY_WITHIN).await
    }

    /// The same for a cluster that may take longer or shorter.
    pub async fn until_ready_within(&mut self, within: Duration) -> anyhow::Result<()> {
        let cluster = Cluster::of(&self.ready())?;
        let deadline = Instant::now() + within;
        loop {
            for node in &mut self.nodes {
                if let Ok(status) = timeout(Duration::ZERO, node.ended()).await {
                    let status = status.context("can not wait for a node")?;
                    bail!("node {} ended with {status} before it was ready:\n{}", node.node, node.last_words());
                }
            }
            let Err(reason) = cluster.ready().await else { return self.write_ready_file() };
            if Instant::now() > deadline {
                bail!("cluster is not ready after {} s: {reason}", within.as_secs());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until some node ends; returns its index.
    async fn any_ended(&mut self) -> (usize, std::io::Result<std::process::ExitStatus>) {
        let waits: Vec<_> = self.nodes.iter_mut().map(|n| Box::pin(n.ended())).collect();
        let (status, index, _) = futures::future::select_all(waits).await;
        (index, status)
    }

    /// Stops every node. Tells whether all stopped cleanly.
    pub async fn stop(&mut self) -> bool {
        for node in &self.nodes {
            node.ask_to_stop();
        }
        let mut clean = true;
        for node in &mut self.nodes {
            clean &= node.stopped().await;
        }
        clean
    }

    /// The process of a node.
    pub fn node(&mut self, number: u32) -> Option<&mut NodeProcess> {
        self.nodes.iter_mut().find(|process| process.node == number)
    }

    /// Process ids of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(NodeProcess::pid).collect()
    }
}

/// Runs `marchland up` until Ctrl-C.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut stop = std::pin::pin!(crate::signals::stop_requested()?);
    let layout = Layout::open(&args.plan(), &SystemEntropy)?;
    println!("cluster {} in {}", layout.cluster.cluster, layout.data.display());
    let mut cluster = LocalCluster::start(layout, args.ready_file.clone(), None)?;
    let ready = tokio::select! {
        ready = cluster.until_ready() => ready,
        () = &mut stop => Err(anyhow::anyhow!("stopped before the cluster was ready")),
    };
    if let Err(error) = ready {
        cluster.stop().await;
        return Err(error);
    }
    let view = cluster.ready();
    for node in &view.nodes {
        let world = if view.worlds.len() > 1 { format!("  world {}", node.world) } else { String::new() };
        println!("node {}  pid {:<7} grpc {}  http {}  players {}{world}", node.id, node.pid, node.grpc, node.http, node.ws);
    }
    let pages: Vec<_> = view.worlds.iter().filter_map(|w| view.of_world(w).next()).map(|n| format!("{}/play", n.http)).collect();
    println!("ready after {:.1} s; play at {}", started.elapsed().as_secs_f64(), pages.join(", "));
    let bots = start_bots(&view, args.bots)?;
    let mut figures = Figures::new(Cluster::of(&view)?, bots.iter().map(Bots::counters).collect());
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = figures.next() => {}
            (index, status) = cluster.any_ended() => {
                let number = cluster.nodes[index].node;
                let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                figures.say(&format!("node {number} ended: {status}"));
                if args.no_restart {
                    cluster.nodes.remove(index);
                    if cluster.nodes.is_empty() {
                        bail!("every node has ended");
                    }
                    continue;
                }
                sleep(RESTART_PAUSE).await;
                cluster.nodes[index].restart().with_context(|| format!("can not restart node {number}"))?;
                cluster.write_ready_file()?;
                figures.say(&format!("node {number} started again as {}", cluster.nodes[index].pid().unwrap_or(0)));
            }
        }
    }
    figures.finish();
    println!("stopping");
    let summaries = futures::future::join_all(bots.into_iter().map(Bots::stop)).await;
    let clean = cluster.stop().await;
    for summary in summaries {
        println!("{summary}");
    }
    if !clean {
        bail!("a node did not stop cleanly; see the logs in {}", cluster.layout.data.display());
    }
    println!("stopped; the next `up` resumes this world");
    Ok(())
}

/// Players, as evenly over the worlds as they come out. Those of one world know nothing of the others.
fn start_bots(view: &ReadyFile, count: usize) -> anyhow::Result<Vec<Bots>> {
    let worlds = view.worlds.len().max(1);
    let shares = view.worlds.iter().enumerate().map(|(at, world)| (world, count / worlds + usize::from(at < count % worlds)));
    let start = |(world, count): (&String, usize)| {
        let targets = view.of_world(world).map(Target::of).collect::<anyhow::Result<_>>()?;
        Bots::start(BotOptions { count, targets, authority: Some(view.authority.clone()), ..BotOptions::default() })
    };
    shares.filter(|(_, count)| *count > 0).map(start).collect()
}
