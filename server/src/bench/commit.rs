//! Commits of many groups on three nodes over mutual TLS, beside a bare `fdatasync` of the same folder.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use marchland_proto::net::{ClusterSecurity, PeerIdentity, Role, TokioTransport, make_authority, make_node_certificate};
use marchland_raft::testkit::commit_latencies;
use marchland_storage::disk::{Disk, DiskFile, RealDisk};
use marchland_storage::log::{LogOptions, SharedLog};
use marchland_types::{NodeId, WorldId};
use serde_json::json;
use tokio::time::Instant;

use super::Outcome;

/// Bare syncs that are timed.
const PROBES: u64 = 500;

/// Arguments of `marchland bench commit`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench commit --groups 64 --json")]
pub(super) struct CommitArgs {
    /// Raft groups, each with three replicas.
    #[arg(long, default_value_t = 64)]
    groups: u32,
    /// Bytes of one command.
    #[arg(long, default_value_t = 512)]
    payload_bytes: usize,
    /// Between two commands of a group: 50 is a tick. 0 is as fast as it goes.
    #[arg(long, default_value_t = 50)]
    pause_ms: u64,
    /// How long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

pub(super) async fn run(args: &CommitArgs, dir: &Path) -> anyhow::Result<Outcome> {
    let authority = make_authority("bench")?;
    let mut securities = Vec::new();
    for node in 1..=3 {
        let identity = PeerIdentity {
            cluster: "bench".into(),
            node: NodeId(node),
            roles: [Role::Shard].into(),
            worlds: Some([WorldId(1)].into()),
        };
        let (certificate, key) = make_node_certificate(&authority, &identity)?;
        let authority = authority.certificate_pem.as_bytes();
        securities.push(ClusterSecurity::from_pem(authority, certificate.as_bytes(), key.as_bytes())?);
    }
    let mut logs = Vec::new();
    for node in 1..=3 {
        let (log, writer) = SharedLog::open(RealDisk, &dir.join(node.to_string()), LogOptions::default())?;
        writer.run_thread()?;
        logs.push(log);
    }
    let logs = <[SharedLog; 3]>::try_from(logs).map_err(|_| anyhow!("three logs"))?;
    let before = fdatasync_us(dir, args.payload_bytes)?;
    let figures = commit_latencies(
        &TokioTransport,
        &|node: NodeId| securities[node.0 as usize - 1].clone(),
        logs,
        args.groups,
        args.payload_bytes,
        Duration::from_millis(args.pause_ms),
        Duration::from_secs(args.seconds),
    )
    .await
    .map_err(|e| anyhow!(e))?;
    // On both sides of the measurement, for a disk that changes its mind.
    let mut probes = before;
    probes.extend(fdatasync_us(dir, args.payload_bytes)?);
    probes.sort_unstable();
    let ms = |us: u64| us as f64 / 1000.0;
    let sync = |share: f64| ms(probes[((probes.len() - 1) as f64 * share) as usize]);
    let commit = |share: f64| ms(figures.quantile_us(share));
    Ok(Outcome {
        name: "commit",
        params: json!({
            "nodes": 3, "groups": args.groups, "payload_bytes": args.payload_bytes, "pause_ms": args.pause_ms,
            "seconds": args.seconds, "fsync": true, "tls": true,
        }),
        results: json!({
            "commit_ms": { "p50": commit(0.5), "p99": commit(0.99), "max": commit(1.0) },
            "commits": figures.latencies_us.len(),
            "commits_per_s": figures.latencies_us.len() as f64 / figures.elapsed.as_secs_f64(),
            "failed": figures.failed,
        }),
        baseline: json!({ "fdatasync_ms": { "p50": sync(0.5), "p99": sync(0.99), "max": sync(1.0) } }),
        ratios: [("commit_to_fdatasync_p50".to_owned(), commit(0.5) / sync(0.5).max(0.001))].into(),
    })
}

/// Times of writing and syncing one command, in microseconds.
fn fdatasync_us(dir: &Path, size_bytes: usize) -> anyhow::Result<Vec<u64>> {
    let path = dir.join("probe");
    let mut file = RealDisk.create(&path)?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_data()?;
    let bytes = vec![0x5a; size_bytes];
    let mut times = Vec::new();
    for round in 0..PROBES {
        let at = Instant::now();
        file.write_all_at(&bytes, round * 4096)?;
        file.sync_data()?;
        times.push(at.elapsed().as_micros() as u64);
    }
    RealDisk.remove(&path)?;
    Ok(times)
}
