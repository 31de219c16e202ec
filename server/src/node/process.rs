//! A node as a process: runtimes, log output, HTTP, signals.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use marchland_admin::MemberPages;
use marchland_proto::net::ClusterSecurity;
use marchland_region_core::Game;
use marchland_storage::disk::RealDisk;
use marchland_storage::folder::{DataFolder, FolderOwner};

use super::admin::Pages;
use super::assembly::Node;
use super::settings::{NodeSettings, read_seed};
use crate::config::NodeConfig;
use crate::seams::Production;
use crate::served::Serve;
use crate::signals::StopKind;

/// How long a clean stop may take before the process ends anyway, with an error.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Arguments of `marchland node`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland node --config node-1/node.toml")]
pub struct NodeArgs {
    /// The node's configuration.
    #[arg(long)]
    pub config: PathBuf,
    /// Check the configuration and end.
    #[arg(long)]
    pub check: bool,
    /// Put aside everything that the node keeps, and end: its next start rejoins the cluster as a new replica. For a log that is
    /// damaged. Never on more than a minority of the nodes at a time: what only they had is lost.
    #[arg(long, conflicts_with = "check")]
    pub rejoin: bool,
}

/// Runs a node of a game until it is asked to stop, or can not go on.
pub fn main<G: Game>(args: NodeArgs, serve: Serve<G>) -> anyhow::Result<ExitCode> {
    let config = NodeConfig::load(&args.config)?;
    if args.check {
        println!("{} is valid", args.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    if args.rejoin {
        return start_anew(&config);
    }
    init_tracing();
    give_memory_back();
    let runtime = runtime().context("can not start the runtime")?;
    let code = runtime.block_on(run(config, serve));
    // Whatever still runs has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// Makes the node somebody else at its next start.
fn start_anew(config: &NodeConfig) -> anyhow::Result<ExitCode> {
    // Refuses a folder that is not there, is not this node's, or is in use.
    FolderOwner::read(&RealDisk, &config.data)?;
    let entropy = crate::seams::SystemEntropy;
    let aside = DataFolder::open(RealDisk, &config.data, config.node_id(), 0, &entropy)?.start_anew("rejoin", &entropy)?;
    println!(
        "what node {} kept is in {} now; start it again, and it takes its place as a new replica",
        config.node,
        aside.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Tells the allocator to keep less for later. Buffers of a tick are made on one thread and dropped on another, which by
/// default leaves every thread with a heap of its own that only grows: measured, a third of a crowd's memory.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [(libc::M_ARENA_MAX, 2), (libc::M_TRIM_THRESHOLD, 256 * 1024), (libc::M_MMAP_THRESHOLD, 128 * 1024)] {
        // SAFETY: plain call; called before any other thread is started.
        if unsafe { libc::mallopt(option, value) } == 0 {
            tracing::warn!(option, value, "the allocator does not take an option");
        }
    }
}

/// Raft, gRPC and HTTP; regions and players' sockets have threads of their own. On a small machine one thread does it all:
/// a commit passes through a dozen tasks, and waking them on another processor would cost more than their work.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match cores / 4 {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        workers => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(workers).thread_name("cluster").enable_all().build()
        }
    }
}

async fn run<G: Game>(config: NodeConfig, serve: Serve<G>) -> anyhow::Result<ExitCode> {
    let stop = crate::signals::node_stop_requested()?;
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new()
        .install_recorder()
        .context("can not install the metrics recorder")?;
    let security = ClusterSecurity::load(&config.tls_files())?;
    let identity = security.identity().clone();
    anyhow::ensure!(
        identity.cluster == config.cluster && identity.node == config.node_id(),
        "certificate {} is for {identity}, not for node {} of cluster {}",
        config.tls.certificate.display(),
        config.node,
        config.cluster
    );
    // Taken before anything is opened, so that a port in use is told at once.
    let http = tokio::net::TcpListener::bind(&config.listen.http)
        .await
        .with_context(|| format!("can not listen on {} (listen.http)", config.listen.http))?;
    let seams = Production::start()?;
    let settings = NodeSettings::from_config(&config)?;
    let number = config.node;
    let mut served = serve(&config.world)?;
    let map_json = std::mem::take(&mut served.map_json);
    let node = Node::start(seams, settings, served, security).await?;
    node.admin().set_pages(pages(&config, metrics, map_json)?);
    let (stop_http, http_stopped) = tokio::sync::oneshot::channel::<()>();
    let router = marchland_admin::http::router(node.admin());
    let serve = tokio::spawn(marchland_admin::http::serve(http, router, async move {
        // Dropped or sent: either way it is time.
        let _ = http_stopped.await;
    }));
    tracing::info!(node = number, "node is up");
    let (kind, fault) = tokio::select! {
        kind = stop => (kind, None),
        reason = node.fatal() => (StopKind::AtOnce, Some(reason)),
    };
    tracing::info!(node = number, ?kind, fault = fault.as_deref(), "node stops");
    if kind == StopKind::HandOver {
        let groups = node.hand_over().await;
        tracing::info!(node = number, groups.handed_over, groups.kept, "what this node led is with others");
    }
    let stopped = tokio::time::timeout(STOP_WITHIN, node.stop()).await;
    drop(stop_http);
    if let Err(error) = tokio::time::timeout(Duration::from_secs(1), serve).await {
        tracing::warn!(%error, "HTTP connections were cut off");
    }
    anyhow::ensure!(fault.is_none(), "node {number} can not go on: {}", fault.unwrap_or_default());
    stopped.with_context(|| format!("node {number} did not stop within {} s", STOP_WITHIN.as_secs()))??;
    tracing::info!(node = number, "node has stopped");
    Ok(ExitCode::SUCCESS)
}

/// What the node's pages need beyond its status.
fn pages(config: &NodeConfig, metrics: metrics_exporter_prometheus::PrometheusHandle, map_json: String) -> anyhow::Result<Pages> {
    let signer = match &config.development {
        Some(development) => Some(read_seed(&development.token_key).map_err(anyhow::Error::msg)?),
        None => None,
    };
    let own = config.members.iter().find(|m| m.node == config.node);
    Ok(Pages {
        metrics: Box::new(move || metrics.render()),
        map_json,
        signer,
        world: config.world_id(),
        world_name: config.world.name.clone(),
        ws: own.map_or_else(|| format!("ws://{}", config.listen.ws), |m| m.ws.clone()),
        members: config
            .members
            .iter()
            .filter_map(|member| Some(MemberPages { node: member.node, http: member.http.clone()? }))
            .collect(),
    })
}

fn init_tracing() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("MARCHLAND_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=warn,sled=warn,h2=warn,hyper=warn,tonic=warn,tower=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stdout().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
